"""The doctor: GPUs (by a fake nvidia-smi on PATH), data, disk and file system, with good and bad findings."""

import os
from collections import namedtuple
from types import SimpleNamespace

import pytest

from edgeflownas import config as configuration
from edgeflownas import doctor, nvidia
from edgeflownas.command_line import parse_train
from edgeflownas.diagnosis import disk, stack
from edgeflownas.errors import UserError


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """`smi(output, code)` puts a fake nvidia-smi on PATH that answers only the doctor's query."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(output, code=0):
        path = folder / "nvidia-smi"
        path.write_text(
            '#!/bin/sh\n[ "$*" = "{}" ] || {{ echo "wrong question: $*"; exit 64; '
            "}}\n/bin/cat <<END\n{}END\nexit {}\n".format(" ".join(nvidia.QUERY[1:]), output, code)
        )
        path.chmod(0o755)

    return write


@pytest.fixture
def examined(tiny_data, tmp_path):
    def make(words="", **changes):
        values = {
            "data.base_path": tiny_data,
            "data.input_height": 64,
            "data.input_width": 67,
            "train.batch_size": 5,
            "network.init_channels": 2,
            "runtime.output_dir": str(tmp_path / "deep" / "er"),
            "runtime.gpu_device": "-1",
        }
        values.update({name.replace("__", "."): value for name, value in changes.items()})
        return doctor.Examined(configuration.load(None, values)[0], False, parse_train(words.split())[2])

    return make


A100 = "NVIDIA A100-SXM4-40GB, 535.104.05, GPU-a1, 8.0\n"
V100 = "Tesla V100-SXM2-16GB, 450.80.02, GPU-b2, 7.0\n"


def test_nvidia_smi_is_parsed(smi):
    smi(A100 + V100)
    assert nvidia.gpus() == [
        nvidia.Gpu("NVIDIA A100-SXM4-40GB", (8, 0), (535, 104, 5), "GPU-a1"),
        nvidia.Gpu("Tesla V100-SXM2-16GB", (7, 0), (450, 80, 2), "GPU-b2"),
    ]
    smi("Tesla K80, 470.1, GPU-c3, [Not Supported]\n")
    assert nvidia.gpus() == [nvidia.Gpu("Tesla K80", None, (470, 1), "GPU-c3")]


OLD_DRIVER = """#!/bin/sh
case "$*" in
*compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2;;
esac
echo "{name}, 470.57.02, GPU-d4"
"""


@pytest.mark.parametrize(
    "name, capability, works",
    [("Tesla V100-PCIE-32GB", None, True), ("A100-PCIE-40GB", (8,), False), ("NVIDIA GeForce RTX 3090", (8,), False)],
)
def test_a_driver_that_does_not_know_compute_cap_is_no_broken_one(smi, tmp_path, name, capability, works):
    smi("")
    (tmp_path / "bin" / "nvidia-smi").write_text(OLD_DRIVER.format(name=name))
    (gpu,) = nvidia.gpus()
    assert gpu == nvidia.Gpu(name, capability, (470, 57, 2), "GPU-d4")
    assert nvidia.support_of(gpu, "1.15.5", False).works == works


def test_the_gpus_that_are_visible_are_those_that_are_judged():
    found = [nvidia.Gpu(name, None, (1,), uuid) for name, uuid in (("a", "GPU-a1"), ("b", "GPU-b2"), ("c", "GPU-c3"))]
    assert [gpu.name for gpu in nvidia.chosen(found, ["2", "0"])] == ["c", "a"]
    assert [gpu.name for gpu in nvidia.chosen(found, ["GPU-b2"])] == ["b"]
    assert [gpu.name for gpu in nvidia.chosen(found, ["MIG-1234"])] == ["a", "b", "c"]
    with pytest.raises(UserError, match="no number 3 among 3"):
        nvidia.chosen(found, ["3"])


def test_no_nvidia_smi_is_no_gpu(smi):
    assert nvidia.gpus() == []


@pytest.mark.parametrize(
    "output, code, message",
    [
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", 9, "exit code 9"),
        ("some warning\n", 0, "expected name, driver_version, uuid, compute_cap"),
    ],
)
def test_a_broken_nvidia_smi_is_one_line(smi, output, code, message):
    smi(output, code)
    with pytest.raises(UserError, match=message):
        nvidia.gpus()


@pytest.mark.parametrize(
    "capability, driver, tensorflow, nvidia_build, works",
    [
        ((7, 5), (450, 80), "1.15.5", False, True),
        ((8, 0), (535, 104), "1.15.5", False, False),  # the trap
        ((8, 6), (535, 104), "1.15.2", False, False),
        ((12, 0), (570, 1), "1.15.5", False, False),
        ((8, 0), (535, 104), "1.15.5", True, True),  # NVIDIA's own build
        ((8, 0), (535, 104), "2.16.1", False, True),
        ((7, 5), (450, 80), "2.16.1", False, False),  # driver too old for CUDA 12
        ((7, 5), (390, 1), "1.15.5", False, False),
    ],
)
def test_which_tensorflow_computes_on_which_gpu(capability, driver, tensorflow, nvidia_build, works):
    support = nvidia.support_of(nvidia.Gpu("X", capability, driver), tensorflow, nvidia_build)
    assert support.works == works and bool(support.advice) == (not works)


def test_the_trap_is_named():
    support = nvidia.support_of(nvidia.Gpu("A100", (8, 0), (535, 104)), "1.15.5", False)
    assert "stock TensorFlow 1.15.5 (CUDA 10.0) hangs or computes wrong results" in support.reason
    assert "TensorFlow 2" in support.advice


def fake_tensorflow(version, built_with_cuda):
    return SimpleNamespace(__version__=version, test=SimpleNamespace(is_built_with_cuda=lambda: built_with_cuda))


def see(monkeypatch, devices):
    """As `choose_device` leaves it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)


