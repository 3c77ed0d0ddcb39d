"""Draws one synthetic FC2 sample: a scene of textured layers, each moving by its own affine motion.

A layer's point p of frame 0 is at `A (p - c) + c + d` in frame 1, so its exact flow is `(A - I)(p - c) + d`. Both
frames are rendered by sampling the layers' textures at continuous coordinates. No frame is made by warping the other.

The arithmetic uses only +, -, *, /, sqrt, floor, rint and comparisons of IEEE numbers, element by element. It has no
sine, no exponential and no sum whose order a library may choose. So the same (seed, number) gives the same values on
every machine and NumPy version.
"""

from typing import Any, List, NamedTuple, Optional, Tuple

import numpy as np

from edgeflownas import rng

TEXTURE = 256  # Side of a texture in pixels, a power of two. A texture repeats.
NOISE = 32  # Finest noise grid of a texture: features of 8 px and more, which are smooth enough for linear sampling.
SHAPES = (16, 24)  # Minimum and maximum number of moving shapes in a scene, like the chairs of FlyingChairs.
RADIUS = (0.06, 0.26)  # Smallest and largest half-axis of a shape, as a share of the frame's height.
SHIFT = 1.5  # Approximate median shift in pixels, of the background and of shapes relative to it, as in FC2.
LONGEST = 160.0  # Longest such shift in pixels, as in FC2.
SOFT_EDGE = 1.5  # Width in pixels of a soft edge. On average half of the shapes have soft edges, the others hard ones.

Pair = Tuple[float, float]
Matrix = Tuple[float, float, float, float]


class Layer(NamedTuple):
    """A moving layer. Its own coordinates are (x, y) pixels of frame 0 relative to `center`."""

    texture: np.ndarray  # float32 [TEXTURE * TEXTURE, 3], 0..255
    center: Pair  # c
    matrix: Matrix  # A, row by row
    shift: Pair  # d
    radii: Pair  # half-axes of the ellipse that bounds the shape
    edges: np.ndarray  # float64 [K, 3]: straight cuts; (nx, ny, r) keeps nx x + ny y <= r
    softness: float  # pixels; 0 = hard edge


class Scene(NamedTuple):
    """One sample. Layer 0 is the background; a pixel belongs to the topmost layer that covers at least half of it."""

    frame0: np.ndarray  # uint8 [H, W, 3], RGB
    frame1: np.ndarray  # uint8 [H, W, 3]
    flow: np.ndarray  # float32 [H, W, 2], (u, v) pixels from frame 0 to frame 1
    layer0: np.ndarray  # uint8 [H, W], the layer that each pixel of frame 0 belongs to
    layer1: np.ndarray  # uint8 [H, W], the same of frame 1


def draw(seed: int, number: int, height: int, width: int, max_shift: Optional[float] = None) -> Scene:
    """Draws sample `number` of the synthetic set `seed`, with frames of height x width pixels.

    Shifts do not scale with the frame's size. Their lengths are distributed as in FC2: mostly short, with a long tail.
    With `max_shift` they are uniform from 0 to `max_shift` pixels.
    """
    # The fraction of `turn` is the quantile of the background's shift. Steps of the golden ratio spread it evenly over
    # consecutive samples, so that a set of twenty already has the distribution of a large one.
    turn = rng.stream("synthetic", seed).random_sample() + number * 0.6180339887498949
    layers = _draw_layers(rng.stream("synthetic", seed, number), float(turn - np.floor(turn)), height, width, max_shift)
    frame0, layer0 = _render(layers, False, height, width)
    frame1, layer1 = _render(layers, True, height, width)
    return Scene(frame0, frame1, _flow(layers, layer0), layer0, layer1)


