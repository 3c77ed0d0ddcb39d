"""Loads the gate plugin and sets hypothesis up for `tests/`: random examples; `gates/conftest.py` makes the gates' fixed ones."""
from hypothesis import settings

pytest_plugins = ["gates.plugin"]

settings.register_profile("tests", deadline=None, print_blob=True)
settings.load_profile("tests")
