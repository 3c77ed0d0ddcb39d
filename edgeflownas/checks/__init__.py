"""The checks of `python -m edgeflownas.nas.check_manifest`: one function per check; none changes the run folder."""
