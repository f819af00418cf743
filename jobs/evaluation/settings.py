"""Parameters of an evaluation. Imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

BaselineName = Literal["mean_colour", "telea", "navier_stokes", "biharmonic", "patch_match"]

FEATURE_WEIGHTS = ("inception", "alexnet", "vgg16")
"""The fields of EvaluateConfig that name files of feature weights."""


@dataclass(frozen=True)
class Weights:
    """A file of feature weights.

    path: the file.
    sha256: the digest that the file must have, in hex.
    """

    path: str | Path
    sha256: str


@dataclass(frozen=True, kw_only=True)
class External:
    """Results that another program has made of the images and masks of the suite.

    name: of the row.
    root: folder with the filled pictures, PNG of the images' size, named <key>-<bin>.png, such as
        val/0001-0.1-0.2.png.
    """

    name: str
    root: str


class Version(NamedTuple):
    """A version of a registered model. version: a number or an alias."""

    model: str
    version: str


@dataclass(frozen=True, kw_only=True)
class RowsConfig:
    """The rows beside the trained generators and the baselines.

    untrained: whether each generator also has a row with its weights before the first step.
    guided: whether each generator that follows lines also has a row in which it sees the true edges inside the hole, as
        a person would draw them. Such rows are compared with each other alone.
    registered: versions of registered models, such as models:/inpaint-csa@champion or models:/inpaint-csa/3. An alias
        is looked up when the stage runs.
    external: results of other programs, each as {name: of the row, root: folder of filled pictures}. A picture is a PNG
        named <key>-<bin>.png, such as val/0001-0.1-0.2.png. It is scored like those of all other rows.
    watch: a file or folder; its change makes the registered and external rows stale. Only dvc.yaml reads it.
    """

    untrained: bool = False
    guided: bool = False
    registered: tuple[str, ...] = ()
    external: tuple[External, ...] = ()
    watch: str = "requirements.lock"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Parameters of every evaluation.

    baselines: classical rows to compute, of mean_colour (always needed), telea, navier_stokes, biharmonic, and
        patch_match, which needs the extra `classical`.
    seconds_per_fill: time in which biharmonic and patch_match must fill one hole. A pair that takes longer is not
        scored in that row, and is named.
    batch_size: number of images whose holes a generator fills in one batch, each with all its masks. A GPU needs more
        than one, such as 16. It can change the last bits of an output, hence single levels of a picture.
    precision: in which generators compute: "no" is float32; "bf16" and "fp16" autocast, except where a network keeps
        float32 itself.
    gallery_images: number of images whose composites are kept for the gallery.
    bootstrap_samples: number of resamples behind each 95 % interval.
    inception: feature weights of FID, KID, P-IDS and U-IDS; None leaves them uncomputed.
    alexnet: feature weights of LPIPS with AlexNet; None leaves it uncomputed.
    vgg16: feature weights of LPIPS with VGG-16; None leaves it uncomputed.
    rows: the rows beside the trained generators and the baselines.
    """

    baselines: tuple[BaselineName, ...] = ("mean_colour", "telea", "navier_stokes", "biharmonic")
    seconds_per_fill: float = 60.0
    batch_size: int = 1
    precision: Literal["no", "bf16", "fp16"] = "no"
    gallery_images: int = 32
    bootstrap_samples: int = 2000
    inception: Weights | None = None
    alexnet: Weights | None = None
    vgg16: Weights | None = None
    rows: RowsConfig = field(default_factory=RowsConfig)

    def __post_init__(self) -> None:
        if "mean_colour" not in self.baselines:
            raise ValueError("baselines must include mean_colour: every row is compared with it")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")


def parse_version(address: str) -> Version | None:
    """Read models:/<name>@<alias> or models:/<name>/<number>. Returns None for any other text."""
    match = re.fullmatch(r"models:/([\w.-]+)(?:@([\w.-]+)|/([0-9]+))", address)
    return match and Version(match[1], match[2] or match[3])


def guided_row(generator: str) -> str:
    """Name the row of a generator that sees the true edges inside the hole."""
    return f"{generator}_guided"


def untrained_row(generator: str) -> str:
    """Name the row of a generator's weights before the first step."""
    return f"{generator}_untrained"
