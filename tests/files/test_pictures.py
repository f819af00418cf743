import io
import pickle
import random
import subprocess
import sys
import tracemalloc
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from files.pictures import (
    BELOW_MINIMUM,
    BELOW_SIZE,
    DAMAGED,
    EMPTY,
    NO_IMAGE,
    OUTSIDE,
    TOO_MANY_BYTES,
    TOO_MANY_PIXELS,
    RejectedImageError,
    decode,
    decode_image,
    decode_with_note,
    encode_grey_png,
    encode_jpeg,
    encode_png,
    fit,
)


def _pattern(height: int = 24, width: int = 40) -> np.ndarray:
    """Smooth colour with a different value in every corner, so that a turned picture shows."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 200 // height, columns * 200 // width, (rows + columns) % 50 + 100], axis=2).astype(
        np.uint8
    )


def _encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def _png(array: np.ndarray) -> bytes:
    return _encoded(Image.fromarray(array), "PNG")


def _png_chunks(width: int, height: int, depth: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand."""
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([depth, colour, 0, 0, 0])
    framed = (
        len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)
        for kind, body in ((b"IHDR", header), *chunks, (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def _reason(content: bytes, **limits: int) -> str:
    with pytest.raises(RejectedImageError) as caught:
        decode(content, **limits)
    return caught.value.reason


def test_colour_png_is_returned_exactly() -> None:
    image = decode(_png(_pattern()))
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, _pattern())


def test_grey_is_repeated_in_three_channels() -> None:
    grey = _pattern()[..., 1]
    np.testing.assert_array_equal(decode(_png(grey)), np.dstack([grey] * 3))
    jpeg = _encoded(Image.fromarray(grey), "JPEG", quality=100)
    np.testing.assert_allclose(decode(jpeg).astype(int), np.dstack([grey] * 3).astype(int), atol=2)
    bits = _encoded(Image.fromarray(grey > 100), "PNG")
    np.testing.assert_array_equal(decode(bits), np.dstack([(grey > 100) * np.uint8(255)] * 3))


def test_cmyk_jpeg_becomes_rgb_with_the_right_polarity() -> None:
    flat = np.full((32, 32, 3), (200, 40, 90), np.uint8)
    image = decode(_encoded(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=100))
    np.testing.assert_allclose(image.astype(int), flat.astype(int), atol=3)


def test_palette_is_looked_up_and_its_alpha_flattened_on_white() -> None:
    palette = Image.new("P", (32, 16))
    palette.putpalette([255, 0, 0, 0, 0, 200])
    palette.paste(1, (16, 0, 32, 16))
    opaque = decode(_encoded(palette, "PNG"))
    assert opaque[0, 0].tolist() == [255, 0, 0]
    assert opaque[0, 31].tolist() == [0, 0, 200]
    see_through = decode(_encoded(palette, "PNG", transparency=bytes([255, 0])))
    assert see_through[0, 0].tolist() == [255, 0, 0]
    assert see_through[0, 31].tolist() == [255, 255, 255]


def test_alpha_is_flattened_on_white() -> None:
    alpha = np.linspace(0, 255, 32).astype(np.uint8)
    array = np.zeros((16, 32, 4), np.uint8)
    array[..., 0], array[..., 3] = 100, alpha
    share = alpha / 255
    expected = np.stack([100 * share + 255 * (1 - share), 255 * (1 - share), 255 * (1 - share)], axis=1)
    np.testing.assert_allclose(decode(_png(array)), np.tile(expected, (16, 1, 1)), atol=1)
    grey_alpha = _encoded(Image.merge("LA", [Image.new("L", (16, 16), 30), Image.new("L", (16, 16), 0)]), "PNG")
    assert np.unique(decode(grey_alpha)).tolist() == [255]
    keyed = decode(_encoded(Image.new("RGB", (16, 16), (1, 2, 3)), "PNG", transparency=(1, 2, 3)))
    assert np.unique(keyed).tolist() == [255]


def test_sixteen_bits_keep_the_upper_eight_in_grey_and_colour() -> None:
    grey = (np.arange(32 * 32).reshape(32, 32) * 64 + 63).astype(np.uint16)
    colour = np.dstack([grey, grey[::-1], 65535 - grey])
    _, grey_png = cv2.imencode(".png", grey)
    _, colour_png = cv2.imencode(".png", colour[..., ::-1])
    np.testing.assert_array_equal(decode(grey_png.tobytes()), np.dstack([grey >> 8] * 3))
    np.testing.assert_array_equal(decode(colour_png.tobytes()), colour >> 8)


# What turns the stored picture upright (EXIF 2.32, table of the tag Orientation)
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = UPRIGHT[orientation](_pattern())
    np.testing.assert_array_equal(decode(_encoded(Image.fromarray(_pattern()), "PNG", exif=exif)), expected)
    jpeg = decode(_encoded(Image.fromarray(_pattern()), "JPEG", exif=exif, quality=100, subsampling=0))
    np.testing.assert_allclose(jpeg.astype(int), expected.astype(int), atol=6)
    grey = (_pattern()[..., 1].astype(np.uint16)) << 8
    turned = decode(_encoded(Image.fromarray(grey), "PNG", exif=exif))
    np.testing.assert_array_equal(turned, UPRIGHT[orientation](np.dstack([grey >> 8] * 3)))


def test_progressive_jpeg_equals_the_baseline_one() -> None:
    image = Image.fromarray(_pattern(64, 64))
    baseline, progressive = (_encoded(image, "JPEG", quality=90, progressive=flag) for flag in (False, True))
    assert baseline != progressive
    np.testing.assert_array_equal(decode(progressive), decode(baseline))


def test_too_small_picture_is_rejected() -> None:
    assert _reason(_png(np.zeros((1, 1, 3), np.uint8))) == BELOW_MINIMUM
    assert _reason(_png(_pattern(15, 40))) == BELOW_MINIMUM
    assert decode(_png(np.zeros((1, 1, 3), np.uint8)), minimum_side=1).shape == (1, 1, 3)


def test_cut_empty_and_foreign_content_is_rejected_with_a_reason() -> None:
    jpeg = _encoded(Image.fromarray(_pattern(64, 64)), "JPEG")
    png = _png(_pattern(64, 64))
    assert _reason(b"") == EMPTY
    assert _reason(b"this is a text under the name of 1.jpg\n" * 30) == NO_IMAGE
    assert _reason(jpeg[: len(jpeg) // 2]) == DAMAGED
    assert _reason(png[: len(png) // 2]) == DAMAGED
    assert _reason(jpeg[:20]) in (NO_IMAGE, DAMAGED)
    for name in ("GIF", "BMP", "TIFF", "WebP", "AVIF"):
        assert _reason(_encoded(Image.fromarray(_pattern()), name.upper())) == f"{NO_IMAGE} but {name}"


def test_content_decides_and_the_name_does_not() -> None:
    """`decode` sees no name: a PNG called 1.jpg is a good picture, in line with archives, which go by content too."""
    np.testing.assert_array_equal(decode(_png(_pattern())), _pattern())


def test_reason_is_the_text_and_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(RejectedImageError(DAMAGED)))
    assert (str(error), error.reason) == (DAMAGED, DAMAGED)


def test_limits_are_checked_before_decoding() -> None:
    content = _png(_pattern(20, 40))
    assert _reason(content, max_bytes=len(content) - 1) == TOO_MANY_BYTES
    assert _reason(content, max_pixels=799) == TOO_MANY_PIXELS
    assert decode(content, max_bytes=len(content), max_pixels=800).shape == (20, 40, 3)


_LIMITED = """
import resource, sys, time
import psutil
from files.pictures import RejectedImageError, decode
if sys.platform == "linux":  # the limit counts addresses, so what the imports took is added
    limit = psutil.Process().memory_info().vms + 512 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
started = time.monotonic()
try:
    decode(sys.stdin.buffer.read())
except RejectedImageError as error:
    print(time.monotonic() - started, error.reason, sep=",")
"""


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_huge_png_is_rejected_in_512_megabytes_and_5_seconds(side: int) -> None:
    compressor = zlib.compressobj(1)
    rows = 12_000**2 // side  # all of the smaller one, and the same number of bytes of the larger
    pixels = b"".join(compressor.compress(bytes(1 + 3 * side)) for _ in range(rows)) + compressor.flush()
    content = _png_chunks(side, side, 8, 2, (b"IDAT", pixels))
    answer = subprocess.run([sys.executable, "-W", "error", "-c", _LIMITED], input=content, capture_output=True)
    seconds, reason = answer.stdout.decode().strip().split(",")
    assert reason == TOO_MANY_PIXELS
    assert float(seconds) < 5
    assert not answer.stderr


def test_text_that_inflates_without_end_is_dropped_and_costs_no_memory() -> None:
    text = (b"zTXt", b"a\0\0" + zlib.compress(bytes(2**28)))
    content = _png_chunks(20, 20, 8, 2, text, (b"IDAT", zlib.compress(bytes(20 * 61))))
    tracemalloc.start()
    assert decode_with_note(content).is_metadata_dropped
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_mutated_pictures_raise_only_our_error() -> None:
    """400 mutations of four kinds of files; the few kinds of exceptions that Pillow raises must not come through."""
    draw = random.Random(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(_pattern(32, 32))
    seeds = [
        _encoded(picture, "JPEG", exif=exif),
        _encoded(picture, "JPEG", progressive=True),
        _encoded(picture, "PNG", exif=exif),
        _encoded(picture.convert("P"), "PNG", transparency=3),
    ]
    num_rejected = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(400):
            content = bytearray(seeds[number % 4])
            for _ in range(draw.randint(1, 8)):
                content[draw.randrange(len(content))] = draw.randrange(256)
            try:
                image = decode(bytes(content[: draw.choice([None, None, draw.randrange(len(content))])]))
                assert image.ndim == 3
                assert image.shape[2] == 3
            except RejectedImageError:
                num_rejected += 1
    assert 100 < num_rejected < 400


def test_crop_takes_the_central_square() -> None:
    image = np.zeros((64, 100, 3), np.uint8)
    image[:, 18:82] = 200
    assert np.unique(fit(image, 32, "crop")).tolist() == [200]
    assert np.unique(fit(image.transpose(1, 0, 2).copy(), 32, "crop")).tolist() == [200]
    assert np.unique(fit(image, 32, "squash")).size > 1


def test_fit_at_the_same_size_changes_nothing() -> None:
    image = _pattern(24, 24)
    for rule in ("crop", "squash"):
        np.testing.assert_array_equal(fit(image, 24, rule), image)


@pytest.mark.parametrize(("rule", "width"), [("crop", 96), ("squash", 192)])
def test_resize_is_antialiased_and_keeps_the_mean(rule: str, width: int) -> None:
    """Stripes one pixel wide become their mean; sampling without a filter would give black or white."""
    stripes = np.zeros((96, width, 3), np.uint8)
    stripes[:, ::2] = 255
    small = fit(stripes, 32, rule)
    assert small.shape == (32, 32, 3)
    np.testing.assert_allclose(small[:, 2:-2].mean(), 127.5, atol=2)
    assert np.ptp(small[:, 4:-4].astype(int)) < 40


def test_fit_never_enlarges() -> None:
    for rule in ("crop", "squash"):
        with pytest.raises(RejectedImageError, match=f"^{BELOW_SIZE}$"):
            fit(_pattern(31, 90), 32, rule)
        assert fit(_pattern(32, 90), 32, rule).shape == (32, 32, 3)


def test_crop_box_is_applied_before_the_resize() -> None:
    image = _pattern(60, 80)
    np.testing.assert_array_equal(fit(image, 20, "squash", crop=(10, 5, 30, 25)), image[5:25, 10:30])
    np.testing.assert_array_equal(fit(image, 16, "crop", crop=(8, 4, 40, 52)), fit(image[4:52, 8:40], 16, "crop"))
    with pytest.raises(RejectedImageError, match=BELOW_SIZE):
        fit(image, 20, "crop", crop=(0, 0, 19, 60))
    for box in ((0, 0, 81, 60), (-1, 0, 20, 20), (30, 0, 30, 20), (0, 40, 20, 20)):
        with pytest.raises(RejectedImageError, match=OUTSIDE):
            fit(image, 8, "crop", crop=box)


def test_unknown_rule_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="rule must be one of crop, squash, cut, shorter, keep, got 'pad'"):
        fit(_pattern(), 16, "pad")


def test_png_is_lossless_and_repeats_byte_for_byte() -> None:
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    np.testing.assert_array_equal(decode(encode_png(image)), image)
    assert encode_png(image) == encode_png(np.asfortranarray(image))
    grey = image[..., 0]
    stored = Image.open(io.BytesIO(encode_grey_png(grey)))
    assert stored.mode == "L"
    np.testing.assert_array_equal(np.asarray(stored), grey)


def test_png_is_about_as_small_as_the_default() -> None:
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8), (0, 0), 3)
    assert len(encode_png(image)) < 1.03 * len(_png(image))


def test_jpeg_keeps_full_chroma_and_repeats_byte_for_byte() -> None:
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (255, 0, 0), (0, 0, 255)
    content = encode_jpeg(stripes, 100)
    assert content == encode_jpeg(stripes.copy(), 100)
    np.testing.assert_allclose(decode(content).astype(int), stripes.astype(int), atol=4)  # 4:2:0 would be off by 100
    assert len(encode_jpeg(_pattern(64, 64), 50)) < len(encode_jpeg(_pattern(64, 64), 95))


def test_encoders_refuse_other_arrays() -> None:
    with pytest.raises(ValueError, match=r"image must be uint8 \(H, W, 3\), got float64"):
        encode_png(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match=r"image must be uint8 \(H, W\), got uint8 \(4, 4, 3\)"):
        encode_grey_png(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"image must be uint8 \(H, W, 3\)"):
        encode_jpeg(np.zeros((4, 4), np.uint8), 95)
    with pytest.raises(ValueError, match=r"quality must be in 1\.\.100, got 0"):
        encode_jpeg(np.zeros((4, 4, 3), np.uint8), 0)


def test_a_stored_image_comes_back_in_its_own_order_of_colours() -> None:
    image = _pattern()
    for out in (None, np.empty_like(image), np.empty((2, 2, 3), np.uint8)):
        found = decode_image(encode_png(image), out)
        assert np.array_equal(found, image)
        assert (found is out) == (out is not None and out.shape == image.shape)
