"""Training steps on a GPU that is not there, by fake tensors: devices, dtypes, waits, messages and launches.

Fake tensors have shapes, dtypes and devices, and no numbers. An operation that mixes devices or dtypes raises as it
would on a GPU. These are counted for each step:
  waits: places at which the host waits for the GPU, or copies from pageable memory: `.item()`, `bool()`, `nonzero`,
    boolean indices, copies between the devices.
  launches: operations that are no views, about the number of kernels.
  messages: calls of all_reduce outside DistributedDataParallel, as one of several processes.
"""

from __future__ import annotations

import collections
import contextlib
import heapq
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.utils._foreach_utils
from torch import Tensor, distributed, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.calculated import OpenAttention
from jobs.checks.footprint import step_kinds
from jobs.generators import card
from jobs.generators.build import build_recipe, inpaint
from jobs.generators.csa import attention
from jobs.layers.constants import constant
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Recipe
from jobs.training.byte_batches import ByteBatch
from jobs.training.settings import TrainConfig
from jobs.training.step import TrainingStep

aten = torch.ops.aten
ROOT = str(Path.cwd())
GPU = torch.device("cuda:0")


@dataclass
class Counts:
    """Counts of one step: each a place, "file:line function", or an operation, with a number."""

    waits: collections.Counter = field(default_factory=collections.Counter)
    messages: collections.Counter = field(default_factory=collections.Counter)
    operations: collections.Counter = field(default_factory=collections.Counter)

    @property
    def launches(self) -> int:
        return self.operations.total()

    @property
    def num_waits(self) -> int:
        return self.waits.total()

    @property
    def num_messages(self) -> int:
        return self.messages.total()


def count_steps(name: str, train: TrainConfig, *, world_size: int = 1) -> dict[str, Counts]:
    """Take each kind of step of a generator's tiny form, and return its counts by phase and networks.

    Losses that the tiny form leaves out, such as those of VGG's features, are computed as well.
    The second step of a kind is counted: the states of the optimizers and the feature networks are then there.
    """
    config = card(name).Config.tiny()
    left_out = [key for key, value in vars(config).items() if key.endswith("_weight") and value == 0]
    width = {"width": 64} if name == "csa" else {}  # its consistency loss compares as many channels as VGG has
    config = replace(config, **dict.fromkeys(left_out, 1.0), **width)
    counts: dict[str, Counts] = {}
    with believe_in_gpu(), FakeTensorMode(allow_non_fake_inputs=False) as mode:
        recipe = build_recipe(name, config, 0)
        for network in recipe.networks.values():
            network.to(GPU, memory_format=torch.channels_last if train.channels_last else None)
        step = TrainingStep(recipe, train, GPU)
        stored = make_bytes(recipe, config).map_tensors(mode.from_tensor)
        with as_one_of(world_size), Watch() as watch:
            batch = stored.to(GPU)
            batch = batch.channels_last() if train.channels_last else batch
            for phase in recipe.phases:
                if not phase.steps:
                    continue
                step.start(phase)
                for kind in step_kinds(phase):
                    for _ in range(2):
                        watch.counts = Counts()
                        terms = step(kind.first, batch)
                    what = "+".join("+".join(update.networks) for update in kind.updates)
                    counts[f"{phase.name} {what}"] = watch.counts
                    assert {value.device for value in terms.values()} <= {GPU}, terms
            if world_size == 1:
                watch.counts = Counts()
                inpaint(recipe, Batch(image=batch.image, mask=batch.mask, edge=batch.edge))
    return counts


def make_bytes(recipe: Recipe, config: Any, count: int = 2) -> ByteBatch:
    """Return a made-up batch with the columns of a recipe."""
    side = getattr(config, "image_size", 64)
    rng = np.random.default_rng(0)
    maps = {
        "edge": (255 * (rng.random((count, side, side)) < 0.1)).astype(np.uint8),
        "semantics": rng.integers(0, 2, (count, side, side), dtype=np.uint8),
    }
    mask = np.zeros((count, side, side), np.uint8)
    mask[:, side // 4 : side // 2 + 8, side // 4 : side // 2 + 8] = 1
    return ByteBatch(
        image=torch.from_numpy(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)),
        mask=torch.from_numpy(mask),
        maps={name: torch.from_numpy(maps[name]) for name in recipe.columns},
        seed=torch.arange(count),
        key=tuple(map(str, range(count))),
    )


