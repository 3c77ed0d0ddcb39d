"""A missing GPU gives a warning, and one that computes wrong results is refused; tested with fakes, without a GPU."""

from unittest import mock

from edgeflownas import nvidia
from tests.reliability.test_resume_rules import manifest

A100 = nvidia.Gpu("A100", (8, 0), (535, 104), "GPU-a1")
ASKED = {"runtime__gpu_device": "0", "runtime__deterministic": "false"}


def on(*found):
    """Plants: this machine has these GPUs and a stock TensorFlow 1.15 built for CUDA."""
    return [
        mock.patch.object(nvidia, "gpus", lambda: list(found)),
        mock.patch.dict("os.environ", {"CUDA_VISIBLE_DEVICES": "0"}),
        mock.patch("tensorflow.compat.v1.test.is_built_with_cuda", lambda: True),
        mock.patch("tensorflow.compat.v1.__version__", "1.15.5"),
    ]


def test_a_missing_gpu_is_one_warning_on_the_terminal_and_in_the_log(lab, tmp_path):
    outcome = lab.run(str(tmp_path), "--max_steps", "1", plants=on(), **ASKED)
    assert outcome.code == 0
    for text in (outcome.stderr, (tmp_path / "train.log").read_text()):
        (line,) = [line for line in text.splitlines() if "no GPU" in line]
        assert "--gpu_device 0 is asked for" in line and "computes on the CPU" in line
    assert manifest(str(tmp_path))["device"] == "CPU"


def test_no_warning_where_none_is_asked_for(lab, tmp_path):
    assert "no GPU" not in lab.run(str(tmp_path), "--max_steps", "1").stderr


def test_the_device_is_named(lab, tmp_path):
    named = mock.patch("edgeflownas.tfcompat.device_names", lambda: "Tesla V100")
    outcome = lab.run(str(tmp_path), "--max_steps", "1", plants=on() + [named], **ASKED)
    assert "computing on Tesla V100" in outcome.stderr and manifest(str(tmp_path))["device"] == "Tesla V100"


def test_wrong_results_are_refused_and_nothing_is_left(lab, tmp_path):
    outcome = lab.run(str(tmp_path), "--max_steps", "1", plants=on(A100), **ASKED)
    assert outcome.code == 2 and "hangs or computes wrong results" in outcome.error
    assert "--allow_unsupported_gpu" in outcome.error
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


def test_the_refusal_can_be_overridden_and_the_manifest_says_so(lab, tmp_path):
    words = ["--max_steps", "1", "--allow_unsupported_gpu"]
    assert lab.run(str(tmp_path), *words, plants=on(A100), **ASKED).code == 0
    assert manifest(str(tmp_path))["unsupported_gpu_allowed"] is True


def test_another_gpu_than_the_visible_one_does_not_count(lab, tmp_path):
    plants = on(nvidia.Gpu("V100", (7, 0), (535, 104), "GPU-b2"), A100)
    assert lab.run(str(tmp_path), "--max_steps", "1", plants=plants, **ASKED).code == 0
    assert manifest(str(tmp_path))["unsupported_gpu_allowed"] is False
