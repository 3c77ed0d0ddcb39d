"""A deterministic run has one thread: nothing creates TensorFlow's thread pool before the run's own session."""

import os

from edgeflownas import tfcompat, train_supernet
from edgeflownas.engine import trainer


def test_devices_are_asked_for_only_once_the_session_is_there(monkeypatch, tiny_data, tmp_path):
    order, construct = [], trainer.Trainer.__init__

    def constructed(self, *arguments):
        construct(self, *arguments)
        order.append("session")

    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")  # tests have it from conftest.py
    monkeypatch.setattr(trainer.Trainer, "__init__", constructed)
    monkeypatch.setattr(tfcompat, "device_names", lambda: order.append("devices") or "CPU")
    words = "--input_height 64 --input_width 67 --set network.init_channels=2 --batch_size 3 --max_steps 1"
    arguments = words.split() + [
        "--base_path",
        tiny_data,
        "--output_dir",
        str(tmp_path),
        "--deterministic",
        "--gpu_device",
        "-1",
    ]
    assert train_supernet.main(arguments) == 0
    assert order == ["session", "devices"]
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"
