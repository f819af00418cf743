"""Calculate what a training step at the papers' scale gives a GPU to do, without one: FLOPs, launches, bytes, memory.

Steps run on the device "meta": shapes are right, and nothing is computed. Nothing here is measured.

batch: the paper's, in one process.
TFLOP: floating-point operations of convolutions and matrix products, by PyTorch's formulas, in trillions.
launches: operations that are no views, about the number of kernels. One for up to a hundred tensors at once.
GB: bytes that operations read and write, if each reads its inputs and writes its outputs once.
peak GiB: tensors that exist at the same time, with weights and optimizers, without workspaces and fragments.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from jobs.checks.footprint import step_kinds
from jobs.generators.build import build_recipe
from jobs.generators.csa import attention
from jobs.generators.csa.attention import CoherentSemanticAttention
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Recipe
from jobs.training.settings import TrainConfig
from jobs.training.step import TrainingStep

COLUMNS = ("what", "batch", "tflop", "launches", "gigabytes", "peak_gib")
_META = torch.device("meta")
_HOLE_SHARE = 4  # one cell of so many is hole, where a number of cells is asked for
_EMPTY = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")
_TENSORS_PER_LAUNCH = 100
aten = torch.ops.aten


def calculate(name: str, config: Any, side: int) -> Iterator[dict[str, Any]]:
    """Yield a row of figures for each kind of step of a generator.

    config: the generator's hyperparameters.
    side: of the images, in pixels.
    """
    meter = Meter()
    for what, batch_size in take_steps(name, config, side, TrainConfig(), meter):
        yield {
            "what": what,
            "batch": batch_size,
            "tflop": meter.flops / 1e12,
            "launches": meter.launches,
            "gigabytes": meter.bytes / 1e9,
            "peak_gib": meter.peak_bytes / 2**30,
        }


def take_steps(name: str, config: Any, side: int, train: TrainConfig, meter: Meter) -> Iterator[tuple[str, int]]:
    """Take each kind of step of a generator on the device "meta", and yield its name and batch once it is metered.

    name, config, side: see `calculate`.
    train: how it is trained.
    """
    with (
        mock.patch.object(attention, "_attend", OpenAttention.apply),
        mock.patch.object(CoherentSemanticAttention, "_sweeps_on", return_value=attention.SWEEPS_PER_LOOK),
        mock.patch.object(torch, "autocast", return_value=contextlib.nullcontext()),  # "meta" has none
        mock.patch.object(sys.modules["torch.optim.adam"], "_device_dtype_check_for_fused"),  # it refuses "meta"
        meter,
    ):
        with torch.device(_META):
            recipe = build_recipe(name, config, seed=0)
        step = TrainingStep(recipe, train, _META)
        for optimizer in recipe.optimizers.values():
            for group in optimizer.param_groups:
                group["foreach"] = not group.get("fused")  # as on a GPU
        batch = _make_batch(recipe, side)
        if train.channels_last:
            batch = batch.channels_last()
            for network in (*recipe.networks.values(), *recipe.feature_networks):
                network.to(memory_format=torch.channels_last)
        for phase in recipe.phases:
            if not phase.steps:
                continue
            step.start(phase)
            for kind in step_kinds(phase):
                for _ in range(2):  # the second has optimizers and feature networks in place
                    meter.reset()
                    step(kind.first, batch)
                what = "+".join("+".join(update.networks) for update in kind.updates)
                yield f"{name}/{phase.name} {what}", recipe.batch_size


def _make_batch(recipe: Recipe, side: int) -> Batch:
    count = recipe.batch_size

    def new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=_META)

    return Batch(
        image=new(count, 3, side, side),
        mask=new(count, 1, side, side),
        edge=new(count, 1, side, side) if "edge" in recipe.columns else None,
        semantics=new(count, side, side, dtype=torch.int64) if "semantics" in recipe.columns else None,
        seed=new(count, dtype=torch.int64),
        key=tuple(map(str, range(count))),
    )


class Meter(TorchDispatchMode):
    """Add up what operations on meta tensors would cost, and answer questions about numbers that are not there."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {}
        self._present_bytes = 0
        self.reset()

    def reset(self) -> None:
        """Begin to count from 0."""
        self.flops = self.launches = self.bytes = 0
        self.peak_bytes = self._present_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        is_counted = any(tensor.device == _META for tensor in given)
        if is_counted and func in (aten._local_scalar_dense.default, aten.is_nonzero.default):
            return _answer(given[0])
        if is_counted and func is aten.nonzero.default:
            return torch.empty(max(1, given[0].numel() // _HOLE_SHARE), given[0].ndim, dtype=torch.int64, device=_META)
        result = func(*args, **kwargs)
        returned = [value for value in tree_leaves(result) if isinstance(value, Tensor) and value.device == _META]
        for tensor in returned:
            self._track(tensor)
        if (is_counted or returned) and func.namespace != "prim" and not _is_view(func):
            self._count(func, args, kwargs, given, returned, result)
        return result

    def _count(self, func: Any, args: tuple, kwargs: dict, given: list, returned: list, result: Any) -> None:
        name = func._overloadpacket.__name__
        if name in _EMPTY:
            return
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=result)
        self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in (*given, *returned))
        self.launches += -(-len(given) // _TENSORS_PER_LAUNCH) if "foreach" in name or "fused" in name else 1

    def _track(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._sizes:
            return
        self._sizes[storage._cdata] = storage.nbytes()
        self._present_bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self._present_bytes)
        weakref.finalize(storage, self._forget, storage._cdata)

    def _forget(self, key: int) -> None:
        self._present_bytes -= self._sizes.pop(key, 0)


def _answer(tensor: Tensor) -> bool | float | int:
    if tensor.dtype == torch.bool:
        return True
    return 1.0 if tensor.dtype.is_floating_point else 256  # hole cells of the 1,024 that CSA's attention has


def _is_view(func: Any) -> bool:
    return any(value.alias_info is not None and not value.alias_info.is_write for value in func._schema.returns)


_ATTEND = attention._attend


class OpenAttention(torch.autograd.Function):
    """CSA's attention, which is one operator of its own, with the operations inside it."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        output = _ATTEND._init_fn(*inputs)
        attention._keep(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return attention._transposed(ctx, *gradients)