def findings(check):
    return [(finding.level, finding.what, finding.found) for finding in check]


def test_the_trap_fails_and_nothing_is_computed_on_it(smi, examined, monkeypatch):
    smi(A100)
    see(monkeypatch, "0")
    one = examined(runtime__gpu_device="0")
    (found,) = findings(stack._check_gpus(one, fake_tensorflow("1.15.5", True)))
    assert found[:2] == ("FAIL", "GPU") and "A100" in found[2] and "hangs" in found[2]
    assert findings(doctor.check_first_step(one)) == [("warn", "first step", "not tried, for the reason above")]


def test_only_the_chosen_gpu_counts(smi, examined, monkeypatch):
    smi(A100 + V100)
    monkeypatch.setattr(stack, "_visible_gpu", lambda tf: doctor.Finding("ok", "GPU in TensorFlow", "V100"))
    tf, one = fake_tensorflow("1.15.5", True), examined(runtime__gpu_device="0")
    for devices, levels in (("1", ["ok", "ok"]), ("GPU-b2", ["ok", "ok"]), ("0,1", ["FAIL", "ok"]), ("-1", ["warn"])):
        see(monkeypatch, devices)
        one.gpu_is_safe = True
        assert [level for level, _, _ in findings(stack._check_gpus(one, tf))] == levels
    see(monkeypatch, "2")
    assert findings(stack._check_gpus(one, tf))[0][2].startswith("no number 2 among 2")


def test_no_nvidia_gpu_at_all_is_a_warning(smi, examined, monkeypatch):
    see(monkeypatch, "0")
    (found,) = findings(stack._check_gpus(examined(runtime__gpu_device="0"), fake_tensorflow("1.15.5", True)))
    assert found == ("warn", "GPU", "no nvidia-smi, so no NVIDIA GPU")


def test_a_gpu_that_this_tensorflow_cannot_see_fails(smi, examined, monkeypatch):
    smi(V100)
    see(monkeypatch, "0")
    monkeypatch.setattr("edgeflownas.tfcompat.device_names", lambda: "CPU")
    for built, words in ((False, "built for CPUs"), (True, "none is visible")):
        tf = fake_tensorflow("1.15.5", built)
        last = findings(stack._check_gpus(examined(runtime__gpu_device="0"), tf))[-1]
        assert last[:2] == ("FAIL", "GPU in TensorFlow") and words in last[2]


@pytest.mark.parametrize(
    "fault, found, advice",
    [
        (
            "raise TypeError('Descriptors cannot not be created directly.\\n more')",
            "Descriptors cannot",
            "protobuf<3.21",
        ),
        ("import numpy\nnumpy.object_that_was", "has no attribute", "older NumPy"),
        ("raise ImportError('libcudart.so.10.0: cannot open')", "libcudart.so.10.0", "install one"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGILL)", "crashes (SIGILL)", "AVX"),
    ],
)
def test_a_tensorflow_that_does_not_start_is_a_finding(tmp_path, monkeypatch, examined, fault, found, advice):
    """TensorFlow 1.15 with protobuf 4, with a newer NumPy, without CUDA's libraries, on an old processor."""
    package = tmp_path / "first" / "tensorflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(fault + "\n")
    monkeypatch.syspath_prepend(str(tmp_path / "first"))
    one = examined()
    (finding,) = doctor.check_tensorflow(one)
    assert finding.level == "FAIL" and found in finding.found and advice in finding.advice
    assert not one.gpu_is_safe and findings(doctor.check_first_step(one))[0][0] == "warn"


