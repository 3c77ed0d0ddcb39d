"""Imports matplotlib even if MPLBACKEND names an unknown backend (as in a notebook).

This project draws on figures without pyplot, which need no backend.
"""

import contextlib
import logging
import os
from typing import Any


def import_matplotlib() -> Any:
    """Imports matplotlib with the backend of MPLBACKEND, or with its default backend if that one is unknown.

    A plain import reads MPLBACKEND and fails for an unknown backend.
    """
    backend = os.environ.pop("MPLBACKEND", "")
    try:
        import matplotlib
    finally:
        if backend:
            os.environ["MPLBACKEND"] = backend
    with contextlib.suppress(ValueError):
        if backend:
            matplotlib.rcParams["backend"] = backend
    # matplotlib warns on the terminal of every weight that an installed font lacks, and uses the nearest one.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    return matplotlib
