"""A real fidelity study of three codes and two seeds, left alone and killed: `python -m tests.fidelity --help`."""
