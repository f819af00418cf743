"""Ranges of the numbers in params.yaml, by the names of their keys.

A number outside its range would fail hours later, in a stage that does not name its key. What a number needs beside its
range, such as an even width, is checked by the dataclass that declares it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`. is_open: whether `low` itself is outside."""

    low: float
    high: float = 2**31 - 1
    is_open: bool = False

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and self.low <= value <= self.high and not (self.is_open and value == self.low)

    def __str__(self) -> str:
        low, high = f"{self.low:,.12g}", f"{self.high:,.12g}"
        return f"above {low} and at most {high}" if self.is_open else f"in {low}..{high}"


_SHARE = Range(0, 1)
_POSITIVE = Range(0, 1e9, is_open=True)

# The first pattern that matches the dotted path of a key counts.
_RANGES: tuple[tuple[str, Range], ...] = (
    ("seed", Range(0, 2**63 - 1)),
    ("*_seed", Range(0, 2**31 - 1)),
    ("dataset.*_share", _SHARE),
    ("ingest.size", Range(16, 7071)),  # a picture has at most 50 million pixels
    ("ingest.max_rejected", _SHARE),
    ("edges.*.sigma", Range(0, 100, is_open=True)),
    ("*masks.border", Range(0, 127)),
    ("*masks.rectangle_max_shrink", Range(0, 127)),
    ("*masks.*", Range(0, 1024)),  # pixels of a side of 256, numbers of strokes, and a share
    ("*.flip", _SHARE),
    ("train.ema_decay", _SHARE),
    ("train.clip_norm", _POSITIVE),
    ("evaluate.gallery_images", Range(1, 100_000)),
    ("evaluate.seconds_per_fill", _POSITIVE),
    ("evaluate.bootstrap_samples", Range(1, 100_000)),
    ("cluster.num_workers", Range(-1, 10_000)),
    ("cluster.max_failures", Range(0)),
    ("cluster.*_workers", Range(0, 10_000)),
    ("cluster.generator_workers.*", Range(0, 10_000)),
    ("train.global_batch", Range(1, 2**20)),
    ("cluster.threads", Range(1, 1024)),
    ("cluster.prefetch_batches", Range(1, 1024)),
    ("cluster.collective_seconds", Range(1, 1e7)),
    ("store.wait_seconds", Range(0, 3600)),
    ("store.timeout_seconds", Range(0, 1e7, is_open=True)),
    ("store.cache_bytes", Range(1, 2**62)),
    # Hyperparameters of generators, whose names follow the same rules in all papers.
    ("*.beta[12]", Range(0, 0.999999)),
    ("*learning_rate", Range(0, 1000, is_open=True)),
    ("*_weight", Range(0, 1e9)),
    ("*.fill_*", Range(0, 255)),
    ("*.mean_*", Range(0, 255)),
    ("*.fill", Range(-1, 1)),
    ("*.refined_shares", _SHARE),
    ("*.sketch_dropout", _SHARE),
    ("*.region_threshold", _SHARE),
    ("*.discount", _SHARE),
    ("*.decay", Range(0, 1, is_open=True)),
    ("*.d2g", _POSITIVE),
    ("*.feature_scale", _POSITIVE),
    ("*.source_zoom", _POSITIVE),
    ("*.source_angle", Range(0, 360)),
    ("generators.*_steps", Range(0)),
    ("generators.*_epochs", Range(0)),
    ("generators.*_iterations", Range(0)),
    ("generators.*_blocks", Range(0, 1024)),
    ("generators.*_margin", Range(0)),
    ("*.overlap", Range(0)),
    ("*.rematch_every", Range(0)),
    ("*.crop_size", Range(0, 7071)),
    ("*.hole_size", Range(0, 7071)),
    ("generators.*_size", Range(1, 7071)),
    ("generators.*.batch_size", Range(1, 2**20)),
    ("*width", Range(1, 2**16)),
    ("*threshold", Range(0, 1e9)),
)
_WHOLE = Range(1)  # of every other whole number


def range_of(path: str, value: float) -> Range:
    """Return the range of a number by the dotted path of its key, such as "generators.csa.width"."""
    ranges = (found for pattern, found in _RANGES if fnmatchcase(path, pattern))
    return next(ranges, _WHOLE if isinstance(value, int) else Range(0, 1e9))


def find_problem(settings: Any, path: str = "") -> str | None:
    """Return what is wrong with the first number outside its range, or the first empty text, with its key.

    settings: a dataclass, or a mapping of dataclasses.
    path: dotted path of `settings`.
    """
    for key, value in _leaves(settings, path):
        if isinstance(value, str) and not value:
            return f"{key} is empty; give a value, or leave the key out"
        if isinstance(value, int | float) and value not in (allowed := range_of(key, value)):
            return f"{key} must be {allowed}, got {value:g}"
    return None


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of every number and text. The numbers of a list have the path of the list."""
    if is_dataclass(node):
        # A default is in range in any case: a generator of the user's own may have keys that no pattern knows.
        given = [each for each in fields(node) if getattr(node, each.name) != each.default]
        children = [(f"{path}.{each.name}".lstrip("."), getattr(node, each.name)) for each in given]
    elif isinstance(node, dict):
        children = [(f"{path}.{name}", child) for name, child in node.items()]
    elif isinstance(node, tuple):
        children = [(path, child) for child in node]
    else:
        children = []
        if isinstance(node, int | float | str) and not isinstance(node, bool):
            yield path, node
    for child_path, child in children:
        yield from _leaves(child, child_path)
