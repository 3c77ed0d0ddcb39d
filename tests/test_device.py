"""The GPU that a run uses: counted within what CUDA_VISIBLE_DEVICES shows already."""

import os

import pytest

from edgeflownas import config as configuration
from edgeflownas.device import asked_for, choose_device, rank_device, visible
from edgeflownas.errors import UserError


@pytest.mark.parametrize(
    "before, asked, after",
    [
        (None, "0", "0"),
        (None, "1,0", "1,0"),
        (None, "", "-1"),
        ("3", "0", "3"),  # as SLURM sets it: GPU 0 is somebody else's
        ("3,5", "1", "5"),
        ("3,5", "cuda:1", "5"),
        ("3,5", "0,1", "3,5"),
        ("3,5", "-1", "-1"),
        ("GPU-aa,MIG-bb", "1", "MIG-bb"),
        ("3", "GPU-aa", "GPU-aa"),
        ("", "0", "-1"),
        ("-1", "0", "-1"),
        ("NoDevFiles", "0", "-1"),
    ],
)
def test_the_number_counts_within_what_is_visible(monkeypatch, before, asked, after):
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    choose_device(asked)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == after


@pytest.mark.parametrize(
    "before, local_rank, want", [(None, 3, "3"), ("3,5", 1, "1"), ("3", 2, "0"), ("GPU-aa,GPU-bb", 0, "0")]
)
def test_a_rank_takes_the_gpu_of_its_place_among_the_visible(monkeypatch, before, local_rank, want):
    """All of them stay visible; a queue may show each rank one only."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    choose_device("0", distributed=True)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before
    assert rank_device(local_rank) == want


def test_more_ranks_than_visible_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with pytest.raises(UserError, match="shows 2 GPUs, which is too few for local rank 2"):
        rank_device(2)


@pytest.mark.parametrize("asked, deterministic", [("-1", False), ("0", True)])
def test_ranks_on_the_cpu_see_no_gpu(monkeypatch, asked, deterministic):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    choose_device(asked, deterministic, distributed=True)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"


def test_deterministic_mode_sees_no_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    choose_device("0", deterministic=True)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"


def test_a_number_that_is_not_visible_is_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES=3,5 shows 2 of the GPUs.*choose one below 2"):
        choose_device("2")


@pytest.mark.parametrize("text", ["cuda", "gpu0", "zero", "0;1", "0,", "-2", "1.0"])
def test_what_names_no_gpu_is_refused(text):
    with pytest.raises(UserError, match="expected the number of a GPU, such as 0, or -1 for the CPU"):
        asked_for(text)


@pytest.mark.parametrize("text", ["1", "cuda:1", "GPU:1", "/gpu:1", "/device:GPU:1", "01"])
def test_the_usual_spellings_name_it(text):
    assert asked_for(text) == ["1"]


def test_cuda_stops_at_the_first_entry_that_is_none(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,-1,0")
    assert visible() == ["2"]


@pytest.mark.parametrize("text, want", [("1", "1"), ("-1", "-1"), ("'0'", "0"), ("cuda:0", "cuda:0"), ("", "")])
def test_yaml_may_leave_the_quotes_out(tmp_path, text, want):
    path = tmp_path / "a.yaml"
    path.write_text(f"runtime:\n  gpu_device: {text}\n")
    assert configuration.load(str(path))[0].runtime.gpu_device == want


def test_a_name_that_is_a_number_still_wants_quotes(tmp_path):
    """YAML reads 007 as 7: the folder would have another name than the file says."""
    path = tmp_path / "a.yaml"
    for text, said in (("007", "'007' is no plain decimal number, YAML would read 7"), ("7", "expected text, found 7")):
        path.write_text(f"runtime:\n  experiment_name: {text}\n")
        with pytest.raises(UserError, match=said):
            configuration.load(str(path))
