"""Load a registered generator. The package that a registered version carries starts from here; it needs no MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from files.errors import UserError
from jobs.evaluation.inference import inpaint_images, load_trained
from jobs.tracking.sketches import SKETCH, decode_sketch


class RegisteredModel:
    """A registered generator, in the form that MLflow calls a python_function. It runs on a GPU if there is one.

    folder: contains weights and receipt.
    """

    def __init__(self, folder: Path) -> None:
        self._recipe, self._receipt = load_trained(folder)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        for network in self._recipe.networks.values():
            network.to(device)

    def predict(self, model_input: Mapping[str, np.ndarray], params: Mapping[str, Any] | None = None) -> np.ndarray:
        """Fill holes.

        model_input: {"image": uint8 (N, H, W, 3), "mask": uint8 (N, H, W, 1), 1 = hole}.
        params: {"sketch": a PNG of the images' size in base64, white lines on black, which the results follow in the
            holes}, for a generator that reads edges; {} or "" leaves the lines to the generator.
        Returns uint8 (N, H, W, 3).
        Raises UserError for a sketch of another size, or for a generator that takes none.
        """
        image, mask = model_input["image"], model_input["mask"][..., 0]
        text = (params or {}).get(SKETCH) or ""
        sketches = self._read_sketch(text, image.shape[:3]) if text else None
        return inpaint_images(self._recipe, self._receipt.edges, image, mask, sketches)["composite"]

    def _read_sketch(self, text: str, shape: tuple[int, int, int]) -> np.ndarray:
        """Return the sketch for each image, uint8 (N, H, W), 1 = line. shape: (N, H, W)."""
        if self._receipt.edges is None:
            raise UserError(f"{self._receipt.generator} follows no lines; leave the sketch out")
        lines = decode_sketch(text)
        if lines.shape != shape[1:]:
            (height, width), (_, *wanted) = lines.shape, shape
            raise UserError(
                f"the sketch is {width}x{height}, the image is {wanted[1]}x{wanted[0]}; draw it at that size"
            )
        return np.broadcast_to(lines.astype(np.uint8), shape)


def _load_pyfunc(path: str) -> RegisteredModel:
    """Load the model. MLflow calls this function by its name, with the folder of weights and receipt."""
    return RegisteredModel(Path(path))
