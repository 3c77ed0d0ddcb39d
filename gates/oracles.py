"""What the graph must compute, in NumPy and float64. Shares nothing with the code under test.

The network is written out layer by layer from the specification's table, for one code at a time. It uses no routing, no
TensorFlow and none of the package's tables, so that it cannot share their errors.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from gates import spaces

Statistics = Dict[str, Tuple[np.ndarray, np.ndarray]]  # batch norm's name -> (mean, biased variance)


def same_padding(size: int, kernel: int, stride: int) -> Tuple[int, int, int]:
    """(output size, padding before, padding after) of TensorFlow's SAME padding."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return out, total // 2, total - total // 2


def conv(x: np.ndarray, kernel: np.ndarray, stride: int = 1, dilation: int = 1) -> np.ndarray:
    """Convolution with SAME padding: [B, H, W, C] by [k, k, C, D] -> [B, ceil(H/stride), ceil(W/stride), D]."""
    k = kernel.shape[0]
    reach = (k - 1) * dilation + 1
    height, top, bottom = same_padding(x.shape[1], reach, stride)
    width, left, right = same_padding(x.shape[2], reach, stride)
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), mode="constant")
    result = np.zeros((x.shape[0], height, width, kernel.shape[3]))
    for i in range(k):
        for j in range(k):
            y, z = i * dilation, j * dilation
            window = padded[:, y : y + (height - 1) * stride + 1 : stride, z : z + (width - 1) * stride + 1 : stride, :]
            result += window @ kernel[i, j]
    return result


def upsample(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear x2, then a crop. Even rows are the input's; odd rows are means with the next row (the last is repeated).
    Columns likewise."""
    for axis in (1, 2):
        following = np.concatenate([np.take(x, range(1, x.shape[axis]), axis), np.take(x, [-1], axis)], axis)
        pairs = np.stack([x, (x + following) / 2], axis + 1)
        shape = list(x.shape)
        shape[axis] *= 2
        x = pairs.reshape(shape)
    return x[:, :height, :width]


def resize(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize; output pixel i is at input coordinate i * (input size / output size), without half pixels."""
    for axis, size in ((1, height), (2, width)):
        where = np.arange(size) * (x.shape[axis] / size)
        low = np.floor(where).astype(int)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        shape = [1] * x.ndim
        shape[axis] = size
        part = (where - low).reshape(shape)
        x = np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part
    return x


class Network:
    """The subnet of one code, with weights {variable name: array}.

    Batch norm uses `statistics`; if None, it uses batch statistics and stores them in `noted`.
    """

    def __init__(
        self, weights: Dict[str, np.ndarray], code: Sequence[int], statistics: Optional[Statistics] = None
    ) -> None:
        self.weights = {name: np.asarray(value, np.float64) for name, value in weights.items()}
        self.space = spaces.chosen()
        self.chosen = dict(zip(self.space.names, map(int, code)))
        self.statistics = statistics
        self.noted: Statistics = {}

    def forward(self, images: np.ndarray) -> List[np.ndarray]:
        """The outputs [B, H/4, W/4, 4], [B, H/2, W/2, 4], [B, H, W, 4] for images uint8 [B, H, W, 6]."""
        x = images.astype(np.float64) / 127.5 - 1
        full = x.shape[1:3]
        e0 = self._layer("E0", x, 2)
        e1 = self._deep("EB0", self._layer("E1", e0, 2))
        e2 = self._deep("EB1", self._layer("Down1", e1, 2))
        d = self._deep("DB0", self._layer("Down2", e2, 2))
        d = self._deep("DB1", self._layer("Up1", upsample(d, *e2.shape[1:3])))
        d = self._layer("Up2", upsample(d, *e1.shape[1:3]))
        h1 = self._layer("H1", upsample(d, *e0.shape[1:3]))
        h2 = self._layer("H2", upsample(h1, *full))
        return [self._convolved("H0Out", d), self._convolved("H1Out", h1), self._convolved("H2Out", h2)]

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        if self.statistics is None:
            self.noted[name] = (x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2)))
        mean, variance = (self.statistics or self.noted)[name]
        return (x - mean) / np.sqrt(variance + 1e-5) * self.weights[name + "/gamma"] + self.weights[name + "/beta"]

    def _bn_relu(self, name: str, x: np.ndarray) -> np.ndarray:
        return np.maximum(self._norm("supernet/" + name, x), 0)

    def _layer(self, place: str, x: np.ndarray, stride: int = 1) -> np.ndarray:
        return self._bn_relu(place + "/bn", self._convolved(place, x, stride))

    def _convolved(self, place: str, x: np.ndarray, stride: int = 1) -> np.ndarray:
        """Applies the layer's convolution, or those of its chosen option; only the first has the stride."""
        block = self.space.block(place)
        if block is None:
            return conv(x, self.weights[f"supernet/{place}/conv/kernel"], stride)
        value = self.chosen[place]
        option, scope = block.options[value], f"{place}/{block.scope(value)}"
        for number, (_, dilation) in enumerate(option, 1):
            suffix = str(number) if len(option) > 1 else ""
            x = conv(x, self.weights[f"supernet/{scope}/conv{suffix}/kernel"], stride if number == 1 else 1, dilation)
            if number < len(option):
                x = self._bn_relu(f"{scope}/bn{suffix}", x)
        return x

    def _deep(self, place: str, x: np.ndarray) -> np.ndarray:
        block, value = self.space.block(place), self.chosen[place]
        for number in range(1, block.options[value] + 1):
            scope = f"supernet/{place}/{block.scope(value)}/block{number}"
            y = np.maximum(self._norm(scope + "/bn1", conv(x, self.weights[scope + "/conv1/kernel"])), 0)
            y = self._norm(scope + "/bn2", conv(y, self.weights[scope + "/conv2/kernel"]))
            x = np.maximum(x + y, 0)
        return x


