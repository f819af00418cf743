"""A trained generator, loaded from its weights and receipt, and the holes it fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from datasets.edges import EdgeConfig
from jobs.batches import visible_batch
from jobs.checkpoints import load_weights
from jobs.generators import card
from jobs.metrics import composite_uint8, to_uint8
from jobs.receipt import WEIGHTS_NAME, Receipt, read_receipt
from jobs.recipe import Recipe, build_recipe, inpaint


def load_trained(folder: Path, *, trained: bool = True) -> tuple[Recipe, Receipt]:
    """The recipe with its trained weights, or with `trained=False` as it was before the first step, and the receipt.

    Raises CheckpointError when a file is missing, has another digest, or does not fit.
    """
    receipt = read_receipt(folder)
    config = card(receipt.generator).Config(**receipt.config)
    recipe = build_recipe(receipt.generator, config, receipt.seed)
    if trained:
        load_weights(folder / WEIGHTS_NAME, recipe.networks, receipt.weights_sha256)
    return recipe, receipt


def fill(recipe: Recipe, edges: EdgeConfig, images: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
    """Fill holes: images uint8 (N, H, W, 3), masks uint8 (N, H, W), 1 = hole.

    Returns "composite", uint8 (N, H, W, 3), equal to the images where the mask is 0; and "edge", uint8 (N, H, W), of
    a recipe that completes edges. Raises ValueError for a size or mask the paper cannot take.
    """
    batch = visible_batch(images, masks, [""] * len(images), columns=recipe.columns, edges=edges)
    outputs = inpaint(recipe, batch)
    filled = {"composite": composite_uint8(to_uint8(outputs["output"]), images, masks)}
    if "edge" in outputs:
        filled["edge"] = (outputs["edge"][:, 0].cpu().numpy() * 255).round().astype(np.uint8)
    return filled


def load_registered(files: Mapping[str, Path]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """What a registered model does: (image uint8 (N, H, W, 3), mask uint8 (N, H, W, 1)) -> filled image.

    files: "model" -> a folder with weights and receipt.
    """
    recipe, receipt = load_trained(files["model"])
    return lambda image, mask: fill(recipe, receipt.edges, image, mask[..., 0])["composite"]
