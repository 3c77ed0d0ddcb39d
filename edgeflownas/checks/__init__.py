"""The checks of `python -m edgeflownas.nas.check_manifest`: one pure function for each check of a run folder."""
