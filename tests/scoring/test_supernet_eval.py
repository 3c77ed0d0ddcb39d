"""The supernet_eval command: its table, what it skips, what it refuses, and how it continues after a stop."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from edgeflownas import api
from edgeflownas import config as configuration
from edgeflownas.data.fc2_index import FC2Index
from edgeflownas.errors import UserError
from edgeflownas.nas.arch_codec import to_digits
from edgeflownas.nas.cost import subnet_cost
from edgeflownas.nas.eval_pool import build_pool
from edgeflownas.nas.search_space import get_space
from edgeflownas.nas.supernet_eval import main
from edgeflownas.network.layer_table import layer_table
from edgeflownas.run import score_table
from edgeflownas.run.checkpoint import Generation
from edgeflownas.run.rows import ScoreRow
from edgeflownas.run.score_table import ScoreTable
from edgeflownas.run.tables import read_table
from edgeflownas.scoring import supernet_eval
from edgeflownas.scoring.score_plot import COSTS, front, unit_of, unsure

SPACE = get_space("edgeflownet_v1")
BELONGS_TO = {"a": 1, "space": SPACE.identity()}
CODES = ["000001000", "012001210", "222222222", "111111111", "210210210"]


def table_of(path):
    return {row.arch_code: row for row in read_table(path, ScoreRow).values()}


def content(path):
    with open(path, "rb") as handle:
        return handle.read()


class FakeSupernet:
    """Stands for `api.Supernet` where only the command is tested: scores are made up, in chunks of two codes."""

    scored = []  # every code it was asked for, since the fixture
    stored_statistics = False

    def __init__(self, checkpoint, settings):
        self.config, _ = configuration.load(
            None, {name: settings[name] for name in settings if name.startswith("eval.")}
        )
        files = {"model.ckpt.index": {"size": 3, "sha256": f"{checkpoint:x<64}"}}
        self.generation = Generation("gen", {}, "gen", files)
        self.epoch, self.step, self.index = 5, 35, FC2Index((), (), "f" * 64, "lists")
        self.pool, self.space = build_pool(42, 12, SPACE), SPACE

    def stream(self, codes, stop, progress):
        for first in range(0, len(codes), 2):
            if stop():
                raise api.Interrupted()
            FakeSupernet.scored += codes[first : first + 2]
            yield [
                result(code, 1.0 + int(code) % 97 / 97, int(code), bn=self.config.eval.bn_recal_batches)
                for code in codes[first : first + 2]
            ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """The flags of a run that `FakeSupernet` stands for; its folder exists and is empty."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setattr(FakeSupernet, "scored", [])
    monkeypatch.setattr(
        api.Supernet, "load", lambda folder, checkpoint, settings, progress, **_: FakeSupernet(checkpoint, settings)
    )
    monkeypatch.setattr(supernet_eval, "_space_of_run", lambda folder, checkpoint: SPACE)
    (tmp_path / "run").mkdir()
    return ["--output_dir", str(tmp_path / "run"), "--gpu_device", "-1"]


def test_the_pool_by_default_with_a_real_supernet(tiny_run, capsys):
    assert main(tiny_run.flags + ["--eval_only", "--bn_recal_batches", "2", "--eval_pool_size", "3"]) == 0
    out = capsys.readouterr().out
    rows = table_of(os.path.join(tiny_run.folder, "subnet_scores.csv"))
    pool = [to_digits(code, SPACE) for code in build_pool(42, 3, SPACE)]
    assert list(rows) == pool
    for code, row in rows.items():
        assert (row.parameters, row.multiply_adds) == subnet_cost(code, layer_table(2, SPACE), SPACE, 64, 67)
        assert (row.bn_recal_batches, row.num_samples, row.space) == (2, 3, SPACE.label)
    by_rank = sorted(rows.values(), key=lambda row: row.rank)
    assert [row.rank for row in by_rank] == [1, 2, 3]
    assert sorted(row.epe for row in by_rank) == [row.epe for row in by_rank]
    assert "checkpoint best: epoch 1, step 1" in out and out.count("bn_recal_batches=2") == 3
    fronts = [line for line in out.splitlines() if line.startswith("Pareto front of EPE and ")]
    assert len(fronts) == 2 and all(line.split()[-1].rstrip("~") == by_rank[0].arch_code for line in fronts)
    assert content(os.path.join(tiny_run.folder, "subnet_scores.png")).startswith(b"\x89PNG")


