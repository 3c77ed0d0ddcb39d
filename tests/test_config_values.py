"""Every number of the configuration written a second time, and exactly which texts are accepted as numbers.

A default or a bound that changes makes old commands and stored configurations mean something else: it is to change in
two places.
"""

import dataclasses
import hashlib
import json

import pytest
import yaml

from edgeflownas import config as configuration
from edgeflownas.config import KEYS, flat, from_dict, load, to_dict
from edgeflownas.errors import UserError

SEEDS = 4294967295
# Of the default configuration, as the first version computed it: stored runs depend on it.
FIRST_VERSIONS_HASH = "14043e67362f5e84093a5ddd61add2d75951a7c28bfe52514e5159c152951f0a"

# key: (default, lowest and highest value allowed); None: no bound. A bound in brackets is itself not allowed.
NUMBERS = {
    "data.holdout": (0, 0, None),
    "data.input_height": (180, 64, None),
    "data.input_width": (240, 64, None),
    "data.flow_clip": (50.0, 0.0, None),
    "network.init_channels": (32, 2, 256),
    "train.seed": (42, 0, SEEDS),
    "train.arch_seed": (42, 0, SEEDS),
    "train.num_epochs": (200, 1, None),
    "train.batch_size": (32, 1, None),
    "train.micro_batch_size": (0, 0, None),
    "train.lr": (1e-4, [0.0], None),
    "train.wd": (4e-5, 0.0, None),
    "train.grad_clip": (5.0, [0.0], None),
    "eval.pool_size": (12, 1, None),
    "eval.bn_recal_batches": (8, 1, None),
    "eval.batch_size": (8, 1, None),
    "eval.num_samples": (0, 0, None),
    "eval.patience": (15, 1, None),
    "eval.min_delta": (0.002, 0.0, None),
    "runtime.exchange_timeout": (600.0, [0.0], 1e6),
    "runtime.num_workers": (4, 1, 256),
    "runtime.prefetch_batches": (4, 1, 64),
    "runtime.save_every_steps": (0, 0, None),
}
# Keys that are no numbers.
OTHERS = {
    "data.base_path": "data/FlyingChairs2",
    "data.list_dir": "",
    "network.space": "edgeflownet_v1",
    "network.arch_code": "",
    "network.module": "edgeflownas.network.MultiScaleResNet_supernet",
    "train.supernet_mode": "strict_fairness",
    "train.cycle_mode": "fused",
    "train.lr_schedule": "cosine",
    "train.optimizer": "adam",
    "train.loss": "linear_softplus",
    "train.amp": False,
    "runtime.gpu_device": "0",
    "runtime.deterministic": False,
    "runtime.distributed": False,
    "runtime.xla": False,
    "runtime.fast_mode": False,
    "runtime.debug_trace": False,
    "runtime.output_dir": "outputs/supernet",
    "runtime.experiment_name": "",
}


def given(name, value):
    return flat(load(None, {name: value})[0])[name]


def test_every_default():
    want = dict(OTHERS, **{name: default for name, (default, _, _) in NUMBERS.items()})
    assert flat(load()[0]) == want
    assert {name: type(value) for name, value in flat(load()[0]).items()} == {
        name: type(value) for name, value in want.items()
    }


@pytest.mark.parametrize("name", NUMBERS)
def test_every_bound(name):
    default, low, high = NUMBERS[name]
    step = 1 if isinstance(default, int) else 1e-9
    if isinstance(low, list):
        assert given(name, step) == step
        with pytest.raises(UserError, match="must be greater than 0.0, found 0.0$"):
            load(None, {name: low[0]})
    else:
        assert given(name, low) == low
        with pytest.raises(UserError, match=f"must be at least {low}, found "):
            load(None, {name: low - step})
    if high is not None:
        assert given(name, high) == high
        with pytest.raises(UserError, match=f"must be at most {high}, found {high + 1}$"):
            load(None, {name: high + 1})
    elif name not in ("train.batch_size", "train.micro_batch_size"):  # the one divides the other
        assert given(name, type(default)(2**40)) == 2**40


@pytest.mark.parametrize("section", ["data", "network", "train", "eval", "runtime"])
def test_no_part_of_a_configuration_can_be_changed(section):
    config = load()[0]
    part = getattr(config, section)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, section, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(part, dataclasses.fields(part)[0].name, None)


# ---- what is a number


@pytest.mark.parametrize("text", ["0." + "0" * 36 + "1", "1" * 39, "1e-" + "0" * 34 + "10"])
def test_a_number_in_words_may_have_39_characters(text):
    assert len(text) == 39 and given("train.wd", text) == float(text)
    with pytest.raises(UserError, match="train.wd: expected a number, found"):
        load(None, {"train.wd": "0" + text})


def test_a_whole_number_serves_as_a_real_as_far_as_it_is_exact():
    largest = 9007199254740991  # of the ints that float64 has all of
    assert given("train.wd", largest) == float(largest) and type(given("train.wd", 3)) is float
    for value in (largest + 1, -largest - 1):
        with pytest.raises(UserError, match=f"train.wd: expected a number, found {value}$"):
            load(None, {"train.wd": value})
    with pytest.raises(UserError, match=f"must be at least 0.0, found -{largest}.0$"):
        load(None, {"train.wd": -largest})


@pytest.mark.parametrize("text, value", [("+7", 7), ("007", 7), ("-0", 0), ("7", 7)])
def test_whole_numbers_on_the_command_line(text, value):
    assert given("train.seed", text) == value and type(given("train.seed", text)) is int
    for wrong in ("7.0", "7e0", "0x7", "7 ", "", "\u0667", "1" * 40):
        with pytest.raises(UserError, match="train.seed: expected a whole number"):
            load(None, {"train.seed": wrong})


