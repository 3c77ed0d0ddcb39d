"""TFLite files of an extracted subnet: what they hold, what they compute, and what the record says of them."""

import hashlib
import json
import os
import stat

import numpy as np
import pytest

from edgeflownas.api import Supernet
from edgeflownas.errors import RunFailed, UserError
from edgeflownas.handover import export, vela
from edgeflownas.handover.measure import measure
from edgeflownas.nas.cost import subnet_cost
from edgeflownas.nas.search_space import get_space
from edgeflownas.network.layer_table import OUTPUTS, layer_table
from edgeflownas.tfcompat import tf
from gates import oracles
from tests.handover import oracle

FIRST = tf.__version__.startswith("1.")
on_tf2 = pytest.mark.skipif(FIRST, reason="export is for TensorFlow 2; that 1.15 says so is tested below")
VALIDATION = [f"train/{number:07d}" for number in range(7, 10)]


@pytest.fixture(scope="module")
def exported(extracted):
    """(run folder, code, record) after an export on four samples."""
    folder, code = extracted
    assert export.main([folder, "--int8", "--calibration", "4", "--gpu_device", "-1"]) == 0
    with open(os.path.join(folder, "exported", "export.json"), encoding="utf-8") as handle:
        return folder, code, json.load(handle)


def interpreter(folder, name):
    found = tf.lite.Interpreter(os.path.join(folder, "exported", name))
    found.allocate_tensors()
    return found


def run(folder, name, images):
    """Flow of each image, by TensorFlow's interpreter and the numbers that it reads from the file."""
    model, flows = interpreter(folder, name), []
    (end,), (out,) = model.get_input_details(), model.get_output_details()
    for image in images:
        if end["dtype"] == np.int8:  # what a microcontroller does with a camera's bytes
            assert end["quantization"] == (pytest.approx(2 / 255), -1)
            values = image[None].astype(np.int64) - 128
        else:
            values = image[None] / 127.5 - 1.0
        model.set_tensor(end["index"], values.astype(end["dtype"]))
        model.invoke()
        scale, zero = out["quantization"] if out["dtype"] == np.int8 else (1.0, 0)
        flows.append((model.get_tensor(out["index"])[0].astype(np.float64) - zero) * scale)
    return np.stack(flows)


@on_tf2
def test_the_files_compute_the_subnet_and_the_record_has_their_epe(exported, whole_run):
    folder, code, record = exported
    images, truth = oracle.crops(whole_run.data, VALIDATION)
    values = oracle.tensors(folder)
    want = oracle.flow(values, code, oracle.stored_statistics(values), images)
    assert record["epe"] == pytest.approx(oracles.epe(want, truth), rel=1e-4)
    assert record["zero_flow_epe"] == pytest.approx(oracles.epe(np.zeros_like(truth), truth), rel=1e-6)
    assert record["num_samples"] == 3 and record["largest_difference"] <= record["tolerance"] == 1e-4
    for key, name, tolerance in (("float_model", "float.tflite", 1e-4), ("int8_model", "int8.tflite", 0.05)):
        flow = run(folder, name, images)
        assert np.abs(flow - want).mean() < tolerance * np.abs(want).max()
        assert record[key]["epe"] == pytest.approx(oracles.epe(flow, truth), rel=1e-4)
    assert record["int8_model"]["epe"] == pytest.approx(record["epe"], rel=0.05)


@on_tf2
def test_nothing_in_the_int8_file_is_float_and_operators_are_those_of_the_list(exported):
    folder, _, record = exported
    for key, name, types in (
        ("float_model", "float.tflite", {np.float32, np.int32}),
        ("int8_model", "int8.tflite", {np.int8, np.int32}),
    ):
        model = interpreter(folder, name)
        assert {details["dtype"] for details in model.get_tensor_details() if details["name"]} <= types
        names = [op["op_name"] for op in model._get_ops_details() if op["op_name"] != "DELEGATE"]
        assert record[key]["operators"] == {name: names.count(name) for name in sorted(set(names))}
        assert set(names) <= {"ADD", "CONV_2D", "RESIZE_BILINEAR", "SLICE"}
    assert (record["int8_model"]["input"]["type"], record["int8_model"]["output"]["type"]) == ("INT8", "INT8")
    assert record["int8_model"]["input"]["shape"] == [1, 64, 67, 6]
    assert record["int8_model"]["output"]["shape"] == [1, 64, 67, 2]


