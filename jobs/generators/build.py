"""Build the recipe of a generator, and inpaint with it."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import torch

from files.errors import UserError
from files.seeds import derive_seed
from jobs.generators import load
from jobs.layers.frozen import collect_frozen_networks
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Outputs, Recipe
from jobs.recipe.padding import crop, pad_batch


def build_recipe(generator: str, config: Any, seed: int) -> Recipe:
    """Build a recipe. Its initial weights depend on the seed and the generator's name alone.

    generator: a name that `names` lists.
    config: the paper's `Config`.
    """
    with torch.random.fork_rng(devices=[]), collect_frozen_networks() as feature_networks:
        torch.manual_seed(derive_seed(seed, "weights", generator))
        recipe = load(generator).build(config)
    return dataclasses.replace(recipe, feature_networks=tuple(feature_networks))


def build_filler(generator: str, config: Any) -> Recipe:
    """Build only what fills holes: no discriminators, no feature networks of losses, no phases.

    generator, config: see `build_recipe`. The initial weights are of no use; load trained ones.
    """
    build = load(generator).build
    less = {"for_training": False} if "for_training" in inspect.signature(build).parameters else {}
    with torch.random.fork_rng(devices=[]):
        return build(config, **less)


def without_feature_files(config: Any) -> Any:
    """Return a config whose losses compare random features, which need no file. Initial weights do not depend on them.

    config: a paper's `Config`.
    """
    return dataclasses.replace(config, features="random") if hasattr(config, "features") else config


def inpaint(recipe: Recipe, batch: Batch) -> Outputs:
    """Fill the holes of a batch of any size: pad, run the networks in eval mode without gradients, and crop.

    The networks stay in eval mode.
    recipe: whose `multiple` and `smallest_side` say which sizes the networks accept.
    batch: without labels and seeds.
    Returns the maps of `recipe.inpaint` at the batch's own size.
    Raises UserError for an image smaller than `recipe.smallest_side`, and for a size that the paper fixes.
    """
    height, width = batch.image.shape[-2:]
    if min(height, width) < recipe.smallest_side:
        raise UserError(f"H and W must be at least {recipe.smallest_side} pixels, got {height} x {width}")
    for network in recipe.networks.values():
        network.eval()
    with torch.no_grad():
        outputs = recipe.inpaint(recipe.networks, pad_batch(batch, recipe.multiple))
        return recipe.finish({name: crop(tensor, height, width) for name, tensor in outputs.items()}, batch)