class Watch(TorchDispatchMode):
    """Count what an operation does, and answer questions whose answer depends on numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        is_on_gpu = any(tensor.device.type == "cuda" for tensor in given)
        if is_on_gpu and func in (aten._local_scalar_dense.default, aten.is_nonzero.default, aten.equal.default):
            self._wait(func)
            dtype = given[0].dtype
            return True if func is aten.equal.default or dtype == torch.bool else 1.0 if dtype.is_floating_point else 1
        if is_on_gpu and func is aten.nonzero.default:
            self._wait(func)
            return torch.zeros(_quarter(given[0]), given[0].ndim, dtype=torch.int64, device=GPU)
        if func is aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self._wait(func)
            return func(args[0], [part for index in args[1] for part in _as_numbers(index)], **kwargs)
        if func.namespace == "c10d":
            assert is_on_gpu, f"NCCL cannot send a tensor on a CPU ({_place()})"
            self.counts.messages[f"{func._overloadpacket.__name__} at {_place()}"] += 1
        # PyTorch has no fake form of these.
        result = _KERNELS[func](*args) if func in _KERNELS else func(*args, **kwargs)
        returned = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        self._note_copy(func, args, given, returned)
        if (is_on_gpu or any(t.device.type == "cuda" for t in returned)) and not _is_view(func):
            self.counts.operations[func._overloadpacket.__name__] += func.namespace != "prim"
        return result

    def _note_copy(self, func: Any, args: tuple, given: list[Tensor], returned: list[Tensor]) -> None:
        name = func._overloadpacket.__name__
        sources = given[1:] if name == "copy_" else given
        if name not in ("_to_copy", "copy_", "_foreach_copy_") or not sources or not returned:
            return
        if sources[0].device.type != returned[0].device.type:
            self._wait(func)

    def _wait(self, func: Any) -> None:
        self.counts.waits[f"{func._overloadpacket.__name__} at {_place()}"] += 1


def _channels(features: Tensor) -> Tensor:
    return torch.empty(features.shape[1], device=features.device)


_KERNELS = {
    aten.batch_norm_stats.default: lambda x, eps: (_channels(x), _channels(x)),
    aten.batch_norm_gather_stats_with_counts.default: lambda x, *_: (_channels(x), _channels(x)),
    aten.batch_norm_elemt.default: lambda x, *_: torch.empty_like(x),
    aten.batch_norm_backward_reduce.default: lambda gradient, x, *_: tuple(_channels(x) for _ in range(4)),
    aten.batch_norm_backward_elemt.default: lambda gradient, x, *_: torch.empty_like(x),
}


def _as_numbers(index: Tensor | None) -> list[Tensor | None]:
    if index is None or index.dtype != torch.bool:
        return [index]
    return [torch.zeros(_quarter(index), dtype=torch.int64, device=index.device) for _ in range(index.ndim)]


def _quarter(tensor: Tensor) -> int:
    return max(1, tensor.numel() // 4)


def _is_view(func: Any) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)


def _place() -> str:
    """Return the innermost line of this project that is running."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename.startswith(f"{ROOT}/jobs/"):
            return f"{frame.filename[len(ROOT) + 1 :]}:{frame.lineno} {frame.name}"
    return "backward or optimizer"


