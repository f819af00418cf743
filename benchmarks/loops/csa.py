"""Coherent semantic attention as plain loops over samples and cells, and how long they take beside the layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from jobs.generators.csa.attention import CoherentSemanticAttention


def csa(
    features: Tensor, hole: Tensor, norm: Literal["cosine", "code"] = "cosine", clamp: bool = True
) -> tuple[Tensor, Tensor]:
    """What the layer returns for features (N, C, H, W) and hole (N, 1, H, W), and A, (N, P, P), row by row."""
    outputs, rows = zip(*(_one(f, h[0], norm, clamp) for f, h in zip(features, hole, strict=True)), strict=True)
    return torch.stack(outputs), torch.stack(rows)


def _one(features: Tensor, hole: Tensor, norm: str, clamp: bool) -> tuple[Tensor, Tensor]:
    height, width = hole.shape
    vectors = {(i, j): features[:, i, j] for i in range(height) for j in range(width)}
    units = {cell: vector / (vector.norm() + 1e-8) for cell, vector in vectors.items() if not hole[cell]}
    output, attention = features.clone(), torch.eye(height * width, dtype=features.dtype)
    if not units:
        return output, attention
    previous = None
    for cell, x in vectors.items():
        if not hole[cell]:
            continue
        match = max(units, key=lambda known: float(x @ units[known]))
        c, row = vectors[match], attention[match[0] * width + match[1]].clone()
        if previous is None:
            o = c
        else:
            before, row_before = previous
            if norm == "cosine":
                d_max = x @ c / (x.norm() * c.norm()).clamp_min(1e-30)
                d_ad = x @ before / (x.norm() * before.norm()).clamp_min(1e-30)
            else:
                d_max, d_ad = x @ units[match], x @ before / x.norm()
            if clamp:
                d_max, d_ad = d_max.clamp_min(0), d_ad.clamp_min(0)
            a = d_ad / (d_ad + d_max + 1e-8)
            o, row = a * before + (1 - a) * c, a * row_before + (1 - a) * row
        output[:, cell[0], cell[1]] = o
        attention[cell[0] * width + cell[1]] = row
        previous = o, row
    return output, attention


def bench() -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Solver -> (layer, loops), on what it sees of two images of 256 x 256 pixels with a centred square as the hole."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 512, 32, 32, generator=generator)
    hole = torch.zeros(2, 1, 32, 32)
    hole[:, :, 8:24, 8:24] = 1

    def fast(solver: Literal["scan", "sweeps"]) -> Callable[[], object]:
        layer = CoherentSemanticAttention(solver=solver)

        def run() -> Tensor:
            with torch.no_grad():
                return layer(features, hole)

        return run

    def loop() -> Tensor:
        with torch.no_grad():
            return csa(features, hole)[0]

    return {"CSA, scan": (fast("scan"), loop), "CSA, sweeps": (fast("sweeps"), loop)}
