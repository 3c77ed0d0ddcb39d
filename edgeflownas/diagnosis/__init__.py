"""What `python -m edgeflownas.doctor` looks at, by subject. Each check yields findings."""
