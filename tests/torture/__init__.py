"""The long version of `tests/reliability`: `python -m tests.torture --help`."""
