"""The checks behind `python -m edgeflownas.nas.check_manifest`: one pure function per check of a run folder."""
