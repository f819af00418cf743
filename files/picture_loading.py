"""Open a source picture with Pillow. Metadata that cannot be read is dropped, because the pixels decide."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import ExifTags, Image

from files.picture_metadata import with_less_metadata
from files.rejections import RejectedImageError

FORMATS = ("JPEG", "PNG")  # Pillow opens forty more formats, by code that has had less scrutiny

# Orientation in EXIF -> the turn that puts the picture upright. From 5 on, width and height change places.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FIRST_ON_ITS_SIDE = 5


@dataclass(frozen=True)
class Loaded:
    """An opened picture.

    orientation: 1 to 8 as in EXIF; 1 where there is none or it cannot be read.
    is_metadata_dropped: whether some metadata cannot be read.
    """

    image: Image.Image
    orientation: int
    is_metadata_dropped: bool

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height after the turn."""
        return self.image.size[::-1] if self.orientation >= _FIRST_ON_ITS_SIDE else self.image.size

    def upright(self) -> Image.Image:
        """Return the picture turned as its orientation says."""
        method = _UPRIGHT.get(self.orientation)
        return self.image if method is None else self.image.transpose(method)


def load(
    content: bytes, check: Callable[[Image.Image], None] = lambda image: None, *, is_header_enough: bool = False
) -> Loaded:
    """Open and decode a picture; if that fails, without its metadata.

    check: raises RejectedImageError for a header that is not wanted.
    is_header_enough: whether to leave the pixels undecoded where metadata cannot follow them.
    Raises RejectedImageError, or what Pillow raises for the picture with all its metadata.
    """
    try:
        return _load_once(content, check, is_header_enough)
    except (RejectedImageError, MemoryError, Image.DecompressionBombError):
        raise
    except Exception:  # Pillow raises many kinds on hostile input, even SyntaxError
        loaded = _load_without_metadata(content, check, is_header_enough)
        if loaded is None:
            raise
        return loaded


def _load_without_metadata(
    content: bytes, check: Callable[[Image.Image], None], is_header_enough: bool
) -> Loaded | None:
    """Return the picture with the metadata dropped that stops Pillow; None if the picture itself is damaged."""
    for less in with_less_metadata(content):
        try:
            return replace(_load_once(less, check, is_header_enough), is_metadata_dropped=True)
        except (RejectedImageError, MemoryError, Image.DecompressionBombError):
            raise
        except Exception:  # see `load`
            continue
    return None


def _load_once(content: bytes, check: Callable[[Image.Image], None], is_header_enough: bool) -> Loaded:
    with warnings.catch_warnings(record=True) as noted:  # of metadata that Pillow cannot read, and of large sizes
        warnings.simplefilter("always")
        image = open_header(content)
        check(image)
        if image.format == "PNG" or not is_header_enough:
            image.load()
        orientation, is_readable = _orientation(image)
    is_noted = any(issubclass(warning.category, UserWarning) for warning in noted)
    return Loaded(image, orientation, not is_readable or is_noted)


def _orientation(image: Image.Image) -> tuple[int, bool]:
    """Return the orientation, and whether the EXIF block can be read."""
    try:
        if not (exif := image.getexif()):
            Image.Exif().load(image.info.get("exif", b""))  # Pillow gives the error of a broken block only once
        claimed = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises many kinds on a hostile block
        return 1, False
    return (claimed, True) if any(claimed == known for known in range(1, 9)) else (1, False)


def open_header(content: bytes) -> Image.Image:
    """Open a picture and read only its header."""
    with warnings.catch_warnings():  # Pillow warns of sizes that the callers reject
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(content), formats=FORMATS)
