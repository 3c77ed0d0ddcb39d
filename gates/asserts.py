"""`@clause` and the assertions of the gates. All failure messages have the same form:

    G2.8 <sentence>: EB0 counts got [300, 300, 299], want [300, 300, 300] (tolerance, unit) [seed=42]
      reproduce: python -m pytest gates -m gate2 -k '[G2.8]'

All arguments are keyword-only. `what` names the quantity; further keywords (seed, step, code ...) are printed as
context. Outside a clause (in a unit test) the messages have no id and sentence.
"""

import functools
from typing import Any, Callable, Dict, List

import numpy as np
import pytest

from gates import clauses

_LONGEST = 300  # characters of one value in a message
_KEPT = 3  # so many checks of a passing clause are quoted in the record

table = clauses.TABLE  # the plugin replaces it if pytest.ini names another table
_current: List[str] = []
_checked: List[str] = []


def clause(clause_id: str) -> Callable:
    """Marks a test as the test of a clause. In it, failure messages have the clause's id and sentence."""

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def inside_clause(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            _current.append(clause_id)
            del _checked[:]
            try:
                return function(*args, **kwargs)
            finally:
                _current.pop()

        return pytest.mark.clause(clause_id)(inside_clause)

    return decorate


def heading(clause_id: str) -> str:
    """The beginning of a failure message: `G2.8 <sentence>`."""
    found = table.get(clause_id)
    return "{} {}".format(clause_id, found.sentence if found else "(not in the clause table)")


def checked() -> str:
    """The got and want of the first checks in the clause that ran last."""
    more = len(_checked) - _KEPT
    return "; ".join(_checked[:_KEPT] + ([f"{more} more"] if more > 0 else []))


def _show(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size > 16:
        return f"array {value.shape} {value.dtype}"
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"


def _verdict(passed: bool, what: str, got: str, want: str, aside: str, context: Dict[str, Any]) -> None:
    __tracebackhide__ = True
    sentence = "{}got {}, want {}".format(what + " " if what else "", got, want)
    if passed:
        _checked.append(sentence)
        return
    message = sentence + (f" ({aside})" if aside else "")
    if context:
        message += " [{}]".format(", ".join(f"{key}={_show(value)}" for key, value in context.items()))
    if _current:
        clause_id = _current[-1]
        message = "{}: {}\n  reproduce: python -m pytest gates -m gate{} -k '[{}]'".format(
            heading(clause_id), message, clause_id[1:].split(".")[0], clause_id
        )
    raise AssertionError(message)


def assert_true(*, ok: Any, got: Any, want: str, what: str = "", **context: Any) -> None:
    """Asserts `ok`. `got` is the state found; `want` says in words what was wanted."""
    __tracebackhide__ = True
    _verdict(bool(ok), what, _show(got), want, "", context)


def assert_equal(*, got: Any, want: Any, what: str = "", **context: Any) -> None:
    """Asserts exact equality, of arrays in shape and every element; NaN is never equal. Shows the first difference."""
    __tracebackhide__ = True
    if not (isinstance(got, np.ndarray) or isinstance(want, np.ndarray)):
        _verdict(bool(got == want), what, _show(got), _show(want), "exact", context)
        return
    left, right = np.asarray(got), np.asarray(want)
    if left.shape != right.shape:
        _verdict(False, what, f"shape {left.shape}", f"shape {right.shape}", "exact", context)
    different = np.argwhere(np.atleast_1d(left != right))
    aside = "exact"
    if len(different):
        first = tuple(int(i) for i in different[0])
        aside = (
            f"exact; {len(different)} of {left.size} differ, first at {first}: {np.atleast_1d(left)[first]} and "
            f"{np.atleast_1d(right)[first]}"
        )
    _verdict(not len(different), what, _show(got), _show(want), aside, context)


def assert_close(
    *, got: Any, want: Any, atol: float = 0.0, rtol: float = 0.0, unit: str = "", what: str = "", **context: Any
) -> None:
    """Asserts |got - want| <= atol + rtol * |want| for all elements; same shape, not empty, finite. Shows the worst."""
    __tracebackhide__ = True
    left, right = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    if left.shape != right.shape:
        _verdict(False, what, f"shape {left.shape}", f"shape {right.shape}", "", context)
    finite = np.isfinite(left) & np.isfinite(right)
    with np.errstate(invalid="ignore"):  # NaN and infinity fail by `finite`
        allowed = atol + rtol * np.abs(right)
        badness = np.where(finite, np.abs(left - right) - allowed, np.inf)
        passed = bool(left.size) and bool(np.all(badness <= 0))
    aside = "tolerance {:g}{}".format(atol, f" + {rtol:g} relative" if rtol else "") + (", " + unit if unit else "")
    if left.size == 1:
        _verdict(passed, what, f"{left.item():.9g}", f"{right.item():.9g}", aside, context)
        return
    worst = np.unravel_index(int(np.argmax(badness)), left.shape) if left.size else ()
    at = f" at {tuple(int(i) for i in worst)}" if left.size else ""
    _verdict(
        passed,
        what,
        f"{left[worst]:.9g}{at} of {left.shape}" if left.size else "an empty array",
        f"{right[worst]:.9g}" if left.size else "an empty array",
        aside,
        context,
    )


def assert_le(*, got: Any, want: float, atol: float = 0.0, unit: str = "", what: str = "", **context: Any) -> None:
    """Asserts that `got` is not empty and every element is finite and at most `want` + `atol`."""
    __tracebackhide__ = True
    values = np.asarray(got, dtype=np.float64)
    passed = bool(values.size) and bool(np.all(np.isfinite(values))) and bool(np.all(values <= want + atol))
    largest = f"{values.max():.9g}" if values.size else "no value"
    aside = ", ".join(part for part in (f"tolerance {atol:g}" if atol else "", unit) if part)
    _verdict(passed, what, largest, f"at most {want:.9g}", aside, context)


def assert_contains(*, got: str, want: str, what: str = "", **context: Any) -> None:
    """Asserts that the text `got` contains `want`."""
    __tracebackhide__ = True
    _verdict(want in got, what, _show(got), f"text containing {want!r}", "", context)
