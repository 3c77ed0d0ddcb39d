"""The public names for scoring subnets from Python: `from edgeflownas.api import Supernet`."""

from edgeflownas.scoring.supernet import Interrupted, Result, Supernet

__all__ = ["Interrupted", "Result", "Supernet"]
