"""Which GPU a rank's session is given: its own where there are some, and none where there is none."""

import pytest

from edgeflownas import nvidia
from edgeflownas.config import load
from edgeflownas.engine.session import session_config


@pytest.mark.parametrize(
    "gpus, settings, want",
    [
        (2, {"runtime.distributed": True}, "1"),
        (0, {"runtime.distributed": True}, ""),  # TensorFlow 1.15 built for CUDA aborts if one is named
        (2, {"runtime.distributed": True, "runtime.gpu_device": "-1"}, ""),
        (2, {"runtime.distributed": True, "runtime.deterministic": True}, ""),
        (2, {}, ""),
    ],
)
def test_a_rank_is_given_a_gpu_only_if_there_is_one(monkeypatch, gpus, settings, want):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(nvidia, "gpus", lambda: [nvidia.Gpu("X", (7, 5), (450,))] * gpus)
    config = load(None, dict(settings, **{"train.micro_batch_size": 1}))[0]
    assert session_config(config, 1).gpu_options.visible_device_list == want
