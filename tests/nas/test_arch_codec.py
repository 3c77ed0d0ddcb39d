"""The codec against the specification's table, a regular expression and plain references; its self test against
faults."""

import collections
import enum
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeflownas.errors import UserError
from edgeflownas.nas import arch_codec
from edgeflownas.nas.arch_codec import describe, parse, to_digits, to_text
from tests.nas.nas_spaces import MIXED, SPACES, V1, WIDE, codes_of

GOOD = (0, 1, 2, 0, 0, 1, 2, 1, 0)
SPELLING = 'write it like "0,0,0,0,0,0,0,0,0" or "000000000", no spaces'

# The table of the specification, section 4, spelled out.
MEANING = {
    "EB0": ["Deep1", "Deep2", "Deep3"],
    "EB1": ["Deep1", "Deep2", "Deep3"],
    "DB0": ["Deep1", "Deep2", "Deep3"],
    "DB1": ["Deep1", "Deep2", "Deep3"],
    "H0Out": ["7x7", "5x5", "3x3"],
    "H1": ["7x7", "5x5", "3x3"],
    "H1Out": ["7x7", "5x5", "3x3"],
    "H2": ["7x7", "5x5", "3x3"],
    "H2Out": ["7x7", "5x5", "3x3"],
}


def refusal(code, space=V1):
    with pytest.raises(ValueError) as caught:
        parse(code, space)
    assert type(caught.value) is ValueError
    return str(caught.value)


def with_value(value, position):
    return GOOD[:position] + (value,) + GOOD[position + 1 :]


# ---- what is accepted


@pytest.mark.parametrize("value", range(3))
@pytest.mark.parametrize("position", range(9))
def test_every_position_and_value_means_what_the_specification_says(position, value):
    found = describe(with_value(value, position), V1)
    want = {name: labels[GOOD[i]] for i, (name, labels) in enumerate(MEANING.items())}
    want[list(MEANING)[position]] = list(MEANING.values())[position][value]
    assert list(found.items()) == list(want.items())


@pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))
@given(data=st.data())
def test_all_spellings_of_a_code_are_one_code(space, data):
    code = data.draw(codes_of(space))
    text, digits = ",".join(map(str, code)), "".join(map(str, code))
    dtype = data.draw(st.sampled_from(["i1", "u1", "<i2", ">i4", "u4", "i8", "u8", "O"]))
    row = np.array([code, code], dtype)[1]
    for spelling in (
        code,
        list(code),
        row,
        [np.int16(v) for v in code],
        collections.deque(code),
        text,
        digits,
        np.str_(digits),
    ):
        parsed = parse(spelling, space)
        assert parsed == code and type(parsed) is tuple
        assert all(type(value) is int for value in parsed)
    assert to_text(code, space) == text and parse(to_text(digits, space), space) == code
    assert to_digits(code, space) == digits and parse(to_digits(row, space), space) == code


def test_other_kinds_of_sequences_and_ints_are_accepted():
    class Value(enum.IntEnum):
        TWO = 2

    pair = collections.namedtuple("pair", "a b c d e f g h i")
    assert parse(pair(*GOOD), V1) == GOOD
    parsed = parse(with_value(Value.TWO, 4), V1)
    assert parsed == with_value(2, 4) and type(parsed[4]) is int


def test_an_option_above_nine_is_spelled_with_commas_only():
    assert parse("10,1", WIDE) == (10, 1) and to_text((10, 1), WIDE) == "10,1"
    assert to_digits((9, 1), WIDE) == "91"
    with pytest.raises(ValueError, match=r"^arch code 10,1: a value above 9 has no digit; use the commas$"):
        to_digits((10, 1), WIDE)


# ---- what is refused


@pytest.mark.parametrize("length", [n for n in range(0, 31) if n != 9])
def test_a_wrong_length_is_named_in_every_spelling(length):
    want = f"arch code: length=9 required, got {length}; {SPELLING}"
    assert refusal((0,) * length) == want
    assert refusal(np.zeros(length, int)) == want
    assert refusal("0" * length) == want
    if length > 1:
        assert refusal(",".join("0" * length)) == want


