"""Fill the hole of a user's own image with a registered generator."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np

from files.durable import write_durably
from files.errors import UserError
from files.pictures import RejectedImageError, decode, encode_png
from jobs.tracking.mlflow_runs import load_model
from masks.hole_ratio import hole_ratio
from masks.reading import read_mask

MAX_HOLE_RATIO = 0.95
"""A larger hole is more likely an inverted mask than a wish."""


def run(generator: str, image_path: str, mask_path: str, output_path: str, version: str) -> str:
    """Fill the hole of one image and write the result as a PNG of the image's size.

    generator: short name of a generator with a registered model.
    image_path: a PNG or JPEG.
    mask_path: a black-and-white PNG of the image's size, white = hole.
    output_path: the PNG to write.
    version: a version number of the registered model, or an alias such as "candidate".
    Returns a line that says which part of the image was filled, and where the result is.
    Raises UserError for a file that cannot be used, for unequal sizes, and for a mask without a hole or with a hole
    larger than MAX_HOLE_RATIO of the image, ModelError for a model that cannot be loaded.
    """
    if Path(output_path).suffix.lower() != ".png":
        raise UserError(f"{output_path}: the result is written as PNG; give a name that ends in .png")
    image = _read(image_path, decode, "give a PNG or JPEG")
    mask = _read(mask_path, read_mask, "give a PNG of one channel in black and white, white = hole")
    if mask.shape != image.shape[:2]:
        raise UserError(
            f"{mask_path} is {mask.shape[1]}x{mask.shape[0]}, {image_path} is {image.shape[1]}x{image.shape[0]}; "
            "give a mask of the image's size"
        )
    share = hole_ratio(mask)
    if not 0 < share <= MAX_HOLE_RATIO:
        raise UserError(
            f"{mask_path}: the hole, which is white, is {share:.1%} of the picture; give a mask with a hole of at most "
            f"{MAX_HOLE_RATIO:.0%}, and not without one. If black is the hole, invert the mask"
        )
    filled = load_model(f"inpaint-{generator}", version)(image[None], mask[None, ..., None])[0]
    write_durably(Path(output_path), encode_png(filled))
    return f"filled the white part of {mask_path}, {share:.1%} of the picture: {output_path}"


def _read(path: str, decode: Callable[[bytes], np.ndarray], remedy: str) -> np.ndarray:
    try:
        return decode(Path(path).read_bytes())
    except RejectedImageError as error:
        raise UserError(f"{path}: {error}; {remedy}") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; {remedy}") from error


VERB = {
    "help": "fill the hole of an image with a registered generator",
    "example": "inpaint edge_connect photo.png hole.png filled.png",
    "arguments": {
        "generator": {},
        "image": {"help": "PNG or JPEG"},
        "mask": {"help": "black-and-white PNG of the same size, white = hole"},
        "output": {"help": "PNG to write"},
        "--version": {"default": "candidate", "help": "a version number or an alias (default: candidate)"},
    },
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Write the filled image, and print where it is."""
    print(run(arguments.generator, arguments.image, arguments.mask, arguments.output, arguments.version))
    return 0
