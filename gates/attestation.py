"""Writes the sign-off as an in-toto statement with the test-result predicate, to be signed or archived.

Format: https://in-toto.io/Statement/v1 and https://in-toto.io/attestation/test-result/v0.1. Plain JSON, unsigned. The
subject is the source, identified by the fingerprint in every record (`signoff.fingerprint`).
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List

from edgeflownas import signoff

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"


def statement(root: Path, space: str) -> Dict[str, Any]:
    """The statement on the records of all gates on `space`. `OSError` or `ValueError` if a record cannot be read."""
    records = {gate: signoff.read_record(gate, root, space) for gate in signoff.GATES}
    clauses = [dict(row, gate=gate) for gate, record in records.items() for row in record["clauses"]]
    by_status: Dict[str, List[str]] = {"passed": [], "skipped": [], "failed": [], "not run": []}
    for row in clauses:
        by_status[row["status"]].append(f"{row['id']} {row['sentence']}")
    passed = all(record["outcome"] == "passed" for record in records.values())
    last = records[signoff.GATES[-1]]
    return {
        "_type": STATEMENT,
        "subject": [{"name": "edgeflownas", "digest": {"sha256": last["fingerprint"]}}],
        "predicateType": PREDICATE,
        "predicate": {
            "result": "PASSED" if passed else "FAILED",
            "configuration": _configuration(records, root, space),
            "passedTests": by_status["passed"],
            "warnedTests": by_status["skipped"] + by_status["not run"],
            "failedTests": by_status["failed"],
        },
    }


def _configuration(records: Dict[int, Any], root: Path, space: str) -> List[Dict[str, Any]]:
    """Resource descriptors: the commit, the gates' records, and the files of the gates and the configurations."""
    last = records[signoff.GATES[-1]]
    found: List[Dict[str, Any]] = []
    if last["commit"]:
        annotations = {"dirty": last["dirty"], "space": space, "device": last["device"], "versions": last["versions"]}
        found.append({"name": "commit", "digest": {"gitCommit": last["commit"]}, "annotations": annotations})
    for gate in records:
        content = signoff.record_path(gate, root, space).read_bytes()
        found.append({"name": f"gate{gate}.json", "digest": {"sha256": hashlib.sha256(content).hexdigest()}})
    files = sorted(last["files"].items())
    found += [{"name": n, "digest": {"sha256": d}} for n, d in files if n.startswith(("gates/", "configs/"))]
    return found


def write(path: Path, root: Path, space: str) -> None:
    """Writes the statement as JSON."""
    path.write_text(json.dumps(statement(root, space), indent=1, sort_keys=True) + "\n", encoding="utf-8")
