"""Hypothesis in the gates: the same examples in every run, no database, no deadline."""
from hypothesis import settings

settings.register_profile("gates", derandomize=True, database=None, deadline=None)
settings.load_profile("gates")