def mean_statistics(noted: Sequence[Statistics]) -> Statistics:
    """The plain average over batches of means and variances."""
    return {name: tuple(np.mean([one[name][i] for one in noted], axis=0) for i in (0, 1)) for name in noted[0]}  # type: ignore


def batch_statistics(weights: Dict[str, np.ndarray], code: Sequence[int], images: np.ndarray) -> Statistics:
    """Mean and biased variance of one batch at the input of every batch norm of a subnet."""
    network = Network(weights, code)
    network.forward(images)
    return network.noted


def predicted_flow(
    weights: Dict[str, np.ndarray], code: Sequence[int], statistics: Statistics, images: np.ndarray
) -> np.ndarray:
    """Flow at full resolution, [B, H, W, 2] in pixels."""
    return residual_sums(Network(weights, code, statistics).forward(images))[-1][..., :2]


def path_loss(
    weights: Dict[str, np.ndarray],
    code: Sequence[int],
    images: np.ndarray,
    flow: np.ndarray,
    piece: int = 0,
    **how: Any,
) -> float:
    """The loss of one path: the mean over pieces of `piece` samples (0: the whole batch), each with its own BN."""
    size = piece or len(images)
    return float(
        np.mean(
            [
                loss(Network(weights, code).forward(images[i : i + size]), flow[i : i + size], **how)
                for i in range(0, len(images), size)
            ]
        )
    )


def residual_sums(outputs: Sequence[np.ndarray]) -> List[np.ndarray]:
    """F and U of each scale: the scale's output plus the upsampled sum of the coarser ones."""
    sums = [outputs[0].astype(np.float64)]
    for out in outputs[1:]:
        sums.append(upsample(sums[-1], *out.shape[1:3]) + out)
    return sums


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


def loss(
    outputs: Sequence[np.ndarray], flow: np.ndarray, flow_clip: float = 50.0, kind: str = "linear_softplus"
) -> float:
    """The training loss of one path; `outputs` from coarse to fine, `flow` [B, H, W, 2] in pixels."""
    target = flow.astype(np.float64)
    if flow_clip > 0:
        target = np.clip(target, -flow_clip, flow_clip)
    total = 0.0
    for weight, both in zip((0.125, 0.25, 0.5), residual_sums(outputs)):
        error = np.abs(both[..., :2] - resize(target, *both.shape[1:3]))
        term = error.mean()
        if kind == "linear_softplus":
            sigma = np.maximum(softplus(both[..., 2:] + 1e-3), 1e-3)
            term += (error / sigma).mean() + softplus(both[..., 2:]).mean()
        total += weight * term
    return total


def epe(prediction: np.ndarray, flow: np.ndarray) -> float:
    """The EPE in pixels, the mean over all pixels of all samples."""
    difference = prediction.astype(np.float64) - flow.astype(np.float64)
    return float(np.mean(np.sqrt(difference[..., 0] ** 2 + difference[..., 1] ** 2)))


class AdamStep(NamedTuple):
    """One update: new weights and slots, and the gradient norms before and after the clip."""

    weights: Dict[str, np.ndarray]
    first: Dict[str, np.ndarray]
    second: Dict[str, np.ndarray]
    norm_before: float
    norm_after: float


def adam_step(
    weights: Dict[str, np.ndarray],
    gradients: Dict[str, np.ndarray],
    first: Dict[str, Any],
    second: Dict[str, Any],
    step: int,
    lr: float,
    wd: float = 4e-5,
    clip: float = 5.0,
) -> AdamStep:
    """One step of Adam (0.9, 0.999, 1e-8) on the gradient plus weight decay of kernels, clipped by its global norm.
    `step` counts from 0."""
    total = {
        name: gradient.astype(np.float64) + (wd * weights[name] if name.endswith("/kernel") else 0.0)
        for name, gradient in gradients.items()
    }
    norm = np.sqrt(sum(float(np.sum(gradient**2)) for gradient in total.values()))
    scale = min(1.0, clip / norm)
    rate = lr * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
    new, m, v = {}, {}, {}
    for name, gradient in total.items():
        gradient = gradient * scale
        m[name] = 0.9 * np.asarray(first[name], np.float64) + 0.1 * gradient
        v[name] = 0.999 * np.asarray(second[name], np.float64) + 0.001 * gradient**2
        new[name] = weights[name] - rate * m[name] / (np.sqrt(v[name]) + 1e-8)
    return AdamStep(new, m, v, norm, norm * scale)


def first_stop(curve: Sequence[float], patience: int, min_delta: float) -> Optional[int]:
    """The evaluation, from 1, after which `patience` in a row improved by at most `min_delta`; None: never."""
    for end in range(1, len(curve) + 1):
        counted, wait = curve[0], 0
        for value in curve[1:end]:
            improved = counted - value > min_delta
            counted, wait = (value, 0) if improved else (counted, wait + 1)
        if wait >= patience:
            return end
    return None


def cosine(step: int, lr: float, total_steps: int) -> float:
    """The learning rate of a step, 0 to total_steps - 1."""
    return 0.5 * lr * (1.0 + np.cos(np.pi * step / total_steps))