SHOWN = [
    (3, "3 (int)"),
    (-1, "-1 (int)"),
    (np.int8(-1), "-1 (int8)"),
    (np.uint64(2**64 - 1), f"{2**64 - 1} (uint64)"),
    (10**5000, "an int of 16610 bits"),
    (-(2**64), "an int of 65 bits"),
    (2**64 - 1, f"{2**64 - 1} (int)"),
    (True, "True (bool)"),
    (False, "False (bool)"),
    (1.0, "1.0 (float)"),
    (float("nan"), "nan (float)"),
    (None, "None (NoneType)"),
    ("1", "'1' (str)"),
    ("1 ", "'1 ' (str)"),
    (b"1", "b'1' (bytes)"),
    ("", "'' (str)"),
    ("\u0661", r"'\u0661' (str)"),
    ("1\n", r"'1\n' (str)"),
    ([1], "[1] (list)"),
    ((1,), "(1,) (tuple)"),
    (1j, "1j (complex)"),
    (np.float32(1), "1.0 (float32)"),
    (np.float64(1), "1.0 (float64)"),
    (np.array(1), "array(1) (ndarray)"),
]


@pytest.mark.parametrize("position", [0, 4, 8])
@pytest.mark.parametrize("value, shown", SHOWN, ids=[shown for _, shown in SHOWN])
def test_a_wrong_value_is_named_with_position_and_block(value, shown, position):
    block = list(MEANING)[position]
    want = f"arch code: value must be in {{0,1,2}}, position {position} (block {block}), found {shown}; {SPELLING}"
    assert refusal(list(with_value(value, position))) == want


