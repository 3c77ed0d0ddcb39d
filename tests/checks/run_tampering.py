"""Ways to tamper with a run folder, each a function of the folder, and helpers for the results of `check_manifest`."""

import json
import os

import numpy as np

from edgeflownas.checks.check_manifest import run_checks


def failed(folder):
    """{name: text} of the checks that fail."""
    outcomes = run_checks(os.path.join(folder, "train_manifest.json"))
    return {outcome.name: outcome.text for outcome in outcomes if not outcome.passed}


def manifest(change):
    """A tampering of train_manifest.json by `change(fields)`."""

    def tamper(folder):
        edit_json(os.path.join(folder, "train_manifest.json"), change)

    return tamper


def setting(name, value):
    """A tampering that sets one field of the manifest, by its dotted name."""

    def change(fields):
        *parents, last = name.split(".")
        for parent in parents:
            fields = fields[parent]
        fields[last] = value

    return manifest(change)


def counts(change):
    return lambda folder: edit_json(os.path.join(folder, "fairness_counts.json"), change)


def cell(table, line, column, value):
    """A tampering of one cell; `line` counts rows from 0."""

    def tamper(folder):
        path = os.path.join(folder, table)
        lines = read(path).split("\n")
        cells = lines[line + 1].split(",")
        cells[lines[0].split(",").index(column)] = value
        lines[line + 1] = ",".join(cells)
        write(path, "\n".join(lines))

    return tamper


def rows(table, change):
    """A tampering of the list of a table's rows, header excluded."""

    def tamper(folder):
        path = os.path.join(folder, table)
        header, *body = read(path).splitlines()
        write(path, "\n".join([header] + change(body)) + "\n")

    return tamper


def link(name, target):
    """A tampering that points a link of checkpoints/ elsewhere; `{gens[i]}` is the i-th generation, oldest first."""

    def tamper(folder):
        gens = sorted(os.listdir(os.path.join(folder, "checkpoints", "generations")))
        path = os.path.join(folder, "checkpoints", name.format(gens=gens))
        os.unlink(path)
        os.symlink(target.format(gens=gens), path)

    return tamper


def model_file(folder, which, suffix=".data-00000-of-00001"):
    return os.path.realpath(os.path.join(folder, "checkpoints", f"supernet_{which}.ckpt{suffix}"))


def truncate(which):
    return lambda folder: os.truncate(model_file(folder, which), 3)


def swap_files(folder):
    """Swaps the model files of best and last."""
    best, last = model_file(folder, "best"), model_file(folder, "last")
    os.rename(best, best + ".tmp")
    os.rename(last, best)
    os.rename(best + ".tmp", last)


def flip_a_bit(folder):
    path = model_file(folder, "last")
    with open(path, "r+b") as handle:
        first = handle.read(1)[0]
        handle.seek(0)
        handle.write(bytes([first ^ 1]))


def edit_json(path, change):
    with open(path) as handle:
        value = json.load(handle)
    change(value)
    with open(path, "w") as handle:
        json.dump(value, handle)


def read(path):
    with open(path) as handle:
        return handle.read()


def write(path, text):
    with open(path, "w") as handle:
        handle.write(text)


def remove(name):
    return lambda folder: os.unlink(os.path.join(folder, name))


def raise_count(fields):
    fields["counts"]["H1"][1] += 1


def tie_ranks(body):
    """Two subnets of epoch 1 exchange their EPE, not their ranks."""
    first, second = body[0].split(","), body[1].split(",")
    first[3], second[3] = second[3], first[3]
    return [",".join(first), ",".join(second)] + body[2:]


def said(folder):
    """{check: its text} of all checks, passed or not."""
    return {outcome.name: outcome.text for outcome in run_checks(os.path.join(folder, "train_manifest.json"))}


def both(*changes):
    def tamper(folder):
        for change in changes:
            change(folder)

    return tamper


RESUME = {
    "time": "2001-01-01T00:00:00Z",
    "status_before": "interrupted",
    "global_step": 6,
    "changed": [],
    "command": "x",
    "gates": {},
}


def resumed(changed, at=6):
    """A tampering that records a resume at step `at` that changed these keys."""
    return manifest(
        lambda stored: stored.update(resumes=[dict(RESUME, time=stored["started"], changed=changed, global_step=at)])
    )


def epe_of_a_sample(added, **fields):
    """A tampering of the EPE per sample: one sample of the last evaluation is `added` px worse, or a field differs."""

    def tamper(folder):
        path = os.path.join(folder, "eval_epe_samples.npz")
        with np.load(path) as archive:
            values = dict(archive)
        values["last"][7, 2] += added
        np.savez_compressed(path, **dict(values, **fields))

    return tamper
