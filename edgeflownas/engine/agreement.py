"""Compares, before the first step, the values that must be equal on all ranks of a run. Built on `exchange`."""

from typing import Any, Dict, Optional, Tuple

from edgeflownas.config import KEYS, Config, flat
from edgeflownas.data.fc2_index import FC2Index
from edgeflownas.engine.exchange import LocalExchange
from edgeflownas.engine.run_state import RunState
from edgeflownas.errors import UserError
from edgeflownas.nas.arch_codec import space_of
from edgeflownas.run.checkpoint import Generation

INVOCATION = ("max_epochs", "max_steps", "resume", "resume_from", "allow_changed")


def facts(
    config: Config, index: FC2Index, resumed: Optional[Tuple[Generation, RunState]], request: Dict[str, Any]
) -> Dict[str, Any]:
    """The values that must be equal on all ranks, by name.

    With a difference, the ranks would train different things or wait for each other forever. `resumed` is the
    checkpoint and state to resume from, or None. `request` holds the command line's options outside the configuration.
    """
    keys = {name: value for name, value in flat(config).items() if KEYS[name].maths}
    return {
        **keys,
        "runtime.save_every_steps": config.runtime.save_every_steps,
        "data.fingerprint": index.fingerprint,
        "the digest of network.space": space_of(config.network).identity(),
        **{"--" + name: request[name] for name in INVOCATION},
        "the step to go on from": resumed[1].step if resumed else None,
        "the checkpoint to go on from": resumed[0].files if resumed else None,
    }


def refuse_differences(exchange: LocalExchange, own: Dict[str, Any]) -> None:
    """Compares the facts of all ranks; every rank must call it.

    Raises a UserError, the same on all ranks, that names the first fact in which a rank differs from rank 0.
    """
    ranks = exchange.gather(own)
    for name, first in ranks[0].items():
        for rank, theirs in enumerate(ranks):
            if theirs[name] != first:
                raise UserError(
                    f"the ranks differ in {name}: {first!r} on rank 0, {theirs[name]!r} on rank {rank}; start all "
                    "ranks with the same command, on the same files"
                )
