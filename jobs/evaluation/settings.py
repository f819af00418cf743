"""Parameters of an evaluation. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

BaselineName = Literal["mean_colour", "telea", "navier_stokes", "biharmonic", "patch_match"]


@dataclass(frozen=True)
class Weights:
    """A file of feature weights.

    path: the file.
    sha256: the digest that the file must have, in hex.
    """

    path: str | Path
    sha256: str


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Parameters of every evaluation.

    baselines: classical rows to compute, of mean_colour (always needed), telea, navier_stokes, biharmonic, and
        patch_match, which needs the extra `classical`.
    gallery_images: number of images whose composites are kept for the gallery.
    bootstrap_samples: number of resamples behind each 95 % interval.
    inception: feature weights of FID; None leaves FID uncomputed.
    alexnet: feature weights of LPIPS; None leaves LPIPS uncomputed.
    """

    baselines: tuple[BaselineName, ...] = ("mean_colour", "telea", "navier_stokes", "biharmonic")
    gallery_images: int = 32
    bootstrap_samples: int = 2000
    inception: Weights | None = None
    alexnet: Weights | None = None

    def __post_init__(self) -> None:
        if "mean_colour" not in self.baselines:
            raise ValueError("baselines must include mean_colour: every row is compared with it")
