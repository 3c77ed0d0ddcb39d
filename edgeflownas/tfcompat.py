"""The only module that imports TensorFlow: `from edgeflownas.tfcompat import tf` is TensorFlow 1 on both stacks.

TensorFlow 1.15 and 2.x then build the same graphs: no eager mode, resource variables, and the control flow of
TensorFlow 1 (Switch and Merge), which runs only the chosen branch of a conditional.
"""

import contextlib
import logging
import os
import re
import sys
import tempfile
import warnings
from typing import Any, Iterator

from edgeflownas.errors import UserError
from edgeflownas.files import os_errors
from edgeflownas.pictures import import_matplotlib

# Hides TensorFlow's native log (CPU features, missing CUDA libraries), unless the user has set a level.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
QUIET = os.environ["TF_CPP_MIN_LOG_LEVEL"] != "0"


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Hides what native code writes to stderr, if `QUIET`, because TensorFlow 2 logs before it reads any setting.

    After an error it shows all of it.
    """
    if not QUIET:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as store:
        os.dup2(store.fileno(), 2)
        try:
            yield
        except BaseException:
            store.seek(0)
            os.write(kept, store.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


try:
    with hushed(), warnings.catch_warnings():
        # TensorFlow 1.15 on NumPy 1.17 and later: "Passing (type, 1) ... is deprecated", six times.
        warnings.simplefilter("ignore")
        if "MPLBACKEND" in os.environ:  # TensorFlow 2 imports matplotlib, which fails for an unknown backend
            import_matplotlib()
        import tensorflow.compat.v1 as tf
# Besides ImportError, TensorFlow's import raises: 1.15 with protobuf 4 a TypeError, with NumPy 1.24 an
# AttributeError, with a NumPy older than its build a RuntimeError or SystemError.
except (ImportError, TypeError, AttributeError, RuntimeError, SystemError) as error:
    raise UserError(f"TensorFlow cannot be imported: {str(error)[:200]}; see: python -m edgeflownas.doctor") from error

tf.disable_eager_execution()
tf.enable_resource_variables()
tf.disable_control_flow_v2()
if QUIET:
    logging.getLogger("tensorflow").setLevel(logging.ERROR)

__all__ = ["device_names", "hushed", "restore", "tf", "tflite_interpreter", "tflite_schema"]

PATTERN = re.compile(r"[*?\[\]{}\\]|://")  # TensorFlow reads such paths as a pattern or as another file system


def device_names() -> str:
    """The device that TensorFlow uses: the names of the visible GPUs, or "CPU"."""
    from tensorflow.python.client import device_lib  # works on both stacks

    gpus = [device.physical_device_desc for device in device_lib.list_local_devices() if device.device_type == "GPU"]
    return "; ".join(gpus) if gpus else "CPU"


def restore(saver: Any, session: Any, prefix: str) -> None:
    """Like `saver.restore`, but works for every folder name. UserError if it cannot make a link.

    TensorFlow treats the prefix as a pattern and does not find `run [lr=1e-3]/model.ckpt`. For such a folder this
    function makes a link with a plain name in a temporary folder.
    """
    if not PATTERN.search(prefix):
        saver.restore(session, prefix)
        return
    plain = None if not PATTERN.search(tempfile.gettempdir()) else "/tmp"
    making = os_errors(f"make a link to {prefix} in {plain or tempfile.gettempdir()}")
    with making, tempfile.TemporaryDirectory(prefix="edgeflownas-", dir=plain) as folder:
        link = os.path.join(folder, "checkpoint")
        os.symlink(os.path.abspath(os.path.dirname(prefix)), link)
        saver.restore(session, os.path.join(link, os.path.basename(prefix)))


def tflite_schema() -> Any:
    """TensorFlow's module for the format of TFLite files. TensorFlow 2 only."""
    from tensorflow.lite.python import schema_py_generated  # it has no public name

    return schema_py_generated


def tflite_interpreter(content: bytes) -> Any:
    """An interpreter of a TFLite file, ready to run. TensorFlow 2 only."""
    with warnings.catch_warnings():  # it warns that it will move to another package
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    return interpreter
