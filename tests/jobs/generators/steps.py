"""Steps of a recipe as the training loop takes them, on made-up batches, in one process or in one of two.

`python -m tests.jobs.generators.steps <folder> <rank> <name>...` computes gradients of the named generators, as one of
two processes.
"""

from __future__ import annotations

import dataclasses
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from benchmarks.batches import make_batch
from jobs.generators import card, load
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Networks, Phase, Recipe, Terms, Update


def build_tiny(name: str, seed: int = 0) -> Recipe:
    torch.manual_seed(seed)
    return load(name).build(card(name).Config.tiny())


def start_phase(recipe: Recipe, phase: Phase) -> None:
    phase.set_modes(recipe.networks)


def run_step(
    recipe: Recipe,
    phase: Phase,
    batch: Batch,
    after_update: Callable[[Update, Terms], None] = lambda update, terms: None,
    *,
    step: int | None = None,
    wrapped: Networks | None = None,
) -> Terms:
    """One step of a phase as the training loop does it; `after_update` is called while gradients are still there.

    step: its number in the phase; None does every update, due or not. wrapped: what replaces the networks that train.
    """
    updates = phase.updates if step is None else phase.due(step)
    networks = {**recipe.networks, **(wrapped or {})}
    phase.set_learning_rates(recipe.optimizers, step or 0)
    phase.require_grad(recipe.networks, {name for update in updates for name in update.networks})
    outputs = phase.forward(networks, batch)
    logged: Terms = {}
    for update in updates:
        phase.require_grad(recipe.networks, update.networks)
        seen = {n: networks[n] if n in update.networks else recipe.networks[n] for n in recipe.networks}
        terms = update.terms(seen, batch, outputs)
        torch.stack(tuple(terms.values())).sum().backward()
        for name in update.networks:
            recipe.optimizers[name].step()
        after_update(update, terms)
        for name in update.networks:
            recipe.optimizers[name].zero_grad(set_to_none=True)
        logged |= {key: value.detach() for key, value in terms.items()}
    return logged


def gradients(name: str, rank: int = 0, world_size: int = 1) -> dict[str, dict[str, Tensor]]:
    """Update -> parameter -> gradient of one step of every phase, in float64, of this rank's part of four samples.

    Running statistics after a phase's step are there as its update "statistics".
    """
    recipe = build_tiny(name)
    for network in recipe.networks.values():
        network.double()
    side = getattr(card(name).Config.tiny(), "image_size", 64)
    whole = make_batch((side, side), recipe.columns, num_samples=4)
    part = {
        field.name: value[rank::world_size] for field in dataclasses.fields(whole)
        if (value := getattr(whole, field.name)) is not None
    }  # fmt: skip
    batch = Batch(**{key: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for key, v in part.items()})
    found: dict[str, dict[str, Tensor]] = {}
    for phase in recipe.phases:
        start_phase(recipe, phase)
        phase.require_grad(recipe.networks, phase.trained)
        wrapped = {} if world_size == 1 else {
            key: DistributedDataParallel(recipe.networks[key], broadcast_buffers=False) for key in phase.trained
        }  # fmt: skip

        def keep(update: Update, terms: Terms, phase: Phase = phase) -> None:
            found[f"{phase.name}/{'+'.join(update.networks)}"] = {
                f"{key}.{n}": p.grad.clone()
                for key in update.networks
                for n, p in recipe.networks[key].named_parameters()
                if p.grad is not None
            }

        run_step(recipe, phase, batch, keep, wrapped=wrapped)
        statistics = {
            f"{key}.{n}": b.clone() for key in recipe.networks for n, b in recipe.networks[key].named_buffers()
            if "running" in n
        }  # fmt: skip
        if statistics:
            found[f"{phase.name}/statistics"] = statistics
    return found


def _main(folder: Path, rank: int, names: list[str]) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / "meet"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    found: dict[str, dict[str, dict[str, Tensor]] | str] = {}
    for name in names:
        try:
            found[name] = gradients(name, rank, 2)
        except Exception:  # reported by the test of this generator; the others still run
            found[name] = traceback.format_exc()
    if rank == 0:
        torch.save(found, folder / "gradients.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
