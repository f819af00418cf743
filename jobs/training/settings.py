"""How every generator is trained, beside what its paper says. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from datasets.stream.augment import AugmentConfig
from datasets.stream.plan import PlanConfig
from masks.config import MaskConfig


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """What one training sample is made of, beside its record.

    crop: side of a square cut at random, in pixels, the same from image and maps; None = as stored.
    plan: how records are shuffled.
    augment: how images are changed at random.
    masks: which holes are drawn.
    """

    crop: int | None = None
    plan: PlanConfig = field(default_factory=PlanConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)

    def __post_init__(self) -> None:
        if self.crop is not None and self.crop < 1:
            raise ValueError(f"crop must be a positive number of pixels or null, got {self.crop}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How every generator is trained, on the common track.

    samples: what one training sample is made of.
    precision: "no" is float32; "bf16" and "fp16" autocast, but for what a network keeps in float32 itself.
    deterministic: choose operations that repeat to the bit, and report those that cannot on the device at hand.
    accumulate: how many parts each process computes its share of a batch in, one after another, to save memory. The
        batch stays the batch, and a loss that is a mean over samples the same. But statistics of a batch (batch norm)
        are then those of a part, and so is a loss that is a quotient of sums; spectral norms iterate once a part; and
        what an update takes from the phase's forward is computed again, with the weights that it then finds.
    ema_decay: decay of an exponential moving average of every network but discriminators, such as 0.999; the average
        is what is saved, evaluated and registered. None = the weights themselves.
    clip_norm: largest norm of the gradients of one update, over all its networks. None = as they are.
    max_skipped: stop when so many updates in a row were not applied because a loss or gradient was not finite.
    compile: `torch.compile` for every network but discriminators.
    channels_last: keep images and weights with channels innermost, which tensor cores prefer.
    checkpoint_steps, log_steps, sample_steps: how often, in global steps.
    edges: the column that a recipe with edges reads them from, one of those that params.yaml lists under `edges`.
    """

    samples: SampleConfig = field(default_factory=SampleConfig)
    precision: Literal["no", "bf16", "fp16"] = "no"
    deterministic: bool = True
    accumulate: int = 1
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
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"clip_norm must be positive, got {self.clip_norm}")
