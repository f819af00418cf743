"""What training a generator takes, as far as its recipe says: steps, batch, columns, and bytes kept and exchanged."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Adadelta, Adam

from jobs.generators.build import build_recipe
from jobs.recipe.contract import Phase, Recipe, Update, is_discriminator


def checkpoints_at_once(*, are_copied: bool) -> int:
    """How many lie on the disk at most: two are kept, a third is written before the oldest goes, and one more may still
    be on its way to an object store."""
    return 4 if are_copied else 3


@dataclass(frozen=True, kw_only=True)
class StepKind:
    """The steps of a phase in which the same updates are due: they cost the same.

    first: number of the first of them, from the start of the phase. steps: how many of them the phase has.
    """

    updates: tuple[Update, ...]
    first: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class PhaseFootprint:
    """gradient_bytes: what the workers have to sum, in the mean over the phase's steps; a network that two updates of
    a step train is summed twice."""

    name: str
    steps: int
    gradient_bytes: int


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """batch_size: over all workers. columns: needed beside the images. parameters: of each network.
    weights_bytes: of all networks. checkpoint_bytes: of one checkpoint. phases: those that have steps."""

    generator: str
    steps: int
    batch_size: int
    columns: tuple[str, ...]
    parameters: dict[str, int]
    weights_bytes: int
    checkpoint_bytes: int
    phases: tuple[PhaseFootprint, ...]


def step_kinds(phase: Phase) -> list[StepKind]:
    """Every kind of step that a phase has, by when it first comes."""
    cycle = math.lcm(*(update.every for update in phase.updates))
    whole, rest = divmod(phase.steps, cycle)
    kinds: dict[tuple[Update, ...], StepKind] = {}
    for step in range(min(cycle, phase.steps)):
        due = phase.due(step)
        kind = kinds.get(due, StepKind(updates=due, first=step, steps=0))
        kinds[due] = dataclasses.replace(kind, steps=kind.steps + whole + (step < rest))
    return list(kinds.values())


def footprint(generator: str, config: Any, *, has_average: bool = False) -> Footprint:
    """Build the recipe without memory for its weights, and count. has_average: whether an average of them is kept.

    Raises ValueError for an optimizer whose state has a size we do not know.
    """
    if hasattr(config, "features"):  # they belong to losses, are in no checkpoint, and may have to be fetched
        config = dataclasses.replace(config, features="random")
    with torch.device("meta"):
        recipe = build_recipe(generator, config, seed=0)
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
        phases=tuple(_phase(recipe, phase) for phase in recipe.phases if phase.steps),
    )


def _phase(recipe: Recipe, phase: Phase) -> PhaseFootprint:
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
        raise ValueError(f"how much state {type(optimizer).__name__} keeps is not known; add it to {__name__}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return 2 * _bytes(parameters) + 4 * len(parameters)  # two averages, and a count of steps


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
