#!/usr/bin/env python
"""Trains the supernet; the same as `python -m edgeflownas.train_supernet`. See `--help`.

Works from any folder and without installation. Python puts this file's folder, not the repository, on the
import path, so the package is loaded here by its place: always the one of this checkout, whatever else is
installed or lies in the current folder.
"""

import runpy
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

if __name__ == "__main__":
    spec = PathFinder.find_spec("edgeflownas", [str(Path(__file__).resolve().parents[1])])
    sys.modules["edgeflownas"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["edgeflownas"])
    runpy.run_module("edgeflownas.train_supernet", run_name="__main__", alter_sys=True)
