"""`.flo` files: what is read is what was written, and nothing else is read. The colour code against known colours."""

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
    with pytest.raises(DataError, match=r"length\.flo: expected .* found {}".format(len(data) + change)):
        flow_io.read_flo(str(path))


@pytest.mark.parametrize("width, height", [(2**31 - 1, 2**31 - 1), (2**16, 2**15), (2**30, 1)])
def test_a_huge_header_is_refused_without_reading(tmp_path, width, height):
    path = tmp_path / "huge.flo"
    path.write_bytes(b"PIEH" + struct.pack("<ii", width, height) + b"\0" * 80)
    with pytest.raises(DataError, match="expected {} bytes .* found 92".format(12 + 8 * width * height)):
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
        np.zeros((0, 5, 2)),
        np.zeros((3, 5, 2), int),
        np.full((3, 5, 2), np.nan),
        np.full((3, 5, 2), 2e9),
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
    with pytest.raises(ValueError, match="at least 2"):
        flow_io.color_wheel_image(1)
