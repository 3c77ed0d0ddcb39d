"""The search space of files of the first version, which hold the table of the space but no name and no digest."""

import hashlib
import json
from typing import Any, Dict, List

from edgeflownas.nas.search_space import FIRST_VERSION


def identity_of(table: List[List[Any]]) -> Dict[str, str]:
    """The first version's space name and the digest of `table`, [[name, kind, options], ...] in code order."""
    return dict(FIRST_VERSION, digest=hashlib.sha256(json.dumps(table).encode("utf-8")).hexdigest())
