"""A real run of the first version is still read, checked, reported, and resumed.

`tests/data/first_version_run.tar.gz` is a run of commit 0d4ad32 on TensorFlow 1.15.5, stopped after one of two epochs:

    python -m edgeflownas.data.synthetic --out mini --train 8 --test 4 --seed 3 --height 72 --width 88 --max_shift 6
    python -m edgeflownas.train_supernet --base_path mini --set network.init_channels=2 --input_height 64
        --input_width 64 --batch_size 4 --eval_batch_size 4 --bn_recal_batches 2 --num_epochs 2 --max_epochs 1
        --deterministic --gpu_device -1 --unsigned --debug_trace

without its TensorBoard events, the plots and the HTML of its report. Paths of that machine were replaced (and the
digest of the checkpoint's state made anew).
"""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from edgeflownas.checks.check_manifest import run_checks
from edgeflownas.nas.search_space import FIRST_VERSION, label_of
from edgeflownas.reporting.write import write_report
from edgeflownas.run.append_only import JsonLines, TableWriter
from edgeflownas.run.read import read_run
from edgeflownas.run.rows import EvaluationRow, StepRow, SubnetRow, TimingRow
from edgeflownas.run.tables import read_table

ARCHIVE = Path(__file__).parent.parent / "data" / "first_version_run.tar.gz"
ROOT = ARCHIVE.parent.parent.parent
LABEL = label_of(FIRST_VERSION)
TRAIN = (
    "--set network.init_channels=2 --input_height 64 --input_width 64 --batch_size 4 --eval_batch_size 4 "
    "--bn_recal_batches 2 --num_epochs 2 --deterministic --gpu_device -1 --unsigned --debug_trace --resume"
).split()


@pytest.fixture
def old_run(tmp_path):
    """A copy of the run; gives its folder."""
    with tarfile.open(str(ARCHIVE)) as archive:
        archive.extractall(str(tmp_path))
    return tmp_path / "first_version_run"


def failed(folder):
    outcomes = run_checks(str(folder / "train_manifest.json"))
    return {outcome.name: outcome.text for outcome in outcomes if not outcome.passed}


def test_every_check_passes(old_run):
    assert failed(old_run) == {}


def test_it_is_read_as_of_the_first_space_and_reported(old_run):
    run = read_run(old_run)
    assert run.space.identity() == FIRST_VERSION and run.fairness.space == FIRST_VERSION
    assert run.samples.space == FIRST_VERSION and not run.notes
    assert (len(run.history), len(run.steps), len(run.timing)) == (1, 2, 1)
    assert (run.last.mean_epe, run.last.zero_flow_epe) == ("3.80439", "3.0918663")
    assert "| Best mean EPE, px | 3.80439 |" in write_report(old_run).read_text(encoding="utf-8")


def test_files_of_another_table_of_options_are_not_taken_for_the_first_versions(old_run):
    for name, change in (
        ("train_manifest.json", lambda fields: fields["search_space"]["H1"].update(options=[3, 5, 7])),
        ("eval_pool_12.json", lambda fields: fields["search_space"][5].update(options=[3, 5, 7])),
    ):
        path = old_run / name
        whole = path.read_text()
        fields = json.loads(whole)
        change(fields)
        path.write_text(json.dumps(fields))
        assert any("of the search space edgeflownet_v1:" in text for text in failed(old_run).values()), name
        path.write_text(whole)


def test_its_tables_are_continued_with_their_own_headers(old_run):
    lengths = json.loads((old_run / "checkpoints" / "last" / "state.json").read_text())["state"]["lengths"]
    before = {name: (old_run / name).read_bytes() for name in lengths}
    tables = {
        "eval_epe_history.csv": TableWriter(str(old_run / "eval_epe_history.csv"), EvaluationRow, 12),
        "eval_epe_per_arch.csv": TableWriter(str(old_run / "eval_epe_per_arch.csv"), SubnetRow),
        "train_steps.csv": TableWriter(str(old_run / "train_steps.csv"), StepRow),
        "timing.csv": TableWriter(str(old_run / "timing.csv"), TimingRow),
    }
    trace = JsonLines(str(old_run / "debug_trace.jsonl"))
    for name, file in dict(tables, **{"debug_trace.jsonl": trace}).items():
        file.cut_back(lengths[name])
        assert (old_run / name).read_bytes() == before[name]  # the checkpoint knew of every row
    for name, row_type, pool_size in (
        ("eval_epe_history.csv", EvaluationRow, 12),
        ("eval_epe_per_arch.csv", SubnetRow, 0),
        ("train_steps.csv", StepRow, 0),
        ("timing.csv", TimingRow, 0),
    ):
        rows = read_table(old_run / name, row_type, pool_size).values()
        tables[name].append(rows[-1])
        tables[name].close()
        content = (old_run / name).read_bytes()
        last_line = before[name].splitlines(True)[-1]
        assert content == before[name] + last_line, name  # the same texts, to the last digit
    assert set(read_table(old_run / "eval_epe_per_arch.csv", SubnetRow).texts.space) == {LABEL}


def test_it_is_resumed_to_its_end(old_run, tmp_path):
    environment = dict(os.environ, PYTHONPATH=str(ROOT))

    def command(*words):
        done = subprocess.run(
            [sys.executable, "-m"] + list(words),
            env=environment,
            cwd=str(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    maker = "--train 8 --test 4 --seed 3 --height 72 --width 88 --max_shift 6".split()
    command("edgeflownas.data.synthetic", "--out", "mini", *maker)
    command("edgeflownas.train_supernet", "--base_path", "mini", "--output_dir", str(old_run), *TRAIN)
    run = read_run(old_run)
    assert run.get("status") == "completed" and len(run.get("resumes")) == 1
    assert (len(run.history), len(run.steps)) == (2, 4)
    header, *rows = (old_run / "eval_epe_per_arch.csv").read_text().splitlines()
    assert header == "epoch,global_step,arch_code,epe,rank,bn_recal_batches,num_samples" and len(rows) == 24
    assert {name: text for name, text in failed(old_run).items() if name != "manifest: git commit"} == {}
