"""Arch codes: parses every accepted spelling to a tuple of ints, formats codes, and names the options of a code.

An arch code has one integer per block of the search space, the index of the block's option. Accepted: a sequence of
ints (NumPy's too), "0,1,2,0,0,1,2,1,0" and "012001210". Anything else raises a ValueError of one line. Built on
`search_space`.

    python -m edgeflownas.nas.arch_codec --self_test
    python -m edgeflownas.nas.arch_codec --code 012001210
    python -m edgeflownas.nas.arch_codec --space edgeflownet_v2 --code 21012001011
"""

import collections.abc
import itertools
import reprlib
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np

from edgeflownas.arguments import Parser
from edgeflownas.config import KEYS, NetworkConfig
from edgeflownas.errors import UserError, run_cli
from edgeflownas.nas.search_space import Block, SearchSpace, get_space

_BYTES = (bytes, bytearray, memoryview)  # Python treats them as sequences of ints, but they are never codes
_PROBLEMS_SHOWN = 10


def parse(code: Any, space: SearchSpace) -> Tuple[int, ...]:
    """The code as a tuple of Python ints, one per block.

    ValueError: no sequence or text, a wrong length (`length=9 required, got N`), or a wrong value (`value must be in
    {0,1,2}`, its position from 0, the block's name, what was found). True, 1.0 and None are wrong values.
    """
    values = _split(code, space)
    required, count = len(space.blocks), _length(values)
    if count != required:
        raise ValueError(f"arch code: length={required} required, got {count}; {_spelling(space)}")
    of_text = isinstance(code, str)
    return tuple(_value(found, position, space, of_text) for position, found in enumerate(values))


def to_text(code: Any, space: SearchSpace) -> str:
    """The code with commas: `0,1,2,0,0,1,2,1,0`. Raises the ValueErrors of `parse`."""
    return ",".join(str(value) for value in parse(code, space))


def to_digits(code: Any, space: SearchSpace) -> str:
    """The code as digits: `012001210`. Raises the ValueErrors of `parse`, and one for a value above 9."""
    values = parse(code, space)
    if max(values) > 9:
        raise ValueError(f"arch code {to_text(values, space)}: a value above 9 has no digit; use the commas")
    return "".join(str(value) for value in values)


def describe(code: Any, space: SearchSpace) -> Dict[str, str]:
    """The options that the code selects, {block name: "Deep2" or "7x7"}, in code order. ValueErrors of `parse`."""
    return {block.name: block.label(value) for block, value in zip(space.blocks, parse(code, space))}


def space_of(network: NetworkConfig) -> SearchSpace:
    """The configuration's search space, narrowed to `arch_code` if it is set. UserError: no such space, wrong code."""
    space = get_space(network.space)
    if not network.arch_code:
        return space
    try:
        return space.narrowed(parse(network.arch_code, space))
    except ValueError as error:
        raise UserError(f"network.arch_code: {error}") from error


def _split(code: Any, space: SearchSpace) -> Any:
    """The code's values as a sequence, unchecked."""
    if isinstance(code, str):
        return code.split(",") if "," in code else code
    if isinstance(code, np.ndarray):
        if code.ndim != 1:
            raise ValueError(f"arch code: expected one dimension, got shape {code.shape}; {_spelling(space)}")
        return code
    if isinstance(code, collections.abc.Sequence) and not isinstance(code, _BYTES):
        return code
    kind = type(code).__name__
    raise ValueError(f"arch code: expected a sequence of ints or text, got {kind}; {_spelling(space)}")


def _length(values: Any) -> Any:
    try:
        return len(values)
    except OverflowError:  # range(10 ** 30)
        return "more than can be counted"


def _value(found: Any, position: int, space: SearchSpace, of_text: bool) -> int:
    block = space.blocks[position]
    if of_text:
        # A lookup, because int() would also accept " 1", "+1", "01" and digits of other scripts.
        value = {str(value): value for value in block.values}.get(found)
    else:
        value = int(found) if _is_int(found) and int(found) in block.values else None
    if value is None:
        raise ValueError(
            f"arch code: value must be in {_allowed(block)}, position {position} "
            f"(block {block.name}), found {_shown(found)}; {_spelling(space)}"
        )
    return value


def _is_int(found: Any) -> bool:
    # bool is a subclass of int, and timedelta64 of np.integer.
    return isinstance(found, (int, np.integer)) and not isinstance(found, (bool, np.timedelta64))


def _allowed(block: Block) -> str:
    return "{" + ",".join(map(str, block.values)) + "}"


def _shown(found: Any) -> str:
    """A short ASCII text of the value and its type, the same on every NumPy version; other characters are escaped."""
    if _is_int(found) and abs(int(found)) >= 2**64:  # Python does not convert an int of 5,000 digits to text
        return f"an int of {int(found).bit_length()} bits"
    plain = found.item() if isinstance(found, np.generic) else found
    text = reprlib.repr(plain).encode("ascii", "backslashreplace").decode("ascii")
    return f"{' '.join(text.split())} ({type(found).__name__})"


def _spelling(space: SearchSpace) -> str:
    example = [str(block.values[0]) for block in space.blocks]
    return f'write it like "{",".join(example)}" or "{"".join(example)}", no spaces'


# ---- self test, without `assert` statements, so that `python -O` runs it in full

# Exceptions that a faulty codec may raise; the self test reports them as problems.
_FAULTS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
_Refused = Tuple[str, Any, List[str]]  # (what is wrong, the spelling, phrases required in the message)


