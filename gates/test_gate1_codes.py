"""Gate 1, architecture codes. Nothing here needs TensorFlow."""

import numpy as np
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from edgeflownas.nas import arch_codec
from gates import spaces
from gates.asserts import assert_contains, assert_equal, assert_true, clause
from gates.commands import assert_succeeded, run
from gates.package_objects import package_space

SPACE = spaces.chosen()
# Code position -> (block, labels of its values); for the default space, this is the table of spec/02 4.
MEANING = [(block.name, tuple(block.labels)) for block in SPACE.blocks]

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
    """The codec's error for `code`, or its result if it accepts it."""
    try:
        return str(arch_codec.parse(code, package_space()))
    except ValueError as error:
        return str(error)


@clause("G1.7")
def test_every_wrong_length_is_refused():
    right = len(MEANING)
    lengths = st.one_of(st.integers(0, right - 1), st.integers(right + 1, 3000))
    for wanted in (0, right - 1, right + 1, 100):  # the strategy can draw short and long codes
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
    """A strategy like `sampled_from`, but for values that need not be hashable."""
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

    @settings(max_examples=20, phases=[Phase.generate])  # no shrinking: the drawn values are small already
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
            if got != code or set(map(type, got)) != {int}:  # an assertion per code would record 118,098 checks
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


@clause("G1.15")
def test_baseline_is_the_published_network():
    """The package's `baseline` is Deep1 everywhere, 5x5 in H1 and 7x7 in the other heads. v2 does not contain it."""
    if SPACE.name == "edgeflownet_v1":
        got = list(arch_codec.describe(package_space().baseline, package_space()).values())
        assert_equal(what="baseline", got=got, want=["Deep1"] * 4 + ["7x7", "5x5", "7x7", "7x7", "7x7"])
        assert_equal(what="code", got=tuple(package_space().baseline), want=(0, 0, 0, 0, 0, 1, 0, 0, 0))
    else:
        assert_equal(what="baseline", got=package_space().baseline, want=None)
