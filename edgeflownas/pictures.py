"""Imports matplotlib whatever backend MPLBACKEND names: a notebook's own, or one that this matplotlib does not know.

Pictures here are drawn on figures of their own and need no backend.
"""

import contextlib
import os
from typing import Any


def import_matplotlib() -> Any:
    """matplotlib with the backend of MPLBACKEND, or with its default where it does not know that one.

    By itself it reads MPLBACKEND when it is imported, and an unknown backend stops the import.
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
    return matplotlib
