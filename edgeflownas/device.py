"""Which device TensorFlow may see; must be chosen before TensorFlow is imported."""

import os


def choose_device(gpu_device: str, deterministic: bool = False) -> None:
    """Makes only GPU `gpu_device` visible to TensorFlow; none for "-1", for "" and in deterministic mode."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1" if deterministic or not gpu_device else gpu_device
