"""Encoded picture to RGB array, array to the size asked for, array to stored bytes. All image input passes here."""

from __future__ import annotations

import io
import warnings
import zlib
from typing import Literal, get_args

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from files.errors import UserError

FORMATS = ("JPEG", "PNG")  # Pillow opens forty more, many of them by code that nobody has attacked yet
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000  # above every common camera; 150 MB when decoded
MINIMUM_SIDE = 16

FitRule = Literal["crop", "squash", "cut", "shorter", "keep"]
"""What `fit` does with the size of a picture."""

IGNORE = 255
"""In a label map: the class of this pixel is not known."""

# Each reason is one group in the manifest, so it names no file and holds no number.
EMPTY = "empty file"
TOO_MANY_BYTES = "file too large"
NO_IMAGE = "not a JPEG or PNG image"
TOO_MANY_PIXELS = "too many pixels"
DAMAGED = "damaged or cut short"
BELOW_MINIMUM = "smaller than the minimum side"
BELOW_SIZE = "smaller than the requested size"
OUTSIDE = "crop box outside the image"
NO_LABELS = "not a label map of 8 bits in one channel"
NO_MASK = "not a PNG of 8 bits in one channel or three equal ones"


class RejectedImageError(UserError):
    """A picture that cannot be used. Its text, also `reason`, is one of this module's short constants."""

    @property
    def reason(self) -> str:
        return str(self)


