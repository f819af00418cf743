"""What masks a run has."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

Kind = Literal["free_form", "strokes", "rectangle", "centre", "irregular", "thin", "medium", "thick", "files"]

FAMILY_KINDS = ("thin", "medium", "thick")
PAPER_SIZE = 256  # the image size for which the papers state lengths


@dataclass(frozen=True, kw_only=True)
class MaskFiles:
    """A collection of masks on the user's own disk, such as NVIDIA's irregular masks or QD-IMD.

    root: absolute path of a folder, .zip or .tar of 8-bit PNG files with one channel or three equal ones; never
        unpacked.
    sha256: the collection's digest, which pins it: all draws depend on it. Leave it out once, and the run says it.
    hole: the colour of the hole. By its users' reports NVIDIA's test set has white holes, its training set black ones.
    threshold: take files that are not black and white too, split at 128.
    max_hole_ratio: the largest share of hole that any file has. A file with more is taken for an inverted one, and the
        collection is refused; 0.6 ends the published bins.
    turns: flip and turn each mask by quarters, at random.
    """

    root: str
    sha256: str | None = None
    hole: Literal["white", "black"] = "white"
    threshold: bool = False
    max_hole_ratio: float = 0.6
    turns: bool = False

    def __post_init__(self) -> None:
        if not Path(self.root).is_absolute():
            raise ValueError(f"root must be an absolute path, as workers stand in other folders, got {self.root!r}")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 must be 64 hexadecimal digits, got {self.sha256!r}; leave it out to be told")
        if self.hole not in ("white", "black"):
            raise ValueError(f"hole must be white or black, got {self.hole!r}")
        if not 0 < self.max_hole_ratio <= 1:
            raise ValueError(f"max_hole_ratio must be in (0, 1], got {self.max_hole_ratio}")


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Which holes to draw. Lengths are pixels of an image whose short side is 256 and scale with that side.

    kind: which family of holes, one of the following.
    free_form: one rectangle and one mask of strokes, the training mask of DeepFill v2; strokes, rectangle: one of them.
    centre: a square in the middle.
    irregular: occlusions as in the partial-convolution paper, see masks/irregular.py; shares uniform over all bins.
    thin, medium, thick: the strokes and boxes that LaMa evaluates with, see masks/lama.py.
    files: a collection on disk, which `files` describes.
    border: pixels along the image's border without holes. 25 are the 50 of 512 that half of the partial-convolution
        paper's test masks are said to keep.
    Sources: v1 = Yu et al., CVPR 2018, v2 = Yu et al., ICCV 2019, each the authors' code.
    """

    kind: Kind = "free_form"
    border: int = 0
    files: MaskFiles | None = None
    max_strokes: int = 3  # v2: 1 to 3 strokes
    min_brush_width: int = 12  # v2
    max_brush_width: int = 40  # v2, exclusive
    rectangle_side: int = 128  # v1: box before it shrinks
    rectangle_max_shrink: int = 16  # v1: each side moves inward by 0 to 16
    centre_side: int = 128  # a quarter of a square image: Pathak et al., CVPR 2016

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        for name in ("max_strokes", "min_brush_width", "max_brush_width", "rectangle_side", "centre_side"):
            check_integer(name, getattr(self, name), at_least=1)
        for name in ("rectangle_max_shrink", "border"):
            check_integer(name, getattr(self, name), at_least=0)
        if self.min_brush_width > self.max_brush_width:
            raise ValueError(
                f"min_brush_width must not exceed max_brush_width, got {self.min_brush_width} and "
                f"{self.max_brush_width}; lower the first or raise the second"
            )
        if self.rectangle_side <= 2 * self.rectangle_max_shrink:
            raise ValueError(
                f"rectangle_side must exceed 2 * rectangle_max_shrink, or nothing is left of the box, got "
                f"{self.rectangle_side} and {self.rectangle_max_shrink}; raise the first or lower the second"
            )
        for name in ("rectangle_side", "centre_side"):
            if getattr(self, name) > PAPER_SIZE:
                raise ValueError(
                    f"{name} must be at most {PAPER_SIZE}, the whole short side, got {getattr(self, name)}"
                )
        if 2 * self.border >= PAPER_SIZE:
            raise ValueError(f"border must be less than {PAPER_SIZE // 2}, or no room is left, got {self.border}")
        if (self.kind == "files") != (self.files is not None):
            raise ValueError(
                "kind files needs files.root, and files has no meaning for another kind, got "
                f"kind {self.kind!r} and files {self.files}"
            )
        if self.kind == "files" and self.border:
            raise ValueError(f"border must be 0 for kind files, got {self.border}: files are used as they are")

    def described(self) -> dict[str, Any]:
        """All that decides which masks there are, as plain data: not where a collection lies, but its digest."""
        values = asdict(self)
        if self.files:
            del values["files"]["root"]
        return values


def check_integer(name: str, value: int, at_least: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