@on_tf2
def test_costs_are_those_of_the_layer_table(exported):
    """Flash: a byte per weight, four per bias, a few for sizes of resizing and cutting. SRAM: the largest tensor."""
    _, code, record = exported
    space = get_space(record["space"]["name"])
    layers = layer_table(2, space)
    chosen = dict(zip(space.names, map(int, code)))
    convolutions = [(layer, conv) for layer in layers for conv in layer.convolutions(chosen.get(layer.name, 0))]
    outputs = [2 if layer.name in OUTPUTS else conv.outputs for layer, conv in convolutions]  # no uncertainty
    weights = [conv.kernel**2 * conv.inputs * number for (_, conv), number in zip(convolutions, outputs)]
    assert record["int8_model"]["operators"]["CONV_2D"] == len(convolutions)
    for key, size in (("int8_model", 1), ("float_model", 4)):
        least = size * sum(weights) + 4 * sum(outputs)
        assert least <= record[key]["weights"] <= least + 500
        assert record[key]["largest_activation"] == size * 64 * 67 * 6
    cost = subnet_cost(code, layers, space, 64, 67)
    assert (record["parameters"], record["multiply_adds"]) == cost


@on_tf2
def test_calibration_samples_are_listed_with_digests_and_have_a_stream_of_their_own(exported, whole_run):
    _, _, record = exported
    order = np.random.RandomState([42, 13]).permutation(7)[:4]
    assert [sample["name"] for sample in record["calibration"]] == [f"train/{number:07d}" for number in order]
    for sample in record["calibration"]:
        for key, suffix in (("frame0", "-img_0.png"), ("frame1", "-img_1.png")):
            with open(os.path.join(whole_run.data, sample["name"] + suffix), "rb") as handle:
                assert sample[key] == hashlib.sha256(handle.read()).hexdigest()


@on_tf2
def test_the_record_names_checkpoint_and_files(exported):
    folder, code, record = exported
    assert record["arch_code"] == code and record["vela"] is None
    for key in ("float_model", "int8_model"):
        with open(os.path.join(folder, "exported", record[key]["file"]), "rb") as handle:
            content = handle.read()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (record[key]["size"], record[key]["sha256"])
    assert sorted(os.listdir(os.path.join(folder, "exported"))) == ["export.json", "float.tflite", "int8.tflite"]
    assert [name for name in os.listdir(folder) if "tmp" in name] == []


@on_tf2
def test_a_file_with_another_operator_or_a_float_is_refused(exported, monkeypatch):
    from edgeflownas.handover import tflite

    folder, _, _ = exported
    with open(os.path.join(folder, "exported", "float.tflite"), "rb") as handle:
        content = handle.read()
    with pytest.raises(RunFailed, match="its tensor types are FLOAT32, INT32, want no others than INT32, INT8"):
        tflite.describe("x", content, 0.0, tflite.INT8_TYPES)
    monkeypatch.setattr(tflite, "OPERATORS", ("ADD", "CONV_2D", "SLICE"))
    with pytest.raises(RunFailed, match="its operators are .*RESIZE_BILINEAR.*, want no others than ADD"):
        tflite.describe("x", content, 0.0, tflite.FLOAT_TYPES)


@on_tf2
def test_a_float_file_that_is_not_tensorflow_is_not_written(extracted, monkeypatch, tmp_path):
    from edgeflownas.handover import tflite

    folder, _ = extracted
    before = sorted(os.listdir(folder))
    monkeypatch.setattr(tflite, "scaled", lambda images: images.astype(np.float32) / 127.0 - 1.0)
    with pytest.raises(RunFailed, match="float.tflite differs from TensorFlow by"):
        export.main([folder, "--gpu_device", "-1"])
    assert sorted(os.listdir(folder)) == before


class Wrong:
    """A runner that gives TensorFlow's flow, but for one pixel of one sample."""

    def __init__(self, supernet, apart):
        self.supernet, self.apart = supernet, apart

    def flow(self, images):
        flow = self.supernet.flow(self.supernet.space.arch_code, images).copy()
        flow[-1, 1, 2, 0] += self.apart
        return flow


def test_the_difference_is_the_largest_of_any_pixel(extracted):
    with Supernet.load(extracted[0], stored_statistics=True) as supernet:
        found = measure(supernet, {"right": Wrong(supernet, 0.0), "wrong": Wrong(supernet, -0.25)})
    assert found.difference["right"] == 0.0
    assert found.difference["wrong"] == pytest.approx(0.25, rel=1e-4)


@on_tf2
def test_a_float_file_that_is_wrong_at_one_pixel_is_not_written(extracted, monkeypatch):
    """Wrong by 0.01 px: more than the tolerance, but on average over the pixels far less."""
    from edgeflownas.handover import tflite

    class OnePixel(tflite.Runner):
        def flow(self, images):
            flow = super().flow(images)
            flow[-1, 1, 2, 0] += 0.01
            return flow

    folder, _ = extracted
    before = sorted(os.listdir(folder))
    monkeypatch.setattr(tflite, "Runner", OnePixel)
    with pytest.raises(RunFailed, match=r"float.tflite differs from TensorFlow by (1\.0e-02|9\.9e-03) px"):
        export.main([folder, "--gpu_device", "-1"])
    assert sorted(os.listdir(folder)) == before