def test_what_is_scored_is_not_scored_again(fake, tmp_path, capsys):
    output = str(tmp_path / "scores.csv")
    flags = fake + ["--output", output, "--codes"]
    assert main(flags + [",".join(CODES[:2])]) == 0
    before = content(output)
    assert main(flags + [",".join(CODES[:2])]) == 0
    assert FakeSupernet.scored == CODES[:2] and content(output) == before
    assert main(flags + [",".join(CODES[:3])]) == 0
    assert FakeSupernet.scored == CODES[:3] and list(table_of(output)) == CODES[:3]
    assert "2 of 3 codes are in" in capsys.readouterr().out


def test_a_stopped_evaluation_continues_to_the_same_table(fake, tmp_path, monkeypatch, capsys):
    whole, parts = str(tmp_path / "whole.csv"), str(tmp_path / "parts.csv")
    flags = fake + ["--codes", ",".join(CODES), "--output"]
    assert main(flags + [whole]) == 0
    add = ScoreTable.add

    def add_and_stop(table, results):
        add(table, results)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ScoreTable, "add", add_and_stop)
    capsys.readouterr()
    assert main(flags + [parts]) == 143
    assert "stopped with 2 of 5 codes scored" in capsys.readouterr().out
    assert list(table_of(parts)) == CODES[:2]
    monkeypatch.setattr(ScoreTable, "add", add)
    assert main(flags + [parts]) == 0
    assert content(parts) == content(whole)


def test_rows_of_something_else_are_not_mixed_in(fake, tmp_path):
    output = str(tmp_path / "scores.csv")
    flags = fake + ["--codes", CODES[0], "--output", output]
    assert main(flags) == 0
    before = content(output)
    for other, named in (
        (["--checkpoint", "last"], "checkpoint.sha256"),
        (["--bn_recal_batches", "3"], "settings.bn_recal_batches 8 there, 3 now; name another"),
    ):
        with pytest.raises(UserError) as caught:
            main(flags + other)
        assert "belong to something else: " + named in str(caught.value)
    assert content(output) == before


@pytest.mark.parametrize("name", ["eval_epe_history.csv", "train_manifest.csv"])
def test_files_of_the_trainer_are_left_alone(fake, name):
    files = {"eval_epe_history.csv": "epoch,global_step\n1,1\n", "train_manifest.json": '{"status": "running"}'}
    for file, text in files.items():
        with open(os.path.join(fake[1], file), "w") as handle:
            handle.write(text)
    with pytest.raises(UserError, match="was not written by supernet_eval"):
        main(fake + ["--codes", CODES[0], "--output", os.path.join(fake[1], name)])
    for file, text in files.items():
        assert content(os.path.join(fake[1], file)).decode() == text


def test_before_any_evaluation_best_is_the_last_and_it_says_so(unevaluated_run, capsys):
    assert main(unevaluated_run.flags + ["--codes", CODES[0]]) == 0
    assert "checkpoint best, which is the last: nothing is evaluated yet: epoch 0, step 0" in capsys.readouterr().out


def test_codes_from_a_file_and_in_either_spelling(fake, tmp_path):
    codes, output = str(tmp_path / "codes.txt"), str(tmp_path / "scores.csv")
    with open(codes, "wb") as handle:  # as a spreadsheet may save it: with a byte order mark, and lines of Windows
        handle.write(b"\xef\xbb\xbf# chosen by hand\r\n0,0,0,0,0,1,0,0,0  # baseline\r\n\r\n012001210\r\n000001000\r\n")
    assert main(fake + ["--codes_file", codes, "--output", output]) == 0
    assert list(table_of(output)) == CODES[:2]
    assert main(fake + ["--codes", "2,2,2,2,2,2,2,2,2", "--output", output]) == 0
    assert list(table_of(output)) == CODES[:3]


