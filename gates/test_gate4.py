"""Gate 4, the results of a run. Uses a smoke run at full size with the specification's command, and a small long run
with --unsigned, of which tampered copies are made (`gates/gate4_runs.py`, fixtures in `gates/conftest.py`).
"""

import hashlib
import io
import json
import os

import numpy as np
from PIL import Image

from gates import dataset, oracles, recompute, runs, spaces, tampering
from gates.asserts import assert_close, assert_contains, assert_equal, assert_le, assert_true, clause
from gates.commands import assert_succeeded, run
from gates.gate4_runs import RUN, git, smoke_command
from gates.package_objects import flat
from gates.tampering import (
    INNER,
    TABLES,
    UNCHECKED,
    WRONG,
    assert_all_refused,
    assert_tables_refused,
    generation_folders,
    with_json,
    with_manifest,
)

SPECIFIED = ("seed", "config_hash", "git_commit", "input_shape", "optimizer", "lr_schedule", "wd", "grad_clip")
REQUIRED_FILES = (
    "eval_pool_12.json",
    "eval_epe_history.csv",
    "eval_epe_per_arch.csv",
    "train_steps.csv",
    "timing.csv",
    "fairness_counts.json",
    "train_manifest.json",
    "eval_samples.npz",
    "supernet_training_report.md",
    "supernet_training_report.html",
    "train.log",
    "checkpoints/supernet_best.ckpt.index",
    "checkpoints/supernet_last.ckpt.index",
)
PIECES = {"report": "*.png", "tensorboard": "events.out.tfevents.*", "checkpoints": "supernet_*.ckpt.data-*"}


# ---- the smoke run


@clause("G4.1")
def test_smoke_run_leaves_every_artifact(smoke):
    done, folder = runs.ends(smoke)[0], smoke / RUN
    assert_succeeded(done)
    for name in REQUIRED_FILES:
        assert_true(
            what=name,
            ok=(folder / name).is_file() and (folder / name).stat().st_size > 0,
            got="missing or empty",
            want="a file with something in it",
        )
    for place, pattern in PIECES.items():
        sizes = [path.stat().st_size for path in (folder / place).glob(pattern)]
        assert_true(what=f"{place}/{pattern}", ok=sizes and min(sizes) > 0, got=sizes, want="files with content")
    assert_equal(
        what="epochs evaluated", got=runs.column(folder / "eval_epe_history.csv", "epoch", int).tolist(), want=[1, 2]
    )
    for which in ("best", "last"):
        values = runs.restored_by_plain_saver(runs.prefix(folder, which))
        count = sum(value.size for value in runs.weights_of(values).values())
        assert_equal(what="parameters restored from " + which, got=count, want=spaces.chosen().parameters)
        bad = [name for name, value in values.items() if not np.all(np.isfinite(value))]
        assert_equal(what="tensors that are not finite", got=bad, want=[])


@clause("G4.2")
def test_manifest_has_the_specified_fields(manifest):
    for name in SPECIFIED:
        assert_true(what=name, ok=manifest.get(name) not in (None, "", []), got=manifest.get(name), want="a value")


@clause("G4.3a")
def test_manifest_names_the_commit(smoke, manifest):
    heads = (smoke / "heads").read_text().split()
    assert_true(
        what="git_commit", ok=manifest["git_commit"] in heads, got=manifest["git_commit"], want=" or ".join(heads)
    )
    changed = bool(git("status", "--porcelain"))
    assert_true(
        what="git_dirty",
        ok=manifest["git_dirty"] is changed or len(heads) > 1,
        got=manifest["git_dirty"],
        want=str(changed),
    )


