"""Fill the hole of a user's own image with a registered generator."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from files.durable import write_durably
from files.errors import UserError
from files.pictures import RejectedImageError, decode, encode_png
from jobs.tracking.mlflow_registry import load_model
from masks.hole_ratio import hole_ratio
from masks.reading import Reading, fit_mask, read_mask
from pipeline.verbosity import say

MAX_HOLE_RATIO = 0.95
"""A larger hole is more likely an inverted mask than a wish."""


def run(
    generator: str,
    image_path: str,
    mask_path: str,
    output_path: str,
    version: str,
    hole: Literal["white", "black"] = "white",
) -> str:
    """Fill the hole of one image and write the result as a PNG of the image's size.

    generator: short name of a generator with a registered model.
    image_path: a PNG or JPEG.
    mask_path: a PNG or JPEG with the image's aspect ratio; `read_mask` says how it is understood.
    output_path: the PNG to write.
    version: a version number of the registered model, or an alias such as "candidate".
    hole: the colour of the hole in a mask of black and white.
    Returns a line that says what was taken for the hole, its share of the image, and where the result is.
    Raises UserError for a file that cannot be used, for other proportions, and for a mask without a hole or with a hole
    larger than MAX_HOLE_RATIO of the image, ModelError for a model that cannot be loaded.
    """
    output = Path(output_path)
    _check_output(output, image_path, mask_path)
    image = _read(image_path, decode, "give a PNG or JPEG")
    reading = _read(mask_path, lambda content: read_mask(content, hole=hole), "give a PNG with a white hole on black")
    mask, notes = _fit(reading, image, image_path, mask_path)
    what = f"the {reading.hole} part of {mask_path}" + (f" ({', '.join(reading.colours)})" if reading.colours else "")
    share = hole_ratio(mask)
    if not 0 < share <= MAX_HOLE_RATIO:
        raise UserError(
            f"{what}, {share:.1%} of the picture, would be filled; give a mask with a hole of at most "
            f"{MAX_HOLE_RATIO:.0%}, and not without one; --hole tells whether white or black is the hole"
        )
    filled = load_model(f"inpaint-{generator}", version)(image[None], mask[None, ..., None])[0]
    write_durably(output, encode_png(filled))
    return f"filled {what}, {share:.1%} of the picture{''.join(f'; {note}' for note in notes)}: {output_path}"


def _check_output(output: Path, *inputs: str) -> None:
    """Raise UserError unless a PNG can be written there that replaces none of the inputs."""
    if output.suffix.lower() != ".png":
        raise UserError(
            f"{output}: the result is written as PNG, because JPEG and WebP change pixels outside the hole; give a "
            "name that ends in .png"
        )
    if output.is_dir() or not output.parent.is_dir():
        raise UserError(f"{output}: not a file in a folder that exists; give another name, or make the folder")
    for path in inputs:
        if output.exists() and Path(path).exists() and output.samefile(path):
            raise UserError(f"{output} is also the input {path}, which the result would replace; give another name")


def _read(path: str, decode: Callable[[bytes], Any], remedy: str) -> Any:
    try:
        return decode(Path(path).read_bytes())
    except RejectedImageError as error:
        raise UserError(f"{path}: {error}; {remedy}") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {remedy}") from error


def _fit(reading: Reading, image: np.ndarray, image_path: str, mask_path: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the mask in the image's size, and the notes on it. Raises UserError for another aspect ratio."""
    height, width = image.shape[:2]
    mask_height, mask_width = reading.mask.shape
    if (mask_height, mask_width) == (height, width):
        return reading.mask, reading.notes
    coarsest_pixel = max(height, width, mask_height, mask_width)
    if abs(mask_width * height - mask_height * width) > coarsest_pixel:
        raise UserError(
            f"{mask_path} is {mask_width}x{mask_height}, {image_path} is {width}x{height}; give a mask of the image's "
            "size or proportions"
        )
    resized = f"the mask is resized from {mask_width}x{mask_height} to {width}x{height}"
    return fit_mask(reading.mask, height, width), (*reading.notes, resized)


VERB = {
    "help": "fill the hole of an image with a registered generator",
    "example": "inpaint edge_connect photo.png hole.png filled.png",
    "arguments": {
        "generator": {"completes": "generators"},
        "image": {"help": "PNG or JPEG", "completes": "files"},
        "mask": {
            "help": "PNG or JPEG: a white hole on black, strokes in colour or on a transparent layer",
            "completes": "files",
        },
        "output": {"help": "PNG to write", "completes": "files"},
        "--version": {"default": "candidate", "help": "a version number or an alias (default: candidate)"},
        "--hole": {
            "default": "white",
            "choices": ["white", "black"],
            "help": "the hole of a mask in black and white (default: white)",
        },
    },
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Write the filled image, and print where it is."""
    say(
        run(
            arguments.generator, arguments.image, arguments.mask, arguments.output, arguments.version, arguments.hole
        )
    )  # fmt: skip
    return 0
