"""Fill the hole of a user's own image with a registered generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.decode import decode, encode_png
from datasets.durable import write_durably
from jobs.tracking import load_model


def run(generator: str, image_path: str, mask_path: str, output_path: str, version: str) -> None:
    """Read image and mask (white = hole), fill, write a PNG of the image's size.

    Raises ValueError when the two differ in size or the mask is not black and white.
    """
    image = decode(Path(image_path).read_bytes())
    grey = decode(Path(mask_path).read_bytes())[..., 0]
    if grey.shape != image.shape[:2]:
        raise ValueError(
            f"{mask_path} is {grey.shape[1]}x{grey.shape[0]}, {image_path} is {image.shape[1]}x{image.shape[0]}; "
            "give a mask of the image's size"
        )
    if np.mean((grey > 10) & (grey < 245)) > 0.01:
        raise ValueError(f"{mask_path} has shades of grey; give a mask of black and white, white = hole")
    mask = (grey >= 128).astype(np.uint8)[None, ..., None]
    filled = load_model(f"inpaint-{generator}", version)(image[None], mask)[0]
    write_durably(Path(output_path), encode_png(filled))
