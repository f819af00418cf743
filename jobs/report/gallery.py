"""The gallery of the page: every method's picture of chosen pairs of image and mask."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple

from files.errors import UserError
from jobs.report.data import GalleryCell, GalleryRow

Role = Literal["input", "truth", "result", "other"]


class Picture(NamedTuple):
    """One picture of the gallery.

    uri: of the picture.
    errors: URI of its error heat map; "" for a picture that is no result.
    width, height: in pixels, as it is shown.
    figure: its hole L1 as text; "" without one.
    """

    uri: str
    errors: str
    width: int
    height: int
    is_enlarged: bool
    role: Role
    figure: str


class Gallery(NamedTuple):
    """The labels of the columns, and for each row one picture per label; None where the row has none."""

    labels: list[str]
    rows: list[tuple[GalleryRow, list[Picture | None]]]


def lay_out(rows: Sequence[GalleryRow]) -> Gallery:
    """Arrange the pictures in columns, one per label, in order of appearance. The largest disagreement comes first.

    Raises UserError for a picture that is not a PNG.
    """
    labels = list(dict.fromkeys(cell.label for row in rows for cell in row.cells))
    arranged = []
    for row in sorted(rows, key=lambda row: -row.disagreement):
        pictures = {cell.label: _picture(cell, row.key) for cell in row.cells}
        arranged.append((row, [pictures.get(label) for label in labels]))
    return Gallery(labels, arranged)


def _picture(cell: GalleryCell, key: str) -> Picture:
    """Choose the size: enlarged by the smallest whole number that gives 128 pixels of width, or reduced to 256."""
    png = cell.png
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 24:
        raise UserError(f"{key}: {cell.label} is not a PNG file, it begins with {png[:8]!r}")
    width, height = struct.unpack(">II", png[16:24])
    scale = max(1, math.ceil(128 / width)) if width <= 256 else 256 / width
    return Picture(
        _uri(png),
        _uri(cell.errors) if cell.errors else "",
        round(width * scale),
        round(height * scale),
        scale >= 1,
        _role(cell),
        "" if cell.hole_l1 is None else f"{cell.hole_l1:.2f} %",
    )


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _role(cell: GalleryCell) -> Role:
    if cell.errors:
        return "result"
    return cell.label if cell.label in ("input", "truth") else "other"
