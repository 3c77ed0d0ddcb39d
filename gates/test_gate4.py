"""Gate 4: delivery and environment. One smoke run at full size, with the specification's own command; a small long run,
started with --unsigned, whose copies are tampered with: `gates/deliveries.py`, fixtures in `gates/conftest.py`.
"""

import hashlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from edgeflownas import signoff
from edgeflownas.errors import UserError
from gates import oracles, runs, tampering
from gates.asserts import assert_close, assert_contains, assert_equal, assert_le, assert_true, clause
from gates.commands import ROOT, assert_refused, assert_succeeded, run, workplace
from gates.deliveries import RUN, SMOKE, git, write_record
from gates.in_process import flat
from gates.tampering import (
    INNER,
    WRONG,
    assert_all_refused,
    assert_tables_refused,
    generation_folders,
    with_json,
    with_manifest,
)

SPECIFIED = ("seed", "config_hash", "git_commit", "input_shape", "optimizer", "lr_schedule", "wd", "grad_clip")
LEFT = (
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
    for name in LEFT:
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
        assert_equal(what="parameters restored from " + which, got=count, want=12122016)
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
    """From the manifest's own configuration, written out here; and by a dry run of the same command."""
    flat = {
        f"{section}.{name}": value for section, values in manifest["config"].items() for name, value in values.items()
    }
    free = {name for name in flat if name.startswith("runtime.")} | {"data.base_path", "data.list_dir"}
    maths = {name: value for name, value in flat.items() if name not in free}
    want = hashlib.sha256(json.dumps(maths, sort_keys=True).encode("utf-8")).hexdigest()
    assert_equal(what="config_hash", got=manifest["config_hash"], want=want)
    done = run(SMOKE + " --dry_run", smoke)
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
    names = ["EB0", "EB1", "DB0", "DB1", "H0Out", "H1", "H1Out", "H2", "H2Out"]
    assert_equal(what="cycles", got=[recorded["cycles"], manifest["global_step"], cycles], want=[2, 2, 2])
    assert_equal(what="counts", got=recorded["counts"], want={name: [cycles] * 3 for name in names})
    assert_equal(what="fairness_gap", got=recorded["fairness_gap"], want=0)


@clause("G4.5")
def test_check_manifest_accepts_the_run(smoke):
    done = run("python -m edgeflownas.nas.check_manifest --path outputs/supernet/train_manifest.json", smoke)
    refused = [line for line in done.out.splitlines() if line.startswith("FAIL")]
    assert_equal(what="checks that failed", got=refused, want=[])
    assert_succeeded(done)
    assert_contains(what="verdict", got=done.out.splitlines()[-1], want="check_manifest passed")


# ---- a small run of six epochs, and copies of it that were tampered with


@clause("G4.6a")
def test_a_missing_field_is_refused(long_run, copies):
    fields = [
        name for name in json.loads((long_run / RUN / "train_manifest.json").read_text()) if name != "initial_weights"
    ]
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
    fields = set(json.loads((long_run / RUN / "train_manifest.json").read_text())) - {"initial_weights"}
    assert_equal(what="fields with a wrong value to try", got=sorted(WRONG), want=sorted(fields))
    for name, values in WRONG.items():
        for value in values:
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
def test_a_doubled_row_is_refused(copies):
    assert_tables_refused(copies, lambda rows, at: rows.insert(at, rows[at]))


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
                continue  # its last byte is the end of a line, which says nothing
            assert_all_refused(copies(cut), "checkpoints: last", file=pattern, left=share)


@clause("G4.6i")
def test_best_of_the_wrong_epoch_is_refused(copies):
    assert_all_refused(copies(tampering.best_link), "checkpoints: names", change="the link")
    for change in (tampering.best_link_and_state, tampering.lower_a_mean):
        found = copies(change)
        assert_all_refused(found, "checkpoints: best", change=change.__name__)
        assert_contains(what="refusal", got=found["checkpoints: best"], want="epoch of the best checkpoint")


# ---- templates, environment, sign-offs

BLOCK = r"(?ms)^# >>> paths and resources.*?^# <<< paths and resources\n"
PATHS_AND_RESOURCES = {"PROJECT", "PYTHON", "FC2_ROOT", "GPU_DEVICE", "NUM_WORKERS"}


@clause("G4.7")
def test_templates_agree_but_for_paths_and_resources(tmp_path):
    scripts = [ROOT / "scripts" / where / "run_supernet_train.sh" for where in ("local", "hpc")]
    rest = [re.sub(BLOCK, "", script.read_text()) for script in scripts]
    assert_equal(
        what="lines outside the block of paths and resources", got=rest[1].splitlines(), want=rest[0].splitlines()
    )
    printed = []
    for where, script in zip(("here", "there"), scripts):
        block = re.search(BLOCK, script.read_text()).group(0)
        code = [line for line in block.splitlines() if not line.startswith("#")]
        assert_equal(
            what="what the block sets",
            got={line.split("=")[0] for line in code},
            want=PATHS_AND_RESOURCES,
            script=script.parent.name,
        )
        project = tmp_path / where
        project.mkdir()
        workplace(project)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
        environment.update(PROJECT=str(project), PYTHON=sys.executable, FC2_ROOT="/data/" + where, PYTHONPATH=str(ROOT))
        done = subprocess.run(
            ["bash", str(script), "--dry_run"],
            env=environment,
            cwd=str(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
        assert_equal(
            what="exit code", got=done.returncode, want=0, script=script.parent.name, stderr=done.stderr[-200:]
        )
        printed.append({line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:] if line.strip()})
    assert_true(what="keys printed", ok=len(printed[0]) > 35, got=len(printed[0]), want="the whole configuration")
    differing = {key for key in set(printed[0]) | set(printed[1]) if printed[0].get(key) != printed[1].get(key)}
    assert_true(
        what="keys that differ",
        ok={"data.base_path"} <= differing <= {"data.base_path", "runtime.num_workers", "runtime.gpu_device"},
        got=sorted(differing),
        want="the data's path, and at most workers and device",
    )
    for key, want in (("train.num_epochs", "200"), ("train.batch_size", "32"), ("train.lr", "0.0001")):
        assert_equal(what=key, got=printed[1][key][0], want=want)


SEE = """
import json, platform, numpy, tensorflow
from tensorflow.python.client import device_lib
gpus = [d.physical_device_desc for d in device_lib.list_local_devices() if d.device_type == "GPU"]
print(json.dumps([platform.python_version(), numpy.__version__, tensorflow.__version__, gpus]))
"""


@clause("G4.8")
def test_environment_record_is_true(smoke, manifest):
    environment = dict(os.environ, CUDA_VISIBLE_DEVICES="0", TF_CPP_MIN_LOG_LEVEL="3")
    seen = subprocess.run(
        [sys.executable, "-c", SEE],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        universal_newlines=True,
    ).stdout
    python, numpy_version, tensorflow, gpus = json.loads(seen.splitlines()[-1])
    versions = manifest["versions"]
    assert_equal(
        what="versions",
        got=[versions["python"], versions["numpy"], versions["tensorflow"]],
        want=[python, numpy_version, tensorflow],
    )
    assert_true(what="platform", ok=len(versions["platform"]) > 5, got=versions["platform"], want="the system in words")
    if gpus:
        for gpu in gpus:
            assert_contains(what="device", got=manifest["device"], want=re.search("name: ([^,]*)", gpu).group(1))
    else:
        assert_equal(what="device, no GPU being visible", got=manifest["device"], want="CPU")
    assert_equal(what="GPU asked for", got=manifest["config"]["runtime"]["gpu_device"], want="0")


@clause("G4.9")
def test_require_gpu_demands_a_visible_gpu(tmp_path):
    """Where no GPU is visible the demand is refused before any test; without it the very same run goes through."""
    command = "python -m pytest {} -k [G1.6] -p no:cacheprovider".format(ROOT / "gates")
    hidden = {"CUDA_VISIBLE_DEVICES": "-1", signoff.RECORDS_VARIABLE: str(tmp_path / "records")}
    demanded = run(command + f" --require_gpu --rootdir {ROOT}", ROOT, hidden)
    assert_equal(what="exit code", got=demanded.code, want=4, stderr=demanded.err[-300:])
    assert_contains(what="refusal", got=demanded.out + demanded.err, want="--require_gpu: no visible GPU")
    assert_true(
        what="tests run", ok="G1.6" not in demanded.out.replace("[G1.6]", ""), got=demanded.out[-300:], want="none"
    )
    free = run(command, ROOT, hidden)
    assert_equal(what="exit code without the demand (partial)", got=free.code, want=10, stderr=free.err[-300:])
    assert_true(
        what="clause run without the demand",
        ok=re.search("G1.6 +passed", free.out),
        got=free.out[-300:],
        want="G1.6 passed",
    )


@clause("G4.10a")
def test_long_run_without_gate_3_is_refused(long_run, tmp_path, monkeypatch):
    refused = runs.ends(long_run)[0]
    assert_refused(
        refused, "more than 5 epochs", "gate 3 has no valid sign-off", "python -m pytest gates -m gate3", "--unsigned"
    )
    assert_equal(what="files that the refused run left", got=json.loads((long_run / "left.json").read_text()), want=[])
    monkeypatch.setenv(signoff.RECORDS_VARIABLE, str(tmp_path))
    other = dict(signoff.source_files(ROOT), **{"edgeflownas/config.py": "0" * 64})
    for gate in (1, 2):
        write_record(gate, "passed")
    for outcome, files, want in (("failed", None, "failed"), ("passed", other, "stale"), ("passed", None, "")):
        write_record(3, outcome, files)
        try:
            signoff.require_gate(3, ROOT)
            said = ""
        except UserError as error:
            said = str(error)
        assert_true(
            what="refusal",
            ok=(f"({want}: " in said) if want else said == "",
            got=said,
            want=want or "none: the sign-off is valid",
        )
    record = tmp_path / "gate3.json"
    record.write_text(record.read_text().replace('"device": "CPU"', '"device": "GPU"'))
    with pytest.raises(UserError, match=r"\(edited: "):
        signoff.require_gate(3, ROOT)


@clause("G4.10b")
def test_unsigned_overrides_and_the_manifest_says_so(long_run):
    done, stored = runs.ends(long_run)[1], json.loads((long_run / RUN / "train_manifest.json").read_text())
    assert_succeeded(done)
    assert_equal(what="epochs", got=stored["epoch"], want=runs.NUM_EPOCHS)
    assert_true(what="a long run", ok=runs.NUM_EPOCHS > 5, got=runs.NUM_EPOCHS, want="more than 5 epochs")
    assert_equal(
        what="gates in the manifest",
        got=stored["gates"],
        want={
            "gate1": (long_run / "gate1").read_text(),
            "gate2": "failed",
            "gate3": "missing",
            "gate4": "missing",
            "unsigned": True,
        },
    )
