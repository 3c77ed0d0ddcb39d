# The environment of a GPU runner with a GPU up to Turing (later ones: Dockerfile.tf2): Python 3.7, tensorflow-gpu 1.15.5, CUDA 10.0, cuDNN 7. The code is mounted, not copied:
#   docker build -t edgeflownas .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/edgeflownas" edgeflownas pytest gates --require_gpu
# NOT BUILT in this project's own checks: they have no Docker engine. The GPU job of .github/workflows/gpu.yml builds it.
#
# The base is there for its CUDA 10.0 libraries (nvidia/cuda has dropped its 10.x tags). The TensorFlow in it belongs to the image's
# Python 3.6 and is not used: Python 3.7 comes from Ubuntu 18.04's own universe.
FROM tensorflow/tensorflow:1.15.5-gpu

# NVIDIA changed its signing key after this image was made; nothing is wanted from its package lists.
RUN rm -f /etc/apt/sources.list.d/cuda.list /etc/apt/sources.list.d/nvidia-ml.list \
    && apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        git python3.7 python3.7-dev python3.7-venv python3-distutils \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/venv/bin:$PATH HOME=/tmp
WORKDIR /build
COPY pyproject.toml LICENSE ./
COPY constraints constraints
COPY configs configs
COPY edgeflownas edgeflownas
# pip 24.0 is the last for Python 3.7. The package itself is taken from the mounted checkout, the working directory.
RUN python3.7 -m venv /opt/venv \
    && pip install --no-cache-dir pip==24.0 \
    && pip install --no-cache-dir -c constraints/versions.txt '.[gpu,test]' \
    && pip uninstall --yes edgeflownas

WORKDIR /edgeflownas
CMD ["bash"]
