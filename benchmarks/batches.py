"""Make up batches of the size that a generator takes."""

from __future__ import annotations

import dataclasses

import torch

from files.pictures import IGNORE
from jobs.recipe.batch import Batch

LABELS = 4
"""Number of made-up semantic classes. Labels are below it, or `IGNORE`."""


def make_batch(size: tuple[int, int], columns: tuple[str, ...] = (), num_samples: int = 3, seed: int = 1) -> Batch:
    """Make a batch of smooth images with one mask per sample, and seeds.

    size: height and width, in pixels.
    columns: any of "edge" and "semantics", which are made up.
    seed: of everything that is made up.
    """
    height, width = size
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 3, width), indexing="ij")
    phases = 3 * torch.rand(num_samples, 3, 1, 1, generator=generator)
    image = torch.sin(x + phases) * torch.cos(2 * y - phases)
    mask = torch.zeros(num_samples, 1, height, width)
    for index, sample in enumerate(mask):
        number = index % 4
        sample[:, 10 + 4 * number : 30 + 6 * number, 12 : 36 - 4 * number] = 1
        sample[:, 3:6, : width - 5 * number] = 1  # a thin stroke up to the border
    batch = Batch(
        image=image, mask=mask, seed=torch.arange(num_samples), key=tuple(f"sample-{n}" for n in range(num_samples))
    )
    if "edge" in columns:
        batch = dataclasses.replace(batch, edge=(torch.rand(mask.shape, generator=generator) < 0.1).float())
    if "semantics" in columns:
        labels = torch.randint(LABELS, (num_samples, height, width), generator=generator)
        labels[:, : height // 8] = IGNORE
        batch = dataclasses.replace(batch, semantics=labels)
    return batch


def visible(batch: Batch) -> Batch:
    """Return the batch as evaluation gets it: with the edges of the visible part, without labels and seeds."""
    edge = None if batch.edge is None else batch.edge * (1 - batch.mask)
    return dataclasses.replace(batch, edge=edge, semantics=None, seed=None)
