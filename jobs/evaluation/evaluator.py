"""Score composites with every metric whose network is available."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from datasets.maps.edges import EdgeConfig, canny_edges
from jobs.evaluation.catalogue import SET_METRICS
from jobs.evaluation.metrics.edges import has_edges, score_edges
from jobs.evaluation.metrics.feature_weights import WeightsError
from jobs.evaluation.metrics.inception import INCEPTION, extract_features, load_inception
from jobs.evaluation.metrics.lpips import ALEXNET, VGG16, load_lpips, lpips
from jobs.evaluation.metrics.pixels import score_pair
from jobs.evaluation.metrics.structure import MS_SSIM_MIN_SIDE, TrueImage
from jobs.evaluation.metrics.value import Missing
from jobs.evaluation.settings import EvaluateConfig, Weights

log = logging.getLogger(__name__)

_TRUE_EDGES = EdgeConfig()  # those of EdgeConnect, whatever edges a generator was trained with


class Evaluator:
    """Hold the feature networks of one evaluation and score composites with them.

    config: names the files of feature weights.
    device: of the networks.
    missing: metric -> reason, of the metrics that cannot be computed: their weights are not configured, not on this
        disk or not the configured ones, or the images are too small.
    """

    def __init__(self, config: EvaluateConfig, device: str = "cpu") -> None:
        self._device = device
        self.missing: dict[str, Missing] = {}
        self._inception = self._load(SET_METRICS, "inception", config.inception, load_inception, INCEPTION)
        self._lpips = {
            "lpips_alex": self._load(["lpips_alex"], "alexnet", config.alexnet, load_lpips, ALEXNET),
            "lpips_vgg": self._load(["lpips_vgg"], "vgg16", config.vgg16, partial(load_lpips, trunk="vgg"), VGG16),
        }

    def score_pixels(
        self, image: np.ndarray, composites: np.ndarray, masks: np.ndarray, edges: np.ndarray | None = None
    ) -> list[dict[str, float]]:
        """Compute the metrics of the composites of one image that need no network.

        image: uint8 (H, W, 3).
        composites: uint8 (N, H, W, 3).
        masks: (N, H, W), 1 = hole.
        edges: predicted edges, uint8 (N, H, W), or None.
        Returns metric -> number for each pair. Scores of edges are left out where the hole hides no edge.
        """
        truth = TrueImage(image)
        values = [score_pair(truth, *pair) for pair in zip(composites, masks, strict=True)]
        if values and "ms_ssim" not in values[0]:
            side = MS_SSIM_MIN_SIDE
            self.missing["ms_ssim"] = Missing(f"not computed: needs images of at least {side} x {side} pixels")
        if edges is not None:
            true_edges = canny_edges(image, _TRUE_EDGES) == 1
            for of_pair, predicted, mask in zip(values, edges, masks, strict=True):
                if has_edges(true_edges, mask):
                    of_pair |= score_edges(predicted > 127, true_edges, mask)
        return values

    def score_features(self, image: np.ndarray, composites: np.ndarray) -> list[dict[str, float]]:
        """Compute the metrics of the composites of one image that need a network: metric -> number for each pair.

        image, composites: those of `score_pixels`.
        """
        values: list[dict[str, float]] = [{} for _ in composites]
        truths = np.broadcast_to(image, composites.shape)
        for name, network in self._lpips.items():
            if network is not None:
                for of_pair, distance in zip(values, lpips(truths, composites, network).tolist(), strict=True):
                    of_pair[name] = distance
        return values

    @property
    def has_features(self) -> bool:
        """Whether there is the network of `features`."""
        return self._inception is not None

    def features(self, pictures: np.ndarray) -> np.ndarray:
        """Compute the features of pictures, uint8 (N, H, W, 3), that sets are compared by: (N, num_features)."""
        return extract_features(pictures, self._inception)

    def _load(
        self,
        metrics: Sequence[str],
        key: str,
        weights: Weights | None,
        load: Callable[[Weights], nn.Module],
        needs: str,
    ) -> nn.Module | None:
        """Load a network, or note the reason why its metrics are missing.

        key: the key of params.yaml below `evaluate`.
        needs: what the file contains.
        """
        reason = f"not computed: needs {needs}; set evaluate.{key}"
        if weights is not None:
            try:
                if Path(weights.path).exists():
                    return load(weights).to(self._device)
                reason = f"not computed: needs {needs}; {weights.path} does not exist"
            except WeightsError as error:
                reason = f"not computed: {error}"
            log.warning("%s: %s", ", ".join(metrics), reason)
        self.missing |= dict.fromkeys(metrics, Missing(reason))
        return None
