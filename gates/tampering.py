"""Ways to tamper with a copy of a run folder, for the clauses on `check_manifest`: each is a function of its path."""

import hashlib
import json
import re
import shutil
from pathlib import Path

from edgeflownas.checks import check_manifest
from gates import runs
from gates.asserts import assert_true


def refusals(folder):
    outcomes = check_manifest.run_checks(str(folder / "train_manifest.json"))
    return {outcome.name: outcome.text for outcome in outcomes if not outcome.passed}


def with_json(name, change):
    """A function of the folder that applies `change` to the content of one of its JSON files."""

    def apply(folder):
        path = folder / name
        fields = json.loads(path.read_text())
        change(fields)
        path.write_text(json.dumps(fields))

    return apply


def with_manifest(change):
    """A function of the folder that applies `change` to the manifest's fields."""
    return with_json("train_manifest.json", change)


def assert_all_refused(found, check, **context):
    """Asserts that `check` failed for the copy; other checks may fail too."""
    __tracebackhide__ = True
    assert_true(what="checks that refuse", ok=check in found, got=sorted(found), want=check, **context)


# Fields that only some runs have, or whose values nothing in the folder can confirm.
UNCHECKED = {
    "initial_weights",
    "error",
    "host",
    "slurm_job",
    "resume_command",
    "unsupported_gpu_allowed",
    "installed_source",
}
# Wrong values for every other field; of the right type where the folder itself shows that they are wrong.
WRONG = {
    "seed": [43, "42"],
    "arch_seed": [7],
    "config_hash": ["0" * 64, ""],
    "git_commit": ["unknown", "0" * 40, "1234567"],
    "git_dirty": ["no"],
    "input_shape": [[67, 64, 6], [64, 67, 3], [180, 240, 6]],
    "optimizer": ["sgd"],
    "lr_schedule": ["step"],
    "lr": [1e-3],
    "wd": [4e-4, 0.0],
    "grad_clip": [1.0, 50.0],
    "device": [""],
    "command": [" "],
    "parameter_count": [12122016],
    "status": ["interrupted", "early_stopped", "done"],
    "started": ["yesterday", "2999-01-01T00:00:00Z"],
    "updated": ["2001-01-01T00:00:00Z"],
    "global_step": [23, 25, -1],
    "epoch": [5, 7],
    "num_epochs": [5, 7],
    "steps_per_epoch": [3, 5],
    "total_steps": [23, 25],
    "resumes": [[{}], [{"global_step": 3}]],
    "gates": [{}],
    "ranks": [0, 2, "1"],
    "best": [None, {"epoch": 99, "global_step": 297, "mean_epe": 1.0}],
    "config_origins": [{}],
    "versions": [{}],
    "search_space": [{}],
    "dataset": [{}],
    "config": [{}],
}
# The same for values inside a field, by their dotted names.
INNER = {
    "config.train.lr": 1e-3,
    "config.data.input_height": 66,
    "config.eval.bn_recal_batches": 4,
    "dataset.fingerprint": "0" * 64,
    "dataset.train": 12,
    "dataset.val": 4,
    "versions.tensorflow": "",
    "gates.gate3": "perfect",
    "best.mean_epe": 0.001,
    "best.epoch": 0,
}

# The growing tables, and the check of their rows.
TABLES = {
    "eval_epe_history.csv": "evaluations: none missing, none twice",
    "eval_epe_per_arch.csv": "evaluations: subnets and ranks",
    "train_steps.csv": "steps: none missing, none twice",
}