def _draw_layers(
    random: np.random.RandomState, rank: float, height: int, width: int, max_shift: Optional[float]
) -> List[Layer]:
    """The background and then the shapes, back to front."""
    middle = (width - 1) / 2.0, (height - 1) / 2.0
    ground = Layer(
        _texture(random),
        middle,
        _matrix(random, 0.007, 0.014, 0.007),
        _shift(random, rank, max_shift),
        (0.0, 0.0),
        np.zeros((0, 3)),
        0.0,
    )
    layers = [ground]
    for _ in range(SHAPES[0] + int(random.random_sample() * (SHAPES[1] - SHAPES[0] + 1))):
        center = random.random_sample() * (width - 1), random.random_sample() * (height - 1)
        low, high = RADIUS
        radii = tuple(height * (low + (high - low) * random.random_sample()) for _ in range(2))
        # As in FlyingChairs, a shape moves relative to the background, as if seen by a moving camera.
        along = _motion_at(ground, center[0] - middle[0], center[1] - middle[1])
        own = _shift(random, random.random_sample(), max_shift)
        layers.append(
            Layer(
                _texture(random),
                center,
                _matrix(random, 0.12, 0.12, 0.05),
                (along[0] + own[0], along[1] + own[1]),
                (radii[0], radii[1]),
                _cuts(random, min(radii)),
                SOFT_EDGE if random.random_sample() < 0.5 else 0.0,
            )
        )
    return layers


def _texture(random: np.random.RandomState) -> np.ndarray:
    """Smooth colour noise of four octaves, repeating seamlessly: float32 [TEXTURE * TEXTURE, 3] in 0..255.

    All octaves have the same contrast, as in photographs (an amplitude spectrum of 1/f). With weaker fine octaves, a
    shift of one or two pixels would hardly change a frame, and a network would see little besides colours and outlines.
    """
    base = 90.0 + 75.0 * random.random_sample(3)
    contrast = 120.0 + 120.0 * random.random_sample()
    noise = np.zeros((2, 2, 3), np.float32)
    while len(noise) < TEXTURE:
        noise = _finer(noise)
        if len(noise) <= NOISE:
            noise = noise + (contrast * (random.random_sample(noise.shape) - 0.5)).astype(np.float32)
    return np.clip(noise + base.astype(np.float32), 0.0, 255.0).reshape(-1, 3)


def _finer(grid: np.ndarray) -> np.ndarray:
    """Twice the resolution of a periodic grid [n, n, 3], as smooth as a quadratic B-spline."""
    for axis in (0, 1):
        near = np.float32(0.75) * grid
        far = np.float32(0.25) * grid
        pair = np.stack([near + np.roll(far, 1, axis), near + np.roll(far, -1, axis)], axis + 1)
        grid = pair.reshape((2 * len(grid), -1, 3) if axis == 0 else (len(grid), -1, 3))
    return grid


def _shift(random: np.random.RandomState, rank: float, max_shift: Optional[float]) -> Pair:
    """A shift (x, y) in a random direction; `rank` in [0, 1) is the quantile of its length."""
    if max_shift is None:  # median about SHIFT, with a long tail
        share = rank * LONGEST / (LONGEST + SHIFT)
        length = SHIFT * share / (1.0 - share)
    else:
        length = rank * max_shift
    x, y = _direction(random)
    return length * x, length * y


def _direction(random: np.random.RandomState) -> Pair:
    """A random unit vector: a point of the unit disc, drawn by rejection and normalised."""
    while True:
        x, y = 2.0 * random.random_sample(2) - 1.0
        square = x * x + y * y
        if 0.01 < square <= 1.0:
            length = np.sqrt(square)
            return float(x / length), float(y / length)


def _matrix(random: np.random.RandomState, turn: float, zoom: float, shear: float) -> Matrix:
    """A random matrix: rotation up to about 2 * `turn` radians, scaling within 1 +- `zoom`, shear up to `shear`.

    The cubes make small values more frequent.
    """
    t, z, s = 2.0 * random.random_sample(3) - 1.0
    t, z, s = turn * t * t * t, 1.0 + zoom * z * z * z, shear * s * s * s
    cosine, sine = (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)  # Of the angle 2 arctan t.
    return float(z * cosine), float(z * (s * cosine - sine)), float(z * sine), float(z * (s * sine + cosine))


def _cuts(random: np.random.RandomState, radius: float) -> np.ndarray:
    """The straight edges of a shape, float64 [K, 3]; K is 0 (an ellipse) or 3 to 6."""
    count = int(random.random_sample() * 5)
    cuts = [_direction(random) + (radius * (0.35 + 0.5 * random.random_sample()),) for _ in range(count and count + 2)]
    return np.array(cuts).reshape(-1, 3)


def _motion_at(layer: Layer, x: Any, y: Any) -> Tuple[Any, Any]:
    """Flow (u, v) of a layer at its own coordinates, numbers or arrays."""
    a, b, c, d = layer.matrix
    return (a - 1.0) * x + b * y + layer.shift[0], c * x + (d - 1.0) * y + layer.shift[1]


