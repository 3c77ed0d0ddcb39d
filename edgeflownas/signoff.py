"""Sign-offs of the gates: writes, reads and verifies the records `outputs/gates/gateN.json`.

A record says that gate N passed completely, on exactly this source and for one search space. It is plain JSON. Its
digest and the link to the previous gate's record guard against accidents (an edit, a stale or mixed-up file). They are
no signature and no protection against forgery. The gate runner writes records and the trainer reads them, so this
module needs neither TensorFlow nor pytest.
"""

import datetime
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from edgeflownas.errors import UserError
from edgeflownas.files import atomic_write_json, sha256_of

GATES = (1, 2, 3, 4)
SOURCE_FOLDERS = ("edgeflownas", "gates", "configs")
RECORDS_VARIABLE = "EDGEFLOWNAS_GATE_RECORDS"  # another folder for the records, for tests of the gates themselves
FORMAT = 1
DEFAULT_SPACE = "edgeflownet_v1"  # its records are in the folder itself, those of other spaces in a subfolder

Record = Dict[str, Any]


class State(NamedTuple):
    """The state of a gate's record: `name` is one of `valid missing stale edited broken failed`."""

    name: str
    reason: str

    @property
    def valid(self) -> bool:
        return self.name == "valid"


class Environment(NamedTuple):
    """Where a gate ran: git commit and whether files differ from it, versions by name, the device in words, whether
    --require_gpu was given, hash of the configuration. None = not known."""

    commit: Optional[str]
    dirty: Optional[bool]
    versions: Dict[str, str]
    device: str
    require_gpu: bool
    config_hash: Optional[str]


def project_root() -> Path:
    """The folder that holds the package, the gates and the configurations."""
    return Path(__file__).resolve().parent.parent


def record_path(gate: int, root: Path, space: str = DEFAULT_SPACE) -> Path:
    given = os.environ.get(RECORDS_VARIABLE)
    folder = Path(given) if given else Path(root) / "outputs" / "gates"
    return (folder if space == DEFAULT_SPACE else folder / space) / f"gate{gate}.json"


def source_files(root: Path) -> Dict[str, str]:
    """SHA-256 of every source file that a sign-off covers, by path relative to `root`, sorted.

    Byte code (`__pycache__`) and hidden files (such as an editor's swap file) do not count.
    """
    found = {}
    for folder in SOURCE_FOLDERS:
        for path in (Path(root) / folder).rglob("*"):
            parts = path.relative_to(root).parts
            if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in parts):
                found["/".join(parts)] = sha256_of(str(path))
    return dict(sorted(found.items()))


def fingerprint(files: Dict[str, str]) -> str:
    """One SHA-256 over all paths and SHA-256s of `source_files`, sorted by path."""
    lines = "".join(f"{path}\0{files[path]}\n" for path in sorted(files))
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()


def first_difference(before: Dict[str, str], after: Dict[str, str]) -> str:
    """The first file that differs and how, or an empty string if none differs."""
    for path in sorted(set(before) | set(after)):
        if path not in after:
            return path + " was removed"
        if path not in before:
            return path + " was added"
        if before[path] != after[path]:
            return path + " was changed"
    return ""


def digest(record: Record) -> str:
    """SHA-256 of a record's content without its `digest`."""
    content = {key: value for key, value in record.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode("ascii")).hexdigest()


def read_record(gate: int, root: Path, space: str = DEFAULT_SPACE) -> Record:
    """Reads a gate's record without verifying it. `OSError` if there is none, `ValueError` if it is no JSON object."""
    record = json.loads(record_path(gate, root, space).read_text(encoding="utf-8"))
    if not isinstance(record, dict):
        raise ValueError(f"a record is a JSON object, found {type(record).__name__}")
    return record