def assert_tables_refused(copies, change):
    """Asserts that `change(rows, at)` is noticed in every table, at its first, a middle and its last row.

    `rows` are without the header.
    """
    __tracebackhide__ = True
    for name, check in TABLES.items():
        for place in ("first", "middle", "last"):

            def apply(folder, name=name, place=place):
                header, *rows = (folder / name).read_text().splitlines()
                change(rows, {"first": 0, "middle": len(rows) // 2, "last": len(rows) - 1}[place])
                (folder / name).write_text("\n".join([header] + rows) + "\n")

            assert_all_refused(copies(apply), check, table=name, row=place)


def with_last_line_twice(name):
    """A function of the folder that doubles the last line of one of its files."""

    def apply(folder):
        lines = (folder / name).read_text().splitlines()
        (folder / name).write_text("\n".join([*lines, lines[-1]]) + "\n")

    return apply


# Columns whose values nothing else in the folder confirms.
UNCONFIRMED = {("train_steps.csv", "l2_loss")}


def with_another_digit(text):
    """The text with its first digit above 0 changed (else its first 0), so that the file's size stays the same."""
    found = re.search("[1-9]", text) or re.search("0", text)
    return text[: found.start()] + str(int(found.group()) % 9 + 1) + text[found.end() :]


def cell_changes(folder):
    """Yields (table, column, row, function of a copy of `folder` that changes this cell): every column of every table,
    at the first, a middle and the last row."""
    for name in TABLES:
        header, *rows = [line.split(",") for line in (folder / name).read_text().splitlines()]
        for column, title in enumerate(header):
            for at in (0, len(rows) // 2, len(rows) - 1):

                def change(copy, name=name, column=column, at=at):
                    lines = [line.split(",") for line in (copy / name).read_text().splitlines()]
                    lines[1 + at][column] = with_another_digit(lines[1 + at][column])
                    (copy / name).write_text("\n".join(map(",".join, lines)) + "\n")

                yield name, title, at, change


def generation_folders(folder):
    """The folders of the kept checkpoints, oldest first."""
    return [Path(prefix).parent for _, prefix in runs.generations(folder)]


def swap(first, second):
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def swap_tensors(folder):
    earlier, later = generation_folders(folder)[-2:]
    for path in later.glob("model.ckpt.*"):
        swap(path, earlier / path.name)


def other_data_file(folder):
    earlier, later = generation_folders(folder)[-2:]
    shutil.copy(str(next(earlier.glob("model.ckpt.data-*"))), str(next(later.glob("model.ckpt.data-*"))))


def swap_folders(folder):
    swap(*generation_folders(folder)[-2:])


def last_link_elsewhere(folder):
    link = folder / "checkpoints" / "last"
    link.unlink()
    link.symlink_to("generations/" + generation_folders(folder)[-2].name)


SWAPS = (swap_tensors, other_data_file, swap_folders, last_link_elsewhere)


def names_elsewhere(folder):
    for path in (folder / "checkpoints").glob("supernet_last.ckpt.*"):
        path.unlink()
        path.symlink_to(
            "generations/{}/{}".format(generation_folders(folder)[-2].name, path.name.replace("supernet_last", "model"))
        )


def other_best(folder):
    best, last = (folder / "checkpoints" / "last" / "best").resolve(), generation_folders(folder)[-1]
    other = [path for path in generation_folders(folder) if path != best.parent / best.name][-1]
    return last, "." if other == last else "../" + other.name, other.name


def best_link(folder):
    last, target, _ = other_best(folder)
    (last / "best").unlink()
    (last / "best").symlink_to(target)


def best_link_and_state(folder):
    last, _, name = other_best(folder)
    best_link(folder)
    record = json.loads((last / "state.json").read_text())
    record.pop("digest")
    record["best"] = name
    record["digest"] = hashlib.sha256(json.dumps(record, sort_keys=True).encode("utf-8")).hexdigest()
    (last / "state.json").write_text(json.dumps(record))


def lower_a_mean(folder):
    path = folder / "eval_epe_history.csv"
    best = json.loads((folder / "train_manifest.json").read_text())["best"]["epoch"]
    header, *rows = path.read_text().splitlines()
    cells = rows[best % len(rows)].split(",")
    cells[2] = "0.001"
    rows[best % len(rows)] = ",".join(cells)
    path.write_text("\n".join([header] + rows) + "\n")
