"""Checks that TensorFlow starts and can use the GPUs that a run asks for. Part of the doctor, built on `nvidia`."""

import os
import signal
import subprocess
import sys
from typing import Any, Iterator

from edgeflownas import nvidia
from edgeflownas.device import VISIBLE, asked_for, visible
from edgeflownas.diagnosis.finding import FAIL, OK, WARN, Examined, Finding
from edgeflownas.errors import UserError

IMPORT = """
import sys
from edgeflownas.errors import UserError
try:
    import edgeflownas.tfcompat
except UserError as error:
    sys.exit(" ".join(str(error.__cause__).split()))
"""
IMPORT_SECONDS = 300  # TensorFlow from a cold network disk takes a minute
IMPORT_ADVICE = (
    ("Descriptors can", 'TensorFlow 1.15 needs an older protobuf: pip install "protobuf<3.21"'),
    (
        "module 'numpy' has no attribute",
        "TensorFlow 1.15 needs an older NumPy: pip install -c constraints/versions.txt numpy",
    ),
    ("SIGILL", "this processor lacks what the build needs (AVX): use another build or another machine"),
)


def check_tensorflow(examined: Examined) -> Iterator[Finding]:
    problem = _import_elsewhere()
    if problem:
        examined.tensorflow_starts = examined.gpu_is_safe = False
        yield Finding(FAIL, "TensorFlow", f"cannot be imported: {problem[:300]}", _import_advice(problem))
        return
    from edgeflownas.tfcompat import tf

    version = f"{tf.__version__}, Python {sys.version.split()[0]}"
    if tf.__version__.startswith("1.") and not tf.__version__.startswith("1.15."):
        yield Finding(FAIL, "TensorFlow", version, "install 1.15 or a current 2.x")
    else:
        yield Finding(
            OK, "TensorFlow", version + (", built for CUDA" if tf.test.is_built_with_cuda() else ", CPU only")
        )
    yield from _check_gpus(examined, tf)


def _import_elsewhere() -> str:
    """Imports TensorFlow in another process. Returns the error, crash or hang as text; empty if it works."""
    program = [sys.executable, "-c", IMPORT]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path or os.getcwd() for path in sys.path))
    try:
        done = subprocess.run(program, env=environment, timeout=IMPORT_SECONDS, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE)  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no end after {IMPORT_SECONDS} seconds"
    if done.returncode < 0:
        return f"it crashes ({signal.Signals(-done.returncode).name})"
    lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    return " ".join((lines or ["it says nothing"])[-1].split()) if done.returncode else ""


def _import_advice(problem: str) -> str:
    known = [advice for words, advice in IMPORT_ADVICE if words in problem]
    return (known or ['install one: pip install -e ".[gpu]", ".[cpu]", ".[tf2]" or ".[tf2-gpu]"'])[0]


def _check_gpus(examined: Examined, tf: Any) -> Iterator[Finding]:
    runtime = examined.config.runtime
    if runtime.deterministic or not asked_for(runtime.gpu_device):
        yield Finding(OK, "GPU", "not asked for")
        return
    if not visible():
        found = f"{VISIBLE}={os.environ.get(VISIBLE, '')} shows none"
        yield Finding(WARN, "GPU", found, "unset it, or ask the queue for a GPU; a full run on a CPU takes weeks")
        return
    try:
        found = nvidia.gpus()
        chosen = nvidia.chosen(found, visible()) if found else []
    except UserError as error:
        yield Finding(FAIL, "GPU", str(error))
        return
    if not found:
        yield Finding(
            WARN, "GPU", "no nvidia-smi, so no NVIDIA GPU", "a full run on a CPU takes weeks; try a small one there"
        )
        return
    for gpu in chosen:
        support = nvidia.support_of(gpu, tf.__version__, nvidia.is_nvidia_build())
        examined.gpu_is_safe = examined.gpu_is_safe and support.works
        allowed = examined.request.allow_unsupported_gpu
        level = (WARN if support.advice else OK) if support.works else WARN if allowed else FAIL
        yield Finding(level, "GPU", f"{gpu.name}: {support.reason}", support.advice)
    if examined.gpu_is_safe:  # else even listing the devices may hang
        yield _visible_gpu(tf)


def _visible_gpu(tf: Any) -> Finding:
    from edgeflownas.tfcompat import device_names

    names = device_names()
    if names != "CPU":
        return Finding(OK, "GPU in TensorFlow", names)
    if not tf.test.is_built_with_cuda():
        return Finding(
            FAIL,
            "GPU in TensorFlow",
            "none: this TensorFlow is built for CPUs",
            'pip install -e ".[gpu]" or ".[tf2-gpu]"',
        )
    libraries = "CUDA 10.0 and cuDNN 7.6" if tf.__version__.startswith("1.") else 'pip install -e ".[tf2-gpu]"'
    advice = f"make its CUDA libraries findable ({libraries}; see LD_LIBRARY_PATH), or --gpu_device -1"
    return Finding(FAIL, "GPU in TensorFlow", "none is visible", advice)
