"""Load a trained generator from its weights and receipt, and fill holes with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from datasets.maps.edges import EdgeConfig, canny_edges
from jobs.evaluation.metrics.pixels import composite_uint8, to_uint8
from jobs.generators import card
from jobs.generators.build import build_filler, build_recipe, inpaint, without_feature_files
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Recipe
from jobs.runs.checkpoints import load_networks, load_weights, network_state
from jobs.runs.folder import WEIGHTS_NAME
from jobs.runs.receipt import Receipt, read_receipt


def load_trained(folder: Path, *, trained: bool = True) -> tuple[Recipe, Receipt]:
    """Load what fills holes of a trained generator, without what only its training needs, and the receipt.

    folder: contains weights and receipt.
    trained: False gives the networks as they were before the first step.
    Raises CheckpointError when a file is missing, has another digest, or does not fit.
    """
    receipt = read_receipt(folder)
    config = card(receipt.generator).Config(**receipt.config)
    recipe = build_filler(receipt.generator, config)
    if trained:
        load_weights(folder / WEIGHTS_NAME, recipe.networks, receipt.weights_sha256)
    else:
        initial = build_recipe(receipt.generator, without_feature_files(config), receipt.seed)
        load_networks(recipe.networks, network_state(initial.networks))
    return recipe, receipt


def inpaint_images(
    recipe: Recipe,
    edges: EdgeConfig | None,
    images: np.ndarray,
    masks: np.ndarray,
    sketches: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Fill the holes of images, on the device of the networks.

    edges: how edges are derived, for a recipe that needs them.
    images: uint8 (N, H, W, 3).
    masks: uint8 (N, H, W), 1 = hole.
    sketches: uint8 (N, H, W), 1 = a line to follow in the hole; only for a recipe with edges. None leaves the lines to
        the recipe.
    Returns "composite", uint8 (N, H, W, 3), equal to the images where the mask is 0, and "edge", uint8 (N, H, W) in
    [0, 255], of a recipe that completes edges.
    Raises UserError for a size or mask that the paper cannot take.
    """
    batch = visible_batch(images, masks, [""] * len(images), columns=recipe.columns, edges=edges)
    if sketches is not None:
        batch = replace(batch, sketch=torch.tensor(sketches)[:, None].float())
    device = next(parameter.device for network in recipe.networks.values() for parameter in network.parameters())
    outputs = inpaint(recipe, batch.to(device))
    filled = {"composite": composite_uint8(to_uint8(outputs["output"]), images, masks)}
    if "edge" in outputs:
        # Rounded half down, so that exactly the values above 0.5 are above 127.
        filled["edge"] = np.ceil(outputs["edge"][:, 0].double().cpu().numpy() * 255 - 0.5).astype(np.uint8)
    return filled


def visible_batch(
    images: np.ndarray, masks: np.ndarray, keys: Sequence[str], *, columns: Sequence[str], edges: EdgeConfig | None
) -> Batch:
    """Build a batch to inpaint. Hidden pixels are set to 0 before anything is derived from them.

    images: uint8 (N, H, W, 3).
    masks: uint8 (N, H, W), 1 = hole.
    keys: the records' keys, N of them.
    columns: columns that the recipe needs. Semantic labels are left out: they are a target of training, never an input.
    edges: how edges are derived, if the recipe needs them.
    """
    visible = images * (1 - masks[..., None])
    maps = {}
    if "edge" in columns:
        edge_maps = [canny_edges(image, edges, valid=mask == 0) for image, mask in zip(visible, masks, strict=True)]
        maps["edge"] = torch.from_numpy(255 * np.stack(edge_maps))
    # The masks are copied: they may be read-only, which torch.from_numpy warns about.
    return Batch.from_bytes(torch.from_numpy(visible), torch.tensor(masks), maps, key=tuple(keys))
