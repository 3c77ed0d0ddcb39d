"""`.flo` files: reading gives what was written, and bad files are refused. The colour code against known colours."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflownas.data import flow_io
from edgeflownas.errors import DataError

FLOW = (np.random.RandomState(5).random_sample((11, 17, 2)) * 300 - 150).astype(np.float32)


def test_round_trip_and_layout(tmp_path):
    path = str(tmp_path / "a.flo")
    flow_io.write_flo(path, FLOW)
    data = (tmp_path / "a.flo").read_bytes()
    assert data[:12] == b"PIEH" + struct.pack("<ii", 17, 11)  # Width first.
    assert np.array_equal(np.frombuffer(data[12:], "<f4").reshape(11, 17, 2), FLOW)  # u before v.
    assert flow_io.read_flo_header(path) == (17, 11)
    read = flow_io.read_flo(path, size=(17, 11))
    assert read.dtype == np.float32 and np.array_equal(read, FLOW)
    read[0, 0, 0] = 1  # The caller's own copy.


@given(change=st.integers(-12 - 8 * 11 * 17, 40).filter(bool))
def test_any_other_length_is_an_error(change, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "length.flo"
    flow_io.write_flo(str(path), FLOW)
    data = path.read_bytes()
    path.write_bytes(data + b"\0" * change if change > 0 else data[:change])
    with pytest.raises(DataError, match=rf"length\.flo: expected .* found {len(data) + change}"):
        flow_io.read_flo(str(path))


@pytest.mark.parametrize("width, height", [(2**31 - 1, 2**31 - 1), (2**16, 2**15), (2**30, 1)])
def test_a_huge_header_is_refused_without_reading(tmp_path, width, height):
    path = tmp_path / "huge.flo"
    path.write_bytes(b"PIEH" + struct.pack("<ii", width, height) + b"\0" * 80)
    with pytest.raises(DataError, match=f"expected {12 + 8 * width * height} bytes .* found 92"):
        flow_io.read_flo(str(path))


@pytest.mark.parametrize("width, height", [(0, 5), (5, 0), (0, 0), (-1, 3), (3, -1), (-2, -3), (0, -1)])
def test_a_side_below_one_is_refused_also_where_the_size_fits(tmp_path, width, height):
    path = tmp_path / "a.flo"
    path.write_bytes(b"PIEH" + struct.pack("<ii", width, height) + b"\0" * max(0, 8 * width * height))
    with pytest.raises(DataError) as caught:
        flow_io.read_flo(str(path))
    assert str(caught.value) == f"{path}: expected a .flo width and height of at least 1, found {width}x{height}"


def test_one_pixel_is_a_flow(tmp_path):
    for shape in ((1, 1, 2), (1, 3, 2), (3, 1, 2)):
        flow_io.write_flo(str(tmp_path / "a.flo"), np.full(shape, 0.5, np.float32))
        assert flow_io.read_flo(str(tmp_path / "a.flo"), (shape[1], shape[0])).shape == shape


HEADER = b"PIEH" + struct.pack("<ii", 17, 11)


@pytest.mark.parametrize(
    "header, size, said",
    [
        (HEADER[:11], 1508, "expected a .flo file of more than 12 bytes, found 1508 bytes"),
        (HEADER, 11, "expected a .flo file of more than 12 bytes, found 11 bytes"),
        (b"", 0, "expected a .flo file of more than 12 bytes, found 0 bytes"),
        (b"PIEh" + HEADER[4:], 1508, "expected the .flo magic number 202021.25 (bytes b'PIEH'), found bytes b'PIEh'"),
        (HEADER, 12, "expected 1508 bytes for the 17x11 (width x height) of its .flo header, found 12"),
        (HEADER, 1507, "expected 1508 bytes for the 17x11 (width x height) of its .flo header, found 1507"),
        (HEADER, 1509, "expected 1508 bytes for the 17x11 (width x height) of its .flo header, found 1509"),
    ],
)
def test_what_is_said_of_a_header(header, size, said):
    with pytest.raises(DataError) as caught:
        flow_io.check_flo_header("d/a.flo", header, size)
    assert str(caught.value) == "d/a.flo: " + said


def test_what_is_right_of_a_header():
    assert flow_io.check_flo_header("a.flo", HEADER, 12 + 8 * 17 * 11) == (17, 11)
    assert (flow_io.flo_bytes(17, 11), flow_io.flo_header(17, 11)) == (1508, HEADER)


@pytest.mark.parametrize("size, found", [((11, 17), "11x17"), ((17, 12), "17x12"), ((16, 11), "16x11")])
def test_the_size_wanted_is_width_and_height(tmp_path, size, found):
    path = str(tmp_path / "a.flo")
    flow_io.write_flo(path, FLOW)
    with pytest.raises(DataError) as caught:
        flow_io.read_flo(path, size)
    assert str(caught.value) == f"{path}: expected a flow of {found} (width x height) as its frames, found 17x11"


def test_values_that_are_no_flow_are_counted_and_the_first_is_named(tmp_path):
    path, flow = str(tmp_path / "a.flo"), FLOW.copy()
    flow[3, 5, 1], flow[3, 6, 0], flow[10, 2, 0] = 2e9, np.nan, -np.inf
    with open(path, "wb") as handle:
        handle.write(HEADER + flow.tobytes())
    with pytest.raises(DataError) as caught:
        flow_io.read_flo(path)
    assert str(caught.value) == (
        f"{path}: expected finite flow of at most 1e+09 px, found 3 other values, the first 2000000000.0 at x=5 y=3"
    )


def test_a_file_that_is_cut_between_two_looks_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "a.flo"
    flow_io.write_flo(str(path), FLOW)
    monkeypatch.setattr(flow_io, "read_flo_header", lambda path: (17, 11))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match="expected 1508 bytes .* found 1500"):
        flow_io.read_flo(str(path))


def test_a_folder_is_no_flow(tmp_path):
    with pytest.raises(DataError, match="Is a directory"):
        flow_io.read_flo(str(tmp_path))


def test_the_largest_known_flow_is_fine(tmp_path):
    path, flow = str(tmp_path / "a.flo"), np.full((2, 3, 2), -1e9, np.float32)
    flow_io.write_flo(path, flow)
    assert np.array_equal(flow_io.read_flo(path), flow)


@pytest.mark.parametrize(
    "flow",
    [
        np.zeros((3, 5, 3), np.float32),
        np.zeros((3, 5), np.float32),
        np.zeros((3, 5, 1), np.float32),
        np.zeros((3, 5, 2, 1), np.float32),
        np.zeros((3, 0, 2), np.float32),
        np.zeros((0, 5, 2)),
        np.zeros((3, 5, 2), int),
        np.full((3, 5, 2), np.nan),
        np.full((3, 5, 2), 2e9),
        np.full((3, 5, 2), 1e9 + 0.5),
    ],
)
def test_write_refuses_what_is_no_flow(tmp_path, flow):
    with pytest.raises(ValueError, match="flow must be"):
        flow_io.write_flo(str(tmp_path / "a.flo"), flow)
    assert not (tmp_path / "a.flo").exists()


@pytest.mark.parametrize(
    "vector, rgb",
    [
        ((1, 0), (255, 0, 0)),  # Right is red.
        ((-1, 0), (0, 209, 255)),  # Left: colour 27 of the wheel, the third of the arc from cyan to blue.
        ((0, 0), (255, 255, 255)),  # No motion is white.
        ((0.5, 0), (255, 127, 127)),
        ((2, 0), (191, 0, 0)),  # Beyond max_px: darkened.
        ((np.nan, 0), (0, 0, 0)),
        ((0, 2e9), (0, 0, 0)),  # Unknown is black.
    ],
)
def test_colors(vector, rgb):
    assert tuple(flow_io.flow_to_rgb(np.array([[vector]], np.float32), max_px=1.0)[0, 0]) == rgb


def published_wheel():
    """The wheel as it was published with the benchmark: six loops over the arcs, integers all the way."""
    wheel = []
    wheel += [(255, 255 * i // 15, 0) for i in range(15)]
    wheel += [(255 - 255 * i // 6, 255, 0) for i in range(6)]
    wheel += [(0, 255, 255 * i // 4) for i in range(4)]
    wheel += [(0, 255 - 255 * i // 11, 255) for i in range(11)]
    wheel += [(255 * i // 13, 0, 255) for i in range(13)]
    wheel += [(255, 0, 255 - 255 * i // 6) for i in range(6)]
    return wheel


def published_color(u, v):
    """The colour as it was published, for a vector in units of `max_px`: one vector at a time, one channel at a
    time."""
    wheel = published_wheel()
    where = (math.atan2(-v, -u) / math.pi + 1) / 2 * (len(wheel) - 1)
    first = int(where)
    channels = []
    for low, high in zip(wheel[first], wheel[(first + 1) % len(wheel)]):
        color = ((1 - (where - first)) * low + (where - first) * high) / 255
        radius = math.hypot(u, v)
        channels.append(255 * (1 - radius * (1 - color) if radius <= 1 else color * 0.75))
    return channels


def test_every_color_is_the_published_one():
    turn, length = np.meshgrid(np.linspace(-np.pi, np.pi, 331), [0.0, 0.01, 0.37, 0.999, 1.001, 1.7])
    flow = np.stack([7 * length * np.cos(turn), 7 * length * np.sin(turn)], axis=2)
    got = flow_io.flow_to_rgb(flow, max_px=7.0)
    want = np.array([[published_color(u / 7, v / 7) for u, v in row] for row in flow])
    near = np.abs(want - np.round(want)) < 1e-6  # rounding may fall to either side
    assert got.dtype == np.uint8 and np.array_equal(got[~near], np.floor(want)[~near]) and (~near).sum() > 3000
    assert np.abs(got - want).max() <= 1.0 + 1e-6


@pytest.mark.parametrize("max_px", [0, -1.0, float("nan")])
def test_the_scale_is_above_zero(max_px):
    with pytest.raises(ValueError, match=f"^max_px must be above 0, got {max_px}$"):
        flow_io.flow_to_rgb(FLOW, max_px)


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 3), (3, 5, 1), (3, 5, 2, 1), (2,)])
def test_colors_are_of_a_flow(shape):
    with pytest.raises(ValueError) as caught:
        flow_io.flow_to_rgb(np.zeros(shape))
    assert str(caught.value) == f"flow must be [H, W, 2], got {shape}"


def test_small_scales_and_unknown_vectors():
    """Unknown vectors do not affect the scale; very small vectors still set it."""
    assert tuple(flow_io.flow_to_rgb(np.array([[(0.25, 0), (np.nan, 0), (0, 3e9)]]))[0, 0]) == (255, 0, 0)
    assert tuple(flow_io.flow_to_rgb(np.array([[(1e-8, 0.0)]]))[0, 0]) == (255, 0, 0)
    assert tuple(flow_io.flow_to_rgb(np.array([[(1e-10, 0.0)]]))[0, 0]) == (255, 229, 229)  # a tenth of 1e-9 px
    assert flow_io.flow_to_rgb(np.array([[(0.25, 0), (0, 1e9)]]))[0, 1].any()


def test_default_scale_is_the_longest_vector():
    flow = np.array([[(3, 4), (0.3, 0.4)]], np.float32)
    assert np.array_equal(flow_io.flow_to_rgb(flow), flow_io.flow_to_rgb(flow, max_px=5.0))
    assert (flow_io.flow_to_rgb(np.zeros((2, 3, 2))) == 255).all()


def test_hue_turns_from_red_over_yellow_where_flow_points_down():
    angle = np.linspace(0.01, 2 * np.pi - 0.01, 400)  # From right over down (y grows downwards) to left and up.
    colors = flow_io.flow_to_rgb(np.stack([np.cos(angle), np.sin(angle)], 1)[None], max_px=1.001)[0].astype(int)
    firsts = [
        int(np.argmax((np.abs(colors - corner) <= 12).all(axis=1)))
        for corner in ((255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255))
    ]
    assert firsts[0] > 0 and firsts == sorted(firsts)


def test_wheel_image():
    wheel = flow_io.color_wheel_image(41)
    assert wheel.shape == (41, 41, 3) and wheel.dtype == np.uint8
    assert tuple(wheel[20, 20]) == (255, 255, 255) and tuple(wheel[20, 40]) == (255, 0, 0)
    assert (wheel[0, 0] == 255).all()
    with pytest.raises(ValueError, match="at least 2 px, got 1"):
        flow_io.color_wheel_image(1)
    assert (flow_io.color_wheel_image(2) == 255).all()  # nothing but corners


def test_wheel_image_shows_each_vector_where_it_points():
    size, wheel = 21, flow_io.color_wheel_image(21)
    for row in range(size):
        for column in range(size):
            u, v = (column - 10) / 10, (row - 10) / 10
            want = [255] * 3 if math.hypot(u, v) > 1 + 1e-9 else published_color(u, v)
            assert np.abs(wheel[row, column] - np.floor(np.array(want) + 1e-9)).max() <= 1, (row, column)