def test_keys_that_are_not_given_come_from_the_checkpoint_and_given_ones_must_agree(tiny_run, tmp_path):
    """A configuration file that agrees with the run's training is accepted; the error for another one names it."""
    path = str(tmp_path / "own.yaml")
    for channels, agrees in ((2, True), (4, False)):
        with open(path, "w") as handle:
            handle.write(f"network:\n  init_channels: {channels}\ndata:\n  input_height: 64\n")
        flags = tiny_run.flags + ["--config", path, "--codes", CODES[0]]
        if agrees:
            assert main(flags) == 0
        else:
            with pytest.raises(UserError, match="network.init_channels was 2, is 4"):
                main(flags)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--codes", "000001003"], "value must be in"),
        (["--codes", ""], "length=9 required"),
        (["--codes_file", "/nowhere/codes.txt"], "cannot read"),
        (["--random", "19684"], "at most 19683"),
        (["--random_seed", "3"], "goes with --random"),
        (["--random", "3", "--random_seed", "-3"], "--random_seed"),
        (["--codes", "000001000", "--output", "scores.txt"], "ends in .csv"),
    ],
)
def test_wrong_arguments_are_one_line(fake, arguments, message):
    with pytest.raises(UserError, match=message):
        main(fake + arguments)


def test_help_is_quick_and_says_what_eval_only_does():
    program = (
        "import sys\nfrom edgeflownas.nas.supernet_eval import main\ntry:\n    main(['--help'])\n"
        "except SystemExit:\n    sys.exit('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 0
    assert "only evaluates, with or without it" in " ".join(done.stdout.split())


# ---- the table alone, without a supernet


def result(code, epe, parameters=1000, bn=8):
    """Its EPE per sample is `epe` and as much above as below, more for some codes than for others."""
    samples = (epe + np.array([-0.1, 0.0, 0.1]) * (int(code) % 7)).astype(np.float32)
    return api.Result(code, epe, 8.5, parameters, 2000, bn, 3, samples)


def test_table_ranks_what_it_writes(tmp_path):
    path = str(tmp_path / "t.csv")
    with ScoreTable(path, BELONGS_TO, SPACE) as table:
        table.add([result(CODES[0], 2.5)])
        table.add([result(CODES[1], 1.5), result(CODES[2], 2.0)])
        assert [row.arch_code for row in table.ranked()] == [CODES[1], CODES[2], CODES[0]]
        assert CODES[1] in table and CODES[3] not in table
    with ScoreTable(path, BELONGS_TO, SPACE) as again:
        assert again.rows == table.rows
    with open(str(tmp_path / "t.json")) as handle:
        assert json.load(handle) == BELONGS_TO


def test_two_processes_cannot_write_one_table(tmp_path):
    path = str(tmp_path / "t.csv")
    with ScoreTable(path, BELONGS_TO, SPACE):
        with pytest.raises(UserError, match="being written by another process"):
            ScoreTable(path, BELONGS_TO, SPACE).__enter__()
    with ScoreTable(path, BELONGS_TO, SPACE):
        pass


@pytest.mark.parametrize("column, value", [("epe", "x"), ("arch_code", "00000100"), ("rank", "1.0")])
def test_a_damaged_table_is_refused(tmp_path, column, value):
    path = str(tmp_path / "t.csv")
    with ScoreTable(path, BELONGS_TO, SPACE) as table:
        table.add([result(CODES[0], 2.5)])
    cells = content(path).decode().splitlines()[1].split(",")
    cells[ScoreRow._fields.index(column)] = value
    with open(path, "w") as handle:
        handle.write(",".join(ScoreRow._fields) + "\n" + ",".join(cells) + "\n")
    with pytest.raises(UserError, match="damaged"):
        ScoreTable(path, BELONGS_TO, SPACE).__enter__()


def test_a_table_of_the_first_version_is_continued_with_its_own_header(tmp_path):
    path = str(tmp_path / "t.csv")
    old = "arch_code,epe,rank,parameters,multiply_adds,zero_flow_epe,bn_recal_batches,num_samples\n"
    with open(path, "w") as handle:
        handle.write(old + CODES[0] + ",2.5,1,1000,2000,8.5,8,3\n")
    (tmp_path / "t.json").write_text('{"a": 1}')
    with ScoreTable(path, BELONGS_TO, SPACE) as table:
        assert table.rows[0].space == SPACE.label
        table.add([result(CODES[1], 1.5)])
    assert content(path).decode() == (
        old + CODES[0] + ",2.5,2,1000,2000,8.5,8,3\n" + CODES[1] + ",1.5,1,1000,2000,8.5,8,3\n"
    )


def test_codes_of_another_space_are_not_mixed_in(tmp_path):
    path = str(tmp_path / "t.csv")
    with ScoreTable(path, BELONGS_TO, SPACE) as table:
        table.add([result(CODES[0], 2.5)])
    other = get_space("edgeflownet_v2")
    with pytest.raises(UserError, match="edgeflownet_v1:.* expected edgeflownet_v2:"):
        ScoreTable(path, dict(BELONGS_TO, space=other.identity()), other).__enter__()
    text = content(path).decode()
    with open(path, "w") as handle:
        handle.write(text.replace(SPACE.label, other.label))
    with pytest.raises(UserError, match="damaged: codes of the search space edgeflownet_v2"):
        ScoreTable(path, BELONGS_TO, SPACE).__enter__()


def test_a_failed_write_keeps_the_table(tmp_path, monkeypatch):
    path = str(tmp_path / "t.csv")
    with ScoreTable(path, BELONGS_TO, SPACE) as table:
        table.add([result(CODES[0], 2.5)])
        before = content(path)

        def full(target, text):
            raise UserError("disk full")

        monkeypatch.setattr(score_table, "atomic_write_text", full)
        with pytest.raises(UserError, match="disk full"):
            table.add([result(CODES[1], 1.5)])
    assert content(path) == before


def test_the_samples_stand_beside_their_rows_and_what_has_no_row_is_cut_off(tmp_path):
    path, results = str(tmp_path / "t.csv"), [result(code, 1.5 + i) for i, code in enumerate(CODES)]
    with ScoreTable(path, BELONGS_TO, SPACE) as table:
        table.add(results[:2])
        table.add(results[2:3])
    with open(str(tmp_path / "t.epe"), "ab") as handle:
        handle.write(b"killed ahead of the row")
    with ScoreTable(path, BELONGS_TO, SPACE) as table:
        table.add(results[3:])
        assert np.array_equal(table.samples(), [one.epe_samples for one in results])


@pytest.mark.parametrize("damage", [lambda raw: raw[:-4], lambda raw: raw[:8] + b"\0\0\x80@" + raw[12:]])
def test_damaged_samples_are_named(tmp_path, damage):
    path, samples = str(tmp_path / "t.csv"), str(tmp_path / "t.epe")
    with ScoreTable(path, BELONGS_TO, SPACE) as table:
        table.add([result(code, 2.0) for code in CODES])
    raw = content(samples)
    with open(samples, "wb") as handle:
        handle.write(damage(raw))
    with pytest.raises(UserError, match="t.epe: damaged"), ScoreTable(path, BELONGS_TO, SPACE):
        pass


def test_a_table_that_was_begun_without_samples_goes_on_without(fake, tmp_path, capsys):
    flags = fake + ["--output", str(tmp_path / "t.csv"), "--codes"]
    assert main(flags + [",".join(CODES[:2])]) == 0
    os.unlink(str(tmp_path / "t.epe"))
    capsys.readouterr()
    assert main(flags + [",".join(CODES)]) == 0
    out = capsys.readouterr().out
    assert not os.path.exists(str(tmp_path / "t.epe")) and out.count("  unknown\n") == len(CODES) and "~" not in out


def test_a_lead_inside_its_error_is_said_to_be_so():
    def row(code, epe):
        return ScoreRow(code, epe, 0, 10, 0, 9.0, 8, 4, SPACE.label)

    samples = {"a": np.array([3.0, 4, 5, 6]), "b": np.array([2.0, 3.1, 4, 5]), "c": np.array([1.0, 4, 2, 6.5])}
    best = [row(code, values.mean()) for code, values in samples.items()]
    assert unsure(best, samples) == ["c"]  # t of b behind a: -41; of c behind b: -0.2
    assert unsure(best, {code: values[:1] for code, values in samples.items()}) == ["b", "c"]


def test_the_ranking_and_the_fronts_show_the_paired_errors(fake, tmp_path, capsys):
    assert main(fake + ["--codes", ",".join(CODES), "--output", str(tmp_path / "a.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    ranked = [line for line in lines if re.match(r" +\d  \d{9} ", line)]
    assert len(ranked) == 5 and ranked[0].endswith("  best")
    for line in ranked[1:]:
        code, epe = line.split()[1:3]
        best, best_epe = ranked[0].split()[1:3]
        wanted = scipy.stats.sem(result(code, float(epe)).epe_samples - result(best, float(best_epe)).epe_samples)
        gap, error = re.search(r"~([0-9.]+) \+- ~([0-9.]+)", line).groups()
        assert float(gap) == pytest.approx(float(epe) - float(best_epe), abs=2e-4)
        assert float(error) == pytest.approx(wanted, abs=2e-4)


def test_the_front_is_what_no_other_row_beats():
    def row(code, epe, parameters):
        return ScoreRow(code, epe, 0, parameters, 0, 9.0, 8, 3, SPACE.label)

    rows = [
        row("a", 3.0, 10),
        row("b", 2.0, 20),
        row("c", 2.5, 25),
        row("d", 1.0, 30),
        row("e", 2.0, 20),
        row("f", 3.5, 10),
    ]
    assert [one.arch_code for one in front(rows, COSTS["parameters"])] == ["a", "b", "d"]


@pytest.mark.parametrize(
    "largest, unit",
    [(2.5e9, (1e9, "billions")), (46_700, (1e3, "thousands")), (1e6, (1e6, "millions")), (12, (1e3, "thousands"))],
)
def test_costs_are_drawn_in_a_readable_unit(largest, unit):
    assert unit_of(largest) == unit


@pytest.mark.parametrize("zero_flow, said", [(1.6, True), (8.5, False)])
def test_subnets_no_better_than_no_motion_are_said_to_be_so(fake, monkeypatch, tmp_path, capsys, zero_flow, said):
    real = FakeSupernet.stream

    def stream(self, *arguments):
        for results in real(self, *arguments):
            yield [result._replace(zero_flow_epe=zero_flow) for result in results]

    monkeypatch.setattr(FakeSupernet, "stream", stream)
    assert main(fake + ["--codes", ",".join(CODES), "--output", str(tmp_path / "a.csv")]) == 0
    out = capsys.readouterr().out
    assert ("these subnets are no better than predicting no motion" in out) == said
    assert ("their order and the fronts below mean nothing" in out) == said


@pytest.mark.parametrize("word", [".", "train_manifest.json"])
def test_the_run_can_be_named_by_folder_or_manifest(fake, monkeypatch, tmp_path, word):
    folder = fake[1]
    (tmp_path / "run" / "train_manifest.json").write_text("{}")
    assert main([os.path.join(folder, word), "--gpu_device", "-1", "--codes", CODES[0]]) == 0
    assert os.path.exists(os.path.join(folder, "subnet_scores.csv"))
