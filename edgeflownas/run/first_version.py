"""The search space in the files of the first version, which named none and wrote out its table instead."""

import hashlib
import json
from typing import Any, Dict, List

from edgeflownas.nas.search_space import FIRST_VERSION


def identity_of(table: List[List[Any]]) -> Dict[str, str]:
    """The first version's space with the digest of this table, [[name, kind, options], ...] in code order."""
    return dict(FIRST_VERSION, digest=hashlib.sha256(json.dumps(table).encode("utf-8")).hexdigest())
