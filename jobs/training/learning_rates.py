"""The learning rate of every network at every step: the recipe's, times the decay that all generators share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from jobs.recipe.contract import Recipe

DECAYS: Mapping[str, Callable[[float], float]] = {
    "none": lambda done: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}
"""Name of a decay -> function from the share of a network's steps that are done, in [0, 1), to a factor in (0, 1].

"cosine" is that of Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, Eq. 5, without
restarts and down to 0.
"""


class LearningRates:
    """Set the learning rates of a recipe. They are functions of the step alone, so a checkpoint need not keep them.

    recipe: its optimizers were made with the rates of the first step.
    decay: one of `DECAYS`. It runs over the steps of the phases that train a network, from the first to the last.
    factor: on every rate; see `global_batch.learning_rate_factor`.
    """

    def __init__(self, recipe: Recipe, decay: str, factor: float = 1.0) -> None:
        self._recipe = recipe
        self._constant = factor
        self._factor = DECAYS[decay]

    def set(self, step: int) -> None:
        """Set the rates of a step, counted from the start of the training."""
        for name, optimizer in self._recipe.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.at(name, step)

    def at(self, network: str, step: int) -> float:
        """Return the learning rate of a network at a step, counted from the start of the training."""
        rate = self._recipe.optimizers[network].defaults["lr"]
        done, first = 0, 0
        for phase in self._recipe.phases:
            if step < first or not phase.steps:
                continue
            last = min(step - first, phase.steps - 1)
            own = phase.learning_rates.get(network, rate)
            rate = own(last) if callable(own) else own
            done += min(step - first, phase.steps) if network in phase.trained else 0
            first += phase.steps
        total = sum(phase.steps for phase in self._recipe.phases if network in phase.trained)
        return rate * self._constant * self._factor(done / total if total else 0.0)
