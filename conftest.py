"""Loads the gate plugin; hypothesis draws new examples in every run of `tests/` (the gates' are fixed:
gates/conftest.py)."""

from hypothesis import settings

pytest_plugins = ["gates.plugin"]

settings.register_profile("tests", deadline=None, print_blob=True)
settings.load_profile("tests")
