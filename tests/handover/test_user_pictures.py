"""The user's pictures: every kind that is promised is read as a viewer shows it, and the rest is refused by name."""

import numpy as np
import pytest
from PIL import Image

from edgeflownas.data.flow_io import flow_to_rgb
from edgeflownas.errors import DataError
from edgeflownas.handover.flow_picture import MARGIN, flow_picture, flow_scale, overlay
from edgeflownas.handover.picture_file import read_picture

HEIGHT, WIDTH = 5, 7
DRAW = np.random.RandomState(3)
PIXELS = DRAW.randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
GREY = DRAW.randint(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)


def three(grey):
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize("name", ["a.png", "a.ppm", "a.PNG"])
def test_rgb(tmp_path, name):
    Image.fromarray(PIXELS).save(str(tmp_path / name))
    found = read_picture(str(tmp_path / name))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, PIXELS)


@pytest.mark.parametrize("name", ["a.png", "a.pgm"])
def test_grey_is_three_equal_channels(tmp_path, name):
    Image.fromarray(GREY).save(str(tmp_path / name))
    np.testing.assert_array_equal(read_picture(str(tmp_path / name)), three(GREY))


def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(str(tmp_path / "a.png"))
    np.testing.assert_array_equal(read_picture(str(tmp_path / "a.png")), three(GREY))


def test_16_bit_pgm(tmp_path):
    content = b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + (GREY.astype(">u2") * 257).tobytes()
    (tmp_path / "a.pgm").write_bytes(content)
    np.testing.assert_array_equal(read_picture(str(tmp_path / "a.pgm")), three(GREY))


def test_a_palette_gives_its_colours(tmp_path):
    colours = DRAW.randint(0, 256, (8, 3)).astype(np.uint8)
    numbers = DRAW.randint(0, 8, (HEIGHT, WIDTH)).astype(np.uint8)
    image = Image.fromarray(numbers, mode="P")
    image.putpalette(colours.ravel().tolist())
    image.save(str(tmp_path / "a.png"))
    with Image.open(str(tmp_path / "a.png")) as saved:
        assert saved.mode == "P"
    np.testing.assert_array_equal(read_picture(str(tmp_path / "a.png")), colours[numbers])


def test_jpeg_and_its_orientation(tmp_path):
    """A camera held upright notes that in the file; viewers turn the picture, and so do we."""
    smooth = np.zeros((32, 48, 3), np.uint8)
    smooth[:16] = (200, 30, 60)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    Image.fromarray(smooth).save(str(tmp_path / "plain.jpg"), quality=95, subsampling=0)
    Image.fromarray(smooth).save(str(tmp_path / "turned.jpg"), quality=95, subsampling=0, exif=exif)
    plain, turned = read_picture(str(tmp_path / "plain.jpg")), read_picture(str(tmp_path / "turned.jpg"))
    assert np.abs(plain.astype(int) - smooth).max() < 20 and turned.shape == (48, 32, 3)
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))


def test_an_opaque_alpha_channel_is_dropped(tmp_path):
    rgba = np.dstack([PIXELS, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    Image.fromarray(rgba).save(str(tmp_path / "a.png"))
    np.testing.assert_array_equal(read_picture(str(tmp_path / "a.png")), PIXELS)
    rgba[2, 3, 3] = 254
    Image.fromarray(rgba).save(str(tmp_path / "b.png"))
    with pytest.raises(DataError, match="b.png: expected an opaque picture"):
        read_picture(str(tmp_path / "b.png"))


def test_what_is_no_picture_of_these_kinds(tmp_path):
    Image.fromarray(PIXELS).convert("CMYK").save(str(tmp_path / "cmyk.jpg"))
    Image.fromarray(GREY).save(str(tmp_path / "a.gif"))
    (tmp_path / "text.png").write_text("not a picture")
    for name, message in [
        ("cmyk.jpg", "expected RGB, grey or palette colours, found CMYK"),
        ("a.gif", "expected a PNG, JPEG or PPM picture, found GIF"),
        ("text.png", "expected a PNG, JPEG or PPM picture, found: cannot identify"),
        ("none.png", "found: No such file"),
        ("", "found: Is a directory"),
    ]:
        with pytest.raises(DataError, match=message):
            read_picture(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.ppm"])
def test_a_cut_file(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(DRAW.randint(0, 256, (64, 64, 3)).astype(np.uint8)).save(str(path))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match="expected a PNG, JPEG or PPM picture, found: "):
        read_picture(str(path))


def flow():
    y, x = np.mgrid[0:61, 0:83]
    return np.stack([x / 83.0 * 6 - 3, y / 61.0 * 4 - 2], axis=2).astype(np.float32)


def test_a_pixel_of_the_picture_is_a_pixel_of_the_flow(tmp_path):
    (tmp_path / "a.png").write_bytes(flow_picture(flow(), "title"))
    with Image.open(str(tmp_path / "a.png")) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    top, want = MARGIN + 18, flow_to_rgb(flow(), flow_scale(flow())).astype(int)
    found = pixels[top : top + 61, MARGIN : MARGIN + 83]
    np.testing.assert_allclose(found[2:-2, 2:-2], want[2:-2, 2:-2], atol=1)


def test_the_overlay_leaves_what_does_not_move_grey(tmp_path):
    still = np.zeros((61, 83, 2), np.float32)
    still[:, 50:] = (3.0, 0.0)
    frame = DRAW.randint(0, 256, (61, 83, 3)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(overlay(still, frame, "title"))
    with Image.open(str(tmp_path / "a.png")) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)[MARGIN + 18 :, MARGIN:]
    grey, moved = pixels[3:58, 3:45], pixels[3:58, 55:80]
    assert np.ptp(grey, axis=2).max() <= 1 and np.ptp(moved, axis=2).min() > 20
    assert len(np.unique(grey)) > 50, "the frame is seen"
