"""Gate 4, templates, environment and the sign-off: its scope, chain, order and attempts, and which runs need one."""

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys

import pytest

from edgeflownas import signoff
from edgeflownas.errors import UserError
from gates import attestation, mini, runs, spaces
from gates.asserts import assert_contains, assert_equal, assert_true, clause
from gates.commands import ROOT, assert_last_line_refuses, assert_refused, assert_succeeded, run, workplace
from gates.gate4_runs import LONG_RULE, RUN, write_record

# ---- templates and environment

BLOCK = r"(?ms)^# >>> paths and resources.*?^# <<< paths and resources\n"
PATHS_AND_RESOURCES = {"PROJECT", "PYTHON", "FC2_ROOT", "GPU_DEVICE", "NUM_WORKERS"}
# What SLURM is told: a warning to the shell that passes it on (`B:`), time enough to commit, a requeue that goes on in
# the same log, one rank; and resources, whose values are the user's.
DIRECTIVES = {
    "--signal=B:USR1@300",
    "--requeue",
    "--open-mode=append",
    "--nodes=1",
    "--ntasks-per-node=1",
    "--gpus-per-task=1",
}
RESOURCES = {"--job-name", "--partition", "--cpus-per-task", "--mem-per-cpu", "--time", "--output"}


def directives(script):
    """The options that sbatch reads in a script: it stops at the first line that is neither empty nor a comment."""
    head = itertools.takewhile(lambda line: not line.strip() or line.startswith("#"), script.read_text().splitlines())
    return [line.split()[1] for line in head if line.startswith("#SBATCH ")]


@clause("G4.7")
def test_templates_agree_but_for_paths_and_resources(tmp_path):
    scripts = [ROOT / "scripts" / where / "run_supernet_train.sh" for where in ("local", "hpc")]
    rest = [re.sub(BLOCK, "", script.read_text()) for script in scripts]
    assert_equal(
        what="lines outside the block of paths and resources", got=rest[1].splitlines(), want=rest[0].splitlines()
    )
    local, slurm = map(directives, scripts)
    assert_equal(what="directives of the local template", got=local, want=[])
    told = {one if one in DIRECTIVES else one.split("=")[0] for one in slurm}
    assert_equal(what="directives that SLURM reads", got=sorted(told), want=sorted(DIRECTIVES | RESOURCES))
    assert_equal(what="directives given once", got=len(slurm), want=len(told))
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
    """Without a visible GPU, --require_gpu is refused before any test; the same run without it passes."""
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
        refused,
        "more than 5 epochs",
        "gate 3 has no valid sign-off",
        "python -m pytest gates -m gate3" + spaces.flag(),
        "--unsigned",
    )
    assert_equal(what="files that the refused run left", got=json.loads((long_run / "left.json").read_text()), want=[])
    monkeypatch.setenv(signoff.RECORDS_VARIABLE, str(tmp_path))
    other = dict(signoff.source_files(ROOT), **{"edgeflownas/config.py": "0" * 64})
    for gate in (1, 2):
        write_record(gate, "passed")
    for outcome, files, want in (("failed", None, "failed"), ("passed", other, "stale"), ("passed", None, "")):
        write_record(3, outcome, files)
        try:
            signoff.require_gate(3, ROOT, spaces.chosen().name)
            said = ""
        except UserError as error:
            said = str(error)
        assert_true(
            what="refusal",
            ok=(f"({want}: " in said) if want else said == "",
            got=said,
            want=want or "none: the sign-off is valid",
        )
    record = signoff.record_path(3, ROOT, spaces.chosen().name)
    record.write_text(record.read_text().replace('"device": "CPU"', '"device": "GPU"'))
    with pytest.raises(UserError, match=r"\(edited: "):
        signoff.require_gate(3, ROOT, spaces.chosen().name)


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


@clause("G4.10c")
def test_the_rule_for_long_runs_counts_from_the_first_step(long_rule):
    """Divides a run by --max_steps, --max_epochs, --resume and early stop. An epoch has four steps, and five epochs are
    allowed. A refused invocation leaves every file as it was."""
    ends, after = runs.ends(long_rule), []
    for (words, free), done, tree in zip(LONG_RULE, ends[::2], ends[1::2]):
        before, after = after, tree.out.splitlines()
        if free:
            assert_equal(what="exit code", got=done.code, want=0, words=words, stderr=done.err[-300:])
            continue
        assert_equal(what="exit code", got=done.code, want=2, words=words, stderr=done.err[-300:])
        changed = sorted(set(before) ^ set(after))
        assert_equal(what="files that the refused invocation changed", got=changed, want=[], words=words)
        said = done.err.strip().splitlines()[-1]
        for phrase in ("error: ", "gate 3", "python -m pytest gates -m gate3", "--unsigned"):
            assert_contains(what="refusal", got=said, want=phrase, words=words)
    steps = [len(runs.table(long_rule / run / "train_steps.csv")) for run in (RUN, "early")]
    assert_equal(what="steps of the runs", got=steps, want=[21, 3 * runs.STEPS_PER_EPOCH])


