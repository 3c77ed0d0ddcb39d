"""The configuration: every key's type, bounds and choices, malicious YAML, precedence, hash."""

import dataclasses
import math
import os

import pytest
import yaml

from edgeflownas import config as configuration
from edgeflownas import yaml_file
from edgeflownas.config import KEYS, config_hash, diff, flat, from_dict, load, to_dict
from edgeflownas.errors import UserError

WRONG = {
    int: ["many", 1.5, True, None, [1], "1", 2**80 * -1],
    float: ["much", True, None, [1.0], {}, "", "1 "],
    str: [1, 1.5, True, ["a"], "nul\0"],
    bool: [1, 0, "yes", None, "true"],
}
NO_MATHS = {"data.base_path", "data.list_dir"} | {name for name in KEYS if name.startswith("runtime.")}


def load_text(tmp_path, text):
    path = str(tmp_path / "a.yaml")
    with open(path, "wb") as handle:
        handle.write(text if isinstance(text, bytes) else text.encode("utf-8"))
    return load(path)[0]


def error(tmp_path, text):
    with pytest.raises(UserError) as caught:
        load_text(tmp_path, text)
    assert str(caught.value).count("\n") == 0 and len(str(caught.value)) < 600
    return str(caught.value)


def nested(name, value):
    section, key = name.split(".")
    return yaml.safe_dump({section: {key: value}})


def another(key):
    """A valid value that is not the default, if there is one."""
    if key.choices:
        return ([value for value in key.choices if value != key.default] or [None])[0]
    return {
        int: lambda: key.default + 2,
        float: lambda: key.default / 2 + 0.125,
        bool: lambda: not key.default,
        str: lambda: key.default + "x",
    }[type(key.default)]()


def test_the_defaults_are_the_specification():
    config = load()[0]
    assert (config.data.input_height, config.data.input_width, config.data.flow_clip) == (180, 240, 50.0)
    assert (config.train.seed, config.train.arch_seed, config.train.num_epochs, config.train.batch_size) == (
        42,
        42,
        200,
        32,
    )
    assert (config.train.lr, config.train.wd, config.train.grad_clip) == (1e-4, 4e-5, 5.0)
    assert (config.train.optimizer, config.train.lr_schedule, config.train.supernet_mode) == (
        "adam",
        "cosine",
        "strict_fairness",
    )
    assert (config.eval.pool_size, config.eval.bn_recal_batches, config.eval.patience, config.eval.min_delta) == (
        12,
        8,
        15,
        0.002,
    )


@pytest.mark.parametrize("name", KEYS)
def test_a_wrong_type_is_an_error_that_names_the_key(tmp_path, name):
    for value in WRONG[type(KEYS[name].default)]:
        if value is None and isinstance(KEYS[name].default, str):
            continue
        if type(value) is int and KEYS[name].details.get("number_too"):
            continue
        said = error(tmp_path, nested(name, value))
        assert name + ": " in said and "found" in said


@pytest.mark.parametrize("name", [key.name for key in KEYS.values() if {"low", "high", "above"} & set(key.details)])
def test_bounds(tmp_path, name):
    details, integer = KEYS[name].details, isinstance(KEYS[name].default, int)
    if details.get("low") is not None:
        load_text(tmp_path, nested(name, details["low"]))
        below = (
            details["low"] - 1
            if integer
            else math.nextafter(details["low"], -1.0)
            if hasattr(math, "nextafter")
            else -5e-324
        )
        assert "must be at least {}".format(details["low"]) in error(tmp_path, nested(name, below))
    if details.get("high") is not None:
        load_text(tmp_path, nested(name, details["high"]))
        assert "must be at most {}".format(details["high"]) in error(tmp_path, nested(name, details["high"] + 1))
    if details.get("above") is not None:
        assert "must be greater than {}".format(details["above"]) in error(tmp_path, nested(name, details["above"]))


@pytest.mark.parametrize("name", [key.name for key in KEYS.values() if key.choices])
def test_choices(tmp_path, name):
    for choice in KEYS[name].choices:
        assert flat(load_text(tmp_path, nested(name, choice)))[name] == choice
    said = error(tmp_path, nested(name, "other"))
    assert name in said and all(choice in said for choice in KEYS[name].choices)


@pytest.mark.parametrize("name", [key.name for key in KEYS.values() if isinstance(key.default, float)])
def test_reals_must_be_finite_but_may_be_spelt_in_any_way(tmp_path, name):
    section, key = name.split(".")
    for text in (".nan", ".inf", "-.inf"):
        assert name in error(tmp_path, f"{section}: {{{key}: {text}}}")
    for text, value in (("1e-4", 1e-4), ("2", 2.0), ("1.5e+0", 1.5), ("'0.25'", 0.25), (".5", 0.5)):
        found = flat(load_text(tmp_path, f"{section}: {{{key}: {text}}}"))[name]
        assert found == value and type(found) is float


