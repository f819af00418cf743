"""A recipe made of a generator's name and configuration, and how it is used to inpaint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from files.seeds import derive_seed
from jobs.generators import load
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Recipe


def build_recipe(generator: str, config: Any, seed: int) -> Recipe:
    """The recipe with its initial weights, which depend on the seed and the generator's name alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights", generator))
        return load(generator).build(config)


def inpaint(recipe: Recipe, batch: Batch) -> dict[str, Tensor]:
    """The recipe's `inpaint` as it is used everywhere: networks in eval mode, where they stay, and no gradients."""
    for network in recipe.networks.values():
        network.eval()
    with torch.no_grad():
        return recipe.inpaint(recipe.networks, batch)
