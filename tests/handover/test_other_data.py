"""Scores on another data set: recorded as such, and in no table of the run's own."""

import csv
import json
import os

import pytest

from edgeflownas.data.synthetic import make_dataset
from edgeflownas.errors import UserError
from edgeflownas.scoring.supernet_eval import main
from gates import oracles
from tests.handover import oracle


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("other") / "fc2")
    make_dataset(folder, 3, 2, 5, height=70, width=73)
    return folder


def rows(path):
    with open(str(path), encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_another_set_has_a_table_of_its_own(tiny_run, other, capsys):
    words = [tiny_run.folder, "--codes", "000001000", "--gpu_device", "-1"]
    assert main(words) == 0
    assert (
        main(words + ["--other_data", "--base_path", other, "--eval_batch_size", "1", "--bn_recal_batches", "3"]) == 0
    )
    own = rows(os.path.join(tiny_run.folder, "subnet_scores.csv"))
    (name,) = [name for name in os.listdir(tiny_run.folder) if "_other_" in name and name.endswith(".csv")]
    (row,) = rows(os.path.join(tiny_run.folder, name))
    assert len(own) == 1 and own[0]["epe"] != row["epe"]
    with open(os.path.join(tiny_run.folder, name[:-4] + ".json"), encoding="utf-8") as handle:
        dataset = json.load(handle)["dataset"]
    assert dataset["other_data"] == other and name == f"subnet_scores_other_{dataset['fingerprint'][:12]}.csv"
    values, code = oracle.tensors(tiny_run.folder), [0, 0, 0, 0, 0, 1, 0, 0, 0]
    statistics = oracle.reestimated(values, code, other, [f"train/{number:07d}" for number in range(3)])
    images, truth = oracle.crops(other, ["train/0000003", "train/0000004"])
    assert float(row["epe"]) == pytest.approx(
        oracles.epe(oracle.flow(values, code, statistics, images), truth), rel=1e-4
    )
    assert f"on other data than the run's: {other}" in capsys.readouterr().out


def test_the_runs_own_table_takes_no_row_of_another_set(tiny_run, other):
    words = [tiny_run.folder, "--codes", "000001000", "--gpu_device", "-1"]
    assert main(words) == 0
    path = os.path.join(tiny_run.folder, "subnet_scores.csv")
    with pytest.raises(UserError, match="belong to something else: dataset .* there.*other_data"):
        main(words + ["--other_data", "--base_path", other, "--output", path])
    assert len(rows(path)) == 1


def test_another_set_must_be_named(tiny_run, other):
    words = [tiny_run.folder, "--codes", "000001000", "--gpu_device", "-1"]
    with pytest.raises(UserError, match="--other_data goes with --base_path"):
        main(words + ["--other_data"])
    with pytest.raises(UserError, match="or score it on these with --other_data"):
        main(words + ["--base_path", other])