@contextlib.contextmanager
def as_one_of(world_size: int) -> Iterator[None]:
    """Be one of several processes whose messages go nowhere, until the context ends."""
    if world_size == 1:
        yield
        return
    distributed.init_process_group("fake", rank=0, world_size=world_size, store=FakeStore())
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextlib.contextmanager
def believe_in_gpu() -> Iterator[None]:
    """Let PyTorch take fake tensors on "cuda" as it takes real ones, until the context ends."""
    torch._C._ensureCUDADeviceGuardSet()
    optimizers = sys.modules["torch.optim.optimizer"]
    with contextlib.ExitStack() as stack:
        for module in (torch.utils._foreach_utils, optimizers):  # so that optimizers take the form of a GPU
            types = [*module._foreach_supported_types, FakeTensor]
            stack.enter_context(mock.patch.object(module, "_foreach_supported_types", types))
        patches = [
            (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
            (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
            (torch.Tensor, "backward", _backward),
            (torch.autograd, "grad", _grad),
            (nn.Module, "to", _to),
            (attention, "_attend", OpenAttention.apply),
            (nn.utils, "skip_init", lambda cls, *args, **kwargs: cls(*args, **kwargs)),  # it would swap fake tensors
        ]
        for owner, name, value in patches:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(mock.patch.object(FakeTensorMode, "__deepcopy__", lambda self, memo: self, create=True))
        constant.cache_clear()
        stack.callback(constant.cache_clear)  # its tensors are those of one fake mode
        yield


def _to(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """Replace parameters and buffers. `Module.to` would swap them in place, which fake tensors forbid."""
    device, dtype, _, memory_format = torch._C._nn._parse_to(*args, **kwargs)
    for module in self.modules():
        for kept in (module._parameters, module._buffers):
            for key, old in kept.items():
                if old is None or (old.device == device and memory_format is None and dtype in (None, old.dtype)):
                    continue
                new = old.detach().to(device=device, dtype=dtype if old.is_floating_point() else None)
                if memory_format is not None and new.ndim == 4:
                    new = new.contiguous(memory_format=memory_format)
                kept[key] = nn.Parameter(new, old.requires_grad) if kept is module._parameters else new
    return self


# Autograd's engine asks CUDA for a context of the device, which fails without one. So gradients are computed node by
# node here.


def _backward(self: Tensor, gradient: Tensor | None = None, create_graph: bool = False, **_: Any) -> None:
    _run_graph([(*_edge(self), torch.ones_like(self) if gradient is None else gradient)], None, create_graph)


def _grad(outputs: Any, inputs: Any, create_graph: bool = False, **_: Any) -> tuple[Tensor | None, ...]:
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    wanted = [_edge(tensor) for tensor in ([inputs] if isinstance(inputs, Tensor) else inputs)]
    found = _run_graph([(*_edge(output), torch.ones_like(output)) for output in outputs], wanted, create_graph)
    return tuple(found.get(edge) for edge in wanted)


def _edge(tensor: Tensor) -> tuple[Any, int]:
    if tensor.grad_fn is not None:
        return tensor.grad_fn, tensor.output_nr
    return tuple(torch.autograd.graph.get_gradient_edge(tensor))[:2]


def _run_graph(roots: list, wanted: list | None, create_graph: bool) -> dict:
    """Run the backward graph from some gradients.

    roots: (node, number of its input, gradient).
    wanted: (node, number of its input) whose gradients are returned; None adds gradients to the leaves.
    """
    waits = _count_users([node for node, _, _ in roots])
    buffers: dict = collections.defaultdict(dict)
    found: dict = {}
    for node, number, gradient in roots:
        _add(buffers, node, number, gradient)
    ready = [_entry(node) for node in {node for node, _, _ in roots} if not waits[node]]
    heapq.heapify(ready)
    with torch.set_grad_enabled(create_graph):
        while ready:
            node = heapq.heappop(ready)[-1]
            given = buffers.pop(node, {})
            found |= {edge: given.get(edge[1]) for edge in wanted or () if edge[0] is node}
            if "AccumulateGrad" in node.name():
                _accumulate(node, given.get(0) if wanted is None else None)
                continue
            for (following, number), result in zip(node.next_functions, _apply(node, given), strict=False):
                if following is not None:
                    _add(buffers, following, number, result)
                    waits[following] -= 1
                    if not waits[following]:
                        heapq.heappush(ready, _entry(following))
    return found


def _count_users(nodes: list) -> collections.Counter:
    """Return for each node of the graph how many others give it a gradient."""
    users: collections.Counter = collections.Counter()
    seen, stack = set(), list(nodes)
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        following = [each for each, _ in node.next_functions if each is not None]
        users.update(following)
        stack += following
    return users


def _entry(node: Any) -> tuple:
    return -node._sequence_nr() if "AccumulateGrad" not in node.name() else 1, id(node), node


def _add(buffers: dict, node: Any, number: int, gradient: Tensor | None) -> None:
    if gradient is None:
        return
    meta = node._input_metadata[number]
    assert gradient.device == meta.device, f"{node.name()} expects a gradient on {meta.device}, got {gradient.device}"
    if gradient.shape != torch.Size(meta.shape):
        gradient = gradient.sum_to_size(meta.shape)
    gradient = gradient.to(meta.dtype)
    before = buffers[node].get(number)
    buffers[node][number] = gradient if before is None else before + gradient


def _accumulate(node: Any, gradient: Tensor | None) -> None:
    if gradient is not None:
        leaf = node.variable
        leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient


def _apply(node: Any, given: dict[int, Tensor]) -> tuple:
    gradients = [given.get(number) for number in range(len(node._input_metadata))]
    if all(gradient is None for gradient in gradients):
        return (None,) * len(node.next_functions)
    if isinstance(node, torch.autograd.function.BackwardCFunction):  # Python's functions get zeros in place of nothing
        zeros = [torch.zeros(m.shape, dtype=m.dtype, device=m.device) for m in node._input_metadata]
        results = node.apply(*(zero if g is None else g for g, zero in zip(gradients, zeros, strict=True)))
    else:
        results = node(*gradients)
    return results if isinstance(results, tuple) else (results,)