@clause("G4.3b")
def test_config_hash_recomputes(smoke, manifest):
    """Recomputes the hash from the manifest's configuration, and compares it with a dry run of the same command."""
    flat = {
        f"{section}.{name}": value for section, values in manifest["config"].items() for name, value in values.items()
    }
    free = {name for name in flat if name.startswith("runtime.")} | {"data.base_path", "data.list_dir"}
    # Keys that the first version did not have are left out while they have its behaviour as their value.
    younger = {"network.space": "edgeflownet_v1", "network.arch_code": ""}
    free |= {name for name, value in younger.items() if flat.get(name) == value}
    maths = {name: value for name, value in flat.items() if name not in free}
    want = hashlib.sha256(json.dumps(maths, sort_keys=True).encode("utf-8")).hexdigest()
    assert_equal(what="config_hash", got=manifest["config_hash"], want=want)
    done = run(smoke_command() + " --dry_run", smoke)
    assert_succeeded(done)
    assert_contains(what="dry run of the same command", got=done.out.splitlines()[-1], want=manifest["config_hash"])
    assert_true(
        what="keys in the hash",
        ok={"train.lr", "train.wd", "train.batch_size", "data.input_height"} <= set(maths),
        got=sorted(maths),
        want="the training maths",
    )


@clause("G4.3c")
def test_manifest_tells_what_the_run_used(smoke, manifest):
    folder = smoke / RUN
    samples = np.load(str(folder / "eval_samples.npz"), allow_pickle=False)
    assert_equal(what="input_shape", got=manifest["input_shape"], want=list(samples["images"].shape[1:]))
    assert_equal(what="shape of the predictions", got=list(samples["prediction"].shape[2:4]), want=[180, 240])
    (_, earlier), (_, later) = runs.generations(folder)[-2:]
    before, after = runs.tensors(earlier), runs.tensors(later)
    assert_equal(what="optimizer", got=manifest["optimizer"], want="adam")
    slots = runs.adam_slots(after)
    assert_equal(
        what="variables with Adam's slots", got=[len(slots[0]), len(slots[1])], want=[len(runs.weights_of(after))] * 2
    )
    assert_equal(what="lr_schedule", got=manifest["lr_schedule"], want="cosine")
    rates = [oracles.cosine(step, manifest["lr"], 2) for step in range(2)]
    assert_close(what="learning rates", got=runs.column(folder / "train_steps.csv", "lr"), want=rates, rtol=2e-6)
    applied = runs.applied_learning_rate(before, after, 1)
    assert_close(what="rate that Adam applied", got=applied, want=rates[1], rtol=0.01, step=1)
    kernels = [value.astype(np.float64) for name, value in runs.weights_of(before).items() if name.endswith("/kernel")]
    decay = manifest["wd"] * sum(0.5 * np.sum(value**2) for value in kernels)
    assert_close(
        what="weight decay term", got=runs.column(folder / "train_steps.csv", "l2_loss")[1], want=decay, rtol=1e-4
    )
    norms = [runs.column(folder / "train_steps.csv", "grad_norm_" + when) for when in ("before", "after")]
    assert_close(what="norm after the clip", got=norms[1], want=np.minimum(norms[0], manifest["grad_clip"]), rtol=1e-4)
    gradient = flat(runs.applied_gradient(*[runs.adam_slots(stored)[0] for stored in (before, after)]))
    assert_le(what="norm of what Adam got", got=np.linalg.norm(gradient), want=manifest["grad_clip"], atol=1e-3)