@clause("G4.10e")
def test_the_manifest_remembers_what_earlier_invocations_were_allowed(long_rule):
    stored = json.loads((long_rule / RUN / "train_manifest.json").read_text())
    begun, *resumes = [words for words, free in LONG_RULE if free and "--output_dir" not in words]
    assert_true(what="first command", ok=stored["command"].endswith(begun), got=stored["command"], want=begun)
    got = [stored["gates"]["unsigned"], stored["unsupported_gpu_allowed"]]
    assert_equal(what="overrides of the run", got=got, want=[True, True])
    entries = stored["resumes"]
    assert_equal(what="resumes", got=len(entries), want=len(resumes))
    for words, entry in zip(resumes, entries):
        assert_true(what="command", ok=entry["command"].endswith(words), got=entry["command"], want=words)
        got = [entry["gates"]["unsigned"], entry["unsupported_gpu_allowed"]]
        want = ["--unsigned" in words, "--allow_unsupported_gpu" in words]
        assert_equal(what="overrides of the invocation", got=got, want=want, words=words)
        states = {gate: state for gate, state in entry["gates"].items() if gate != "unsigned"}
        assert_equal(what="gates", got=states, want=dict.fromkeys(("gate1", "gate2", "gate3", "gate4"), "missing"))
    assert_equal(what="steps at the resumes", got=[entry["global_step"] for entry in entries], want=[4, 4, 21])


@clause("G4.10d")
def test_a_long_run_needs_the_gate_of_its_own_space(other_space):
    other = next(name for name in spaces.SPACES if name != spaces.chosen().name)
    words = "python -m pytest gates -m gate3" + ("" if other == spaces.DEFAULT else f" --space {other}")
    assert_last_line_refuses(runs.ends(other_space)[0], "gate 3", words, "--unsigned")
    assert_equal(what="manifest", got=(other_space / RUN / "train_manifest.json").exists(), want=False)


# ---- the sign-off itself


@clause("G4.11a")
def test_every_source_file_is_signed(tmp_path):
    """Lists all files of the package, the gates and the configurations itself; a change of any must be noticed."""
    want = {}
    for top in ("edgeflownas", "gates", "configs"):
        for folder, folders, files in os.walk(str(ROOT / top)):
            folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
            for name in files:
                path = os.path.join(folder, name)
                with open(path, "rb") as handle:
                    digest = hashlib.sha256(handle.read()).hexdigest()
                want[os.path.relpath(path, str(ROOT)).replace(os.sep, "/")] = digest
    want = {name: digest for name, digest in want.items() if not name.split("/")[-1].startswith(".")}
    found = signoff.source_files(ROOT)
    assert_equal(what="files signed", got=sorted(found), want=sorted(want))
    assert_equal(what="digests", got=found, want=want)
    whole = signoff.fingerprint(found)
    for name in found:
        others = [dict(found, **{name: "0" * 64}), {key: found[key] for key in found if key != name}]
        prints = {signoff.fingerprint(other) for other in others}
        assert_true(what="fingerprint", ok=len(prints | {whole}) == 3, got=whole, want="another", changed=name)


