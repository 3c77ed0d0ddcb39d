"""The checks behind `python -m edgeflownas.nas.check_manifest`: a run folder, read by pure functions, one
per check."""
