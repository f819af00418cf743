"""Count what training a generator takes from its recipe alone: steps, batch, columns, bytes stored and exchanged."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adadelta, Adam
from torch.overrides import TorchFunctionMode

from jobs.generators.build import build_recipe, without_feature_files
from jobs.recipe.contract import Phase, Recipe, Update, is_discriminator
from jobs.training.global_batch import with_global_batch
from jobs.training.settings import TrainConfig

_FILLING = ("normal_", "uniform_", "fill_", "zero_", "erfinv_", "clamp_", "normalize")
_PLAIN = TrainConfig()


def checkpoints_at_once(*, are_copied: bool) -> int:
    """Return how many checkpoints of a training are on the disk at most.

    Two are kept, and a third is written before the oldest is removed.
    are_copied: whether they are copied to an object store; then one more may still be on its way there.
    """
    return 4 if are_copied else 3


@dataclass(frozen=True, kw_only=True)
class StepKind:
    """The steps of a phase in which the same updates are due. They cost the same.

    updates: the updates that are due.
    first: index of the first such step, counted from the start of the phase.
    steps: number of such steps in the phase.
    """

    updates: tuple[Update, ...]
    first: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class PhaseFootprint:
    """One phase.

    name: the phase.
    steps: number of its steps.
    gradient_bytes: gradients that the workers sum per step, in the mean over the phase. A network that two updates of
        one step train is summed twice.
    """

    name: str
    steps: int
    gradient_bytes: int


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """One generator.

    generator: short name of the paper.
    steps: number of steps over all phases.
    batch_size: images per step, over all workers.
    columns: columns that are read beside the images.
    parameters: network -> number of its parameters.
    weights_bytes: weights and buffers of all networks.
    checkpoint_bytes: size of one checkpoint.
    phases: the phases that have steps.
    """

    generator: str
    steps: int
    batch_size: int
    columns: tuple[str, ...]
    parameters: dict[str, int]
    weights_bytes: int
    checkpoint_bytes: int
    phases: tuple[PhaseFootprint, ...]


def step_kinds(phase: Phase) -> list[StepKind]:
    """Return the kinds of steps of a phase, in the order in which they first come."""
    cycle = math.lcm(*(update.every for update in phase.updates))
    kinds: dict[tuple[Update, ...], StepKind] = {}
    for first in range(min(cycle, phase.steps)):
        due = phase.due(first)
        kind = kinds.get(due, StepKind(updates=due, first=first, steps=0))
        steps = len(range(first, phase.steps, cycle))
        kinds[due] = dataclasses.replace(kind, steps=kind.steps + steps)
    return list(kinds.values())


def footprints(configs: Mapping[str, Any], train: TrainConfig) -> list[Footprint]:
    """Return the footprint of each generator. configs: short name -> hyperparameters. See `footprint`."""
    return [footprint(generator, config, train) for generator, config in configs.items()]


def footprint(generator: str, config: Any, train: TrainConfig = _PLAIN) -> Footprint:
    """Build the recipe of a generator without memory for its weights, and count.

    train: it decides the batch, and whether checkpoints hold an average of the generator's weights too.
    Raises ValueError for an optimizer whose size of state is not known here.
    """
    with torch.device("meta"), _WithoutValues():
        recipe = with_global_batch(build_recipe(generator, without_feature_files(config), seed=0), train)
    has_average = train.ema_decay is not None
    sizes = {name: _bytes(network.state_dict().values()) for name, network in recipe.networks.items()}
    weights = sum(sizes.values())
    averages = sum(size for name, size in sizes.items() if not is_discriminator(name)) if has_average else 0
    return Footprint(
        generator=generator,
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        columns=recipe.columns,
        parameters={name: sum(p.numel() for p in network.parameters()) for name, network in recipe.networks.items()},
        weights_bytes=weights,
        checkpoint_bytes=weights + averages + sum(map(_state_bytes, recipe.optimizers.values())),
        phases=tuple(_phase_footprint(recipe, phase) for phase in recipe.phases if phase.steps),
    )


class _WithoutValues(TorchFunctionMode):
    """Leave tensors as they are where they would be filled: on the device "meta" that takes time and gives nothing."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _FILLING:
            return next(iter((*args, *kwargs.values())))
        return func(*args, **kwargs)


def _phase_footprint(recipe: Recipe, phase: Phase) -> PhaseFootprint:
    total = sum(
        kind.steps * sum(_gradient_bytes(recipe, phase, update) for update in kind.updates)
        for kind in step_kinds(phase)
    )
    return PhaseFootprint(name=phase.name, steps=phase.steps, gradient_bytes=round(total / phase.steps))


def _gradient_bytes(recipe: Recipe, phase: Phase, update: Update) -> int:
    phase.require_grad(recipe.networks, update.networks)
    return _bytes(p for name in update.networks for p in recipe.networks[name].parameters() if p.requires_grad)


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    if not isinstance(optimizer, Adam | Adadelta):
        raise ValueError(f"the size of the state of {type(optimizer).__name__} is not known; add it to {__name__}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return 2 * _bytes(parameters) + 4 * len(parameters)  # two averages and a count of steps


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
