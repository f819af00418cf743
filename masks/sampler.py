"""MaskConfig -> masks: one of a seed, or one of a seed whose hole ratio lies in a given bin."""

import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np

from files.errors import UserError
from masks.hole_ratio import BINS
from masks.irregular import random_occlusion
from masks.lama import MAX_HOLE_RATIO, draws_boxes, family_for, random_boxes, random_chains, random_family_mask
from masks.rectangles import centre_rectangle, random_rectangle
from masks.strokes import random_strokes

Kind = Literal["free_form", "strokes", "rectangle", "centre", "irregular", "thin", "medium", "thick", "files"]

_FAMILIES = ("thin", "medium", "thick")
_PAPER_SIZE = 256  # the image size for which the papers state lengths
_MAX_DRAWS = 1000  # of a mask that must be neither empty nor too large; less than two on average
_MAX_FAMILY_DRAWS = 50  # of a family's own masks before one is put together to fit a bin
_MEAN_SHARE = 0.311  # of a free-form mask with the default numbers, measured over 3000 draws at 256x256
_MAX_PIECES = 1000  # pieces tried for one mask of a bin; boxes and brush strokes take under 40 in published bins
_ZOOM_STEP = 0.9  # how much smaller the next piece is after one that left the bin


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
            _check_integer(name, getattr(self, name), at_least=1)
        for name in ("rectangle_max_shrink", "border"):
            _check_integer(name, getattr(self, name), at_least=0)
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
            if getattr(self, name) > _PAPER_SIZE:
                raise ValueError(
                    f"{name} must be at most {_PAPER_SIZE}, the whole short side, got {getattr(self, name)}"
                )
        if 2 * self.border >= _PAPER_SIZE:
            raise ValueError(f"border must be less than {_PAPER_SIZE // 2}, or no room is left, got {self.border}")
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


def draw_mask(config: MaskConfig, height: int, width: int, seed: int) -> np.ndarray:
    """Return the mask of (config, height, width, seed): uint8 (height, width), 0 or 1, 1 = hole.

    A pure function of its arguments. Raises ValueError if a size is not positive or the seed negative.
    """
    rng = _generator(height, width, seed)
    _check_drawn(config)
    if config.kind == "irregular":
        return _in_bin(config, rng, height, width, BINS[0][1], BINS[-1][2])
    limit = MAX_HOLE_RATIO if config.kind in _FAMILIES else 1
    for _ in range(_MAX_DRAWS):
        mask = _draw(config, rng, height, width)
        if 0 < _ratio(mask) <= limit:
            return mask
    raise UserError(
        f"no mask of {config} at {height}x{width} has a hole of at most {limit} of the image; "
        "lower border or enlarge the image"
    )


