"""Runs of edgeflownet_v2 and of one code alone, from the command line to the report."""

import csv
import json
import os

import numpy as np
import pytest

from edgeflownas.nas.arch_codec import parse
from edgeflownas.nas.cost import subnet_cost, supernet_parameters
from edgeflownas.network.layer_table import layer_table
from tests.nas.nas_spaces import V1, V2
from tests.spaces.commands import command, good, train

CODE = "000022222"


def read(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as handle:
        return json.load(handle) if name.endswith(".json") else handle.read()


def rows(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def evaluate(folder, *words):
    flags = ["--output_dir", folder, "--gpu_device", "-1", "--set", "runtime.deterministic=true"]
    return good(command("nas.supernet_eval", *flags, *words))


def test_v2_trains_resumes_and_its_manifest_is_accepted(v2_run):
    manifest = read(v2_run, "train_manifest.json")
    assert (manifest["status"], manifest["global_step"], len(manifest["resumes"])) == ("completed", 6, 1)
    assert manifest["search_space"] == V2.as_record()
    assert manifest["parameter_count"] == supernet_parameters(layer_table(2, V2))
    done = good(command("nas.check_manifest", "--path", os.path.join(v2_run, "train_manifest.json")))
    assert "edgeflownet_v2" in done.stdout or "11 choice blocks" in done.stdout


def test_v2_scores_its_pool_of_twelve_and_counts_fairly(v2_run):
    pool = read(v2_run, "eval_pool_12.json")
    assert pool["space"]["digest"] == V2.digest and len(pool["codes"]) == 12
    per_arch = rows(v2_run, "eval_epe_per_arch.csv")
    assert [row["arch_code"] for row in per_arch[:12]] == [code.replace(",", "") for code in pool["codes"]]
    assert len(per_arch) == 24 and {row["fairness_gap"] for row in rows(v2_run, "eval_epe_history.csv")} == {"0"}
    counts = read(v2_run, "fairness_counts.json")["counts"]
    want = {block.name: [36 // len(block.options)] * len(block.options) for block in V2.blocks}
    assert counts == want  # 6 steps of 6 paths


def test_v2_reports_and_evaluates(v2_run, tmp_path):
    assert "edgeflownet_v2" in read(v2_run, "supernet_training_report.md")
    output = str(tmp_path / "scores.csv")
    evaluate(v2_run, "--codes", "00000000000,22222211111", "--output", output)
    found = {row["arch_code"]: row for row in rows(str(tmp_path), "scores.csv")}
    assert list(found) == ["00000000000", "22222211111"]
    for code, row in found.items():
        cost = subnet_cost(code, layer_table(2, V2), V2, 64, 67)
        assert (int(row["parameters"]), int(row["multiply_adds"])) == cost
    assert read(str(tmp_path), "scores.json")["space"] == V2.identity()


def test_v2_trains_the_same_one_path_at_a_time(data, v2_run, tmp_path):
    folder = str(tmp_path / "run")
    settings = {"network__space": "edgeflownet_v2", "train__cycle_mode": "sequential", "eval__pool_size": 12}
    train(data, folder, "--max_steps", "2", **settings)
    fused, sequential = [rows(run, "train_steps.csv")[:2] for run in (v2_run, folder)]
    assert len(sequential) == 2
    for one, other in zip(fused, sequential):
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=2e-3)
        assert float(one["grad_norm_before"]) == pytest.approx(float(other["grad_norm_before"]), rel=2e-2)
    assert read(folder, "eval_pool_12.json") == read(v2_run, "eval_pool_12.json")


# ---- one code alone


def test_one_code_alone_trains_and_its_manifest_is_accepted(alone_run):
    manifest = read(alone_run, "train_manifest.json")
    assert (manifest["status"], manifest["config"]["network"]["arch_code"]) == ("completed", CODE)
    assert manifest["parameter_count"] == subnet_cost(CODE, layer_table(2, V1), V1, 64, 67).parameters
    assert manifest["search_space"] == V1.as_record(), "narrowing does not change what a code means"
    good(command("nas.check_manifest", "--path", os.path.join(alone_run, "train_manifest.json")))


def test_its_tables_show_the_full_code_and_fairness_is_trivial(alone_run):
    assert {row["arch_code"] for row in rows(alone_run, "eval_epe_per_arch.csv")} == {CODE}
    assert {row["fairness_gap"] for row in rows(alone_run, "eval_epe_history.csv")} == {"0"}
    assert read(alone_run, "fairness_counts.json")["counts"] == {name: [6] for name in V1.names}
    assert read(alone_run, "eval_pool_1.json")["codes"] == ["0,0,0,0,2,2,2,2,2"]


def test_it_sees_the_batches_of_the_supernet_of_its_seeds(data, tmp_path):
    """Data order and crops do not depend on what is trained."""
    batches = []
    for name, settings in (("whole", {}), ("alone", {"network__arch_code": CODE, "eval__pool_size": 1})):
        folder = str(tmp_path / name)
        train(data, folder, "--max_steps", "2", runtime__debug_trace="true", **settings)
        lines = read(folder, "debug_trace.jsonl").splitlines()
        batches.append([json.loads(line)["batch"] for line in lines if json.loads(line)["event"] == "cycle"])
    assert len(batches[0]) == 2 and batches[0] == batches[1]


def test_it_is_scored_and_no_other_code_is(alone_run, tmp_path):
    output = str(tmp_path / "scores.csv")
    evaluate(alone_run, "--output", output)
    assert [row["arch_code"] for row in rows(str(tmp_path), "scores.csv")] == [CODE]
    done = command("nas.supernet_eval", "--output_dir", alone_run, "--codes", "000000000", "--output", output)
    assert done.returncode == 2 and "value must be in {2}, position 4 (block H0Out)" in done.stderr


def test_its_checkpoint_restores_by_name_into_the_supernet(alone_run):
    """The same variable names: what stand-alone training, the oracle of a subnet and the hand-over are made of."""
    from edgeflownas.network.MultiScaleResNet_supernet import SupernetGraph
    from edgeflownas.tfcompat import tf

    reader = tf.train.load_checkpoint(os.path.join(alone_run, "checkpoints", "supernet_last.ckpt"))
    stored = reader.get_variable_to_shape_map()
    with tf.Graph().as_default():
        whole = {variable.op.name: variable.shape.as_list() for variable in SupernetGraph(2, V1).variables.all()}
    with tf.Graph().as_default():
        alone = SupernetGraph(2, V1.narrowed(parse(CODE, V1))).variables.all()
    for variable in alone:
        assert stored[variable.op.name] == whole[variable.op.name]
        assert np.isfinite(reader.get_tensor(variable.op.name)).all()
    assert not [name for name in stored if "/deep2/" in name or "/k7/" in name]
