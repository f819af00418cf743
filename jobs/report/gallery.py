"""The gallery of the page: every method's picture of chosen pairs of image and mask."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

from files.errors import UserError
from jobs.report.data import GalleryRow


class Picture(NamedTuple):
    """One picture as a data URI, with the width and height in pixels that it is shown at."""

    uri: str
    width: int
    height: int
    is_enlarged: bool


class Gallery(NamedTuple):
    """The labels of the columns, and for each row one picture per label; None where the row has none."""

    labels: list[str]
    rows: list[tuple[GalleryRow, list[Picture | None]]]


def lay_out(rows: Sequence[GalleryRow]) -> Gallery:
    """Arrange the pictures in columns, one per label, in order of appearance.

    Raises UserError for a picture that is not a PNG.
    """
    labels = list(dict.fromkeys(label for row in rows for label, _ in row.cells))
    arranged = []
    for row in rows:
        pictures = {label: _picture(png, f"{row.key}: {label}") for label, png in row.cells}
        arranged.append((row, [pictures.get(label) for label in labels]))
    return Gallery(labels, arranged)


def _picture(png: bytes, name: str) -> Picture:
    """Choose the size: enlarged by the smallest whole number that gives 128 pixels of width, or reduced to 256."""
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 24:
        raise UserError(f"{name} is not a PNG file, it begins with {png[:8]!r}")
    width, height = struct.unpack(">II", png[16:24])
    scale = max(1, math.ceil(128 / width)) if width <= 256 else 256 / width
    uri = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    return Picture(uri, round(width * scale), round(height * scale), scale >= 1)
