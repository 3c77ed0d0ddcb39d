"""Statistics of rankings and of EPE per sample. NumPy and scipy; knows nothing of networks, runs or files."""