def self_test(space: SearchSpace) -> Tuple[str, List[str]]:
    """Tests every code of the space in every spelling, and wrong codes. Returns (what was checked, problems)."""
    codes = list(itertools.product(*(block.values for block in space.blocks)))
    problems = [problem for code in codes for problem in _spelling_problems(code, space)]
    refused = list(_wrong_values(codes[0], space)) + list(_wrong_shapes(codes[0], space))
    for name, code, phrases in refused:
        problems.extend(_refusal_problems(name, code, phrases, space))
    spellings = len(_spellings(codes[0]))
    return f"{len(codes)} codes in {spellings} spellings each, {len(refused)} refusals", problems


def _spellings(code: Tuple[int, ...]) -> Dict[str, Any]:
    # Does not use the codec, because the codec is under test.
    return {
        "tuple": code,
        "list": list(code),
        "array": np.array(code, np.int32),
        "list of NumPy ints": [np.int64(value) for value in code],
        "text with commas": ",".join(map(str, code)),
        "digits": "".join(map(str, code)),
    }


def _spelling_problems(code: Tuple[int, ...], space: SearchSpace) -> List[str]:
    spellings = _spellings(code)
    labels = {block.name: block.label(value) for block, value in zip(space.blocks, code)}
    calls: List[Tuple[str, Callable[..., Any], Any, Any]] = [
        ("to_text of", to_text, code, spellings["text with commas"]),
        ("to_digits of", to_digits, code, spellings["digits"]),
        ("describe of", describe, code, labels),
    ]
    calls += [(f"parse of the {name} of", parse, spelled, code) for name, spelled in spellings.items()]
    problems = []
    for name, function, argument, want in calls:
        try:
            got = function(argument, space)
        except _FAULTS as error:
            problems.append(f"{name} {code}: raised {type(error).__name__}: {error}")
            continue
        if got != want or [type(item) for item in got] != [type(item) for item in want]:
            problems.append(f"{name} {code}: got {got!r}, want {want!r}")
    return problems


def _wrong_values(code: Tuple[int, ...], space: SearchSpace) -> Iterator[_Refused]:
    """Yields the good `code` with one wrong value, for every position."""
    digits = "".join(map(str, code))
    for position, block in enumerate(space.blocks):
        phrases = [f"value must be in {_allowed(block)}", f"position {position} ", block.name]
        options = len(block.options)
        values = (
            options,
            -1,
            10**5000,
            None,
            True,
            1.0,
            "0",
            "1 ",
            b"0",
            [0],
            np.bool_(True),
            np.float32(1),
            np.timedelta64(0),
        )
        for value in values:
            wrong = code[:position] + (value,) + code[position + 1 :]
            yield f"{_shown(value)} at position {position}", wrong, phrases
        for other in (str(options), " ", "x", "-", "\u0660", "\u00b2", "\uff10"):
            text = digits[:position] + other + digits[position + 1 :]
            yield f"{_shown(other)} in digits at position {position}", text, phrases


def _wrong_shapes(code: Tuple[int, ...], space: SearchSpace) -> Iterator[_Refused]:
    blocks = len(code)
    for length in (0, 1, blocks - 1, blocks + 1, 100 * blocks):
        if length != blocks:
            phrases = [f"length={blocks} required, got {length}"]
            yield f"a tuple of {length}", (0,) * length, phrases
            yield f"{length} digits", "0" * length, phrases
    text = ",".join(map(str, code))
    yield "a trailing comma", text + ",", [f"length={blocks} required, got {blocks + 1}"]
    wrong: List[Any] = [
        None,
        0,
        12001210,
        1.5,
        True,
        text.encode(),
        bytearray(code),
        set(code),
        iter(code),
        dict(enumerate(code)),
        np.array([code]),
        np.array(0),
        np.array(code, float),
        np.array(code, bool),
    ]
    for value in wrong:
        yield f"a {type(value).__name__} as the whole code", value, ["arch code"]


def _refusal_problems(name: str, code: Any, phrases: List[str], space: SearchSpace) -> List[str]:
    try:
        got = parse(code, space)
    except ValueError as error:
        message = str(error)
        lacking = [phrase for phrase in phrases if phrase not in message]
        return [f"{name}: the message lacks {phrase!r}: {message:.200}" for phrase in lacking]
    except _FAULTS as error:
        return [f"{name}: raised {type(error).__name__} instead of ValueError: {str(error):.200}"]
    return [f"{name}: accepted as {got!r}"]


# ---- command line


def _print_table(code: Tuple[int, ...], space: SearchSpace) -> None:
    row = "{:<9} {:<8} {:<8} {:<6} {}"
    print(f"arch code {to_text(code, space)}")
    print(row.format("position", "block", "kind", "value", "option"))
    for position, (block, label) in enumerate(zip(space.blocks, describe(code, space).values())):
        print(row.format(position, block.name, block.kind, code[position], label))


def main(argv: Optional[List[str]] = None) -> int:
    """Entry point. Returns 0, or 1 if the self test fails. A wrong `--code` is a UserError."""
    parser = Parser("python -m edgeflownas.nas.arch_codec", "Check the architecture codec, or show what a code means.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--self_test", action="store_true", help="all codes in all spellings, and the refusals")
    what.add_argument("--code", help='show what a code means, for example "0,1,2,0,0,1,2,1,0" or 012001210')
    parser.add_argument("--space", default=KEYS["network.space"].default, help="search space (default: %(default)s)")
    args = parser.parse_args(argv)
    space = get_space(args.space)
    if args.code is not None:
        try:
            code = parse(args.code, space)
        except ValueError as error:
            raise UserError(f"--code: {error}") from error
        _print_table(code, space)
        return 0
    checked, problems = self_test(space)
    for problem in problems[:_PROBLEMS_SHOWN]:
        print(f"problem: {problem}")
    verdict = "FAILED" if problems else "passed"
    print(f"arch_codec self test {verdict}: {checked}; {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    run_cli(main)
