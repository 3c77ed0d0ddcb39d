"""Statistics of rankings and of EPE per sample. Built on NumPy and scipy; independent of networks, runs and files."""
