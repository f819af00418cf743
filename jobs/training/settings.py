"""Configuration of training that is common to all generators. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from datasets.stream.augment import AugmentConfig
from datasets.stream.plan import PlanConfig
from masks.config import MaskConfig


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Settings by which a record becomes a training sample.

    crop: side of a random square, in pixels, cut at the same place from image and maps; None = no crop.
    plan: order of the records.
    augment: random changes of image and maps.
    masks: holes.
    hole_ratios: "kind", those of whole masks of the kind; "bins", those of the suite: one of the published bins at
        random for each sample. Whole masks of the kind free_form have few hole ratios below 0.15.
    """

    crop: int | None = None
    plan: PlanConfig = field(default_factory=PlanConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)
    hole_ratios: Literal["kind", "bins"] = "kind"

    def __post_init__(self) -> None:
        if self.crop is not None and self.crop < 1:
            raise ValueError(f"crop must be a positive number of pixels or null, got {self.crop}")


WITHOUT_EFFECT = ("checkpoint_steps", "sample_steps")
"""Fields of `TrainConfig` that change no output of a training: neither weights nor curves."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of every generator's training on the common track. Weights do not depend on those `WITHOUT_EFFECT`.

    samples: how training samples are made.
    precision: "no" is float32; "bf16" and "fp16" autocast, except where a network keeps float32 itself. Weights and
        optimizers are float32 in any case.
    tf32: whether a GPU may round the factors of float32 convolutions and matrix products to TF32, 10 bits instead of
        23, which is several times faster. Without effect on a CPU.
    benchmark: whether cuDNN tries its algorithms for each new shape and keeps the fastest. The choice may differ from
        run to run, so it needs `deterministic: false`.
    deterministic: whether to choose operations that repeat to the bit, and report those that cannot on the device.
    portable: whether to compute with AVX2 alone, as every x86-64 processor since 2013 can, so that different ones give
        equal weights. Without effect on a GPU. See jobs/training/portability.py.
    accumulate: number of micro-batches in which each process computes its share of a batch, one after another, to save
        memory. The gradient of a loss that is a mean over samples does not change. These do change:
        - batch norm and losses that are quotients of sums use one micro-batch instead of the batch;
        - spectral norms iterate once per micro-batch;
        - the phase's forward pass is computed for every update, with the weights that the updates before it have left.
    global_batch: images per step over all workers, of every generator, in place of its own `batch_size`. A departure
        from the papers: the number of steps stays, so more or fewer images are seen. None = each generator's own.
    global_batch_rule: factor on all learning rates if the batch is k times a generator's own: "none", 1; "linear", k
        (Goyal et al. 2017, without warm-up); "sqrt", the square root of k (Krizhevsky 2014). Needed with global_batch.
    learning_rate_decay: factor on all learning rates of a recipe, from its first step to its last: "none", 1; "linear",
        from 1 to 0; "cosine", half a period of a cosine from 1 to 0. For a network that only some phases train, over
        the steps of these.
    ema_decay: decay of an exponential moving average of every network but discriminators, such as 0.999. The average
        is saved, evaluated and registered. None = the weights themselves. See `average.MovingAverage`.
    clip_norm: largest norm of the gradients of one update, over all its networks. None = no limit.
    max_skipped: training ends once updates of this many steps in a row were not applied, because a loss or gradient
        was not finite. On a GPU this is noticed at the next logged step.
    compile: `torch.compile` for every network, and for the feature networks of losses, but not for the discriminators
        of gradient penalties.
    channels_last: whether images and weights have channels innermost in memory, which tensor cores prefer.
    checkpoint_steps: global steps from one checkpoint to the next.
    log_steps: global steps from one logged event to the next.
    sample_steps: global steps from one sample picture to the next.
    edges: column that a recipe with edges reads them from, one of those that params.yaml lists under `edges`.
    """

    samples: SampleConfig = field(default_factory=SampleConfig)
    precision: Literal["no", "bf16", "fp16"] = "no"
    tf32: bool = False
    benchmark: bool = False
    deterministic: bool = True
    portable: bool = False
    accumulate: int = 1
    global_batch: int | None = None
    global_batch_rule: Literal["none", "linear", "sqrt"] | None = None
    learning_rate_decay: Literal["none", "linear", "cosine"] = "none"
    ema_decay: float | None = None
    clip_norm: float | None = None
    max_skipped: int = 20
    compile: bool = False
    channels_last: bool = False
    checkpoint_steps: int = 1000
    log_steps: int = 20
    sample_steps: int = 500
    edges: str = "edge"

    def __post_init__(self) -> None:
        for name in ("accumulate", "max_skipped", "checkpoint_steps", "log_steps", "sample_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.benchmark and self.deterministic:
            raise ValueError(
                "benchmark lets every run choose other algorithms; set it to false, or deterministic to false"
            )
        if self.global_batch is not None and self.global_batch_rule is None:
            raise ValueError(
                "global_batch needs global_batch_rule, the rule of the learning rates: none, linear or sqrt"
            )
        if self.global_batch_rule is not None and self.global_batch is None:
            raise ValueError("global_batch_rule has no meaning without global_batch; set both or none")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"clip_norm must be positive, got {self.clip_norm}")

    def describe_precision(self) -> str:
        """Return the number format of convolutions and products, as text."""
        if self.precision != "no":
            return f"{self.precision} by autocast"
        return "float32, " + ("with TF32 in convolutions and matrix products on a GPU" if self.tf32 else "without TF32")

    def batch_size(self, own: int) -> int:
        """Return the images per step over all workers. own: the generator's `batch_size`."""
        return self.global_batch or own

    def describe(self) -> dict[str, Any]:
        """Return everything that the outputs of a training depend on, as plain data."""
        return {name: value for name, value in asdict(self).items() if name not in WITHOUT_EFFECT}