@pytest.mark.parametrize(
    "text, said",
    [
        ("trian: {lr: 1}", "unknown section 'trian'; did you mean train?"),
        ("train: {learning_rate: 1}", "unknown key 'train.learning_rate'"),
        ("train: {bacth_size: 1}", "did you mean train.batch_size?"),
        ("eval: {lr: 1}", "did you mean train.lr?"),
        ("train: 5", "section train must hold `key: value` lines, found int"),
        ("[1, 2]", "expected sections"),
        ("text", "expected sections"),
        ("train: {lr: 1, lr: 2}", "key 'lr' appears twice"),
        ("train: {lr: 1}\ntrain: {wd: 1}", "key 'train' appears twice"),
        ("train: [", "not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("train: {1: 2}", "unknown key 'train.1'"),
        ("? [a, b]\n: 1", "not valid YAML"),
        ("train: {batch_size: 32, micro_batch_size: 5}", "does not divide"),
        (b"\xff\xfe\x00", "not valid YAML"),
        ("\0", "not valid YAML"),
    ],
)
def test_bad_yaml_is_one_line_with_the_nearest_key(tmp_path, text, said):
    assert said in error(tmp_path, text)


@pytest.mark.parametrize(
    "text, said",
    [
        ("train:\n  batch_size: 0x10\n", "'0x10' is no plain decimal number, YAML would read 16"),
        ("train:\n  num_epochs: 1:30\n", "'1:30' is no plain decimal number, YAML would read 90"),
        ("train:\n  lr: 1:30.5\n", "'1:30.5' is no plain decimal number, YAML would read 90.5"),
        ("train:\n  num_epochs: 010\n", "'010' is no plain decimal number, YAML would read 8"),
        ("train:\n  num_epochs: 1_000\n", "'1_000' is no plain decimal number, YAML would read 1000"),
        ("network:\n  arch_code: 000022222\n", "quote a text"),
    ],
)
def test_numbers_that_yaml_reads_otherwise_are_refused(tmp_path, text, said):
    assert said in error(tmp_path, text)


@pytest.mark.parametrize("text, want", [("0.5", 0.5), ("5.0e-4", 5e-4), ("+1.", 1.0), ("2", 2.0), ("1.0E+2", 100.0)])
def test_plain_numbers_are_read(tmp_path, text, want):
    path = tmp_path / "a.yaml"
    path.write_text(f"train:\n  lr: {text}\n")
    assert configuration.load(str(path))[0].train.lr == want


def test_huge_recursive_and_exploding_yaml(tmp_path):
    assert "larger than" in error(tmp_path, "#" * (yaml_file.MAX_YAML_BYTES + 1))
    assert "not valid YAML" in error(tmp_path, "[" * 1500)
    error(tmp_path, "train: &a {lr: *a}")
    bomb = "a0: &a0 [x, x]\n" + "".join("a{0}: &a{0} [*a{1}, *a{1}]\n".format(i, i - 1) for i in range(1, 60))
    assert "unknown section" in error(tmp_path, bomb)
    error(tmp_path, "train:\n" + "".join(f"  k{i}: 1\n" for i in range(2000)))


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (str(tmp_path / "none.yaml"), str(tmp_path)):
        with pytest.raises(UserError, match="cannot read the configuration " + path):
            load(path)
    assert load_text(tmp_path, "") == load()[0]
    assert load_text(tmp_path, "# nothing\n") == load()[0]


def test_the_hash_is_of_the_training_maths_alone():
    needed = {"train.micro_batch_size": 1}  # by runtime.distributed
    base = load(None, needed)[0]
    assert {name for name, key in KEYS.items() if not key.maths} == NO_MATHS
    for key in KEYS.values():
        value = another(key)
        if value is None:
            continue
        extra = {"train.micro_batch_size": 4} if key.name == "train.micro_batch_size" else {key.name: value}
        changed = load(None, dict(needed, **extra))[0]
        assert flat(changed) != flat(base)
        assert (config_hash(changed) != config_hash(base)) == key.maths, key.name
        assert diff(base, changed) == ([key.name] if key.maths else [])


def test_the_hash_is_a_fixed_function():
    """A changed hash refuses every resume, so it changes on purpose only: when a key of the maths comes or goes."""
    assert config_hash(load()[0]) == config_hash(from_dict(to_dict(load()[0])))
    assert len(config_hash(load()[0])) == 64 and config_hash(load()[0]) == config_hash(
        load(None, {"runtime.num_workers": 9})[0]
    )


def test_to_dict_and_from_dict_are_inverse_and_from_dict_checks():
    for name, key in KEYS.items():
        config = load(None, {name: key.default})[0]
        assert from_dict(to_dict(config)) == config
    stored = to_dict(load()[0])
    del stored["train"]["lr"]
    with pytest.raises(UserError, match="key train.lr is missing"):
        from_dict(stored)
    for broken in (None, [], {"train": None}, {"nonsense": {}}, dict(to_dict(load()[0]), more={})):
        with pytest.raises(UserError):
            from_dict(broken)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load()[0].train.lr = 1.0


def test_booleans_from_the_command_line():
    for text, value in (("true", True), ("False", False), ("TRUE", True)):
        assert load(None, {"runtime.deterministic": text})[0].runtime.deterministic is value
    for text in ("yes", "1", ""):
        with pytest.raises(UserError, match="runtime.deterministic: expected true or false"):
            load(None, {"runtime.deterministic": text})


def test_a_shipped_configuration_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    by_name = configuration.load("supernet_quick")[0]
    assert (
        by_name
        == configuration.load(os.path.join(os.path.dirname(__file__), "..", "configs", "supernet_quick.yaml"))[0]
    )
    (tmp_path / "supernet_quick").write_text("train:\n  seed: 7\n")  # a file of that name is meant first
    assert configuration.load("supernet_quick")[0].train.seed == 7


@pytest.mark.parametrize(
    "name, said",
    [
        ("supernet_quik", "did you mean supernet_quick.; there are: .*supernet_fc2_180x240"),
        ("mine", "no such file, and no configuration of that name; there are"),
        ("mine.yaml", "cannot read the configuration mine.yaml"),
        ("a/b", "cannot read the configuration a/b"),
    ],
)
def test_a_configuration_that_is_not_there_is_said(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(str(tmp_path))
    with pytest.raises(UserError, match=said):
        configuration.load(name)
