"""Score composites with every metric whose network is available."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from torch import nn

from jobs.evaluation.metrics.fid import INCEPTION, FidSums, load_inception, sum_features
from jobs.evaluation.metrics.lpips import ALEXNET, load_lpips, lpips
from jobs.evaluation.metrics.pixels import score_pair
from jobs.evaluation.metrics.value import Missing
from jobs.evaluation.settings import EvaluateConfig, Weights

log = logging.getLogger(__name__)


class Evaluator:
    """Hold the feature networks of one evaluation and score composites with them.

    config: names the files of feature weights.
    missing: metric -> reason, of the metrics whose weights are not configured or not on this disk.
    Raises WeightsError for feature weights that are not the configured ones.
    """

    def __init__(self, config: EvaluateConfig) -> None:
        self.missing: dict[str, Missing] = {}
        self._inception = self._load("fid", config.inception, load_inception, INCEPTION)
        self._alexnet = self._load("lpips_alex", config.alexnet, load_lpips, ALEXNET)

    def score(self, truths: np.ndarray, composites: np.ndarray, masks: np.ndarray) -> Iterator[tuple[str, list[float]]]:
        """Yield each metric's name and its N values, one per pair.

        truths, composites: uint8 (N, H, W, 3).
        masks: (N, H, W), 1 = hole.
        """
        pairs = [score_pair(*pair) for pair in zip(truths, composites, masks, strict=True)]
        for name in pairs[0]:
            yield name, [pair[name] for pair in pairs]
        if self._alexnet is not None:
            yield "lpips_alex", lpips(truths, composites, self._alexnet).tolist()

    def fid_sums(self, truths: np.ndarray, composites: np.ndarray) -> FidSums | None:
        """Sum up the features for FID, or return None where FID is missing. Arguments are those of `score`."""
        return None if self._inception is None else sum_features(truths, composites, self._inception)

    def _load(
        self, metric: str, weights: Weights | None, load: Callable[[Weights], nn.Module], needs: str
    ) -> nn.Module | None:
        if weights is not None and Path(weights.path).exists():
            return load(weights)
        if weights is not None:
            log.warning("%s does not exist; %s is not computed: it needs %s", weights.path, metric, needs)
        self.missing[metric] = Missing(f"not computed: needs {needs}")
        return None
