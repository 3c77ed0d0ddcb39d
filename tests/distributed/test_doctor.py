"""The doctor starts two ranks of its own, with Horovod's launcher."""

from edgeflownas import config as configuration
from edgeflownas import doctor
from edgeflownas.command_line import parse_train
from edgeflownas.diagnosis import ranks


def test_two_local_ranks_meet(data):
    values = {"data.base_path": data, "train.micro_batch_size": 1, "network.init_channels": 2}
    examined = doctor.Examined(configuration.load(None, dict(values, **{"runtime.distributed": True}))[0], False,
                               parse_train([])[2])  # fmt: skip
    found = list(ranks.check_ranks(examined))
    assert [(finding.level, finding.what) for finding in found] == [
        ("ok", "Horovod"), ("ok", "launcher"), ("ok", "ranks"), ("ok", "exchange"),
    ]  # fmt: skip
    assert "with Gloo" in found[0].found and "2 ranks meet and agree" in found[2].found
