"""One subnet as a run of its own: its weights, its statistics, its outputs, and what can be done with it."""

import csv
import json
import os

import numpy as np
import pytest

from edgeflownas.api import Supernet
from edgeflownas.checks.check_manifest import run_checks
from edgeflownas.errors import RunFailed, UserError
from edgeflownas.handover import extract as extraction
from edgeflownas.nas.arch_codec import parse, to_digits
from edgeflownas.nas.random_codes import random_codes
from edgeflownas.nas.search_space import get_space
from gates import oracles
from tests.handover import oracle
from tests.spaces.commands import command, good

NUMBER = 5  # codes of each space
TRAINING = [f"train/{number:07d}" for number in range(7)]
VALIDATION = [f"train/{number:07d}" for number in range(7, 10)]


def manifest(folder):
    with open(os.path.join(folder, "train_manifest.json"), encoding="utf-8") as handle:
        return json.load(handle)


@pytest.fixture(scope="module")
def supernet(whole_run):
    with Supernet.load(whole_run.folder) as loaded:
        yield loaded


def test_this_folder_is_tested_in_one_process(request):
    """pytest-xdist ignores a group without a word; then each process makes the runs of this folder."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("only with --dist loadgroup")
    assert request.node.nodeid.endswith("@handover")


@pytest.mark.parametrize("number", range(NUMBER))
def test_random_codes_equal_the_supernets_path(whole_run, supernet, number, tmp_path):
    """All three outputs, of the files on the disk, also against NumPy."""
    space = get_space(whole_run.config.network.space)
    code = to_digits(random_codes(5, NUMBER, space)[number], space)
    parent = extraction.extract(supernet, whole_run.folder, code, str(tmp_path / "out"), "best", "test")
    assert len(parent.difference) == 3 and all(np.array(parent.difference) <= parent.tolerance)
    images = oracle.crops(whole_run.data, VALIDATION).images
    with Supernet.load(str(tmp_path / "out"), stored_statistics=True, with_data=False) as alone:
        outputs = alone.outputs(code, images)
    values = oracle.tensors(str(tmp_path / "out"))
    network = oracle.Network(values, code, oracle.stored_statistics(values))
    for found, supernets, want in zip(outputs, supernet.outputs(code, images), network.forward(images)):
        oracle.close(found, supernets, 2e-5)
        oracle.close(found, want)


def test_it_holds_the_weights_of_its_code_alone_and_its_own_statistics(whole_run, extracted):
    folder, code = extracted
    whole, alone = oracle.tensors(whole_run.folder), oracle.tensors(folder)
    trained = [name for name in alone if name.endswith(("/kernel", "/gamma", "/beta"))]
    for name in trained:
        np.testing.assert_array_equal(alone[name], whole[name])
    used = oracle.Network(whole, code)
    used.forward(oracle.crops(whole_run.data, TRAINING[:1]).images)
    statistics = oracle.stored_statistics(alone)
    assert sorted(statistics) == sorted(used.noted), "the batch norms on its path, and no others"
    for name, want in oracle.reestimated(whole, code, whole_run.data, TRAINING).items():
        for found, expected in zip(statistics[name], want):
            oracle.close(found, expected)


def test_its_manifest_names_what_it_was_taken_from(whole_run, extracted):
    folder, code = extracted
    generation, found = whole_run.store.load("best"), manifest(folder)
    (parent,) = found["parents"]
    assert (parent["run"], parent["checkpoint"], parent["arch_code"]) == (whole_run.folder, "best", code)
    assert parent["generation"] == generation.name
    assert parent["sha256"] == {name: file["sha256"] for name, file in generation.files.items()}
    assert parent["space"] == {key: found["search_space"][key] for key in ("name", "digest")}
    assert (parent["epoch"], parent["global_step"], parent["bn_recal_batches"]) == (1, 1, 7)
    assert parent["samples"] == VALIDATION[:1] and found["config"]["network"]["arch_code"] == code
    assert (found["status"], found["global_step"], found["initial_weights"]) == ("interrupted", 0, generation.path)


def test_everything_in_it_agrees(extracted):
    outcomes = run_checks(os.path.join(extracted[0], "train_manifest.json"))
    assert [outcome for outcome in outcomes if not outcome.passed] == []


def test_a_subnet_that_differs_is_not_written(whole_run, supernet, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "_store", lambda trainer, statistics: None)
    code = "0" * len(get_space(whole_run.config.network.space).blocks)
    with pytest.raises(RunFailed, match="is not the supernet's"):
        extraction.extract(supernet, whole_run.folder, code, str(tmp_path / "out"), "best", "test")
    assert os.listdir(str(tmp_path)) == []


def test_what_stands_in_its_place_is_not_touched(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (str(tmp_path), str(tmp_path / "file")):
        with pytest.raises(UserError, match="expected a new folder"):
            extraction.main(["nowhere", "000000000", out])


def test_eval_by_stored_and_by_reestimated_statistics(whole_run, extracted, capsys):
    """Both are in the record, each in a table of its own; both equal the oracle."""
    from edgeflownas.scoring.supernet_eval import main

    folder, code = extracted
    values, (images, truth) = oracle.tensors(folder), oracle.crops(whole_run.data, VALIDATION)
    want = oracles.epe(oracle.flow(values, code, oracle.stored_statistics(values), images), truth)
    for name, words, batches in (("", [], 7), ("_stored", ["--statistics", "stored"], 0)):
        assert main([folder, "--gpu_device", "-1"] + words) == 0
        with open(os.path.join(folder, f"subnet_scores{name}.csv"), encoding="utf-8", newline="") as handle:
            (row,) = list(csv.DictReader(handle))
        with open(os.path.join(folder, f"subnet_scores{name}.json"), encoding="utf-8") as handle:
            assert json.load(handle)["settings"]["bn_recal_batches"] == batches
        assert (row["arch_code"], int(row["bn_recal_batches"])) == (code, batches)
        assert float(row["epe"]) == pytest.approx(want, rel=1e-4), "nothing was trained since"
    assert "stored BN statistics" in capsys.readouterr().out


def test_a_supernet_has_no_stored_statistics_of_one_subnet(whole_run):
    with pytest.raises(UserError, match="extract the subnet first"):
        Supernet.load(whole_run.folder, stored_statistics=True)


def test_it_is_trained_on_for_two_epochs_and_resumed(whole_run, extracted, tmp_path):
    """From the extracted weights: the first step's loss is the oracle's."""
    from pathlib import Path

    from gates import dataset

    folder, code = extracted
    config = ["--config", os.path.join(folder, "config.yaml"), "--experiment_name", "on", "--debug_trace"]
    config += ["--set", "runtime.output_dir=" + os.path.dirname(folder)]
    start = ["--load_checkpoint", "--resume_experiment_name", os.path.basename(folder), "--max_epochs", "1"]
    good(command("train_supernet", *config, *start))
    good(command("train_supernet", *config, "--resume"))
    on = os.path.join(os.path.dirname(folder), "on")
    found = manifest(on)
    assert (found["status"], found["epoch"], len(found["resumes"])) == ("completed", 2, 1)
    assert os.path.dirname(os.path.dirname(os.path.dirname(found["initial_weights"]))) == folder
    with open(os.path.join(on, "debug_trace.jsonl"), encoding="utf-8") as handle:
        first = next(event for event in map(json.loads, handle) if event["event"] == "cycle")
    images, flow = dataset.read_crops(Path(whole_run.data), first["batch"], 64, 67)
    outputs = oracle.Network(oracle.tensors(folder), code).forward(images)
    with open(os.path.join(on, "train_steps.csv"), encoding="utf-8", newline="") as handle:
        row = next(csv.DictReader(handle))
    assert float(row["loss"]) == pytest.approx(oracles.loss(outputs, flow), rel=1e-4)
    assert parse(code, get_space(whole_run.config.network.space)) == tuple(first["codes"][0])
    outcomes = run_checks(os.path.join(on, "train_manifest.json"))
    assert [outcome for outcome in outcomes if not outcome.passed] == []
