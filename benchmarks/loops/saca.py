"""SACA as plain loops over samples, cells and regions, and how long they take beside the layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jobs.generators.saca.networks import SACA


def saca(features: Tensor, mask: Tensor, layer: SACA) -> Tensor:
    """What `layer(features, mask)` returns first, cell by cell. mask: a multiple of the features' size."""
    return torch.stack([_one(sample, hole[0], layer) for sample, hole in zip(features, mask, strict=True)])


def _one(features: Tensor, hole: Tensor, layer: SACA) -> Tensor:
    _, height, width = features.shape
    factor = hole.shape[0] // height
    assign, value = layer.assign.weight[:, :, 0, 0], layer.value.weight[:, :, 0, 0]
    query, key, reason = layer.region_query.weight, layer.region_key.weight, layer.region_value.weight
    cells = [(i, j) for i in range(height) for j in range(width)]

    shares, totals = {}, [features.new_tensor(1e-6) for _ in layer.assign.bias]
    sums = [value.new_zeros(len(value)) for _ in totals]
    for i, j in cells:
        scores = torch.exp(assign @ features[:, i, j] + layer.assign.bias)
        shares[i, j] = scores / scores.sum()
        if hole[factor * i : factor * (i + 1), factor * j : factor * (j + 1)].max() > 0:
            continue
        seen = value @ features[:, i, j]
        for k, share in enumerate(shares[i, j].unbind()):
            sums[k] = sums[k] + share * seen
            totals[k] = totals[k] + share
    regions = [total / count for total, count in zip(sums, totals, strict=True)]

    related = []
    for region in regions:
        relations = torch.stack([(query @ region) @ (key @ other) / len(region) ** 0.5 for other in regions]).exp()
        added = sum(relation * (reason @ other) for relation, other in zip(relations, regions, strict=True))
        related.append(region + added / relations.sum())

    rows = []
    for i, j in cells:
        context = sum(share * region for share, region in zip(shares[i, j], related, strict=True))
        rows.append(layer.output.weight[:, :, 0, 0] @ context)
    outputs = []
    for channel, values in enumerate(torch.stack(rows, dim=1)):
        deviation = ((values - values.mean()).square().mean() + 1e-5).sqrt()
        outputs.append(layer.norm.weight[channel] * (values - values.mean()) / deviation + layer.norm.bias[channel])
    return features + layer.gamma * torch.stack(outputs).view_as(features)


def bench() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Place of the module -> (layer, loops), on what it sees of two images of 256 x 256 pixels."""
    return {
        "SACA, bottleneck": _pair(channels=256, size=64),
        "SACA, decoder": _pair(channels=128, size=128),
    }


def _pair(channels: int, size: int) -> tuple[Callable[[], object], Callable[[], object]]:
    generator = torch.Generator().manual_seed(0)
    layer = SACA(channels, regions=32)
    torch.nn.init.ones_(layer.gamma)
    features = torch.randn(2, channels, size, size, generator=generator)
    mask = torch.zeros(2, 1, 256, 256)
    mask[:, :, 64:192, 64:192] = 1

    def fast() -> Tensor:
        with torch.no_grad():
            return layer(features, mask)[0]

    def loop() -> Tensor:
        with torch.no_grad():
            return saca(features, mask, layer)

    return fast, loop
