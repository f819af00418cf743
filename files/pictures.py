"""Decode, fit and encode pictures. All image input passes through this file."""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from files.picture_formats import format_of
from files.picture_loading import FORMATS, load
from files.rejections import (
    BELOW_MINIMUM,
    BELOW_SIZE,
    DAMAGED,
    EMPTY,
    NO_IMAGE,
    NO_LABELS,
    OUTSIDE,
    TOO_MANY_BYTES,
    TOO_MANY_PIXELS,
    RejectedImageError,
)

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000  # above every common camera; 150 MB when decoded
MINIMUM_SIDE = 16

FitRule = Literal["crop", "squash", "cut", "shorter", "keep"]
"""Rules by which `fit` changes the size of a picture."""

_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"

IGNORE = 255
"""The label of a pixel whose class is not known."""


@dataclass(frozen=True)
class Decoded:
    """A decoded picture.

    image: uint8 (H, W, 3) RGB.
    is_metadata_dropped: whether metadata was dropped because it cannot be read.
    """

    image: np.ndarray
    is_metadata_dropped: bool


def decode(
    content: bytes,
    *,
    minimum_side: int = MINIMUM_SIDE,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode a JPEG or PNG to uint8 (H, W, 3) RGB. See `decode_with_note`."""
    return decode_with_note(content, minimum_side=minimum_side, max_bytes=max_bytes, max_pixels=max_pixels).image


def decode_with_note(
    content: bytes,
    *,
    minimum_side: int = MINIMUM_SIDE,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> Decoded:
    """Decode a JPEG or PNG. The format is told by the content, not by a name.

    - The EXIF orientation is applied where it can be read.
    - Other metadata changes nothing, whether it can be read or not.
    - Grey is repeated in three channels.
    - CMYK is converted without its colour profile; other colour profiles are ignored, too.
    - Palettes are looked up.
    - Transparency is flattened on white.
    - Of 16 bits the upper 8 are kept.
    - Of several frames the first is read.

    minimum_side, max_bytes, max_pixels: limits on the picture's shorter side in pixels, the content and H * W.
    Raises RejectedImageError for a picture outside the limits, before it is decoded, and for any damage of the pixels
    that the decoder detects. Flipped bits in a JPEG are mostly not detected; only a digest of the file detects them.
    """
    if not content:
        raise RejectedImageError(EMPTY)
    if len(content) > max_bytes:
        raise RejectedImageError(TOO_MANY_BYTES)

    def check(image: Image.Image) -> None:
        _check_size(image, max_pixels)
        if min(image.size) < minimum_side:
            raise RejectedImageError(BELOW_MINIMUM)

    with only_rejections(no_image=_no_image(content)):
        loaded = load(content, check)
        return Decoded(_rgb_array(loaded.upright()), loaded.is_metadata_dropped)


def decode_grey(content: bytes) -> np.ndarray:
    """Decode a label map of a data set to uint8 (H, W): 8 bits or 1 bit in one channel, or the indices of a palette.

    1 bit becomes 0 or 255. Metadata, an orientation included, changes nothing.
    Raises RejectedImageError for any other picture, and for damage of the pixels.
    """

    def check(image: Image.Image) -> None:
        _check_size(image)
        if image.mode not in ("L", "P", "1"):
            raise RejectedImageError(NO_LABELS)

    with only_rejections(no_image=DAMAGED):
        image = load(content, check).image
        return np.array(image, np.uint8) * (255 if image.mode == "1" else 1)


def decode_layers(content: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Decode a mask that a user gives, a PNG or JPEG, without loss of what it says. See masks/reading.py.

    The EXIF orientation is applied, and metadata that cannot be read is dropped. Palettes are looked up. Of 16 bits the
    upper 8 are kept, or all if 8 suffice.
    Returns the colours, uint8 (H, W) if all channels are equal, else (H, W, 3) RGB, and the opacity, uint8 (H, W), None
    for a picture without transparency.
    Raises RejectedImageError for any other file, and for damage.
    """
    with only_rejections(no_image=NO_IMAGE):
        return _layers(load(content, _check_size).upright())


def declared_size(content: bytes) -> tuple[int, int]:
    """Return width and height of a JPEG or PNG as `decode` returns it, after its orientation.

    Of a JPEG only the header is read. A PNG is read whole, because its orientation may follow the pixels.
    Raises RejectedImageError if the picture cannot be read.
    """
    with only_rejections(no_image=DAMAGED):
        return load(content, _check_size, is_header_enough=True).upright_size


def fit(
    image: np.ndarray,
    size: int,
    rule: FitRule,
    crop: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """Fit a picture to a size, by at most one antialiased Lanczos resize, and never enlarge it.

    image: uint8 (H, W, 3).
    size: pixels.
    rule: one of
        crop: resize the shorter side to `size` and keep the central square;
        squash: resize both sides to `size` and ignore the aspect ratio;
        cut: keep the central square of `size` without a resize;
        shorter: resize the shorter side to `size` and keep the aspect ratio;
        keep: do not resize.
    crop: left, top, right, bottom in pixels, cut out first; None keeps the whole picture.
    Returns uint8 (size, size, 3) for crop, squash and cut, uint8 (H', W', 3) for shorter and keep.
    Raises RejectedImageError if a side is below `size`, because an enlarged picture would be a blurred ground truth, or
    if the crop is not inside the image; ValueError for another rule.
    """
    if rule not in get_args(FitRule):
        raise ValueError(f"rule must be one of {', '.join(get_args(FitRule))}, got {rule!r}")
    image = image if crop is None else _cut(image, crop)
    height, width = image.shape[:2]
    side = min(height, width)
    if side < size:
        raise RejectedImageError(BELOW_SIZE)
    if rule == "keep":
        return np.ascontiguousarray(image)
    if rule in ("crop", "cut"):
        side = side if rule == "crop" else size
        left, top = (width - side) // 2, (height - side) // 2
        image = _cut(image, (left, top, left + side, top + side))
    target = (round(width * size / side), round(height * size / side)) if rule == "shorter" else (size, size)
    return np.array(Image.fromarray(image).resize(target, Image.Resampling.LANCZOS))


def can_store_unchanged(content: bytes, image: np.ndarray, format_name: Literal["JPEG", "PNG"]) -> bool:
    """Return whether an encoded picture can be stored in place of `image` without a change of any pixel.

    True only for 8-bit RGB or grey, one frame, opaque, without an orientation and without unreadable metadata, if
    `decode_image`, by which stored pictures are read, reads it as `image`.
    content: bytes that `decode` has accepted.
    image: uint8 (H, W, 3).
    format_name: the format of the stored images.
    """
    loaded = load(content, is_header_enough=True)
    header = loaded.image
    return (
        not loaded.is_metadata_dropped
        and header.format == format_name
        and header.mode in ("RGB", "L")
        and not header.has_transparency_data
        and getattr(header, "n_frames", 1) == 1
        and loaded.orientation == 1
        and header.size == image.shape[1::-1]
        and (format_name == "JPEG" or _PNG_END in content)  # without it, OpenCV refuses a picture that Pillow reads
        and _is_stored_as(content, image)
    )


def _is_stored_as(content: bytes, image: np.ndarray) -> bool:
    try:
        return np.array_equal(decode_image(content), image)
    except RejectedImageError:
        return False


def difference_hash(image: np.ndarray) -> bytes:
    """Return 64 bits, as 8 bytes, that differ in few places between nearly equal pictures.

    Each bit tells whether the grey value rises between neighbours in a grid of 8 rows of 9. Computed with integers, so
    that it is the same on every machine. All pictures without structure have the same hash.

    image: uint8 (H, W, 3).
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)  # fixed point, and five times as fast as Pillow
    grey = np.asarray(Image.fromarray(grey).resize((9, 8), Image.Resampling.BOX))
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()


def encode_png(image: np.ndarray) -> bytes:
    """Encode uint8 (H, W, 3) RGB as PNG. Equal arrays give equal bytes for the same release of Pillow."""
    _check(image, "(H, W, 3)", image.ndim == 3 and image.shape[2] == 3)
    return _png(image)


def encode_grey_png(image: np.ndarray) -> bytes:
    """Encode uint8 (H, W), such as a mask, an edge map or a label map, as a PNG with one channel."""
    _check(image, "(H, W)", image.ndim == 2)
    return _png(image)


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Encode uint8 (H, W, 3) RGB as JPEG, with chroma at full resolution (4:4:4). quality: 1..100."""
    _check(image, "(H, W, 3)", image.ndim == 3 and image.shape[2] == 3)
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be in 1..100, got {quality}")
    return _encoded(image, "JPEG", quality=quality, subsampling=0)


def _no_image(content: bytes) -> str:
    """Return the reason for content that is no JPEG or PNG, with the format if it is another one."""
    other = format_of(content)
    return f"{NO_IMAGE} but {other}" if other and other not in FORMATS else NO_IMAGE


def _check_size(image: Image.Image, max_pixels: int = MAX_PIXELS) -> None:
    if image.width * image.height > max_pixels:
        raise RejectedImageError(TOO_MANY_PIXELS)


@contextlib.contextmanager
def only_rejections(*, no_image: str) -> Iterator[None]:
    """Raise Pillow's errors as RejectedImageError. no_image: the reason for content that Pillow does not open."""
    try:
        yield
    except (RejectedImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise RejectedImageError(TOO_MANY_PIXELS) from error
    except UnidentifiedImageError as error:
        raise RejectedImageError(no_image) from error
    except Exception as error:  # Pillow raises many kinds on hostile input, even SyntaxError
        raise RejectedImageError(DAMAGED) from error


def _rgb_array(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        # 16-bit grey. Pillow would clip it to 255. The upper byte is kept, as Pillow and libpng do for 16-bit colour.
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _layers(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Return colours and opacity; see `decode_layers`."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        return (values >> 8 if values.max() > 255 else values).astype(np.uint8), None
    opacity = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        opacity = np.array(image.getchannel("A"))
    if image.mode in ("1", "L"):
        return np.array(image.convert("L")), opacity
    colours = np.array(image.convert("RGB"))
    is_grey = (colours == colours[..., :1]).all()
    return np.ascontiguousarray(colours[..., 0]) if is_grey else colours, opacity


def _cut(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    left, top, right, bottom = box
    height, width = image.shape[:2]
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise RejectedImageError(OUTSIDE)
    return image[top:bottom, left:right]


def _check(image: np.ndarray, shape: str, is_that_shape: bool) -> None:
    if image.dtype != np.uint8 or not is_that_shape:
        raise ValueError(f"image must be uint8 {shape}, got {image.dtype} {image.shape}")


def _png(image: np.ndarray) -> bytes:
    # Run lengths only: within 1 % of the default's size on filtered rows, three times as fast, and without the match
    # search, which differs between builds of zlib for different processors.
    return _encoded(image, "PNG", compress_type=zlib.Z_RLE)


def _encoded(image: np.ndarray, format_name: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format_name, **options)
    return buffer.getvalue()


# Stored pictures are decoded by OpenCV, which is several times faster than Pillow. They need no defence against hostile
# content, because readers compare their digest first.


def decode_image(content: bytes, out: np.ndarray | None = None) -> np.ndarray:
    """Decode a stored image to uint8 (H, W, 3) RGB.

    out: array for the result, which is used and returned if its shape fits; else a new array is returned.
    Raises RejectedImageError if the content is no image.
    """
    image = _stored(content, cv2.IMREAD_COLOR_RGB)
    if out is None or out.shape != image.shape:
        return image
    np.copyto(out, image)
    return out


def decode_map(content: bytes) -> np.ndarray:
    """Decode a stored label map, edge map or mask to uint8 (H, W). Edges and masks are stored as 0 and 255.

    Raises RejectedImageError if the content is no image.
    """
    return _stored(content, cv2.IMREAD_GRAYSCALE)


def _stored(content: bytes, mode: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), mode)
    except cv2.error as error:
        raise RejectedImageError(DAMAGED) from error
    if image is None:
        raise RejectedImageError(DAMAGED)
    return image