@pytest.mark.skipif(not FIRST, reason="for TensorFlow 1.15")
def test_tensorflow_1_says_where(extracted):
    with pytest.raises(UserError, match="export needs TensorFlow 2, found 1.15.*extra tf2.*reads this run folder"):
        export.main([extracted[0], "--int8", "--gpu_device", "-1"])


def test_a_supernet_is_not_exported(whole_run):
    with pytest.raises(UserError, match="is a supernet; take a subnet out of it first: edgeflownas extract"):
        export.main([whole_run.folder, "--gpu_device", "-1"])


# ---- Vela


PROGRAM = """#!/bin/sh
if [ "$1" = --version ]; then echo 9.8.7; exit; fi
[ "$NO" ] && { echo "Error: no such accelerator"; exit 1; }
echo "$@" >> "$(dirname "$0")/words"
cat > "$3/x_summary_y.csv" <<END
system_config,memory_mode,core_clock,inference_time,sram_memory_used,on_chip_flash_memory_used,off_chip_flash_memory_used,cycles_total
Sys,Mem,500000000.0,0.125,832.5,1.0,99.0,62500000.0
END
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A program `vela` that notes its words; the real one is optional."""
    path = tmp_path / "vela"
    path.write_text(PROGRAM)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return path


def test_velas_estimate_and_all_that_it_depends_on(program, tmp_path):
    found = vela.estimate(vela.find(), "x.tflite", vela.Wanted("ethos-u55-128", "Size", 1432))
    words = (tmp_path / "words").read_text().split()
    assert words[0] == "x.tflite" and words[3:] == [
        "--accelerator-config", "ethos-u55-128", "--optimise", "Size", "--arena-cache-size", str(1432 * 1024)
    ]  # fmt: skip
    assert (found["version"], found["system_config"], found["memory_mode"]) == ("9.8.7", "Sys", "Mem")
    assert (found["accelerator"], found["optimise"], found["arena_limit_kib"]) == ("ethos-u55-128", "Size", 1432)
    assert (found["cycles"], found["milliseconds"]) == (62500000, 125.0)
    assert (found["sram_kib"], found["flash_kib"]) == (832.5, 100.0)
    assert "estimates, at compile time" in vela.in_words(found) and "estimate" in found["note"]


def test_vela_without_an_arena_limit_leaves_it_out(program, tmp_path):
    found = vela.estimate(vela.find(), "x.tflite", vela.Wanted("ethos-u55-64", "Performance", None))
    assert "--arena-cache-size" not in (tmp_path / "words").read_text() and found["arena_limit_kib"] is None
    assert "arena limit the memory mode's own" in vela.in_words(found)


def test_what_vela_refuses_is_said(program, monkeypatch):
    monkeypatch.setenv("NO", "1")
    with pytest.raises(UserError, match="vela refuses: Error: no such accelerator"):
        vela.estimate(vela.find(), "x.tflite", vela.Wanted("x", "Size", None))


def test_a_vela_that_hangs_is_given_up_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "vela").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "vela").chmod(0o755)
    monkeypatch.setattr(vela, "TIMEOUT", 0.3)
    with pytest.raises(UserError, match="vela has not ended after 0.3 s; look at: .*vela"):
        vela.estimate(str(tmp_path / "vela"), "x.tflite", vela.Wanted("x", "Size", None))


def test_vela_that_is_not_installed_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(vela.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UserError, match="expected the program vela on PATH, found none; install it with pip install"):
        export.main(["run", "--int8", "--vela"])
    with pytest.raises(UserError, match="--vela goes with --int8"):
        export.main(["run", "--vela"])


# ---- at full size


@on_tf2
def test_the_full_network_is_exported(tmp_path):
    """32 channels at 180x240, random weights. The largest tensor is what H2 reads: H1's 32 channels at full size."""
    from edgeflownas.data.synthetic import make_dataset
    from edgeflownas.handover.extract import extract
    from tests.conftest import prepare

    make_dataset(str(tmp_path / "fc2"), 4, 2, 1, height=180, width=240)
    sizes = {"data__input_height": 180, "data__input_width": 240, "network__init_channels": 32, "train__batch_size": 2}
    whole = prepare(str(tmp_path / "run"), str(tmp_path / "fc2"), **sizes)
    whole.commit(1, 1, True)
    with Supernet.load(whole.folder) as supernet:
        extract(supernet, whole.folder, "000001000", str(tmp_path / "small"), "best", "test")
    assert export.main([str(tmp_path / "small"), "--int8", "--calibration", "4", "--gpu_device", "-1"]) == 0
    with open(str(tmp_path / "small" / "exported" / "export.json"), encoding="utf-8") as handle:
        record = json.load(handle)
    assert record["int8_model"]["epe"] == pytest.approx(record["epe"], rel=0.05)
    assert record["int8_model"]["largest_activation"] == 180 * 240 * 32
