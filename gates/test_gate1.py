"""Gate 1: command line, configuration, architecture code. Nothing here needs TensorFlow."""

import os
import re

import numpy as np
import yaml
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from edgeflownas import command_line, config
from edgeflownas.errors import UserError
from edgeflownas.nas import arch_codec
from gates import clauses, keys, spaces
from gates.asserts import assert_contains, assert_equal, assert_le, assert_true, clause
from gates.commands import ROOT, assert_refused, assert_succeeded, children_seconds, run, run_all, workplace
from gates.in_process import package_space

CONFIG = "configs/supernet_fc2_180x240.yaml"
TRAIN = "python wrappers/run_supernet_train.py"

SPACE = spaces.chosen()
# Code position -> (block, what 0, 1 and 2 mean): of the default space the table of the specification (spec/02, section 4).
MEANING = [(block.name, tuple(block.labels)) for block in SPACE.blocks]

# The locked choices (spec/02, section 3), as keys of the configuration.
LOCKED = {
    "data.input_height": 180,
    "data.input_width": 240,
    "data.holdout": 0,
    "train.supernet_mode": "strict_fairness",
    "train.num_epochs": 200,
    "train.seed": 42,
    "train.arch_seed": 42,
    "train.optimizer": "adam",
    "train.lr_schedule": "cosine",
    "train.lr": 1e-4,
    "train.wd": 4e-5,
    "train.grad_clip": 5.0,
    "train.batch_size": 32,
    "eval.pool_size": 12,
    "eval.bn_recal_batches": 8,
    "eval.num_samples": 0,
    "eval.patience": 15,
    "eval.min_delta": 0.002,
    "network.init_channels": 32,
}


@clause("G1.1")
def test_help_names_the_core_flags(tmp_path):
    done = run(TRAIN + " --help", workplace(tmp_path))
    assert_succeeded(done)
    flags = re.findall(r"^\s+(--\w+)", done.out, re.MULTILINE)
    for name in ("gpu_device", "num_epochs", "batch_size", "lr", "config", "supernet_mode"):
        assert_true(what="flag", ok="--" + name in flags, got=flags, want="--" + name)


@clause("G1.2")
def test_dry_run_prints_every_value_with_its_origin(tmp_path):
    done = run(f"{TRAIN} --config {CONFIG} --lr 0.003 --dry_run", workplace(tmp_path))
    assert_succeeded(done)
    printed = {}
    for line in done.out.splitlines():
        parts = re.split(r"\s{2,}", line.strip())
        if len(parts) == 3:
            printed[parts[0]] = (parts[1], parts[2])
    in_file = yaml.safe_load((ROOT / CONFIG).read_text(encoding="utf-8"))
    want = {key.name: (repr(key.default), "default") for key in config.KEYS.values()}
    for section, values in in_file.items():
        want.update({f"{section}.{name}": (repr(value), CONFIG) for name, value in values.items()})
    want["train.lr"] = ("0.003", "command line")
    assert_equal(what="keys printed", got=sorted(printed), want=sorted(want))
    for name in want:
        assert_equal(what=name, got=printed[name], want=want[name])


@clause("G1.3")
def test_dry_run_never_imports_tensorflow(tmp_path):
    """A trap lies where Python looks for TensorFlow first; without --dry_run the same command must step into it."""
    trap, marker = tmp_path / "trap" / "tensorflow", tmp_path / "sprung"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text(f"open({str(marker)!r}, 'w').close()\nraise ImportError('trap')\n")
    folder = tmp_path / "work"
    folder.mkdir()
    workplace(folder)
    path = {"PYTHONPATH": os.pathsep.join([str(trap.parent), str(ROOT)])}
    before = sorted(os.listdir(str(folder)))
    done = run(f"{TRAIN} --config {CONFIG} --dry_run", folder, path)
    assert_succeeded(done)
    assert_true(what="after --dry_run", ok=not marker.exists(), got="an import of tensorflow", want="none")
    assert_equal(what="files left", got=sorted(os.listdir(str(folder))), want=before)
    run(f"{TRAIN} --config {CONFIG}", folder, path)
    assert_true(
        what="the trap", ok=marker.exists(), got="none without --dry_run", want="one (else this proves nothing)"
    )