def _flow(layers: List[Layer], owner: np.ndarray) -> np.ndarray:
    """float32 [H, W, 2]: at each pixel of frame 0 the motion of the layer it belongs to."""
    flow = np.empty(owner.shape + (2,), np.float32)
    for number, layer in enumerate(layers):
        rows, columns = np.nonzero(owner == number)
        u, v = _motion_at(layer, columns - layer.center[0], rows - layer.center[1])
        flow[rows, columns, 0], flow[rows, columns, 1] = u, v
    return flow


def _render(layers: List[Layer], second: bool, height: int, width: int) -> Tuple[np.ndarray, np.ndarray]:
    """One frame, uint8 [H, W, 3], and the layer each of its pixels belongs to, uint8 [H, W]."""
    colors = np.zeros((height, width, 3), np.float32)
    owner = np.zeros((height, width), np.uint8)
    for number, layer in enumerate(layers):
        rows, columns = _bounds(layer, second, height, width) if number else (slice(0, height), slice(0, width))
        x, y = _own_coordinates(layer, second, rows, columns)
        if number == 0:
            colors[:] = _sample(layer.texture, x, y)
            continue
        depth = _depth(layer, x, y)
        hit = depth > -layer.softness
        if layer.softness:
            cover = np.clip(0.5 + depth[hit] / layer.softness, 0.0, 1.0)
        else:
            cover = (depth[hit] >= 0).astype(np.float64)
        below = colors[rows, columns]
        color = _sample(layer.texture, x[hit], y[hit])
        below[hit] += cover.astype(np.float32)[:, None] * (color - below[hit])
        owner[rows, columns][depth >= 0] = number
    return np.rint(colors).astype(np.uint8), owner


def _bounds(layer: Layer, second: bool, height: int, width: int) -> Tuple[slice, slice]:
    """Rows and columns of a frame that a shape can touch."""
    reach = max(layer.radii) + layer.softness + 1.0
    slices = []
    for axis, size in ((1, height), (0, width)):
        middle, grow = layer.center[axis], 1.0
        if second:
            middle += layer.shift[axis]
            grow = abs(layer.matrix[2 * axis]) + abs(layer.matrix[2 * axis + 1])
        start, stop = np.floor(middle - grow * reach), np.floor(middle + grow * reach) + 2
        slices.append(slice(int(min(max(start, 0), size)), int(min(max(stop, 0), size))))
    return slices[0], slices[1]


def _own_coordinates(layer: Layer, second: bool, rows: slice, columns: slice) -> Tuple[np.ndarray, np.ndarray]:
    """The layer's own (x, y), float64, of the pixels in a part of a frame (frame 1: motion undone)."""
    x = np.arange(columns.start, columns.stop)[None, :] - layer.center[0]
    y = np.arange(rows.start, rows.stop)[:, None] - layer.center[1]
    if not second:
        return x + np.zeros_like(y), y + np.zeros_like(x)
    a, b, c, d = layer.matrix
    x, y, area = x - layer.shift[0], y - layer.shift[1], a * d - b * c
    return (d / area) * x - (b / area) * y, (a / area) * y - (c / area) * x


def _depth(layer: Layer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Approximate depth of points inside the shape, in pixels; negative outside."""
    across, down = x / layer.radii[0], y / layer.radii[1]
    depth = (1.0 - np.sqrt(across * across + down * down)) * min(layer.radii)
    for nx, ny, radius in layer.edges:
        depth = np.minimum(depth, radius - (nx * x + ny * y))
    return depth


def _sample(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear samples of a repeating texture, float32 [..., 3]."""
    left, top = np.floor(x), np.floor(y)
    right_share = (x - left).astype(np.float32)[..., None]
    lower_share = (y - top).astype(np.float32)[..., None]
    column, row = left.astype(np.int32), top.astype(np.int32)
    columns = [(column + i) & (TEXTURE - 1) for i in (0, 1)]
    rows = [((row + i) & (TEXTURE - 1)) * TEXTURE for i in (0, 1)]
    upper, lower = (
        (lambda one, two: one + right_share * (two - one))(
            np.take(texture, row + columns[0], axis=0), np.take(texture, row + columns[1], axis=0)
        )
        for row in rows
    )
    return upper + lower_share * (lower - upper)
