"""Load a registered generator. The package that a registered version carries starts from here; it needs no MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jobs.evaluation.inference import inpaint_images, load_trained


class RegisteredModel:
    """A registered generator, in the form that MLflow calls a python_function.

    folder: contains weights and receipt.
    """

    def __init__(self, folder: Path) -> None:
        self._recipe, self._receipt = load_trained(folder)

    def predict(self, model_input: Mapping[str, np.ndarray]) -> np.ndarray:
        """Fill holes.

        model_input: {"image": uint8 (N, H, W, 3), "mask": uint8 (N, H, W, 1), 1 = hole}.
        Returns uint8 (N, H, W, 3).
        """
        image, mask = model_input["image"], model_input["mask"][..., 0]
        return inpaint_images(self._recipe, self._receipt.edges, image, mask)["composite"]


def _load_pyfunc(path: str) -> RegisteredModel:
    """Load the model. MLflow calls this function by its name, with the folder of weights and receipt."""
    return RegisteredModel(Path(path))
