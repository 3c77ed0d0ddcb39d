"""Reads YAML files strictly: no objects, no repeated keys, plain decimal numbers only. Built on PyYAML."""

import os
import re
from typing import Any, Dict

import yaml

from edgeflownas.errors import UserError

MAX_YAML_BYTES = 1 << 20
_PLAIN = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")


class _Loader(yaml.SafeLoader):
    """A SafeLoader for which equal keys and numbers such as 010, 0x10 and 1:30 are errors. PyYAML keeps the last of two
    equal keys, and reads these numbers as 8, 16 and 90."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_number(self, node: Any) -> Any:
        text = self.construct_scalar(node)
        number = self.construct_yaml_int if node.tag.endswith(":int") else self.construct_yaml_float
        if not _PLAIN.fullmatch(text) and not text.lower().endswith((".inf", ".nan")):
            said = f"{text!r} is no plain decimal number, YAML would read {number(node)}: write it out, or quote a text"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark)
        return number(node)


for _tag in ("int", "float"):
    _Loader.add_constructor("tag:yaml.org,2002:" + _tag, _Loader.construct_number)


def read_yaml_file(path: str) -> Any:
    """The content of a YAML file; None if it is empty. UserError: unreadable, too large, not YAML, a key twice, or a
    number that is not plain decimal."""
    try:
        if os.path.getsize(path) > MAX_YAML_BYTES:
            raise UserError(f"{path}: larger than {MAX_YAML_BYTES} bytes, not a configuration file")
        with open(path, "rb") as handle:
            return yaml.load(handle, Loader=_Loader)  # noqa: S506 - it is a SafeLoader
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror or error}")
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: not valid YAML: {str(error)[:300]}")
