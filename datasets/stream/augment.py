"""Augment an image and its maps together, seeded per record. Only this file imports albumentations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from files.environment import set_quiet_environment


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Settings of the augmentations.

    flip: probability of a horizontal flip, of image and maps together.
    """

    flip: float = 0.5


class Augment:
    """Apply the configured augmentations. The result depends only on the arguments and the seed.

    mirrored: pairs of semantic labels that swap when a picture is flipped.
    """

    def __init__(self, config: AugmentConfig, mirrored: Sequence[tuple[int, int]] = ()) -> None:
        set_quiet_environment()  # before the import, which looks for updates otherwise
        import albumentations as A  # here, since it takes seconds and most verbs only read the config

        self._transform = A.Compose(
            [A.HorizontalFlip(p=config.flip)],
            additional_targets={"edge": "mask", "semantics": "mask"},
            save_applied_params=True,
        )
        self._flipped_labels = np.arange(256, dtype=np.uint8)
        for one, other in mirrored:
            self._flipped_labels[[one, other]] = other, one

    def __call__(self, seed: int, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Augment the arrays of one record.

        arrays: "image" uint8 (H, W, 3), and any of "edge" and "semantics" uint8 (H, W).
        Returns arrays of the same names, types and shapes.
        """
        self._transform.set_random_seed(seed % 2**32)  # albumentations ignores NumPy's global seed
        result = self._transform(**arrays)
        if result.pop("applied_transforms") and "semantics" in result:
            result["semantics"] = self._flipped_labels[result["semantics"]]
        return result
