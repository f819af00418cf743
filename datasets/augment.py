"""Augmentation of an image and its label maps together, seeded per record: the one file that imports albumentations."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """flip: probability of a horizontal flip, of image and maps together."""

    flip: float = 0.5


class Augment:
    """Apply the configured augmentations; the outcome depends on the arguments and the seed alone."""

    def __init__(self, config: AugmentConfig) -> None:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it looks for updates on import otherwise
        import albumentations as A  # here, since it takes seconds and most verbs only read the config

        self._transform = A.Compose(
            [A.HorizontalFlip(p=config.flip)], additional_targets={"edge": "mask", "semantics": "mask"}
        )

    def __call__(self, seed: int, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """arrays: "image" uint8 (H, W, 3) and any of "edge", "semantics" uint8 (H, W); returns the same names."""
        self._transform.set_random_seed(seed % 2**32)  # albumentations ignores the global generators
        return self._transform(**arrays)