# Keys whose values must fit: to the spaces there are, to one another, to the batch size.
VALID = {"network.space": ["edgeflownet_v2"], "network.arch_code": [], "train.micro_batch_size": [1, 1]}


def other_values(key):
    """Two valid values of a configuration key, both unlike its default; fewer for a key with fewer choices."""
    if key.choices:
        return [choice for choice in key.choices if choice != key.default]
    if isinstance(key.default, bool):
        return [not key.default]
    if key.name in VALID:
        return VALID[key.name]
    if isinstance(key.default, str):
        return ["one", "two"]
    return (
        [key.default + 2, key.default + 3] if isinstance(key.default, int) else [key.default + 0.5, key.default + 0.25]
    )


@clause("G1.4")
def test_command_line_beats_yaml_beats_default(tmp_path):
    """Every key of the configuration, through the trainer's own command line, by --set and by its own flag."""
    keys = [key for key in config.KEYS.values() if other_values(key)]
    assert_true(what="keys with another valid value", ok=len(keys) > 30, got=len(keys), want="nearly all")
    for rival in ("runtime.xla", "runtime.deterministic"):  # only one of the two may be on
        assert_layers([key for key in keys if key.name != rival], tmp_path / f"without_{rival}.yaml")


def assert_layers(keys, path):
    """Default, YAML file and command line of these keys, all at once."""
    sections, settings_given, flags, expected = {}, [], [], {}
    for key in keys:
        section, name = key.name.split(".")
        sections.setdefault(section, {})[name] = other_values(key)[0]
        last = other_values(key)[-1]
        if last == other_values(key)[0]:  # the only other value: let the command line restore the default
            last = key.default
        expected[key.name] = last
        settings_given += ["--set", f"{key.name}={last}"]
        if key.flag and not isinstance(key.default, bool):
            flags += [key.flag, str(last)]
    path.write_text(yaml.safe_dump(sections), encoding="utf-8")
    plain = config.flat(command_line.parse_train([])[0])
    from_yaml, from_settings, from_flags = [
        config.flat(command_line.parse_train(["--config", str(path)] + words)[0])
        for words in ([], settings_given, flags)
    ]
    for key in keys:
        assert_equal(what=f"{key.name} without YAML", got=plain[key.name], want=key.default)
        assert_equal(what=f"{key.name} in YAML", got=from_yaml[key.name], want=other_values(key)[0])
        assert_equal(what=f"{key.name} by --set", got=from_settings[key.name], want=expected[key.name])
        if key.flag in flags:
            assert_equal(what=f"{key.name} by {key.flag}", got=from_flags[key.name], want=expected[key.name])


def refusal(path):
    """What `config.load` says about a file; an empty text if it accepts it."""
    try:
        config.load(str(path), {})
    except UserError as error:
        return str(error)
    return ""


@clause("G1.5a")
def test_unknown_key_is_refused_with_the_nearest(tmp_path):
    path = workplace(tmp_path) / "run.yaml"
    for key in config.KEYS.values():  # one letter missing, in every key
        section, name = key.name.split(".")
        path.write_text(f"{section}:\n  {name[:1] + name[2:]}: 1\n", encoding="utf-8")
        assert_contains(what="refusal", got=refusal(path), want=f"did you mean {key.name}?")
    path.write_text("train:\n  batch_sise: 4\n", encoding="utf-8")
    (tmp_path / "section.yaml").write_text("trian:\n  lr: 0.1\n", encoding="utf-8")
    key, section, setting = run_all(
        [
            TRAIN + " --dry_run --config run.yaml",
            TRAIN + " --dry_run --config section.yaml",
            TRAIN + " --dry_run --set eval.patiance=3",
        ],
        tmp_path,
    )
    assert_refused(key, "run.yaml", "train.batch_sise", "did you mean train.batch_size?")
    assert_refused(section, "section.yaml", "trian", "did you mean train?")
    assert_refused(setting, "eval.patiance", "did you mean eval.patience?")


