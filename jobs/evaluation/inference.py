"""Load a trained generator from its weights and receipt, and fill holes with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.maps.edges import EdgeConfig, canny_edges
from jobs.evaluation.metrics.pixels import composite_uint8, to_uint8
from jobs.generators import card
from jobs.generators.build import build_filler, build_recipe, inpaint, without_feature_files
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Outputs, Recipe
from jobs.runs.checkpoints import load_networks, load_weights, network_state
from jobs.runs.folder import WEIGHTS_NAME
from jobs.runs.receipt import Receipt, read_receipt

Precision = Literal["no", "bf16", "fp16"]
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def load_trained(folder: Path, *, trained: bool = True, device: str = "cpu") -> tuple[Recipe, Receipt]:
    """Load what fills holes of a trained generator, without what only its training needs, and the receipt.

    folder: contains weights and receipt.
    trained: False gives the networks as they were before the first step.
    device: of the networks.
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
    for network in recipe.networks.values():
        network.to(device)
    return recipe, receipt


def inpaint_images(
    recipe: Recipe,
    edges: EdgeConfig | None,
    images: np.ndarray,
    masks: np.ndarray,
    sketches: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Fill the holes of images, on the device of the recipe's networks.

    edges: how edges are derived, for a recipe that needs them.
    images: uint8 (N, H, W, 3).
    masks: uint8 (N, H, W), 1 = hole.
    sketches: uint8 (N, H, W), 1 = a line to follow in the hole; only for a recipe with edges. None leaves the lines to
        the recipe.
    Returns "composite", uint8 (N, H, W, 3), equal to the images where the mask is 0, and "edge", uint8 (N, H, W) in
    [0, 255], of a recipe that completes edges.
    Raises UserError for a size or mask that the paper cannot take.
    """
    visible = hide(images, masks, columns=recipe.columns, edges=edges)._replace(sketches=sketches)
    filled = {name: picture.cpu().numpy() for name, picture in fill_on_device(recipe, [visible]).items()}
    return {"composite": composite_uint8(filled.pop("output"), images, masks), **filled}


def fill_on_device(recipe: Recipe, several: Sequence[Visible], precision: Precision = "no") -> dict[str, Tensor]:
    """Fill the holes of images of one size as one batch, on the device of the recipe's networks.

    several: N pairs of image and mask in total.
    precision: "no" computes in float32; "bf16" and "fp16" autocast, except where a network keeps float32 itself.
    Returns "output", uint8 (N, H, W, 3), and "edge", uint8 (N, H, W) in [0, 255], of a recipe that completes edges.
    Raises UserError for a size or mask that the paper cannot take, and for an output with NaN.
    """
    device = device_of(recipe)
    batch = to_batch(several, device)
    with torch.inference_mode(), torch.autocast(device.type, _HALVES.get(precision), enabled=precision in _HALVES):
        outputs = inpaint(recipe, batch)
    return _to_pictures(outputs)


def _to_pictures(outputs: Outputs) -> dict[str, Tensor]:
    pictures = {"output": to_uint8(outputs["output"])}
    if "edge" in outputs:
        # Rounded half down, so that exactly the values above 0.5 are above 127.
        pictures["edge"] = (outputs["edge"][:, 0].detach().double() * 255 - 0.5).ceil().to(torch.uint8)
    return pictures


def device_of(recipe: Recipe) -> torch.device:
    """Return the device of the recipe's networks."""
    parameters = (parameter for network in recipe.networks.values() for parameter in network.parameters())
    return next((parameter.device for parameter in parameters), torch.device("cpu"))


class Visible(NamedTuple):
    """What a generator may see of N pairs of image and mask, as bytes.

    images: uint8 (N, H, W, 3), 0 in the hole.
    masks: uint8 (N, H, W), 1 = hole.
    edges: of the visible pixels, uint8 (N, H, W), 0 or 255; None for a generator without edges.
    sketches: uint8 (N, H, W), 1 = a line to follow in the hole; None leaves the lines to the recipe.
    """

    images: np.ndarray
    masks: np.ndarray
    edges: np.ndarray | None
    sketches: np.ndarray | None = None


def hide(images: np.ndarray, masks: np.ndarray, *, columns: Sequence[str], edges: EdgeConfig | None) -> Visible:
    """Set the hidden pixels to 0 before anything is derived from them.

    images: uint8 (N, H, W, 3).
    masks: uint8 (N, H, W), 1 = hole.
    columns: columns that the recipe needs. Semantic labels are left out: they are a target of training, never an input.
    edges: how edges are derived, if the recipe needs them.
    """
    visible = images * (1 - masks[..., None])
    maps = None
    if "edge" in columns:
        found = [canny_edges(image, edges, valid=mask == 0) for image, mask in zip(visible, masks, strict=True)]
        maps = 255 * np.stack(found)
    return Visible(visible, masks, maps)


def to_batch(several: Sequence[Visible], device: torch.device | str = "cpu", keys: Sequence[str] = ()) -> Batch:
    """Join images of one size to a batch on a device. The bytes are moved, and become floats there.

    keys: of the records, one per pair.
    """
    # Joined, and hence copied: the masks may be read-only, which torch.from_numpy warns about.
    images, masks, edges, sketches = (
        None if parts[0] is None else np.concatenate(parts) for parts in zip(*several, strict=True)
    )
    given = {"edge": edges, "sketch": None if sketches is None else 255 * sketches}
    maps = {name: torch.from_numpy(each).to(device) for name, each in given.items() if each is not None}
    moved = (torch.from_numpy(each).to(device) for each in (images, masks))
    return Batch.from_bytes(*moved, maps, key=tuple(keys))


def visible_batch(
    images: np.ndarray, masks: np.ndarray, keys: Sequence[str], *, columns: Sequence[str], edges: EdgeConfig | None
) -> Batch:
    """Build a batch to inpaint on the CPU; see `hide`.

    keys: the records' keys, N of them.
    """
    return to_batch([hide(images, masks, columns=columns, edges=edges)], keys=keys)
