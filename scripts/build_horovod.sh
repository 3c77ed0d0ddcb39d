#!/usr/bin/env bash
# Builds the pinned Horovod for the TensorFlow of one Python environment and installs it there, for training with --distributed.
# PYTHON (default python) names the environment; TensorFlow 1.15 or 2 must be in it. Does nothing if a fitting build is there.
# Processes exchange through Gloo, which is always built in. Horovod's own variables add to it:
#   HOROVOD_WITH_MPI=1           ranks started by mpirun; needs an MPI with mpicxx on PATH
#   HOROVOD_GPU_OPERATIONS=NCCL  exchange between GPUs; needs CUDA's nvcc on PATH and NCCL (HOROVOD_NCCL_HOME, if it is not found)
# Needs g++, make and the package index, which has the source and cmake. A build takes some minutes; its wheel is kept in
# HOROVOD_WHEELS (default .tox/horovod), under a name that holds versions and options, and installed from there the next time.
set -euo pipefail

version=0.28.1
cmake=3.31.6 # of the last line that reads the CMake files of 0.28.1
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python}"
wheels="${HOROVOD_WHEELS:-$root/.tox/horovod}"

stop() {
    echo "build_horovod: $1" >&2
    exit 2
}

pip() { "$python" -m pip --disable-pip-version-check "$@" --quiet --constraint "$root/constraints/versions.txt"; }

# Is this Horovod installed, made for the TensorFlow that is installed, with every part of `parts`, and does it load?
fits() {
    TF_CPP_MIN_LOG_LEVEL=3 "$python" - "$version" "${parts[@]}" 2>/dev/null <<'PYTHON'
import json, pathlib, sys
import horovod.tensorflow, tensorflow
built_for = json.loads((pathlib.Path(horovod.__file__).parent / "metadata.json").read_text())["tensorflow"]
parts = all(getattr(horovod.tensorflow, part + "_built")() for part in sys.argv[2:])
sys.exit(not (horovod.__version__ == sys.argv[1] and built_for == tensorflow.__version__ and parts))
PYTHON
}

command -v "$python" >/dev/null || stop "no program $python: set PYTHON to the interpreter of the environment"
tensorflow="$("$python" -c 'import tensorflow; print(tensorflow.__version__)' 2>/dev/null)" ||
    stop "$python has no TensorFlow: install the project's requirements first (docs/manual.md)"
python_tag="$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')"
parts=(gloo)
tools=("${CXX:-g++}" make)
if [ "${HOROVOD_WITH_MPI:-}" = 1 ]; then
    parts+=(mpi)
    tools+=(mpicxx)
else
    export HOROVOD_WITHOUT_MPI=1 # an MPI that merely lies on the machine is not built in
fi
if [ "${HOROVOD_GPU_OPERATIONS:-}" = NCCL ]; then
    parts+=(nccl)
    tools+=(nvcc)
fi

build="$version for TensorFlow $tensorflow, with ${parts[*]}"
if fits; then
    echo "build_horovod: Horovod $build is there already"
    exit
fi

# The local version names TensorFlow and the parts, so it tells the wheels in the cache apart.
local_version="tf$tensorflow$(printf '.%s' "${parts[@]}")"
wheel() { compgen -G "$wheels/horovod-$version+$local_version-$python_tag-*.whl"; }

pip install cloudpickle packaging psutil pyyaml setuptools wheel
if ! wheel >/dev/null; then
    for tool in "${tools[@]}"; do
        command -v "$tool" >/dev/null || stop "needs $tool to build Horovod: install it (Debian: g++, make, libopenmpi-dev; NVIDIA: CUDA)"
    done
    echo "build_horovod: building Horovod $build: some minutes"
    mkdir -p "$wheels"
    work="$(mktemp -d "$wheels/build.XXXXXX")"
    trap 'rm -rf "$work"' EXIT
    pip install --target "$work/tools" "cmake==$cmake"
    pip download --no-deps --no-build-isolation --no-binary horovod --dest "$work" "horovod==$version"
    tar -xzf "$work/horovod-$version.tar.gz" -C "$work"
    # These operations for XLA do not compile with TensorFlow 2.21, and nothing here uses them.
    sed -i '/xla_mpi_ops\.cc/d' "$work/horovod-$version/horovod/tensorflow/CMakeLists.txt"
    export HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_GLOO=1
    export HOROVOD_CMAKE="$work/tools/cmake/data/bin/cmake" HOROVOD_LOCAL_VERSION="$local_version"
    export MAKEFLAGS="${MAKEFLAGS:--j$(nproc)}"
    pip wheel --no-deps --no-build-isolation --wheel-dir "$work/wheel" "$work/horovod-$version" >"$work/log" 2>&1 || {
        tail -n 40 "$work/log" >&2
        stop "the build failed; its last lines are above"
    }
    # Under its name only when it is whole, should two builds run at once.
    mv "$work/wheel/"horovod-*.whl "$wheels/"
fi
pip install --force-reinstall --no-deps "$(wheel)"
fits || stop "Horovod was installed but does not load: $python -c 'import horovod.tensorflow' shows why"
echo "build_horovod: installed Horovod $build"
