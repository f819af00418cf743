"""A trained generator on disk: its weights, and the receipt that says what they are and what made them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.durable import write_durably
from datasets.edges import EdgeConfig
from jobs.batches import visible_batch
from jobs.checkpoints import CheckpointError, load_weights
from jobs.generators import card
from jobs.metrics import composite_uint8, to_uint8
from jobs.recipe import Recipe
from jobs.training_loop import build_recipe, inpaint

WEIGHTS_NAME, RECEIPT_NAME = "weights.safetensors", "receipt.json"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What the weights beside it are. Nothing in it depends on when or where they were trained.

    config: the paper's `Config`, every value. images: digest of the manifest of the images trained on; columns: the
    same of the other columns. world_size matters by rounding only. samples_seen counts records, with repetition.
    """

    generator: str
    config: Mapping[str, Any]
    edges: EdgeConfig
    seed: int
    steps: int
    samples_seen: int
    world_size: int
    images: str
    columns: Mapping[str, str]
    train: Mapping[str, Any]
    weights_sha256: str
    parameters: Mapping[str, int]


def write_receipt(folder: Path, receipt: Receipt) -> None:
    """Write the receipt; call after the weights."""
    content = json.dumps(asdict(receipt), indent=2, sort_keys=True) + "\n"
    write_durably(folder / RECEIPT_NAME, content.encode())


def read_receipt(folder: Path) -> Receipt:
    """The receipt of a folder. Raises CheckpointError when it is missing or unreadable."""
    path = folder / RECEIPT_NAME
    try:
        found = json.loads(path.read_text())
        return Receipt(**{**found, "edges": EdgeConfig(**found["edges"])})
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; run: dvc repro") from None
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is not a receipt ({error}); run: dvc repro") from error


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
