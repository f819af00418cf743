"""What one evaluation is to compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from files.objects import StoreConfig
from jobs.evaluation.settings import FEATURE_WEIGHTS, EvaluateConfig, External
from masks.hole_ratio import BINS

BIN_NAMES = tuple(name for name, _, _ in BINS)

BASELINES_NAME = "baselines"
"""The name of the evaluation that has a row per baseline."""

RegisteredFill = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""fill(images, masks): uint8 (N, H, W, 3) and (N, H, W, 1), 1 = hole -> composites, uint8 (N, H, W, 3)."""


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """Rows to evaluate on the images and masks of the suite.

    name: the generator, "baselines" or "others".
    images, masks: folders of the two columns.
    images_digest, masks_digest: digests that their manifests must have; None accepts any.
    model: folder of a trained generator, which gives the row `<name>`, and with `config.rows.untrained` the row
        `<name>_untrained`; None gives neither.
    registered: row -> function that loads a registered model. It must be picklable.
    external: rows of other programs.
    config: parameters of the evaluation.
    store: object store with the shards that are not on this disk.
    bins: names of the masks that each image has.
    smallest_sha256: see `suite.select_records`.
    device: of the networks of generators and metrics, such as "cpu" or "cuda". A registered model runs where its own
        code puts it.
    """

    name: str
    images: str
    masks: str
    model: str | None
    config: EvaluateConfig
    store: StoreConfig = field(default_factory=StoreConfig)
    images_digest: str | None = None
    masks_digest: str | None = None
    registered: Mapping[str, Callable[[], RegisteredFill]] = field(default_factory=dict)
    external: tuple[External, ...] = ()
    bins: tuple[str, ...] = BIN_NAMES
    smallest_sha256: int | None = None
    device: str = "cpu"

    @property
    def has_baselines(self) -> bool:
        """Whether there is a row per baseline."""
        return self.name == BASELINES_NAME

    @property
    def has_networks(self) -> bool:
        """Whether a network of a generator or of a metric is computed, which a GPU would speed up."""
        has_features = any(getattr(self.config, name) is not None for name in FEATURE_WEIGHTS)
        return self.model is not None or has_features

    @property
    def has_rows(self) -> bool:
        """Whether there is any row to evaluate."""
        return bool(self.has_baselines or self.model is not None or self.registered or self.external)