@pytest.mark.parametrize(
    "value",
    [
        np.bool_(False),
        np.bool_(True),
        np.timedelta64(1),
        np.datetime64(1, "s"),
        np.str_("1"),
        np.ma.masked,
        object(),
        {1},
        iter([1]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_wrong_values(value):
    assert "value must be in {0,1,2}, position 2 (block DB0), found " in refusal(with_value(value, 2))


def test_the_first_wrong_value_is_the_one_named():
    assert "position 3 (block DB1), found 'x' (str)" in refusal("012x0y000")


def test_a_block_of_two_options_allows_two_values():
    assert parse("01010", MIXED) == (0, 1, 0, 1, 0)
    message = refusal("02010", MIXED)
    assert message == (
        "arch code: value must be in {0,1}, position 1 (block B), found '2' (str); "
        'write it like "0,0,0,0,0" or "00000", no spaces'
    )


@pytest.mark.parametrize(
    "code, kind",
    [
        (None, "NoneType"),
        (0, "int"),
        (12001210, "int"),
        (1.5, "float"),
        (True, "bool"),
        (b"012001210", "bytes"),
        (bytes(GOOD), "bytes"),
        (bytearray(GOOD), "bytearray"),
        (memoryview(bytes(GOOD)), "memoryview"),
        (set(range(9)), "set"),
        (dict.fromkeys(range(9), 0), "dict"),
        ((v for v in GOOD), "generator"),
        (iter(GOOD), "tuple_iterator"),
        (map(int, GOOD), "map"),
        (np.int32(1), "int32"),
        (object(), "object"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_sequence_of_ints_is_refused(code, kind):
    assert refusal(code) == f"arch code: expected a sequence of ints or text, got {kind}; {SPELLING}"


@pytest.mark.parametrize("shape", [(), (1, 9), (9, 1), (3, 9), (0, 9), (9, 9, 9)])
def test_arrays_of_another_rank_are_refused(shape):
    assert refusal(np.zeros(shape, int)) == f"arch code: expected one dimension, got shape {shape}; {SPELLING}"


@pytest.mark.parametrize(
    "array",
    [
        np.array(GOOD, float),
        np.array(GOOD, bool),
        np.array(GOOD, "m8[s]"),
        np.array(GOOD, complex),
        np.array(list("012001210")),
    ],
    ids=lambda a: str(a.dtype),
)
def test_arrays_of_another_type_are_refused(array):
    assert "value must be in {0,1,2}, position 0 (block EB0), found " in refusal(array)


ALPHABET = "012,3 -+.\n\u0660\u0661\uff10\u00b2\u2460x"


@given(
    st.one_of(
        st.text(st.sampled_from("012,"), max_size=20),
        st.text(st.sampled_from(ALPHABET), max_size=20),
        st.text(st.sampled_from("0123"), min_size=9, max_size=9),
        st.text(max_size=9),
        st.lists(st.sampled_from(["0", "1", "2", "3", " 1", "", "00", "+1"]), min_size=9, max_size=9).map(",".join),
    )
)
@example("0,1,2,0,0,1,2,1,0,")
@example("012001210\n")
@example(" 012001210")
def test_text_is_accepted_exactly_if_the_regular_expression_matches(text):
    if re.fullmatch("[012]{9}|[012](,[012]){8}", text):
        assert parse(text, V1) == tuple(int(digit) for digit in text.replace(",", ""))
    else:
        message = refusal(text)
        assert "length=9 required, got " in message or "value must be in {0,1,2}, position " in message


@given(
    st.lists(
        st.one_of(st.integers(0, 2), st.integers(0, 2), st.integers(), st.booleans(), st.floats(), st.none()),
        min_size=8,
        max_size=10,
    )
)
def test_a_list_is_accepted_exactly_if_it_holds_nine_ints_in_range(values):
    if len(values) == 9 and all(type(value) is int and value in (0, 1, 2) for value in values):
        assert parse(values, V1) == tuple(values)
    else:
        refusal(values)


class Rude:
    """A value that cannot even be printed."""

    def __repr__(self):
        raise RuntimeError("no")


class Long:
    def __repr__(self):
        return "line\n" * 10**5


@pytest.mark.parametrize(
    "code",
    [
        "0" * 10**6,
        "0," * 10**6,
        "\n" * 9,
        ",".join(["0" * 10**5] * 9),
        [0] * 10**6,
        [["0" * 10**6]] * 9,
        [[[[[[[[0] * 10**5]]]]]]] * 9,
        [Rude()] * 9,
        [Long()] * 9,
        [10**10000] * 9,
        [np.zeros(10**5)] * 9,
        range(10**30),
        {str(n): n for n in range(10**5)},
        ["\ud800"] * 9,
        [np.zeros((9, 9))] * 9,
    ],
    ids=[
        "digits",
        "commas",
        "newlines",
        "tokens",
        "list",
        "nested",
        "deep",
        "rude",
        "long",
        "int",
        "array",
        "range",
        "dict",
        "surrogate",
        "matrix",
    ],
)
def test_the_message_stays_short_and_on_one_line(code):
    message = refusal(code)
    assert len(message) < 300 and "\n" not in message
    message.encode("ascii")


def test_a_range_beyond_what_len_can_count_is_refused():
    assert "length=9 required, got more than can be counted" in refusal(range(10**30))


# ---- the self test and the command line


@pytest.mark.parametrize("space", [MIXED, SPACES["odd"], SPACES["single"]], ids=["mixed", "odd", "single"])
def test_the_self_test_passes_on_other_spaces(space):
    checked, problems = arch_codec.self_test(space)
    assert problems == [] and checked.startswith(f"{space.size} codes in 6 spellings each, ")


def test_the_self_test_tries_these_refusals():
    found = list(arch_codec._wrong_shapes(GOOD, V1))
    assert [name for name, _, _ in found] == [
        "a tuple of 0",
        "0 digits",
        "a tuple of 1",
        "1 digits",
        "a tuple of 8",
        "8 digits",
        "a tuple of 10",
        "10 digits",
        "a tuple of 900",
        "900 digits",
        "a trailing comma",
    ] + [
        f"a {kind} as the whole code"
        for kind in (
            "NoneType int int float bool bytes bytearray set tuple_iterator dict ndarray ndarray ndarray ndarray"
        ).split()
    ]
    assert [len(code) for _, code, _ in found[:11]] == [0, 0, 1, 1, 8, 8, 10, 10, 900, 900, 18]
    assert [code for _, code, _ in found[11:16]] == [None, 0, 12001210, 1.5, True]
    found = list(arch_codec._wrong_values(GOOD, V1))
    assert len(found) == 9 * 20
    values = (
        "3 (int)",
        "-1 (int)",
        "an int of 16610 bits",
        "None (NoneType)",
        "True (bool)",
        "1.0 (float)",
        "'0' (str)",
        "'1 ' (str)",
        "b'0' (bytes)",
        "[0] (list)",
    )
    for position, block in enumerate(V1.names):
        here = found[20 * position : 20 * position + 20]
        assert tuple(name for name, _, _ in here[:10]) == tuple(f"{value} at position {position}" for value in values)
        for name, code, phrases in here:
            good = "012001210" if isinstance(code, str) else GOOD
            assert name.endswith(f" at position {position}") and len(code) == 9
            assert (code[:position], code[position + 1 :]) == (good[:position], good[position + 1 :])
            assert phrases == ["value must be in {0,1,2}", f"position {position} ", block]


def accepts_bools(code, space, real=parse):
    return real([int(v) if isinstance(v, bool) else v for v in code] if isinstance(code, tuple) else code, space)


def accepts_unicode_digits(code, space, real=parse):
    return real("".join(str(int(c)) if c.isdigit() else c for c in code) if isinstance(code, str) else code, space)


def strips_commas(code, space, real=parse):
    return real(code.strip(",") if isinstance(code, str) else code, space)


def reversed_digits(code, space, real=parse):
    return real(code[::-1] if isinstance(code, str) else code, space)


def returns_numpy_ints(code, space, real=parse):
    return tuple(np.int64(value) for value in real(code, space))


def returns_a_list(code, space, real=parse):
    return list(real(code, space))


def forgets_the_block(code, space, real=parse):
    try:
        return real(code, space)
    except ValueError as error:
        raise ValueError(re.sub(r"\(block \w+\)", "", str(error)).replace("EB", ""))


def forgets_the_length(code, space, real=parse):
    try:
        return real(code, space)
    except ValueError as error:
        raise ValueError(str(error).replace("required", ""))


def raises_type_error(code, space, real=parse):
    try:
        return real(code, space)
    except ValueError as error:
        raise TypeError(str(error))


def clamps(code, space):
    return tuple(min(int(value), options - 1) for value, options in zip(code, space.num_options))


FAULTS = [
    accepts_bools,
    accepts_unicode_digits,
    strips_commas,
    reversed_digits,
    returns_numpy_ints,
    returns_a_list,
    forgets_the_block,
    forgets_the_length,
    raises_type_error,
    clamps,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_self_test_reports_a_planted_fault(fault, monkeypatch):
    monkeypatch.setattr(arch_codec, "parse", fault)
    assert arch_codec.self_test(MIXED)[1]


@pytest.mark.parametrize(
    "name, fault",
    [
        ("to_text", lambda code, space: " ".join(map(str, code))),
        ("to_digits", lambda code, space: "0" * len(code)),
        ("describe", lambda code, space: dict.fromkeys(space.names, "Deep1")),
        ("describe", lambda code, space: {}["missing"]),
    ],
    ids=["to_text", "to_digits", "describe", "KeyError"],
)
def test_the_self_test_reports_a_fault_beside_parse(name, fault, monkeypatch):
    monkeypatch.setattr(arch_codec, name, fault)
    problems = arch_codec.self_test(MIXED)[1]
    assert problems and all(problem.startswith(f"{name} of (") for problem in problems)


def test_the_self_test_goes_on_after_a_fault_that_raises(monkeypatch):
    monkeypatch.setattr(arch_codec, "to_text", lambda code, space: [][0])
    monkeypatch.setattr(arch_codec, "describe", lambda code, space: {})
    problems = arch_codec.self_test(MIXED)[1]
    assert len(problems) == 2 * MIXED.size
    assert problems[0] == "to_text of (0, 0, 0, 0, 0): raised IndexError: list index out of range"
    assert problems[1].startswith("describe of (0, 0, 0, 0, 0): got {}, want {'A': 'Deep1', ")


def test_main_passes_a_sound_codec(monkeypatch, capsys):
    monkeypatch.setattr(arch_codec, "self_test", lambda space, real=arch_codec.self_test: real(MIXED))
    assert arch_codec.main(["--self_test"]) == 0
    assert re.fullmatch(r"arch_codec self test passed: 108 codes .*; 0 problems\n", capsys.readouterr().out)


def test_main_fails_and_shows_the_first_problems_of_a_broken_codec(monkeypatch, capsys):
    monkeypatch.setattr(arch_codec, "self_test", lambda space, real=arch_codec.self_test: real(MIXED))
    monkeypatch.setattr(arch_codec, "parse", strips_commas)
    assert arch_codec.main(["--self_test"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("problem: a trailing comma: accepted as (0, 0, 0, 0, 0)")
    assert re.fullmatch(r"arch_codec self test FAILED: 108 codes .*; 1 problems", lines[-1]) and len(lines) == 2
    monkeypatch.setattr(arch_codec, "parse", lambda code, space: None)
    assert arch_codec.main(["--self_test"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 11


def test_main_prints_the_table_of_a_code(capsys):
    assert arch_codec.main(["--code", "0,1,2,0,0,1,2,1,0"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["arch", "code", "0,1,2,0,0,1,2,1,0"]
    assert lines[1] == ["position", "block", "kind", "value", "option"]
    assert lines[2] == ["0", "EB0", "depth", "0", "Deep1"] and lines[10] == ["8", "H2Out", "kernel", "0", "7x7"]
    assert [line[4] for line in lines[2:]] == [MEANING[name][value] for name, value in zip(MEANING, GOOD)]


def test_main_refuses_a_wrong_code_as_a_user_error():
    with pytest.raises(UserError, match=r"^--code: arch code: length=9 required, got 0; "):
        arch_codec.main(["--code", ""])


@pytest.mark.parametrize(
    "argv, said",
    [
        ([], "one of the arguments --self_test --code is required"),
        (["--self"], "one of the arguments"),
        (["--self_test", "--code", "000000000"], "argument --code: not allowed with argument --self_test"),
    ],
)
def test_main_wants_exactly_one_thing_to_do(argv, said):
    with pytest.raises(UserError, match=said):
        arch_codec.main(argv)


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        timeout=120,
    )


def test_the_command_checks_all_codes_with_assertions_switched_off():
    done = run("-O", "-m", "edgeflownas.nas.arch_codec", "--self_test")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r"arch_codec self test passed: 19683 codes in 6 spellings each, \d{3} refusals; 0 problems\n", done.stdout
    )


def test_the_command_fails_on_a_broken_codec_with_assertions_switched_off():
    broken = (
        "import sys; from edgeflownas.nas import arch_codec as c\n"
        "c._is_int = lambda found: isinstance(found, (int, c.np.integer))\n"
        "real = c.self_test; c.self_test = lambda space: real(space._replace(blocks=space.blocks[:2]))\n"
        "sys.exit(c.main(['--self_test']))"
    )
    done = run("-O", "-c", broken)
    assert done.returncode == 1 and "problem: True (bool) at position 0: accepted as (1, 0)\n" in done.stdout


def test_the_command_answers_a_wrong_code_in_one_line():
    done = run("-m", "edgeflownas.nas.arch_codec", "--code", "01200121\u0660")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: --code: arch code: value must be in {0,1,2}, position 8 (block H2Out), "
        f"found '\\u0660' (str); {SPELLING}\n"
    )
    done = run("-m", "edgeflownas.nas.arch_codec", "--code", "01", "--traceback")
    assert done.returncode != 0 and "Traceback" in done.stderr
