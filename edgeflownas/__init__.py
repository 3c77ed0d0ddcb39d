"""EdgeFlowNAS: a lean TensorFlow 1 trainer for a one-shot NAS supernet of EdgeFlowNet with FairNAS strict fairness."""

__version__ = "0.2.0.dev0"
