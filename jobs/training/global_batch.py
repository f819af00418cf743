"""A batch that all generators share, in place of each paper's own, and the learning rates that go with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from jobs.recipe.contract import Recipe
from jobs.training.settings import TrainConfig

RULES: Mapping[str, Callable[[float], float]] = {"none": lambda ratio: 1.0, "linear": float, "sqrt": math.sqrt}
"""Name of a rule -> function from the ratio of the batch to the paper's to a factor on all learning rates.

"linear" is that of Goyal et al., "Accurate, Large Minibatch SGD", 2017, Sec. 2.1, without warm-up; "sqrt" is that of
Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014, Sec. 5.
"""


def with_global_batch(recipe: Recipe, config: TrainConfig) -> Recipe:
    """Return the recipe with the batch of `train.global_batch`, or itself if there is none. Steps do not change."""
    return recipe if config.global_batch is None else replace(recipe, batch_size=config.global_batch)


def learning_rate_factor(paper_batch: int, config: TrainConfig) -> float:
    """Return the factor on all learning rates.

    paper_batch: the generator's own `batch_size`.
    """
    if config.global_batch is None:
        return 1.0
    return RULES[config.global_batch_rule](config.global_batch / paper_batch)
