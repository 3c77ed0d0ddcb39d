"""Gate 1, command line and configuration. Nothing here needs TensorFlow."""

import os
import re

import yaml

from edgeflownas import command_line, config
from edgeflownas.errors import UserError
from gates import clauses, keys
from gates.asserts import assert_contains, assert_equal, assert_le, assert_true, clause
from gates.commands import ROOT, assert_refused, assert_succeeded, children_seconds, run, run_all, workplace

CONFIG = "configs/supernet_fc2_180x240.yaml"
TRAIN = "python wrappers/run_supernet_train.py"

# What the shipped configuration fixes: the locked choices (spec/02, section 3), and what the design says of loss, clip
# and cycle (sections 5 to 7), as keys of the configuration.
LOCKED = {
    "data.input_height": 180,
    "data.input_width": 240,
    "data.holdout": 0,
    "data.flow_clip": 50.0,
    "network.module": "edgeflownas.network.MultiScaleResNet_supernet",
    "train.supernet_mode": "strict_fairness",
    "train.cycle_mode": "fused",
    "train.micro_batch_size": 0,
    "train.loss": "linear_softplus",
    "train.amp": False,
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
    "eval.batch_size": 8,
    "eval.num_samples": 0,
    "eval.patience": 15,
    "eval.min_delta": 0.002,
    "network.init_channels": 32,
}
# Younger keys of the training maths, which the file leaves out, and the keys in it that a user sets to his own paths.
LEFT_OUT = {"network.space": "edgeflownet_v1", "network.arch_code": ""}
PATHS = {"data.base_path", "data.list_dir"}


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
    """A fake TensorFlow, first on Python's path, records imports; without --dry_run the same command must import it."""
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


# Keys whose values must fit the known spaces, each other or the batch size.
VALID = {
    "network.space": ["edgeflownet_v2"],
    "network.arch_code": ["0" * 11, "1" * 11],
    "train.micro_batch_size": [1, 1],
}


def other_values(key):
    """Two valid values of a configuration key that are not its default; fewer for a key with fewer choices."""
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
    """Every configuration key, given to the trainer's command line by --set and by its own flag."""
    keys = [key for key in config.KEYS.values() if other_values(key)]
    assert_true(what="keys with another valid value", ok=len(keys) > 30, got=len(keys), want="nearly all")
    for rival in ("runtime.xla", "runtime.deterministic"):  # only one of the two may be on
        without = [key for key in keys if key.name not in (rival, "runtime.distributed")]
        assert_layers(without, tmp_path / f"without_{rival}.yaml")
    # It needs a size of micro-batches, whatever the others are.
    alone = [key for key in keys if key.name == "runtime.distributed"]
    assert_layers(alone, tmp_path / "distributed.yaml", "--micro_batch_size", "4")
    assert_zero_and_empty([key for key in keys if may_be_zero(key)], tmp_path / "zero.yaml")


def assert_layers(keys, path, *always):
    """Asserts the precedence of default, YAML file and command line for these keys, all at once; the words `always` are
    on each command line."""
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
        config.flat(command_line.parse_train(["--config", str(path), *always] + words)[0])
        for words in ([], settings_given, flags)
    ]
    for key in keys:
        assert_equal(what=f"{key.name} without YAML", got=plain[key.name], want=key.default)
        assert_equal(what=f"{key.name} in YAML", got=from_yaml[key.name], want=other_values(key)[0])
        assert_equal(what=f"{key.name} by --set", got=from_settings[key.name], want=expected[key.name])
        if key.flag in flags:
            assert_equal(what=f"{key.name} by {key.flag}", got=from_flags[key.name], want=expected[key.name])


def may_be_zero(key):
    """Whether 0, or an empty text, is a valid value of a key; it is a value, and not the same as no flag."""
    low, above = key.details.get("low"), key.details.get("above")
    free = not (key.choices or isinstance(key.default, bool) or key.name == "network.space")
    return free and above is None and (low is None or low <= 0)


def assert_zero_and_empty(keys, path):
    """Asserts that 0 and an empty text on the command line beat the YAML file, for all these keys at once."""
    assert_true(what="keys that may be 0 or empty", ok=len(keys) > 12, got=len(keys), want="more than 12")
    sections, settings_given, flags = {}, [], []
    for key in keys:
        section, name = key.name.split(".")
        sections.setdefault(section, {})[name] = other_values(key)[0]
        zero = str(type(key.default)())
        settings_given += ["--set", f"{key.name}={zero}"]
        flags += [key.flag, zero] if key.flag else []
    path.write_text(yaml.safe_dump(sections), encoding="utf-8")
    for words in (settings_given, flags):
        got = config.flat(command_line.parse_train(["--config", str(path), *words])[0])
        for key in keys:
            if key.flag or words is settings_given:
                assert_equal(what=f"{key.name} by {words[0]}", got=got[key.name], want=type(key.default)())


def refusal(path):
    """The error of `config.load` for a file; an empty text if it accepts the file."""
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
        whole_number_too = key.name == "runtime.gpu_device"  # YAML's 0 is the text "0" there
        for value in wrong[type(key.default)][1 if whole_number_too else 0 :]:
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
    in_file = {f"{section}.{key}" for section, values in stored.items() for key in values}
    assert_equal(what="keys in the file", got=sorted(in_file), want=sorted(set(LOCKED) | PATHS))
    maths = sorted(key.name for key in config.KEYS.values() if key.maths)
    assert_equal(what="keys that decide what training computes", got=maths, want=sorted({**LOCKED, **LEFT_OUT}))
    for name, want in {**LOCKED, **LEFT_OUT}.items():
        assert_equal(what=name, got=loaded[name], want=want)


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
    """A fake TensorFlow, first on Python's path, records CUDA_VISIBLE_DEVICES when it is imported."""
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


@clause("G1.16")
def test_the_single_model_trainers_command_is_understood(tmp_path):
    """The flags of that command, as the training plan quotes them (section 10)."""
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


@clause("G1.18")
def test_help_says_what_batch_norm_sees_of_a_cut_batch(tmp_path):
    done = run(f"{TRAIN} --help", workplace(tmp_path))
    assert_succeeded(done)
    words = " ".join(done.out.split("--micro_batch_size N")[-1].split("(default")[0].split())
    for phrase in ("BN", "sees the piece", "not the batch"):
        assert_contains(what="help of --micro_batch_size", got=words, want=phrase)


@clause("G1.19")
def test_traceback_shows_what_an_error_is_hidden_behind(tmp_path):
    workplace(tmp_path)
    wrong = f"{TRAIN} --config {CONFIG} --dry_run --batch_size 0"
    assert_refused(run(wrong, tmp_path), "batch_size")
    shown = run(f"{wrong} --traceback", tmp_path)
    assert_true(what="exit code with --traceback", ok=shown.code, got=shown.code, want="not 0")
    assert_contains(what="stderr with --traceback", got=shown.err, want="Traceback (most recent call last)")
