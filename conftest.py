"""Loads the gate plugin; hypothesis draws new examples in every run of `tests/` (the gates' are fixed:
gates/conftest.py)."""

import os

from hypothesis import settings

pytest_plugins = ["gates.plugin"]

settings.register_profile("tests", deadline=None, print_blob=True)
settings.load_profile("tests")

# Deterministic runs set this before they import TensorFlow. Those in a test's own process must compute the same bits.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