def write_record(
    gate: int,
    root: Path,
    outcome: str,
    clauses: List[Dict[str, Any]],
    environment: Environment,
    files: Dict[str, str],
    space: str = DEFAULT_SPACE,
) -> Path:
    """Writes the record of a complete run of `gate` atomically; replaces the previous one. Returns its path.

    `outcome` is "passed" or "failed"; a "failed" record is never valid, so a gate that fails loses its sign-off.
    `files` is the result of `source_files` when the gate ran.
    """
    if outcome not in ("passed", "failed"):
        raise ValueError(f"outcome 'passed' or 'failed' required, got {outcome!r}")
    record: Record = {
        "format": FORMAT,
        "gate": gate,
        "space": space,
        "outcome": outcome,
        "time": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "fingerprint": fingerprint(files),
        "files": files,
        "clauses": clauses,
        "previous": _previous_digest(gate, root, space),
    }
    record.update(environment._asdict())
    record["digest"] = digest(record)
    path = record_path(gate, root, space)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_json(str(path), record)
    return path


def _previous_digest(gate: int, root: Path, space: str) -> Optional[str]:
    if gate == GATES[0]:
        return None
    try:
        return read_record(gate - 1, root, space).get("digest")
    except (OSError, ValueError):
        return None


def verify(gate: int, root: Path, files: Optional[Dict[str, str]] = None, space: str = DEFAULT_SPACE) -> State:
    """The state of the record of `gate` on `space` for the present source, `files` (default: `source_files(root)`)."""
    try:
        record = read_record(gate, root, space)
    except FileNotFoundError:
        return State("missing", f"there is no record {record_path(gate, root, space)}")
    except (OSError, ValueError) as error:
        return State("edited", f"the record cannot be read: {error}")
    if record.get("digest") != digest(record):
        return State("edited", "the record does not match its digest")
    if (record.get("format"), record.get("gate")) != (FORMAT, gate):
        return State("edited", "the record is of gate {}, format {}".format(record.get("gate"), record.get("format")))
    if record.get("space", DEFAULT_SPACE) != space:
        return State("edited", f"the record is of the search space {record['space']}")
    if record["outcome"] != "passed":
        return State("failed", "the gate failed at {}".format(record["time"]))
    present = source_files(root) if files is None else files
    if record["fingerprint"] != fingerprint(present):
        return State("stale", "since the sign-off {}".format(first_difference(record["files"], present)))
    return _verify_chain(gate, root, record, present, space)


def _verify_chain(gate: int, root: Path, record: Record, files: Dict[str, str], space: str) -> State:
    if gate != GATES[0]:
        before = verify(gate - 1, root, files, space)
        if not before.valid:
            return State("broken", f"gate {gate - 1} is {before.name}: {before.reason}")
        if record["previous"] != read_record(gate - 1, root, space)["digest"]:
            return State("broken", f"gate {gate - 1} was signed again after this gate")
    return State("valid", "signed at {}, commit {}".format(record["time"], str(record["commit"])[:12]))


def gate_states(root: Path, space: str = DEFAULT_SPACE) -> Dict[int, State]:
    """The state of every gate, for the manifest and for `python -m gates status`."""
    files = source_files(root)
    return {gate: verify(gate, root, files, space) for gate in GATES}


def states_for_manifest(space: str) -> Dict[str, str]:
    """{"gate1": "valid", ...} of the project that runs."""
    return {f"gate{gate}": state.name for gate, state in gate_states(project_root(), space).items()}


def require_gate(gate: int, root: Path, space: str = DEFAULT_SPACE) -> None:
    """Raises `UserError` with the command to run, unless `gate` has a valid sign-off for the present source and
    `space`."""
    if not (root / "gates" / "__main__.py").is_file():
        raise UserError(f"gate {gate} cannot be run in an installed package; train from a checkout of the project")
    state = verify(gate, root, space=space)
    if not state.valid:
        on = "" if space == DEFAULT_SPACE else f" --space {space}"
        raise UserError(
            f"gate {gate} has no valid sign-off for this source ({state.name}: {state.reason}); run: python -m pytest "
            f"gates -m gate{gate}{on}"
        )
