"""One training step in one process: the updates of a phase that are due, with their losses and optimizers, in order."""

from __future__ import annotations

import contextlib

import torch

from jobs.batches import Batch
from jobs.recipe import Phase, Recipe, Terms
from jobs.settings import TrainConfig

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingStep:
    """Computes the updates of a recipe's steps on one device, on which its networks lie, without other processes."""

    def __init__(self, recipe: Recipe, config: TrainConfig, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self._dtype = _DTYPES.get(config.precision)

    def start(self, phase: Phase) -> None:
        """Prepare for the steps of a phase."""
        phase.set_modes(self.recipe.networks)

    def __call__(self, phase: Phase, step: int, batch: Batch) -> Terms:
        """Do the updates of a step, counted from the start of the phase; returns their terms, detached, by name."""
        networks, updates = self.recipe.networks, phase.due(step)
        logged: Terms = {}
        phase.require_grad(networks, {name for update in updates for name in update.networks})
        with self._autocast():
            outputs = phase.forward(networks, batch)
        for update in updates:
            phase.require_grad(networks, update.networks)
            with self._autocast():
                terms = update.terms(networks, batch, outputs)
            torch.stack(tuple(terms.values())).sum().backward()
            for name in update.networks:
                self.recipe.optimizers[name].step()
                self.recipe.optimizers[name].zero_grad(set_to_none=True)
            logged |= {name: value.detach() for name, value in terms.items()}
        return logged

    def _autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device.type, self._dtype) if self._dtype else contextlib.nullcontext()
