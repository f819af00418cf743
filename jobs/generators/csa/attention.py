"""The coherent semantic attention layer: hole features rebuilt from known ones, one after the other."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.recipe.precision import wide_dtype

EPSILON = 1e-8
SWEEPS = 16
SWEEPS_PER_LOOK = 8
TOLERANCE = 1e-6


class CoherentSemanticAttention(nn.Module):
    """Replace every hole vector by a mix of the most similar known vector and the vector generated just before it.

    Liu et al., "Coherent Semantic Attention for Image Inpainting", ICCV 2019, Sec. 3.2, with patches of one cell. Hole
    cells x_1 .. x_n are visited in raster order, across row breaks and from one hole to the next:
        c_k = the known vector with the largest cosine to x_k
        Dmax_k = likeness of x_k and c_k, Dad_k = likeness of x_k and o_{k-1}
        a_k = Dad_k / (Dad_k + Dmax_k)
        o_1 = c_1, o_k = a_k o_{k-1} + (1 - a_k) c_k
    The layer has no parameters and computes in float32 at least.

    norm: "cosine" is the paper's likeness; "code" is the authors': Dmax not divided by |x_k|, Dad not by |o_{k-1}|.
    clamp: negative likenesses count as 0, so outputs stay in the convex hull of the known vectors. Without it, as in
        the authors' code, the denominator may come near 0 and the values explode.
    solver: "scan" visits the cells one by one. "sweeps" computes all of them at once from a guess, until the guess
        stays the same. It agrees with the scan up to 1e-6 of the largest value. It falls back to the scan if 16 sweeps
        do not reach that, and without `clamp`. "auto" sweeps on a GPU, where the scan launches thousands of kernels,
        and scans elsewhere. On a GPU the host looks after every 8th sweep, since each look waits for the GPU.
    forward(features, hole):
        features: f, (N, C, H, W), any range.
        hole: (N, 1, H, W), 1 = hole cell, one map per sample.
    Returns (N, C, H, W). Known cells keep their values bit for bit. A sample without a hole cell, or without a known
    one, is unchanged.
    The gradient is g + A^T g with the output written as Y = A f and A held fixed (the authors' intention). So known
    cells, which A maps to themselves, get 2 g and their share of the holes' g; hole cells get g.
    Raises ValueError for another shape of `hole`.
    """

    def __init__(
        self,
        *,
        norm: Literal["cosine", "code"] = "cosine",
        clamp: bool = True,
        solver: Literal["auto", "scan", "sweeps"] = "auto",
    ) -> None:
        super().__init__()
        self.norm = norm
        self.clamp = clamp
        self.solver = solver

    def forward(self, features: Tensor, hole: Tensor) -> Tensor:
        expected = (features.shape[0], 1, *features.shape[-2:])
        if hole.shape != expected:
            raise ValueError(f"hole must be {expected}, one value per cell, got {tuple(hole.shape)}")
        return _attend(features, hole.flatten(1) > 0, self.norm == "cosine", self.clamp, self._sweeps_on(features))[0]

    def _sweeps_on(self, features: Tensor) -> int:
        """Return `sweeps` of `_attend`."""
        on_gpu = features.device.type == "cuda"
        if not self.clamp or self.solver == "scan" or (self.solver == "auto" and not on_gpu):
            return 0
        return SWEEPS_PER_LOOK if on_gpu else 1


# One operator for torch.compile, which otherwise unrolls the scan and compiles it for every number of hole cells.
@torch.library.custom_op("inpaint_foundry::coherent_semantic_attention", mutates_args=())
def _attend(
    features: Tensor, hole: Tensor, cosine: bool, clamp: bool, sweeps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the layer's output and the inputs of its gradient.

    features: (N, C, H, W).
    hole: bool (N, P), P = H * W.
    cosine: whether the norm is "cosine".
    clamp: whether negative likenesses count as 0.
    sweeps: 0 scans; otherwise the number of sweeps from one look of the host at the result to the next. With more than
        one, the host does not look at the number of hole cells either: all cells are swept.
    Returns the output, (N, C, H, W), and four maps (N, P) whose index k counts cells in order of visit:
        the k-th cell, holes first; whether it is a hole; the cell that it is matched with; and a_k, which is 0 for the
        first and for cells that are no hole.
    """
    dtype = wide_dtype(features)
    with torch.autocast(features.device.type, enabled=False):
        rows = features.to(dtype).flatten(2).transpose(1, 2).contiguous()  # (N, P, C)
        hole = hole & ~hole.all(dim=1, keepdim=True)  # a sample that is all hole has nothing to copy from
        order = torch.argsort(~hole, dim=1, stable=True)  # raster order among holes, then among the others
        is_hole = hole.gather(1, order)
        longest = hole.shape[1] if sweeps > 1 else max(1, int(hole.sum(dim=1).max()))
        first, inside = order[:, :longest], is_hole[:, :longest]
        queries = _rows_at(rows, first)  # (N, n, C); rows beyond a sample's own holes keep their values
        unit = queries / (torch.linalg.vector_norm(queries, dim=2, keepdim=True) + EPSILON)
        likeness, source = _best_match(unit if cosine else queries, rows, hole)
        matched = _rows_at(rows, source)
        likeness = likeness.clamp_min(0) if clamp else likeness
        solve = partial(_sweep, per_look=sweeps) if sweeps else _scan
        generated, weights = solve(unit, matched, likeness, cosine, clamp)
        new = torch.where(inside[..., None], generated, queries)
        new = new.transpose(1, 2).to(features.dtype)  # (N, C, n)
        output = features.flatten(2).scatter(2, first[:, None].expand_as(new), new).view(features.shape)
        unused = hole.shape[1] - longest
        weights = F.pad(weights.masked_fill(~inside, 0), (0, unused))
        return output, order, is_hole, F.pad(source, (0, unused)), weights


@_attend.register_fake
def _(features: Tensor, hole: Tensor, cosine: bool, clamp: bool, sweeps: int) -> tuple[Tensor, ...]:
    cells = hole.new_empty(hole.shape, dtype=torch.int64)
    weights = features.new_empty(hole.shape, dtype=wide_dtype(features))
    output = features.new_empty(features.shape)
    return output, cells, hole.new_empty(hole.shape), cells.new_empty(hole.shape), weights


def _keep(ctx, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _transposed(ctx, gradient: Tensor, *_: Tensor | None) -> tuple[Tensor, None, None, None, None]:
    """Compute the gradient g + A^T g without forming A.

    r_n = g_n, r_k = g_k + a_{k+1} r_{k+1}; the cell matched with k gets (1 - a_k) r_k.
    """
    order, is_hole, source, weights = ctx.saved_tensors
    given = gradient.to(weights.dtype).flatten(2).transpose(1, 2)  # (N, P, C)
    inside = is_hole[..., None]
    ordered = _rows_at(given, order)
    following = torch.cat((weights[:, 1:], torch.zeros_like(weights[:, :1])), dim=1)
    carried = _recurrence(following.flip(1), (ordered * inside).flip(1)).flip(1)
    passed = (1 - weights)[..., None] * carried * inside
    samples, cells = order.shape
    offsets = cells * torch.arange(samples, device=order.device)[:, None]
    # Gradient through the identity at known cells, and from hole cells to the cells that they were matched with.
    total = given.reshape(samples * cells, -1)
    total = total.index_add(0, (order + offsets).flatten(), (ordered * ~inside).flatten(0, 1))
    total = total.index_add(0, (source + offsets).flatten(), passed.flatten(0, 1))
    total = total.view_as(given).transpose(1, 2).reshape(gradient.shape)
    return total.to(gradient.dtype), None, None, None, None


_attend.register_autograd(_transposed, setup_context=_keep)


def _rows_at(rows: Tensor, cells: Tensor) -> Tensor:
    """Gather rows of (N, P, C) at cells (N, n) -> (N, n, C)."""
    return rows.gather(1, cells[..., None].expand(-1, -1, rows.shape[2]))


def _best_match(queries: Tensor, rows: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
    """Find for every query the known row with the largest product, after scaling the rows to unit length.

    queries: (N, n, C).
    rows: (N, P, C).
    hole: bool (N, P).
    Returns the product and the cell of the row, (N, n) each.
    """
    keys = rows / (torch.linalg.vector_norm(rows, dim=2, keepdim=True) + EPSILON)
    scores = torch.bmm(queries, keys.transpose(1, 2)).masked_fill(hole[:, None], -torch.inf)  # (N, n, P)
    best, source = scores.max(dim=2)
    return best, source


def _shares(unit: Tensor, previous: Tensor, likeness: Tensor, cosine: bool, clamp: bool) -> Tensor:
    """Compute a_k (...).

    unit: x_k / |x_k|, (..., C).
    previous: o_{k-1}, (..., C).
    likeness: Dmax_k, (...).
    """
    adjacent = (unit * previous).sum(dim=-1)
    if cosine:
        adjacent = adjacent / (torch.linalg.vector_norm(previous, dim=-1) + EPSILON)
    if clamp:
        adjacent = adjacent.clamp_min(0)
    return adjacent / (adjacent + likeness + EPSILON)


def _scan(unit: Tensor, matched: Tensor, likeness: Tensor, cosine: bool, clamp: bool) -> tuple[Tensor, Tensor]:
    """Compute o_k (N, n, C) and a_k (N, n), one k after the other.

    unit: x_k / |x_k|, (N, n, C).
    matched: c_k, (N, n, C).
    likeness: Dmax_k, (N, n).
    """
    # a_k depends on o_{k-1}: the step is quadratic in the state, so no associative scan exists.
    steps = zip(unit.unbind(1)[1:], matched.unbind(1)[1:], likeness.unbind(1)[1:], strict=True)
    generated, weights = [matched[:, 0]], [torch.zeros_like(likeness[:, 0])]
    for direction, known, best in steps:
        share = _shares(direction, generated[-1], best, cosine, clamp)
        generated.append(torch.lerp(known, generated[-1], share[:, None]))
        weights.append(share)
    return torch.stack(generated, dim=1), torch.stack(weights, dim=1)


def _sweep(
    unit: Tensor, matched: Tensor, likeness: Tensor, cosine: bool, clamp: bool, per_look: int
) -> tuple[Tensor, Tensor]:
    """Compute the result of `_scan` for all k at once.

    Each sweep computes a_k from a guess of o, then o from a_k, until o stays the same. It settles one more k.
    For fixed a_k the recurrence is linear, and log2(n) doublings solve it.
    """
    generated = matched
    for number in range(1, SWEEPS + 1):
        shares = _shares(unit[:, 1:], generated[:, :-1], likeness[:, 1:], cosine, clamp)
        weights = torch.cat((torch.zeros_like(likeness[:, :1]), shares), dim=1)
        before, generated = generated, _recurrence(weights, (1 - weights)[..., None] * matched)
        if number % per_look == 0 and (generated - before).abs().max() <= TOLERANCE * generated.abs().max():
            return generated, weights
    return _scan(unit, matched, likeness, cosine, clamp)


def _recurrence(weights: Tensor, values: Tensor) -> Tensor:
    """Solve y_k = weights_k y_{k-1} + values_k for all k at once.

    weights: (N, n), 0 for the first k.
    values: (N, n, C).
    """
    shift = 1
    while shift < weights.shape[1]:
        # The first `shift` cells are finished: their chains have reached the first weight, which is 0.
        values = torch.cat(
            (values[:, :shift], torch.addcmul(values[:, shift:], weights[:, shift:, None], values[:, :-shift])), dim=1
        )
        weights = torch.cat((torch.zeros_like(weights[:, :shift]), weights[:, shift:] * weights[:, :-shift]), dim=1)
        shift *= 2
    return values
