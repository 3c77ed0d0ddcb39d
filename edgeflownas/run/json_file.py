"""Reads the JSON files of a run folder strictly: UTF-8, one object, no NaN, no Infinity. Built on `json`."""

import json
from pathlib import Path
from typing import Any, Dict, Union

from edgeflownas.errors import DataError


def parse_object(content: bytes) -> Dict[str, Any]:
    """Parses a JSON object in UTF-8. ValueError for anything else, also for NaN and Infinity."""
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise NotAnObject(f"expected a JSON object, found {type(value).__name__}")
    return value


class NotAnObject(ValueError):
    """Valid JSON, but not an object."""


def read_json(path: Union[str, Path], hint: str = "") -> Dict[str, Any]:
    """Reads the object in a JSON file. DataError names the file and ends with `hint`, the advice to the user."""
    advice = f"; {hint}" if hint else ""
    try:
        return parse_object(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}{advice}") from error
    except NotAnObject as error:
        raise DataError(f"{path}: {error}{advice}") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged, not JSON: {str(error)[:200]}{advice}") from error


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a value of JSON")
