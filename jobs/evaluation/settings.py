"""How generators are evaluated. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs.evaluation.metrics import Weights

BaselineName = Literal["mean_colour", "telea", "navier_stokes", "biharmonic", "patch_match"]


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """baselines: classical rows to compute, of mean_colour (always needed), telea, navier_stokes, biharmonic, and
        patch_match, which needs the extra `classical`.
    gallery_images: how many images' composites are kept to be looked at.

    bootstrap_samples: resamples behind each 95 % interval.
    inception, alexnet: files of feature weights for FID and LPIPS, with their digests; None leaves those uncomputed.
    """

    baselines: tuple[BaselineName, ...] = ("mean_colour", "telea", "navier_stokes", "biharmonic")
    gallery_images: int = 32
    bootstrap_samples: int = 2000
    inception: Weights | None = None
    alexnet: Weights | None = None

    def __post_init__(self) -> None:
        if "mean_colour" not in self.baselines:
            raise ValueError("baselines must hold mean_colour, which every row is held against")
