"""The checks of `python -m edgeflownas.doctor`, by subject. Each check yields findings."""