@clause("G1.5b")
def test_wrong_type_is_refused(tmp_path):
    wrong = {
        int: [1.5, "many", True, None, [3], {"a": 1}],
        float: ["fast", True, None, [0.1]],
        bool: [1, "yes please", None],
        str: [3, 1.5, True, ["a"]],
    }
    path = workplace(tmp_path) / "run.yaml"
    for key in config.KEYS.values():
        section, name = key.name.split(".")
        for value in wrong[type(key.default)]:
            path.write_text(yaml.safe_dump({section: {name: value}}), encoding="utf-8")
            said = refusal(path)
            assert_true(
                what="refusal",
                ok=f"{key.name}: expected" in said and "found " + repr(value) in said,
                got=said,
                want="the key, the type expected and the value found",
                key=key.name,
                value=value,
            )
    path.write_text("train:\n  batch_size: large\n", encoding="utf-8")
    in_file, on_line = run_all(
        [TRAIN + " --dry_run --config run.yaml", TRAIN + " --dry_run --num_epochs ten"], tmp_path
    )
    assert_refused(in_file, "run.yaml", "train.batch_size", "expected a whole number", "'large'")
    assert_refused(on_line, "train.num_epochs", "expected a whole number", "'ten'")


@clause("G1.5c")
def test_yaml_that_does_not_parse_is_refused(tmp_path):
    workplace(tmp_path)
    broken = {
        "bracket": b"train: [1, 2\n",
        "tab": b"train:\n\tlr: 1\n",
        "twice": b"train:\n  lr: 0.1\n  lr: 0.2\n",
        "binary": b"\x00\x01\x80",
        "object": b"train: !!python/object/apply:os.getcwd []\n",
    }
    for name, content in broken.items():
        (tmp_path / (name + ".yaml")).write_bytes(content)
        assert_contains(what=name, got=refusal(tmp_path / (name + ".yaml")), want="not valid YAML")
    names = ["bracket", "twice"]
    for name, done in zip(names, run_all([TRAIN + f" --dry_run --config {name}.yaml" for name in names], tmp_path)):
        assert_refused(done, name + ".yaml", "not valid YAML")


@clause("G1.6")
def test_shipped_configuration_holds_the_locked_choices():
    stored = yaml.safe_load((ROOT / CONFIG).read_text(encoding="utf-8"))
    loaded = config.flat(config.load(str(ROOT / CONFIG), {})[0])
    for name, want in LOCKED.items():
        section, key = name.split(".")
        assert_true(what=name, ok=key in stored[section], got=sorted(stored[section]), want="the key in the file")
        assert_equal(what=name, got=loaded[name], want=want)


# ---- architecture code


def spellings(code):
    """Every accepted spelling of a code, by name."""
    return {
        "tuple": tuple(code),
        "list": list(code),
        "int32 array": np.array(code, np.int32),
        "list of NumPy ints": [np.uint8(value) for value in code],
        "commas": ",".join(map(str, code)),
        "digits": "".join(map(str, code)),
    }


def refusal_of(code):
    """The message with which the codec refuses `code`, or what it did instead."""
    try:
        return str(arch_codec.parse(code, package_space()))
    except ValueError as error:
        return str(error)


