"""Training loss and EPE. B samples; h, w the size of a scale; flow is (x, y) in full-resolution pixels. On `layers`.

Source: the LinearSoftplus multiscale loss of EdgeFlowNet (Pinnamaraju Raju et al., 2024).
"""

from typing import List, Sequence

from edgeflownas.network.layers import upsample
from edgeflownas.tfcompat import tf

SCALE_WEIGHTS = (0.125, 0.25, 0.5)  # from coarse to fine
_SIGMA_FLOOR = 1e-3


def target_pyramid(flow: tf.Tensor, sizes: Sequence[Sequence[int]], flow_clip: float) -> List[tf.Tensor]:
    """T_s: `flow` [B, H, W, 2] clipped to +-`flow_clip` pixels (0 = no clipping) and resized bilinearly to each size.
    The values are not scaled."""
    if flow_clip > 0:
        flow = tf.clip_by_value(flow, -flow_clip, flow_clip)
    full = tuple(flow.shape.as_list()[1:3])
    return [flow if tuple(size) == full else tf.image.resize_bilinear(flow, list(size)) for size in sizes]


def accumulate_residuals(outputs: Sequence[tf.Tensor]) -> List[tf.Tensor]:
    """Adds to each out_s [B, h, w, 4] the upsampled sum of the coarser ones: F_s in channels 0, 1 and U_s in 2, 3."""
    sums = [outputs[0]]
    for out in outputs[1:]:
        sums.append(upsample(sums[-1], *out.shape.as_list()[1:3]) + out)
    return sums


def multiscale_loss(outputs: Sequence[tf.Tensor], targets: Sequence[tf.Tensor], kind: str) -> tf.Tensor:
    """The loss L of one path, a scalar; `outputs` [B, h, w, 4] and `targets` [B, h, w, 2] from coarse to fine.

    L = sum_s w_s (mean|F_s - T_s| + mean(|F_s - T_s| / sigma_s) + mean softplus(U_s)),
    sigma_s = max(softplus(U_s + 1e-3), 1e-3); `kind` "l1" keeps the first term only.
    """
    total = tf.zeros([])
    for weight, both, target in zip(SCALE_WEIGHTS, accumulate_residuals(outputs), targets):
        flow, uncertainty = tf.split(both, 2, axis=3)
        error = tf.abs(flow - target)
        term = tf.reduce_mean(error)
        if kind == "linear_softplus":
            sigma = tf.maximum(tf.nn.softplus(uncertainty + 1e-3), _SIGMA_FLOOR)
            term += tf.reduce_mean(error / sigma) + tf.reduce_mean(tf.nn.softplus(uncertainty))
        total += weight * term
    return total


def end_point_error(prediction: tf.Tensor, flow: tf.Tensor) -> tf.Tensor:
    """EPE of each sample, the mean of sqrt(du^2 + dv^2) over its pixels: two [B, H, W, 2] -> [B]."""
    return tf.reduce_mean(tf.sqrt(tf.reduce_sum(tf.squared_difference(prediction, flow), axis=3)), axis=[1, 2])
