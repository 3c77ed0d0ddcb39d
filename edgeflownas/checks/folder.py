"""A run folder for the checks: typed access to its values. Built on the readers of `run/` and the run state."""

import json
import os
from typing import Any, Dict, List, Type

import numpy as np

from edgeflownas import config as configuration
from edgeflownas.config import Config
from edgeflownas.engine.run_state import RunState
from edgeflownas.nas.arch_codec import space_of
from edgeflownas.nas.search_space import SearchSpace
from edgeflownas.run import folder as names
from edgeflownas.run.checkpoint import CheckpointStore, Generation
from edgeflownas.run.json_file import read_json
from edgeflownas.run.manifest import RESUME_FIELDS, SETTLED
from edgeflownas.run.pool import load_pool
from edgeflownas.run.rows import EvaluationRow, StepRow, SubnetRow
from edgeflownas.run.tables import Columns, WrongCell, read_table

REAL = 2e-6  # relative tolerance, because recorded reals are float32


class Wrong(Exception):
    """A failed check, with what was found and what was wanted."""

    def __init__(self, got: Any, want: Any) -> None:
        super().__init__(f"got {_short(got)}, want {_short(want)}")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 160 else text[:157] + "..."


def expect(what: str, got: Any, want: Any) -> None:
    """Raises `Wrong` unless `got` equals `want`, also in type (True is not 1, 1 is not 1.0)."""
    if json.dumps(got, default=repr) != json.dumps(want, default=repr):
        raise Wrong(f"{what} {_short(got)}", want)


def expect_close(what: str, got: float, want: float, relative: float = REAL, absolute: float = 0.0) -> None:
    """Raises `Wrong` unless `got` is `want` within the tolerance; always for NaN."""
    if not abs(got - want) <= relative * abs(want) + absolute:
        raise Wrong(f"{what} {float(got)!r}", f"{float(want)!r}")


class RunFolder:
    """One run. UserError if its manifest cannot be read. While it is not `settled`, tables may have extra rows."""

    def __init__(self, manifest_path: str) -> None:
        self.path = manifest_path
        self.folder = os.path.dirname(os.path.abspath(manifest_path))
        self.manifest = read_json(manifest_path, f"--path wants the {names.MANIFEST} of a run folder")
        self._tables: Dict[str, Columns] = {}
        self._generations: Dict[str, Generation] = {}

    def field(self, name: str, kind: Any = None) -> Any:
        """The manifest's value at a dotted name. `Wrong` if it is missing or not exactly of the type `kind`."""
        value: Any = self.manifest
        for key in name.split("."):
            if not isinstance(value, dict) or key not in value:
                raise Wrong(f"no field {name}", "one")
            value = value[key]
        if kind is not None and type(value) is not kind:
            raise Wrong(f"{name} {_short(value)}", f"a value of type {kind.__name__}")
        return value

    def whole(self, name: str, low: int = 0) -> int:
        """The manifest's whole number at a dotted name. `Wrong` if it is below `low`."""
        value = self.field(name, int)
        if value < low:
            raise Wrong(f"{name} {value}", f"at least {low}")
        return int(value)

    @property
    def settled(self) -> bool:
        return self.field("status") in SETTLED

    @property
    def config(self) -> Config:
        """The manifest's configuration. UserError, naming the key, if it is not valid."""
        return configuration.from_dict(self.field("config", dict), "its config")

    @property
    def space(self) -> SearchSpace:
        """The run's search space, narrowed if it trained a single code. UserError if there is no such space."""
        return space_of(self.config.network)

    @property
    def steps(self) -> Columns:
        """One row per cycle. UserError (as for all tables) if the file is missing, cut or has other columns."""
        return self._table(names.STEPS, StepRow)

    @property
    def history(self) -> Columns:
        """One row per evaluation."""
        return self._table(names.HISTORY, EvaluationRow, self.config.eval.pool_size)

    @property
    def subnets(self) -> Columns:
        """One row per evaluation and subnet of the pool."""
        return self._table(names.PER_ARCH, SubnetRow)

    def _table(self, name: str, row_type: Type[Any], pool_size: int = 0) -> Columns:
        if name not in self._tables:
            self._tables[name] = read_table(self.file(name), row_type, pool_size)
        return self._tables[name]

    def generation(self, which: str) -> Generation:
        """The "last" or the "best" checkpoint, its files verified. UserError if it is missing or damaged."""
        if which not in self._generations:
            self._generations[which] = CheckpointStore(self.file(names.CHECKPOINTS)).load(which)
        return self._generations[which]

    def state(self, which: str) -> RunState:
        """The run state stored in that checkpoint."""
        generation = self.generation(which)
        return RunState.from_dict(generation.state, generation.path)

    def pool_codes(self) -> np.ndarray:
        """The evaluation pool of the run, int32 [size, blocks]."""
        size = self.config.eval.pool_size
        return load_pool(self.file(names.pool_name(size)), size, self.space)

    def changed_at(self, *keys: str) -> int:
        """The step of the last resume that changed one of these keys (`--allow_changed`); 0 if none did.

        Rows before that step were recorded with old values, which the manifest does not have.
        """
        return max([0] + [entry["global_step"] for entry in self.resumes() if set(keys) & set(entry["changed"])])

    def resumes(self) -> List[Dict[str, Any]]:
        """The entries of `resumes`. `Wrong` if one is mistyped."""
        entries = self.field("resumes", list)
        for entry in entries:
            for name, kind in RESUME_FIELDS.items():
                if not isinstance(entry, dict) or type(entry.get(name)) is not kind:
                    raise Wrong(f"a resume {_short(entry)}", f"a {name} of type {kind.__name__}")
            if not all(isinstance(name, str) for name in entry["changed"]):
                raise Wrong("changed {}".format(entry["changed"]), "names of keys")
        return list(entries)

    def file(self, name: str) -> str:
        return os.path.join(self.folder, name)


def wrong_cell(error: WrongCell) -> Wrong:
    """The `Wrong` for a cell of the wrong type; names the file without its folder."""
    return Wrong(f"{os.path.basename(error.path)} line {error.line}: {error.column} {error.found!r}", error.wanted)


def unchecked(since: int) -> str:
    """A note for a check that could not check the steps before `since`; empty if `since` is 0."""
    return f"; not checked before step {since}, where a resume changed the settings" if since else ""
