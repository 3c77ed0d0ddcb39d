"""Joins the JUnit XML of the gates' sessions into one file: a suite per gate, with its outcome as a property and as a
test case.

The test case of an outcome other than `passed` is an error of the type `failed`, `blocked`, `empty`, `partial`, `stale`
or `error`.
"""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, List


def write(path: Path, results: List[Any]) -> None:
    """Writes the suites of `results` (see `gates.controller.GateResult`) to `path`."""
    root = ET.Element("testsuites", name="gates")
    for result in results:
        suite = None
        if result.xml is not None:
            suite = ET.parse(str(result.xml)).getroot().find("testsuite")
        if suite is None:  # a gate that had no session
            suite = ET.Element("testsuite", tests="0", errors="0", failures="0", skipped="0", time="0")
        suite.set("name", f"gate{result.gate}")
        root.append(suite)
        properties = suite.find("properties")
        if properties is None:
            properties = ET.Element("properties")
            suite.insert(0, properties)
        ET.SubElement(properties, "property", name="outcome", value=result.outcome)
        _add_outcome(suite, result)
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(root).write(str(path), encoding="utf-8", xml_declaration=True)


def _add_outcome(suite: ET.Element, result: Any) -> None:
    case = ET.SubElement(suite, "testcase", classname="gates", name=f"gate{result.gate} outcome", time="0")
    suite.set("tests", str(int(suite.get("tests", "0")) + 1))
    if result.outcome != "passed":
        ET.SubElement(case, "error", type=result.outcome, message=f"{result.outcome}: {result.reason}")
        suite.set("errors", str(int(suite.get("errors", "0")) + 1))