@clause("G1.7")
def test_every_wrong_length_is_refused():
    right = len(MEANING)
    lengths = st.one_of(st.integers(0, right - 1), st.integers(right + 1, 3000))
    for wanted in (0, right - 1, right + 1, 100):  # the strategy draws short and long
        find(lengths, lambda length, wanted=wanted: length >= wanted if wanted > right else length == wanted)

    def check(code):
        want = f"length={right} required, got {len(code)}"
        for name, spelled in spellings(code).items():
            if name != "commas" or len(code) > 1:
                assert_contains(what=name, got=refusal_of(spelled), want=want, length=len(code))

    for length in list(range(right)) + list(range(right + 1, 40)):
        check([length % 3] * length)

    @settings(max_examples=100, phases=[Phase.generate])
    @given(lengths, st.randoms(use_true_random=False))
    def drawn(length, draw):
        check([draw.choice((0, 1, 2)) for _ in range(length)])

    drawn()


def one_of_these(*values):
    """Of values that need not be hashable."""
    return st.integers(0, len(values) - 1).map(lambda i: values[i])


# Wrong values by kind; a value of each kind is put into every position of a right code.
WRONG = {
    "bool": st.booleans(),
    "float": st.floats(),
    "float that equals an option": st.sampled_from([0.0, 1.0, 2.0]),
    "None": st.none(),
    "text": st.text(max_size=4),
    "text that reads like an option": st.sampled_from(["0", "1", "2", "1 ", " 2", "+1", "\u0661"]),
    "bytes": st.binary(max_size=2),
    "NumPy scalar of the wrong kind": one_of_these(
        np.float32(1), np.float64(0), np.bool_(True), np.str_("1"), np.timedelta64(1), np.complex64(1)
    ),
    "NumPy int out of range": st.sampled_from([np.int8(-1), np.uint8(3), np.int64(2**40)]),
    "negative int": st.integers(max_value=-1),
    "int of 3 or more": st.integers(min_value=3),
    "nested": one_of_these([0], (1,), [[2]], {}, np.array([1]), np.array(1)),
}


def assert_wrong_value(code, position, value):
    __tracebackhide__ = True
    plain = repr(value.item() if isinstance(value, np.generic) else value)
    shown = plain if plain.isprintable() and plain.isascii() and len(plain) < 20 else ""  # longer ones are shortened
    said = refusal_of(code)
    options = "{" + ",".join(str(i) for i in range(len(MEANING[position][1]))) + "}"
    for phrase in ("value must be in " + options, f"position {position} ", "block " + MEANING[position][0], shown):
        assert_contains(what="refusal", got=said, want=phrase, code=code)


@clause("G1.8")
def test_every_wrong_value_is_refused():
    codes = st.tuples(*[st.integers(0, count - 1) for count in SPACE.counts]).map(list)
    for kind, case in {
        "float": np.isnan,
        "negative int": lambda value: value < -(2**70),
        "text": lambda value: value == "",
        "int of 3 or more": lambda value: value == 3,
    }.items():
        find(WRONG[kind], case)  # the strategy can draw it

    @settings(max_examples=20, phases=[Phase.generate])  # not made smaller: as they are drawn, they are small
    @given(st.fixed_dictionaries(WRONG), codes)
    def in_sequences(one_of_each_kind, right):
        for value in one_of_each_kind.values():
            for position in range(len(MEANING)):
                code = list(right)
                code[position] = value
                assert_wrong_value(code, position, value)
                assert_wrong_value(tuple(code), position, value)

    almost = st.sampled_from(
        ["", "1 ", " 1", "\t2", "+1", "-0", "01", "1.0", "1e0", "0x1", "\u0661", "\uff11", "3", "-1"]
    )

    @settings(max_examples=100, phases=[Phase.generate])
    @given(
        st.characters(blacklist_characters="012,"),
        st.one_of(almost, st.text(st.characters(blacklist_characters=","), max_size=3)),
        codes,
    )
    def in_texts(character, part, right):
        for position in range(len(MEANING)):
            parts = [str(value) for value in right]
            parts[position] = character
            assert_wrong_value("".join(parts), position, character)
            parts[position] = part
            if part not in [str(i) for i in range(len(MEANING[position][1]))]:
                assert_wrong_value(",".join(parts), position, part)

    in_sequences()
    in_texts()


