"""A filled copy of a user's picture keeps every bit outside the hole, its transparency, 16 bits and its profile."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from files.rejections import RejectedImageError
from files.user_pictures import CMYK, FRAMES, read_picture

MASK = np.zeros((20, 30), np.uint8)
MASK[4:12, 10:25] = 1
FILLED = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def pixels(channels, dtype):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (20, 30, channels), dtype=dtype, endpoint=True)


def encoded(array, **options):
    file = io.BytesIO()
    Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array).save(file, "PNG", **options)
    return file.getvalue()


def encoded_16(array):
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[2]]
    return cv2.imencode(".png", np.ascontiguousarray(array[..., order]))[1].tobytes()


@pytest.mark.parametrize("mode", CHANNELS)
def test_8_bits_keep_mode_profile_and_every_pixel_outside_the_hole(mode):
    array = pixels(CHANNELS[mode], np.uint8)
    content = encoded(array, icc_profile=SRGB if CHANNELS[mode] > 2 else None)
    out = Image.open(io.BytesIO(read_picture(content).fill(FILLED, MASK).encode_png()))
    assert out.mode == mode
    assert out.info.get("icc_profile") == (SRGB if CHANNELS[mode] > 2 else None)
    found = np.array(out).reshape(array.shape)
    assert np.array_equal(found[MASK == 0], array[MASK == 0])
    if CHANNELS[mode] > 2:
        assert np.array_equal(found[MASK == 1][:, :3], FILLED[MASK == 1])
    if mode.endswith("A"):
        assert (found[MASK == 1][:, -1] == 255).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_stay(channels):
    array = pixels(channels, np.uint16)
    picture = read_picture(encoded_16(array))
    assert np.array_equal(picture.pixels, array)
    assert picture.rgb().dtype == np.uint8
    content = picture.fill(FILLED, MASK).encode_png()
    again = read_picture(content)
    assert again.pixels.dtype == np.uint16
    assert np.array_equal(again.pixels[MASK == 0], array[MASK == 0])
    if channels > 1:
        assert np.array_equal(again.pixels[MASK == 1][:, :3], FILLED[MASK == 1] * np.uint16(257))


def test_a_profile_of_16_bits_is_written_where_others_find_it():
    picture = read_picture(encoded(pixels(3, np.uint8), icc_profile=SRGB))
    deep = type(picture)(pixels(3, np.uint16), picture.profile)
    assert Image.open(io.BytesIO(deep.encode_png())).info["icc_profile"] == SRGB


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_orientation_is_applied_once(orientation, dtype):
    array = pixels(3, dtype)
    exif = Image.Exif()
    exif[0x0112] = orientation
    eight = (array >> 8 if dtype == np.uint16 else array).astype(np.uint8)
    tagged = encoded(eight, exif=exif)
    content = tagged
    if dtype == np.uint16:  # OpenCV writes no EXIF: the chunk is taken from the other file
        start = tagged.index(b"eXIf") - 4
        chunk = tagged[start : start + 12 + int.from_bytes(tagged[start : start + 4], "big")]
        plain = encoded_16(array)
        content = plain[:33] + chunk + plain[33:]
    upright = Image.open(io.BytesIO(tagged))
    from PIL import ImageOps

    expected = np.array(ImageOps.exif_transpose(upright))
    picture = read_picture(content)
    assert np.array_equal(picture.rgb(), expected)
    out = Image.open(io.BytesIO(picture.encode_png()))
    assert out.getexif().get(0x0112, 1) == 1


def test_a_palette_becomes_colours_and_transparency_is_white_to_the_network():
    image = Image.fromarray(pixels(3, np.uint8)).quantize(16)
    file = io.BytesIO()
    image.save(file, "PNG", transparency=0)
    picture = read_picture(file.getvalue())
    assert picture.pixels.shape == (20, 30, 4)
    assert np.array_equal(picture.pixels[..., :3], np.array(image.convert("RGB")))
    assert (picture.rgb()[picture.opacity == 0] == 255).all()


def test_what_a_png_cannot_keep_is_refused():
    cmyk, frames = io.BytesIO(), io.BytesIO()
    Image.new("CMYK", (20, 20)).save(cmyk, "JPEG")
    Image.new("RGB", (20, 20)).save(frames, "PNG", save_all=True, append_images=[Image.new("RGB", (20, 20), "red")])
    for file, reason in ((cmyk, CMYK), (frames, FRAMES)):
        with pytest.raises(RejectedImageError, match=reason):
            read_picture(file.getvalue())