def decode(
    content: bytes,
    *,
    minimum_side: int = MINIMUM_SIDE,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode a whole JPEG or PNG, judged by its content and not by its name, to uint8 (H, W, 3) RGB.

    Declared outcomes: the EXIF orientation is applied; grey is repeated in three channels; CMYK is converted without
    its colour profile, and profiles are ignored in general; palettes are looked up; transparency is flattened on white;
    of 16 bits the upper 8 remain; of several frames the first counts.
    Raises RejectedImageError, on sizes before anything is decoded, and on any damage that the decoder notices. Flipped
    bits in a JPEG mostly go unnoticed: only a digest of the file finds those.
    """
    if not content:
        raise RejectedImageError(EMPTY)
    if len(content) > max_bytes:
        raise RejectedImageError(TOO_MANY_BYTES)
    try:
        image = _open(content)
        if image.width * image.height > max_pixels:
            raise RejectedImageError(TOO_MANY_PIXELS)
        if min(image.size) < minimum_side:
            raise RejectedImageError(BELOW_MINIMUM)
        return _rgb_array(image)
    except (RejectedImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise RejectedImageError(TOO_MANY_PIXELS) from error
    except UnidentifiedImageError as error:
        raise RejectedImageError(NO_IMAGE) from error
    except Exception as error:  # on hostile input Pillow raises a dozen kinds, SyntaxError among them
        raise RejectedImageError(DAMAGED) from error


def decode_grey(content: bytes) -> np.ndarray:
    """Decode a label map of a data set, an 8-bit PNG of one channel or a palette, to its numbers: uint8 (H, W).

    Raises RejectedImageError for anything else, and for damage.
    """
    try:
        image = _open(content)
        if image.width * image.height > MAX_PIXELS:
            raise RejectedImageError(TOO_MANY_PIXELS)
        if image.mode not in ("L", "P", "1"):
            raise RejectedImageError(NO_LABELS)
        return np.array(image, np.uint8) * (255 if image.mode == "1" else 1)
    except (RejectedImageError, MemoryError):
        raise
    except Exception as error:
        raise RejectedImageError(DAMAGED) from error


def decode_mask(content: bytes) -> np.ndarray:
    """Decode a user's mask to uint8 (H, W): a PNG with one channel of 1 or 8 bits, three equal ones, or grey palette.

    Raises RejectedImageError for anything else, transparency too, since it is anybody's guess which of the two hides
    the image; and for damage.
    """
    try:
        image = _open(content)
        if image.width * image.height > MAX_PIXELS:
            raise RejectedImageError(TOO_MANY_PIXELS)
        if image.format != "PNG" or image.mode not in ("1", "L", "P", "RGB") or image.has_transparency_data:
            raise RejectedImageError(NO_MASK)
        if image.mode in ("1", "L"):
            return np.array(image.convert("L"))
        channels = np.array(image.convert("RGB"))
        if (channels != channels[..., :1]).any():
            raise RejectedImageError(NO_MASK)
        return np.ascontiguousarray(channels[..., 0])
    except (RejectedImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise RejectedImageError(TOO_MANY_PIXELS) from error
    except UnidentifiedImageError as error:
        raise RejectedImageError(NO_MASK) from error
    except Exception as error:
        raise RejectedImageError(DAMAGED) from error


def declared_size(content: bytes) -> tuple[int, int]:
    """Width and height that a JPEG or PNG says it has, its EXIF orientation applied; nothing is decoded.

    Raises RejectedImageError if it says nothing.
    """
    try:
        image = _open(content)
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return image.size[::-1] if turned else image.size
    except Exception as error:
        raise RejectedImageError(DAMAGED) from error


def fit(
    image: np.ndarray,
    size: int,
    rule: FitRule,
    crop: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """Bring uint8 (H, W, 3) to the size that a rule asks for, by one antialiased Lanczos resize, and never enlarge.

    crop: left, top, right, bottom in pixels, cut out first.
    rule: "crop" resizes the shorter side to `size` and keeps the central square; "squash" resizes both sides to `size`
    and ignores the aspect ratio; "cut" keeps the central square of `size` without resizing; "shorter" resizes the
    shorter side to `size` and keeps the aspect ratio; "keep" resizes nothing. Of the first three comes
    (size, size, 3), of the others (H', W', 3).
    Raises RejectedImageError if a side is below `size` (an enlarged picture is a blurred truth), or if the box is not
    inside the image; ValueError for another rule.
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


def fits_as_it_is(content: bytes, image: np.ndarray, format_name: Literal["JPEG", "PNG"]) -> bool:
    """Whether an encoded picture can be stored in place of `image`, uint8 (H, W, 3), with no pixel changed.

    True only for RGB or grey of 8 bits, one frame, opaque, not turned by EXIF, which `decode_image` reads as `image`.
    `content` must have passed `decode`.
    """
    header = _open(content)
    return (
        header.format == format_name
        and header.mode in ("RGB", "L")
        and not header.has_transparency_data
        and getattr(header, "n_frames", 1) == 1
        and header.getexif().get(ExifTags.Base.Orientation, 1) == 1
        and header.size == image.shape[1::-1]
        and np.array_equal(decode_image(content), image)
    )


def difference_hash(image: np.ndarray) -> bytes:
    """64 bits, as 8 bytes, that nearly equal pictures nearly share: whether grey values rise along 8 rows of 9.

    image: uint8 (H, W, 3). Integers alone, so that it is the same on every machine. Pictures without any structure
    all have the same hash.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)  # in fixed point, and five times as fast as by way of Pillow
    grey = np.asarray(Image.fromarray(grey).resize((9, 8), Image.Resampling.BOX))
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()


def encode_png(image: np.ndarray) -> bytes:
    """A PNG of uint8 (H, W, 3) RGB, lossless; equal arrays give equal bytes for the same release of Pillow."""
    _check(image, "(H, W, 3)", image.ndim == 3 and image.shape[2] == 3)
    return _png(image)


def encode_grey_png(image: np.ndarray) -> bytes:
    """A one-channel PNG of uint8 (H, W), such as a mask, an edge map or a label map."""
    _check(image, "(H, W)", image.ndim == 2)
    return _png(image)


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """A JPEG of uint8 (H, W, 3) RGB with chroma at full resolution (4:4:4); quality in 1..100."""
    _check(image, "(H, W, 3)", image.ndim == 3 and image.shape[2] == 3)
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be in 1..100, got {quality}")
    return _encoded(image, "JPEG", quality=quality, subsampling=0)


def _open(content: bytes) -> Image.Image:
    """Read the header only."""
    with warnings.catch_warnings():  # Pillow warns about sizes that we go on to reject
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(content), formats=FORMATS)


def _rgb_array(image: Image.Image) -> np.ndarray:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # 16-bit grey. Pillow would clip it to 255; the upper byte is what it and libpng keep of 16-bit colour.
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


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
    # Run lengths only: as small as the default on filtered rows (within 1 %), three times as fast, and free of the
    # match search in which builds of zlib for different processors differ.
    return _encoded(image, "PNG", compress_type=zlib.Z_RLE)


def _encoded(image: np.ndarray, format_name: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format_name, **options)
    return buffer.getvalue()


# What this module encoded comes back by OpenCV: several times faster, and its bytes need little caution, since readers
# compare them with their digest first.


def decode_image(content: bytes, out: np.ndarray | None = None) -> np.ndarray:
    """A stored image to uint8 (H, W, 3) RGB: to `out`, which is returned, if that has its shape, else to a new array.

    Raises RejectedImageError for what is none.
    """
    image = _stored(content, cv2.IMREAD_COLOR_RGB)
    if out is None or out.shape != image.shape:
        return image
    np.copyto(out, image)
    return out


def decode_map(content: bytes) -> np.ndarray:
    """A stored label map, edge map or mask to uint8 (H, W); edges and masks are stored as 0 and 255.

    Raises RejectedImageError for what is none.
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