def _draw(config: MaskConfig, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One mask as its paper draws it, of any share."""
    if config.kind == "centre":
        scale = min(height, width) / _PAPER_SIZE
        mask = centre_rectangle(height, width, side=config.centre_side, scale=scale)
    elif config.kind in _FAMILIES:
        mask = random_family_mask(rng, height, width, family_for(config.kind, height, width))
    elif config.kind == "strokes":
        mask = _strokes(config, rng, height, width, config.max_strokes)
    else:
        mask = _rectangle(config, rng, height, width)
        if config.kind == "free_form":
            mask |= _strokes(config, rng, height, width, config.max_strokes)
    return _clear_border(config, mask)


def draw_mask_in_bin(config: MaskConfig, height: int, width: int, low: float, high: float, seed: int) -> np.ndarray:
    """Return the mask of all the arguments, with hole ratio in (low, high]: uint8 (height, width), 0 or 1, 1 = hole.

    thin, medium and thick are drawn as they are until one lies in the bin. Where none of fifty does, and for all
    other kinds, pieces are added (free_form: one box, then strokes) up to a ratio drawn uniformly from the bin. Pieces
    are smaller in small bins; from 0.3 on they have their usual size and there are more of them. A piece that leaves
    the bin is undone.

    A pure function of its arguments. Raises ValueError for bad arguments, or if no mask of this kind falls into the
    bin; kind "centre" has but one mask.
    """
    rng = _generator(height, width, seed)
    if not 0 <= low < high <= 1:
        raise ValueError(f"a bin must satisfy 0 <= low < high <= 1, got ({low}, {high}]; pass one of hole_ratio.BINS")
    _check_drawn(config)
    return _in_bin(config, rng, height, width, low, high)


def _in_bin(
    config: MaskConfig, rng: np.random.Generator, height: int, width: int, low: float, high: float
) -> np.ndarray:
    num_draws = 1 if config.kind == "centre" else _MAX_FAMILY_DRAWS if config.kind in _FAMILIES else 0
    for _ in range(num_draws):
        mask = _draw(config, rng, height, width)
        if low < _ratio(mask) <= high:
            return mask
    found = False
    if config.kind != "centre":
        mask, found = _grow(config, rng, height, width, low, high)
    if not found:
        raise UserError(
            f"no mask of {config} at {height}x{width} has a hole ratio in ({low}, {high}], the last one tried has "
            f"{_ratio(mask):.4f}; widen the bin, enlarge the image, lower border or choose another kind"
        )
    return mask


def _grow(
    config: MaskConfig, rng: np.random.Generator, height: int, width: int, low: float, high: float
) -> tuple[np.ndarray, bool]:
    """Return a mask and whether its ratio lies in (low, high]."""
    mask, num_pieces = np.zeros((height, width), np.uint8), 0
    min_pieces = 2 if config.kind == "free_form" else 1  # a box and a stroke
    room = _ratio(_clear_border(config, np.ones_like(mask)))
    target = rng.uniform(low, max(low, min(high, room)))
    zoom = min(1.0, math.sqrt(target / _MEAN_SHARE))
    family = family_for(config.kind, height, width) if config.kind in _FAMILIES else None
    boxes = family is not None and draws_boxes(rng, family)
    num_squares = max(height, width) // min(height, width)  # an oblong needs as many more strokes
    for _ in range(_MAX_PIECES):
        if config.kind == "irregular":
            piece = random_occlusion(rng, height, width, zoom=zoom)
        elif boxes:
            piece = random_boxes(rng, height, width, family, count=1, zoom=zoom)
        elif family is not None:
            piece = random_chains(rng, height, width, family, count=num_squares, first=num_pieces, zoom=zoom)
        elif config.kind == "rectangle" or (config.kind == "free_form" and num_pieces == 0):
            piece = _rectangle(config, rng, height, width, zoom)
        else:
            piece = _strokes(config, rng, height, width, 1, zoom)
        grown = mask | _clear_border(config, piece)
        if _ratio(grown) <= high:
            mask, num_pieces = grown, num_pieces + 1
            is_complete = _ratio(mask) >= target
        else:
            # Short of its target, yet in the bin: better to stop here than to fill up with crumbs.
            is_complete = True
            zoom *= _ZOOM_STEP
        if is_complete and num_pieces >= min_pieces and _ratio(mask) > low:
            return mask, True
    return mask, False


def _rectangle(config: MaskConfig, rng: np.random.Generator, height: int, width: int, zoom: float = 1.0) -> np.ndarray:
    return random_rectangle(
        rng,
        height,
        width,
        side=config.rectangle_side,
        max_shrink=config.rectangle_max_shrink,
        scale=zoom * min(height, width) / _PAPER_SIZE,
    )


def _strokes(
    config: MaskConfig, rng: np.random.Generator, height: int, width: int, max_strokes: int, zoom: float = 1.0
) -> np.ndarray:
    return random_strokes(
        rng,
        height,
        width,
        max_strokes=max_strokes,
        min_brush_width=config.min_brush_width,
        max_brush_width=config.max_brush_width,
        zoom=zoom,
    )


def _clear_border(config: MaskConfig, mask: np.ndarray) -> np.ndarray:
    """Take the hole off the border, in place."""
    height, width = mask.shape
    border = math.ceil(config.border * min(height, width) / _PAPER_SIZE)
    if border:
        mask[:border] = mask[height - border :] = 0
        mask[:, :border] = mask[:, width - border :] = 0
    return mask


def _ratio(mask: np.ndarray) -> float:
    """Return what hole_ratio does, without its checks: it is asked after every piece."""
    return cv2.countNonZero(mask) / mask.size


def _generator(height: int, width: int, seed: int) -> np.random.Generator:
    _check_integer("height", height, at_least=1)
    _check_integer("width", width, at_least=1)
    _check_integer("seed", seed, at_least=0)
    return np.random.Generator(np.random.PCG64(seed))


def _check_drawn(config: MaskConfig) -> None:
    if config.kind == "files":
        raise ValueError("masks of kind files are read, not drawn; see jobs/mask_files.py")


def _check_integer(name: str, value: int, at_least: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