@clause("G1.9")
def test_every_code_round_trips_in_every_spelling():
    codes, space = list(SPACE.every_code()), package_space()
    sizes = {"edgeflownet_v1": 3**9, "edgeflownet_v2": 3**6 * 2**5}
    assert_equal(what="number of codes", got=[len(codes), space.size], want=[sizes[SPACE.name]] * 2)
    for code in codes:
        spelled = spellings(code)
        for name, spelling in spelled.items():
            got = arch_codec.parse(spelling, space)
            if got != code or set(map(type, got)) != {int}:  # a check per code would quote 118,098 of them
                assert_equal(what="parse of the " + name, got=got, want=code)
        texts = (arch_codec.to_text(code, space), arch_codec.to_digits(code, space))
        if texts != (spelled["commas"], spelled["digits"]):
            assert_equal(what="text", got=texts, want=(spelled["commas"], spelled["digits"]))


@clause("G1.10")
def test_every_position_and_value_means_what_the_table_says():
    for value in range(3):
        code = [(value + position) % count for position, count in enumerate(SPACE.counts)]
        want = [(name, labels[chosen]) for (name, labels), chosen in zip(MEANING, code)]
        got = list(arch_codec.describe(code, package_space()).items())
        assert_equal(what="meaning", got=got, want=want, code=code)


@clause("G1.11")
def test_self_test_passes(tmp_path):
    done = run("python -m edgeflownas.nas.arch_codec --self_test" + spaces.flag(), tmp_path)
    assert_succeeded(done)
    assert_contains(got=done.out, want=f"arch_codec self test passed: {SPACE.size} codes")


@clause("G1.12")
def test_self_test_fails_when_the_codec_is_broken(monkeypatch, capsys):
    parse, describe = arch_codec.parse, arch_codec.describe
    faults = {
        "parse": ("reads the code backwards", lambda code, space: parse(code, space)[::-1]),
        "_is_int": ("takes True for 1", lambda found: isinstance(found, (int, np.integer))),
        "describe": ("names one block wrongly", lambda code, space: dict(describe(code, space), H2="9x9")),
        "to_text": ("leaves the last value out", lambda code, space: ",".join(map(str, parse(code, space)[:-1]))),
    }
    whole = package_space()
    smaller = whole._replace(blocks=tuple(block._replace(options=block.options[:2]) for block in whole.blocks))
    for name, (fault, broken) in faults.items():
        with monkeypatch.context() as patch:
            patch.setattr(arch_codec, name, broken)
            problems = arch_codec.self_test(smaller)[1]
            assert_true(what="self test, two options a block", ok=problems, got=problems, want="problems", fault=fault)
    monkeypatch.setattr(arch_codec, "_is_int", faults["_is_int"][1])
    code = arch_codec.main(["--self_test"] + spaces.flag().split())
    assert_equal(what="exit code", got=code, want=1)
    assert_contains(what="verdict", got=capsys.readouterr().out, want="arch_codec self test FAILED")


# ---- the rest of the command line


@clause("G1.13")
def test_no_key_is_left_out_of_the_run_in_which_all_are_changed():
    known = set(config.KEYS)
    accounted = [*keys.CHANGED, *keys.ELSEWHERE, *[key for key in keys.NO_EFFECT if key not in keys.CHANGED]]
    assert_equal(what="keys accounted for, each once", got=sorted(accounted), want=sorted(known))
    for key, (_, checked_by) in keys.ELSEWHERE.items():
        assert_true(what=key, ok=clauses.TABLE.get(checked_by), got=checked_by, want="a clause of the table")
    shipped = config.flat(config.load(str(ROOT / CONFIG), {})[0])
    changed = config.flat(config.load(str(ROOT / CONFIG), keys.CHANGED)[0])
    for key in keys.CHANGED:
        assert_true(what=key, ok=changed[key] != shipped[key], got=changed[key], want="a value that is not shipped")
        checked_by = clauses.TABLE.get(keys.CHECKED_BY.get(key, ""))
        assert_true(what=key, ok=checked_by or key in keys.NO_EFFECT, got=checked_by, want="a clause or a reason")


