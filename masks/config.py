"""Parameters of the masks of a run."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

Kind = Literal[
    "free_form", "strokes", "rectangle", "centre", "irregular", "thin", "medium", "thick", "lama_train", "files"
]

FAMILY_KINDS = ("thin", "medium", "thick")
PAPER_SIZE = 256  # the image size for which the papers state lengths


@dataclass(frozen=True, kw_only=True)
class MaskFiles:
    """A collection of masks on the user's disk, such as NVIDIA's irregular masks or QD-IMD.

    root: absolute path of a folder, .zip or .tar of PNG files, which is never unpacked. `masks.reading.read_mask` says
        what a file may look like.
    sha256: digest of the collection. All draws depend on it. A run without it stops and prints it.
    hole: the colour of the hole in files of black and white. Users report white holes in NVIDIA's test set and black
        holes in its training set.
    threshold: also accept files that are not black and white, split at grey level 128.
    max_hole_ratio: largest hole ratio of any file, in (0, 1]. A file with a larger one counts as inverted, and the
        collection is refused. The default is the end of the published bins.
    turns: flip each mask and turn it by quarters, at random.
    """

    root: str
    sha256: str | None = None
    hole: Literal["white", "black"] = "white"
    threshold: bool = False
    max_hole_ratio: float = 0.6
    turns: bool = False

    def __post_init__(self) -> None:
        if not Path(self.root).is_absolute():
            raise ValueError(f"root must be an absolute path, because workers run in other folders, got {self.root!r}")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(
                f"sha256 must be 64 hexadecimal digits, got {self.sha256!r}; leave it out and run the command to see it"
            )
        if self.hole not in ("white", "black"):
            raise ValueError(f"hole must be white or black, got {self.hole!r}")
        if not 0 < self.max_hole_ratio <= 1:
            raise ValueError(f"max_hole_ratio must be in (0, 1], got {self.max_hole_ratio}")


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Masks to draw or to read. Lengths are pixels of an image whose short side is 256; they scale with it.

    kind: one of
        free_form: the training mask of DeepFill v2, one rectangle and one mask of strokes;
        strokes, rectangle: only one of the two;
        centre: a square in the centre;
        irregular: occlusions as in the partial-convolution paper, see masks/irregular.py; ratios uniform over all bins;
        thin, medium, thick: the strokes and boxes of LaMa's evaluation, see masks/lama.py;
        lama_train: the strokes or boxes of LaMa's training, half and half, of any size;
        files: a collection on disk.
    border: pixels along the image's border without holes. Half of the partial-convolution paper's test masks are
        reported to keep 50 pixels at 512, which are 25 here.
    files: the collection, for kind "files" only.
    The other fields: v1 = Yu et al., CVPR 2018, v2 = Yu et al., ICCV 2019, the authors' code of each.
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
                f"rectangle_side must exceed 2 * rectangle_max_shrink, else the box can vanish, got "
                f"{self.rectangle_side} and {self.rectangle_max_shrink}; raise the first or lower the second"
            )
        for name in ("rectangle_side", "centre_side"):
            if getattr(self, name) > PAPER_SIZE:
                raise ValueError(
                    f"{name} must be at most {PAPER_SIZE}, the short side of the image, got {getattr(self, name)}"
                )
        if 2 * self.border >= PAPER_SIZE:
            raise ValueError(
                f"border must be less than {PAPER_SIZE // 2}, else the border covers the image, got {self.border}"
            )
        if (self.kind == "files") != (self.files is not None):
            raise ValueError(
                "kind files needs files.root, and files is only for kind files, got "
                f"kind {self.kind!r} and files {self.files}"
            )
        if self.kind == "files" and self.border:
            raise ValueError(f"border must be 0 for kind files, got {self.border}: a collection has its own borders")

    def describe(self) -> dict[str, Any]:
        """Return everything that the masks depend on, as plain data: of a collection its digest, not its path."""
        values = asdict(self)
        if self.files:
            del values["files"]["root"]
        return values


def check_integer(name: str, value: int, at_least: int) -> None:
    """Raise ValueError, with the argument's name, unless the value is a whole number of at least `at_least`."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
