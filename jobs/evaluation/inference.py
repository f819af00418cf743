"""A trained generator, loaded from its weights and receipt, and the holes it fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from datasets.maps.edges import EdgeConfig, canny_edges
from jobs.evaluation.metrics import composite_uint8, to_uint8
from jobs.generators import card
from jobs.generators.build import build_recipe, inpaint
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Recipe
from jobs.runs.checkpoints import WEIGHTS_NAME, load_weights
from jobs.runs.receipt import Receipt, read_receipt
from jobs.training.byte_batches import Sample, collate


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


def inpaint_images(recipe: Recipe, edges: EdgeConfig, images: np.ndarray, masks: np.ndarray) -> dict[str, np.ndarray]:
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
    return lambda image, mask: inpaint_images(recipe, receipt.edges, image, mask[..., 0])["composite"]


def visible_batch(
    images: np.ndarray, masks: np.ndarray, keys: Sequence[str], *, columns: Sequence[str], edges: EdgeConfig
) -> Batch:
    """A batch to inpaint, made of what can be seen: hidden pixels are blanked before anything is derived from them.

    images: uint8 (N, H, W, 3); masks: uint8 (N, H, W), 1 = hole; columns: what the recipe needs.
    Semantic labels are no input of any paper, only a target, and are left out.
    """
    visible = images * (1 - masks[..., None])
    return collate(
        [
            Sample(
                key=key,
                image=image,
                mask=mask,
                maps={"edge": 255 * canny_edges(image, edges, valid=mask == 0)} if "edge" in columns else {},
            )
            for key, image, mask in zip(keys, visible, masks, strict=True)
        ]
    ).to("cpu")