SPY = """
import json, os
open(os.environ["SPY"], "w").write(json.dumps(os.environ.get("CUDA_VISIBLE_DEVICES")))
raise ImportError("spy")
"""


@clause("G1.14")
def test_gpu_device_reaches_tensorflow(tmp_path):
    """What CUDA_VISIBLE_DEVICES is when TensorFlow is imported: a spy lies where Python looks for it first."""
    spy = tmp_path / "spy" / "tensorflow"
    spy.mkdir(parents=True)
    (spy / "__init__.py").write_text(SPY)
    folder = tmp_path / "work"
    folder.mkdir()
    workplace(folder)
    flags = {"--gpu_device 3": "3", "--gpu_device -1": "-1", "": "0"}
    cases = [("python -m edgeflownas.nas.model_shape_check", words, want) for words, want in flags.items()]
    flags.update({"--set runtime.gpu_device=5": "5", "--gpu_device 3 --deterministic": "-1"})
    cases += [(TRAIN, words, want) for words, want in flags.items()]
    for command, words, want in cases:
        seen = tmp_path / "seen"
        path = {"PYTHONPATH": os.pathsep.join([str(spy.parent), str(ROOT)]), "SPY": str(seen)}
        run(f"{command} {words}", folder, path)
        got = seen.read_text() if seen.exists() else "no import"
        assert_equal(what="CUDA_VISIBLE_DEVICES", got=got, want=f'"{want}"', command=command, words=words)
        seen.unlink()


@clause("G1.15")
def test_baseline_is_the_published_network():
    """By the package's own name for it: Deep1 everywhere, 7x7 heads, but 5x5 in H1. v2 does not contain it."""
    if SPACE.name == "edgeflownet_v1":
        got = list(arch_codec.describe(package_space().baseline, package_space()).values())
        assert_equal(what="baseline", got=got, want=["Deep1"] * 4 + ["7x7", "5x5", "7x7", "7x7", "7x7"])
        assert_equal(what="code", got=tuple(package_space().baseline), want=(0, 0, 0, 0, 0, 1, 0, 0, 0))
    else:
        assert_equal(what="baseline", got=package_space().baseline, want=None)


@clause("G1.16")
def test_the_single_model_trainers_command_is_understood(tmp_path):
    """Its flags, as the training plan quotes them (section 10)."""
    words = (
        "--gpu_device 0 --num_epochs 400 --batch_size 32 --lr 1e-4 "
        "--network_module edgeflownas.network.MultiScaleResNet_supernet "
        "--load_checkpoint --resume_experiment_name x_fast --experiment_name x_fast --fast_mode"
    )
    done = run(f"{TRAIN} {words} --dry_run", workplace(tmp_path))
    assert_succeeded(done)
    printed = {line.split()[0]: line.split()[1] for line in done.out.splitlines() if len(line.split()) > 2}
    want = {
        "runtime.gpu_device": "'0'",
        "train.num_epochs": "400",
        "train.batch_size": "32",
        "train.lr": "0.0001",
        "runtime.experiment_name": "'x_fast'",
        "runtime.fast_mode": "True",
    }
    assert_equal(what="configuration", got={key: printed.get(key) for key in want}, want=want)


@clause("G1.17")
def test_help_and_dry_run_answer_in_two_seconds(tmp_path):
    workplace(tmp_path)
    for words in ("--help", f"--config {CONFIG} --dry_run"):
        before = children_seconds()
        assert_succeeded(run(f"{TRAIN} {words}", tmp_path))
        assert_le(what="processor time", got=children_seconds() - before, want=2.0, unit="s", words=words)