@clause("G4.11b")
def test_records_are_a_chain(tmp_path, monkeypatch):
    """After any change of a record, the later records are invalid; after a change of the source, all are."""
    project = mini.project(tmp_path)
    monkeypatch.delenv(signoff.RECORDS_VARIABLE, raising=False)

    def states():
        return [state.name for state in signoff.gate_states(project).values()]

    numbers = itertools.count()

    def sign(*gates, outcome="passed"):
        for gate in gates:  # a different record each time, even within one second
            write_record(gate, outcome, root=project, clauses=[{"id": f"G{gate}.1", "number": next(numbers)}])

    sign(1, 2, 3, 4)
    assert_equal(what="states when signed in order", got=states(), want=["valid"] * 4)
    sign(2)
    assert_equal(what="after gate 2 again", got=states(), want=["valid", "valid", "broken", "broken"])
    sign(3, 4)
    path = signoff.record_path(2, project)
    kept = path.read_text()
    path.write_text(kept.replace('"device": "CPU"', '"device": "GPU"'))
    assert_equal(what="after an edit of gate 2", got=states(), want=["valid", "edited", "broken", "broken"])
    record = json.loads(kept)
    for field, value in record.items():
        without = {name: other for name, other in record.items() if name != field}
        edits = {"other": dict(record, **{field: "edited"}), "less": without}
        if isinstance(value, (dict, list)):  # something in it
            edits["more"] = dict(record, **{field: dict(value, a=1) if isinstance(value, dict) else value + [1]})
        for how, edited in edits.items():
            path.write_text(json.dumps(edited))
            assert_equal(what="gate 2 after an edit", got=states()[1], want="edited", field=field, how=how)
    path.write_text(json.dumps(dict(record, note="edited")))
    assert_equal(what="gate 2 with a field more", got=states()[1], want="edited")
    path.unlink()
    assert_equal(what="without gate 2", got=states(), want=["valid", "missing", "broken", "broken"])
    path.write_text(kept)
    sign(3, outcome="failed")
    assert_equal(what="after gate 3 failed", got=states(), want=["valid", "valid", "failed", "broken"])
    (project / "configs" / "run.yaml").write_text("train: {lr: 1}\n")
    assert_equal(what="after a change of a configuration", got=states()[:2], want=["stale", "stale"])


@clause("G4.11c")
def test_a_gate_is_not_run_before_the_one_ahead_of_it_passes(tmp_path):
    """Uses a project with two gates of one clause each, in separate processes."""
    project = mini.project(tmp_path)
    mini.break_clause(project, 1)
    blocked = mini.pytest(project, "-m gate2")
    assert_equal(what="exit code of gate 2", got=blocked.code, want=11, stdout=blocked.out[-400:])
    assert_contains(what="last line", got=blocked.out.strip().splitlines()[-1], want="gate2 blocked")
    assert_equal(what="clauses run", got=mini.clauses_run(project), want=["G1.1"])
    mini.mend_clause(project, 1)
    assert_equal(what="exit code of both", got=mini.pytest(project, "").code, want=0)
    assert_equal(what="clauses run", got=mini.clauses_run(project), want=["G1.1", "G2.1"])
    assert_equal(what="records", got=mini.records(project), want=["gate1.json", "gate2.json"])


@clause("G4.11d")
def test_a_gate_is_signed_by_one_attempt_at_each_clause(tmp_path):
    """If a plugin repeats a clause that fails once and then passes, nothing is signed."""
    project = mini.project(tmp_path)
    mini.fail_first(project, 1)
    done = mini.pytest(project, "-m gate1 -p repeats")
    assert_equal(what="exit code (partial)", got=done.code, want=10, stdout=done.out[-400:])
    assert_equal(what="attempts", got=mini.clauses_run(project), want=["G1.1", "G1.1"])
    assert_equal(what="records", got=mini.records(project), want=[])


@clause("G4.12")
def test_the_sign_off_is_an_in_toto_statement(tmp_path, monkeypatch):
    monkeypatch.setenv(signoff.RECORDS_VARIABLE, str(tmp_path))
    for gate, outcome in ((1, "passed"), (2, "passed"), (3, "passed"), (4, "failed")):
        row = {"id": f"G{gate}.1", "sentence": "water is wet", "status": outcome, "seconds": 0.1, "text": ""}
        write_record(gate, outcome, clauses=[row])
    stated = attestation.statement(ROOT, signoff.DEFAULT_SPACE)
    assert_equal(what="type", got=stated["_type"], want="https://in-toto.io/Statement/v1")
    assert_equal(what="predicate", got=stated["predicateType"], want="https://in-toto.io/attestation/test-result/v0.1")
    subject = {"sha256": signoff.fingerprint(signoff.source_files(ROOT))}
    assert_equal(what="subject", got=[one["digest"] for one in stated["subject"]], want=[subject])
    predicate = stated["predicate"]
    assert_equal(what="result", got=predicate["result"], want="FAILED")
    assert_equal(what="failed", got=[name.split()[0] for name in predicate["failedTests"]], want=["G4.1"])
    assert_equal(
        what="passed", got=[name.split()[0] for name in predicate["passedTests"]], want=["G1.1", "G2.1", "G3.1"]
    )
    configuration = {one["name"]: one["digest"].get("sha256") for one in predicate["configuration"]}
    for name in ("gate1.json", "gate4.json"):
        want = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert_equal(what="digest of " + name, got=configuration.get(name), want=want)