@clause("G4.4")
def test_counts_are_equal_and_those_of_the_cycles(smoke, manifest):
    recorded = json.loads((smoke / RUN / "fairness_counts.json").read_text())
    cycles = len(runs.table(smoke / RUN / "train_steps.csv"))
    space = spaces.chosen()
    counts = {block.name: [cycles * space.paths // n] * n for block, n in zip(space.blocks, space.counts)}
    assert_equal(what="cycles", got=[recorded["cycles"], manifest["global_step"], cycles], want=[2, 2, 2])
    assert_equal(what="counts", got=recorded["counts"], want=counts)  # `cycles` each in v1
    assert_equal(what="fairness_gap", got=recorded["fairness_gap"], want=0)


@clause("G4.5")
def test_check_manifest_accepts_the_run(smoke):
    done = run("python -m edgeflownas.nas.check_manifest --path outputs/supernet/train_manifest.json", smoke)
    refused = [line for line in done.out.splitlines() if line.startswith("FAIL")]
    assert_equal(what="checks that failed", got=refused, want=[])
    assert_succeeded(done)
    assert_contains(what="verdict", got=done.out.splitlines()[-1], want="check_manifest passed")


# ---- the content of the files


@clause("G4.1b")
def test_report_says_what_the_tables_say(long_run):
    """Compares the table of key figures cell by cell with the CSV files, and the sentence on the accuracy; the best
    evaluation is not the last."""
    folder = long_run / RUN
    cells = {}
    for line in (folder / "supernet_training_report.md").read_text(encoding="utf-8").splitlines():
        parts = [part.strip() for part in line.strip("|").split("|")]
        if line.startswith("|") and len(parts) == 4:
            cells.update({parts[0]: parts[1], parts[2]: parts[3]})
    history = runs.table(folder / "eval_epe_history.csv")
    best = min(history, key=lambda row: float(row["mean_epe_12"]))
    assert_true(
        what="best epoch", ok=best != history[-1], got=best["epoch"], want="not the last, else this proves little"
    )
    share = 100 * float(best["mean_epe_12"]) / float(best["zero_flow_epe"])
    rows = [row for row in runs.table(folder / "eval_epe_per_arch.csv") if row["epoch"] == history[-1]["epoch"]]
    rows.sort(key=lambda row: float(row["epe"]))
    want = {
        "Best mean EPE, px": best["mean_epe_12"],
        "Best epoch": best["epoch"],
        "Zero-flow EPE, px": history[-1]["zero_flow_epe"],
        "Best mean / zero flow": f"~{share:.1f}%",
        "Last mean EPE, px": history[-1]["mean_epe_12"],
        "Last std over the pool, px": history[-1]["std_epe_12"],
        "Last best subnet": "{epe} px, `{arch_code}`".format(**rows[0]),
        "Last worst subnet": "{epe} px, `{arch_code}`".format(**rows[-1]),
        "Last training loss": history[-1]["train_loss"],
        "Evaluations": str(len(history)),
        "Epochs": f"{len(history)} of {runs.NUM_EPOCHS}",
    }
    assert_equal(what="key figures", got={name: cells.get(name) for name in want}, want=want)
    text = (folder / "supernet_training_report.md").read_text(encoding="utf-8")
    want = "best mean EPE **{mean_epe_12}** px at epoch {epoch}, ~{:.1f}% of the **{zero_flow_epe}** px of an all-zero"
    assert_contains(what="report", got=text, want=want.format(share, **best))
    behind, separated = recompute.behind_the_best(folder / "eval_epe_samples.npz")
    for row in rows:
        want = f"| `{row['arch_code']}` | {row['epe']} | {behind[row['arch_code']]} |"
        assert_contains(what="report", got=text, want=want)
    want = f"{separated} of {len(rows) * (len(rows) - 1) // 2} pairs of subnets differ by more than chance"
    assert_contains(what="report", got=text, want=want)


@clause("G4.1c")
def test_pictures_show_something(long_run):
    """Every picture of the report decodes. TensorBoard has the true flow and the best subnet's, and they differ."""
    from edgeflownas.tfcompat import tf

    for path in sorted((long_run / RUN / "report").glob("*.png")):
        pixels = np.array(Image.open(str(path)).convert("RGB")).astype(float)
        assert_true(what=path.name, ok=min(pixels.shape[:2]) > 100, got=pixels.shape, want="a picture")
        assert_true(what=path.name, ok=pixels.std() > 5, got=pixels.std(), want="more than one colour")
    shown = {}
    for path in (long_run / RUN / "tensorboard").glob("events.out.tfevents.*"):
        for event in tf.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.HasField("image"):
                    shown[value.tag] = np.array(Image.open(io.BytesIO(value.image.encoded_image_string)))
    truth, best = [shown.get(f"flow/{name}", np.zeros(0)) for name in ("ground_truth", "best_subnet")]
    want = (runs.HEIGHT, runs.WIDTH, 3)
    assert_equal(what="sizes", got=[truth.shape, best.shape], want=[want, want])
    assert_true(what="pictures", ok=not np.array_equal(truth, best), got="the same", want="two flows")


@clause("G4.1d")
def test_samples_are_those_of_the_best_and_the_worst_subnet(long_run):
    """Images, flow and names are those of the gates' reader; predictions are NumPy's at the last checkpoint."""
    folder = long_run / RUN
    samples = np.load(str(folder / "eval_samples.npz"), allow_pickle=False)
    rows = runs.table(folder / "eval_epe_per_arch.csv")
    rows = [row for row in rows if row["epoch"] == rows[-1]["epoch"]]
    rows.sort(key=lambda row: float(row["epe"]))
    ends = [rows[0], rows[-1]]
    codes = ["".join(map(str, code)) for code in samples["codes"].tolist()]
    assert_equal(what="codes of best and worst", got=codes, want=[row["arch_code"] for row in ends])
    data = dataset.found(long_run / "data")
    shown = len(samples["names"])  # the samples of the first batch, at most three
    truth = dataset.centre_crops(data.folder, data.val[:shown])
    assert_equal(what="names", got=samples["names"].tolist(), want=data.val[: max(shown, 1)])
    assert_equal(what="images", got=samples["images"], want=truth.images)
    assert_equal(what="flow", got=samples["flow"], want=truth.flow)
    weights = recompute.weights_at(runs.prefix(folder, "last"))
    batches = recompute.one_by_one(data.folder, data.train)
    for row, got in zip(ends, samples["prediction"]):
        code = list(map(int, row["arch_code"]))
        noted = [oracles.batch_statistics(weights, code, images) for images in batches]
        want = oracles.predicted_flow(weights, code, oracles.mean_statistics(noted), truth.images)
        atol = 2e-5 * np.abs(want).max()
        assert_close(what="prediction", got=got, want=want, atol=atol, unit="px", code=row["arch_code"])
    assert_true(what="EPE", ok=float(ends[0]["epe"]) < float(ends[1]["epe"]), got=ends, want="the best one's below")


# ---- a small run of six epochs, and tampered copies of it


@clause("G4.6a")
def test_a_missing_field_is_refused(long_run, copies):
    stored = json.loads((long_run / RUN / "train_manifest.json").read_text())
    fields = [name for name in stored if name not in UNCHECKED]
    assert_true(
        what="fields",
        ok=set(SPECIFIED) <= set(fields) and len(fields) > 25,
        got=fields,
        want="those specified, and more",
    )
    for name in fields:
        found = copies(with_manifest(lambda stored, name=name: stored.pop(name)))
        assert_all_refused(found, "manifest: fields", missing=name)
        assert_contains(what="refusal", got=found["manifest: fields"], want=name)


@clause("G4.6b")
def test_a_wrong_value_is_refused(long_run, copies):
    right = json.loads((long_run / RUN / "train_manifest.json").read_text())
    fields = set(right) - UNCHECKED
    assert_equal(what="fields with a wrong value to try", got=sorted(WRONG), want=sorted(fields))
    for name, values in WRONG.items():
        for value in values:
            assert_true(what="the value to try", ok=right[name] != value, got=value, want="another one", field=name)
            found = copies(with_manifest(lambda stored, name=name, value=value: stored.update({name: value})))
            assert_true(what="checks that refuse", ok=found, got=found, want="at least one", field=name, value=value)
    for name, value in INNER.items():

        def change(stored, name=name, value=value):
            *sections, last = name.split(".")
            for section in sections:
                stored = stored[section]
            assert stored[last] != value
            stored[last] = value

        found = copies(with_manifest(change))
        assert_true(what="checks that refuse", ok=found, got=found, want="at least one", field=name, value=value)


@clause("G4.6c")
def test_unequal_counts_are_refused(copies):
    def one_more(stored, block="H1", by=1):
        stored["counts"][block][2] += by

    def moved(stored):
        stored["counts"]["EB0"][0] += 1
        stored["counts"]["EB0"][1] -= 1
        stored["fairness_gap"] = 2

    def all_more(stored):
        stored["cycles"] += 1
        stored["counts"] = {block: [count + 1 for count in values] for block, values in stored["counts"].items()}

    changes = {
        "one more": one_more,
        "one moved, gap too": moved,
        "every option once more": all_more,
        "gap": lambda stored: stored.update(fairness_gap=1),
        "no block": lambda stored: stored["counts"].pop("DB1"),
    }
    for name, change in changes.items():
        assert_all_refused(copies(with_json("fairness_counts.json", change)), "fairness: counts", change=name)


@clause("G4.6d")
def test_a_missing_row_is_refused(copies):
    assert_tables_refused(copies, lambda rows, at: rows.pop(at))


@clause("G4.6e")
def test_a_doubled_row_is_refused(long_run, copies):
    """Also where only the lengths in the checkpoint show it: in any file that it has a length of."""
    assert_tables_refused(copies, lambda rows, at: rows.insert(at, rows[at]))
    names = sorted(runs.generations(long_run / RUN)[-1][0]["lengths"])
    assert_equal(what="files with a length", got=names, want=sorted([*TABLES, "debug_trace.jsonl", "timing.csv"]))
    for name in names:
        found = copies(tampering.with_last_line_twice(name))
        assert_all_refused(found, "checkpoints: lengths of the tables", file=name)


@clause("G4.6f")
def test_rows_out_of_order_are_refused(copies):
    def swap(rows, at):
        other = at + 1 if at + 1 < len(rows) else at - 1
        rows[at], rows[other] = rows[other], rows[at]

    assert_tables_refused(copies, swap)


@clause("G4.6g")
def test_a_swapped_checkpoint_is_refused(copies):
    for change in tampering.SWAPS:
        assert_all_refused(copies(change), "checkpoints: last", change=change.__name__)

    assert_all_refused(copies(tampering.names_elsewhere), "checkpoints: names")


@clause("G4.6h")
def test_a_truncated_checkpoint_is_refused(copies):
    for pattern in ("model.ckpt.index", "model.ckpt.data-*", "state.json"):
        for share in (0, 0.5, None):

            def cut(folder, pattern=pattern, share=share):
                path = next(generation_folders(folder)[-1].glob(pattern))
                size = path.stat().st_size
                os.truncate(str(path), size - 1 if share is None else int(size * share))

            if pattern == "state.json" and share is None:
                continue  # its last byte is only a newline
            assert_all_refused(copies(cut), "checkpoints: last", file=pattern, left=share)


@clause("G4.6i")
def test_best_of_the_wrong_epoch_is_refused(copies):
    assert_all_refused(copies(tampering.best_link), "checkpoints: names", change="the link")
    for change in (tampering.best_link_and_state, tampering.lower_a_mean):
        found = copies(change)
        assert_all_refused(found, "checkpoints: best", change=change.__name__)
        assert_contains(what="refusal", got=found["checkpoints: best"], want="epoch of the best checkpoint")


@clause("G4.6j")
def test_a_changed_cell_is_refused(long_run, copies):
    changes = list(tampering.cell_changes(long_run / RUN))
    titles = {(name, title) for name, title, _, _ in changes}
    assert_true(what="columns", ok=tampering.UNCONFIRMED < titles, got=titles, want="also those not confirmed")
    for name, title, row, change in changes:
        if (name, title) not in tampering.UNCONFIRMED:
            found = copies(change)
            assert_true(what="checks that refuse", ok=found, got=found, want="one", table=name, column=title, row=row)