def test_data(examined, tiny_data):
    one = examined()
    assert findings(doctor.check_data(one))[0][:2] == ("ok", "data") and one.train_samples == 7
    assert findings(doctor.check_data(examined(data__base_path="/nowhere")))[0][0] == "FAIL"
    assert findings(doctor.check_data(examined(train__batch_size=8)))[-1][0] == "FAIL"


@pytest.mark.parametrize("free, level", [(10**12, "ok"), (2 * 10**7, "FAIL")])
def test_disk_space(examined, monkeypatch, free, level):
    usage = namedtuple("Usage", "free")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage(free))
    assert findings(doctor.check_space(examined()))[0][0] == level


def test_disk_space_of_the_specification_is_four_checkpoints_and_logs(examined):
    (finding,) = doctor.check_space(examined(network__init_channels=32))
    need = float(finding.found.split("needs about ")[1].split(" GB")[0])
    assert 4 * 12122016 * 12 / 1e9 < need < 1.5


def test_file_system_leaves_nothing_behind(examined, tmp_path):
    before = sorted(os.listdir(str(tmp_path)))
    (found,) = findings(doctor.check_file_system(examined()))
    assert found[0] == "ok" and sorted(os.listdir(str(tmp_path))) == before


@pytest.mark.parametrize(
    "words, epochs, level",
    [
        ("", 6, "FAIL"),
        ("", 5, "warn"),
        ("--unsigned", 200, "warn"),
        ("--max_epochs 5", 200, "warn"),
        ("--max_steps 5", 200, "warn"),
        ("--max_steps 99", 200, "FAIL"),
    ],
)
def test_a_run_that_the_gates_will_refuse_fails_here(examined, tmp_path, monkeypatch, words, epochs, level):
    monkeypatch.setenv("EDGEFLOWNAS_GATE_RECORDS", str(tmp_path))
    one = examined(words, train__num_epochs=epochs)
    one.train_samples = 5
    (finding,) = doctor.check_gates(one)
    assert finding.level == level and "python -m pytest gates -m gate3" in finding.found
    monkeypatch.setattr(doctor.signoff, "require_gate", lambda gate, root, space: None)
    assert findings(doctor.check_gates(one))[0][0] == "ok"


def _refuse(*_):
    raise OSError(95, "Operation not supported")


@pytest.mark.parametrize(
    "target, name",
    [("os.replace", "rename"), ("os.symlink", "symlink"), ("os.fsync", "fsync"), ("fcntl.flock", "flock")],
)
def test_a_file_system_that_lacks_something_fails(examined, monkeypatch, target, name):
    monkeypatch.setattr(target, _refuse)
    (found,) = findings(doctor.check_file_system(examined()))
    assert found[0] == "FAIL" and name in found[2]


def test_a_file_system_that_gives_a_lock_twice_fails(examined, monkeypatch):
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    (found,) = findings(doctor.check_file_system(examined()))
    assert found[0] == "FAIL" and "two locks were given at once" in found[2]


def test_everything_in_one_go(tiny_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setattr(doctor, "SMALL", dict(doctor.SMALL, **{"network.init_channels": 2, "data.input_width": 65}))
    flags = [
        "--base_path",
        tiny_data,
        "--output_dir",
        str(tmp_path),
        "--gpu_device",
        "-1",
        "--set",
        "train.batch_size=5",
        "--unsigned",
    ]
    small = ["--set", "data.input_height=64", "--set", "data.input_width=67"]
    assert doctor.main(flags + small) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[6:].split(": ")[0] for line in lines[:-1]] == [
        "TensorFlow",
        "GPU",
        "data",
        "disk space",
        "file system",
        "gates",
        "first step",
    ]
    assert "first step" in lines[-2] and "batch 2, 2 channels" in lines[-2]
    monkeypatch.setattr(doctor, "check_first_step", lambda examined: iter(()))
    monkeypatch.setattr(doctor, "CHECKS", (doctor.check_data,))
    assert doctor.main(flags) == 1, "frames are smaller than the default crop"
