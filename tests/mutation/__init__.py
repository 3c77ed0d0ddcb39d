"""Mutation tests of what trains, by gates 2 and 3: `python -m tests.mutation --help`."""
