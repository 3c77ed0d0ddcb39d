"""What must be the same on all ranks of a run, compared before the first step."""

from typing import Any, Dict, Optional, Tuple

from edgeflownas.config import KEYS, Config, flat
from edgeflownas.data.fc2_index import FC2Index
from edgeflownas.engine.exchange import Alone
from edgeflownas.engine.run_state import RunState
from edgeflownas.errors import UserError
from edgeflownas.nas.arch_codec import space_of
from edgeflownas.run.checkpoint import Generation

INVOCATION = ("max_epochs", "max_steps", "resume", "resume_from", "allow_changed")


def facts(
    config: Config, index: FC2Index, resumed: Optional[Tuple[Generation, RunState]], request: Dict[str, Any]
) -> Dict[str, Any]:
    """Each by its name. If one differed, the ranks would train different things, or wait for each other for ever.

    `resumed` is what the run goes on from, or None; `request` what the command line asks for beside the configuration.
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


def refuse_differences(exchange: Alone, own: Dict[str, Any]) -> None:
    """UserError, the same on all ranks, that names the first of the facts in which a rank differs from rank 0."""
    ranks = exchange.gather(own)
    for name, first in ranks[0].items():
        for rank, theirs in enumerate(ranks):
            if theirs[name] != first:
                raise UserError(
                    f"the ranks differ in {name}: {first!r} on rank 0, {theirs[name]!r} on rank {rank}; start all "
                    "ranks with the same command, on the same files"
                )