# ---- messages


def test_long_values_are_shortened_to_60_characters():
    for length, shown in ((58, "'{}'".format("x" * 58)), (59, "'" + "x" * 56 + "...")):
        with pytest.raises(UserError) as caught:
            load(None, {"train.lr": "x" * length})
        assert str(caught.value) == "command line: train.lr: expected a number, found " + shown


def test_the_nearest_key_is_found_by_the_last_part_and_of_a_long_name_by_its_first_100_characters():
    for name, want in (
        ("lr", "train.lr"),
        ("no.such.lr", "train.lr"),
        ("batch_size", "train.batch_size"),
        ("x" * 97 + ".wd", "train.wd"),
        ("eval.pool", "eval.pool_size"),
        ("x" * 97 + ".wd" + ".holdout", "train.wd"),
    ):
        with pytest.raises(UserError, match=f"; did you mean {want}\\?$"):
            load(None, {name: 1})


def test_a_file_may_have_a_million_bytes(tmp_path):
    path = tmp_path / "large.yaml"
    for size, fits in ((1048576, True), (1048577, False)):
        path.write_bytes(b"#" * size)
        if fits:
            assert load(str(path))[0] == load()[0]
        else:
            with pytest.raises(UserError, match="larger than 1048576 bytes, not a configuration file"):
                load(str(path))


def test_a_file_that_is_not_there_is_named_with_the_reason(tmp_path):
    with pytest.raises(UserError) as caught:
        load(str(tmp_path / "none.yaml"))
    assert str(caught.value) == "cannot read the configuration {}: No such file or directory".format(
        tmp_path / "none.yaml"
    )


def test_the_hash_is_sha_256_of_the_sorted_json_of_the_maths():
    maths = {
        name: value
        for name, value in flat(load()[0]).items()
        if name not in ("data.base_path", "data.list_dir")
        and not name.startswith("runtime.")
        # Keys that the first version did not have count from the moment they say something else than it did.
        and name not in ("network.space", "network.arch_code")
    }
    text = "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(maths[name])}" for name in sorted(maths)) + "}"
    assert configuration.config_hash(load()[0]) == hashlib.sha256(text.encode("ascii")).hexdigest()
    assert configuration.config_hash(load()[0]) == FIRST_VERSIONS_HASH
    others = [load(None, {"network." + name: value})[0] for name, value in (("space", "x"), ("arch_code", "0"))]
    assert len({configuration.config_hash(config) for config in others} | {FIRST_VERSIONS_HASH}) == 3


def test_a_configuration_of_the_first_version_lacks_the_younger_keys_and_nothing_else():
    stored = to_dict(load()[0])
    del stored["network"]["space"], stored["network"]["arch_code"]
    config = from_dict(stored)
    assert config == load()[0] and configuration.config_hash(config) == FIRST_VERSIONS_HASH
    del stored["network"]["module"]
    with pytest.raises(UserError, match="key network.module is missing"):
        from_dict(stored)


def test_the_spellings_of_a_code_are_one_configuration():
    assert load(None, {"network.arch_code": "0,1,2"})[0] == load(None, {"network.arch_code": "012"})[0]
    for other in ("0,1,2,", ",012", "01,2", "10,1"):  # no spelling of a code of digits: left for the codec to refuse
        assert given("network.arch_code", other) == other


def test_the_parsers_words_are_cut_at_300_characters(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("train: {" + "a" * 400 + ": 1, " + "a" * 400 + ": 2}")
    with pytest.raises(UserError) as caught:
        load(str(path))
    begin, said = caught.value.args[0].split(": not valid YAML: ")
    assert begin == str(path) and len(said) == 300 and said == "key '" + "a" * 295


def test_micro_batches_divide_the_batch():
    assert given("train.micro_batch_size", 0) == 0
    for micro in (1, 2, 16, 32):
        assert given("train.micro_batch_size", micro) == micro
    for micro in (3, 33, 64):
        with pytest.raises(UserError, match=f"train.micro_batch_size: {micro} does not divide train.batch_size 32"):
            load(None, {"train.micro_batch_size": micro})


@pytest.mark.parametrize(
    "text, said",
    [
        ("train:\n  ? [lr]\n  : 1\n", "not valid YAML"),
        ("? {a: 1}\n: 2\n", "not valid YAML"),
        ("1: {a: 2}\n1: {a: 3}", "section 1"),
        ("train: {2: 1, 2: 3}", "unknown key 'train.2'"),
        ("x: &a {b: [1, {c: 2}]}\n", "unknown section 'x'"),
    ],
)
def test_keys_that_are_no_words(tmp_path, text, said):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        load(str(path))


def test_a_stored_configuration_is_checked_like_a_file_not_like_a_command_line():
    stored = to_dict(load()[0])
    for key, wrong in (("lr", True), ("seed", "42"), ("seed", 42.0)):
        with pytest.raises(UserError, match=f"^the manifest: train.{key}: expected"):
            from_dict(dict(stored, train=dict(stored["train"], **{key: wrong})), "the manifest")
    with pytest.raises(UserError, match="^stored configuration: unknown section 'more'"):
        from_dict(dict(stored, more={}))
    del stored["eval"]["patience"], stored["train"]["wd"], stored["data"]["holdout"]
    with pytest.raises(UserError, match="^stored configuration: key data.holdout is missing$"):
        from_dict(stored)
    stored = to_dict(load()[0])
    assert from_dict(yaml.safe_load(yaml.safe_dump(stored))) == load()[0]
    assert configuration.diff(load()[0], from_dict(stored)) == [] and set(KEYS) == set(NUMBERS) | set(OTHERS)
