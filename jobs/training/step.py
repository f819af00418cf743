"""One training step: the phase's forward, its updates, and the guard that applies an update everywhere or nowhere."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from files.errors import UserError
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Networks, Outputs, Phase, Recipe, Terms, Update, is_discriminator
from jobs.training.settings import TrainConfig

log = logging.getLogger(__name__)

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingError(UserError):
    """Training cannot go on, and would fail again; the message says at which step, why, and what to do."""


class TrainingStep:
    """Computes the updates of a recipe's steps on one device, for this process's share of the global batch.

    recipe: its networks lie on `device`. config: precision, accumulation, clipping and average, see `TrainConfig`.
    What it keeps from step to step is in `state` and `averages`, beside the recipe's networks and optimizers.
    """

    def __init__(self, recipe: Recipe, config: TrainConfig, device: torch.device) -> None:
        self.recipe = recipe
        self.config = config
        self.device = device
        self.skipped = 0
        """Updates that were not applied, in a row."""
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.averages: dict[str, AveragedModel] = {}
        """Network name -> its exponential moving average; discriminators have none."""
        if config.ema_decay is not None:
            average = get_ema_multi_avg_fn(config.ema_decay)
            self.averages = {
                name: AveragedModel(network, multi_avg_fn=average)
                for name, network in recipe.networks.items()
                if not is_discriminator(name)
            }
        if config.compile:
            for name, network in recipe.networks.items():
                if not is_discriminator(name):  # a gradient penalty differentiates twice, which compiled code cannot
                    network.compile()
        self._wrapped: Networks = {}

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside tensors, as plain data."""
        return {"skipped": self.skipped, "loss_scale": self._scaler.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.skipped = state["skipped"]
        if state["loss_scale"]:
            self._scaler.load_state_dict(state["loss_scale"])

    @property
    def trained_networks(self) -> dict[str, nn.Module]:
        """The networks as they are used after training: averages where there are any."""
        return {
            name: self.averages[name].module if name in self.averages else network
            for name, network in self.recipe.networks.items()
        }

    def start(self, phase: Phase, wrapped: Networks | None = None) -> None:
        """Prepare for the steps of a phase. wrapped: the distributed wrappers of the networks that it trains."""
        phase.require_grad(self.recipe.networks, phase.trained)
        phase.set_modes(self.recipe.networks)
        self._wrapped = {**self.recipe.networks, **(wrapped or {})}
        # What a forward pass changes beside the gradients: running statistics, power iterations.
        self._buffers = [
            b for name in (*phase.trained, *phase.train_mode) for b in self.recipe.networks[name].buffers()
        ]
        self._kept = [buffer.clone() for buffer in self._buffers]

    def __call__(self, phase: Phase, step: int, batch: Batch) -> Terms:
        """Do the updates of a step, counted from the start of the phase; returns their terms, detached, by name.

        An update whose loss or gradients are not finite on any process is applied on none; then the step ends, and the
        buffers are what they were before it. Earlier updates of the same step stand.
        Raises TrainingError when that happens `max_skipped` times in a row.
        """
        if self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)
        parts = batch.micro_batches(self.config.accumulate)
        updates = phase.due(step)
        shared = self._shared_outputs(phase, updates, batch) if len(parts) == 1 else None
        logged: Terms = {}
        for update in updates:
            terms = self._gradients(phase, update, parts, shared)
            logged.update(terms)
            if not self._apply(update):
                self._skip(update, terms)
                return logged
        self.skipped = 0
        return logged

    def _shared_outputs(self, phase: Phase, updates: tuple[Update, ...], batch: Batch) -> Outputs:
        phase.require_grad(self.recipe.networks, {name for update in updates for name in update.networks})
        with self._autocast():
            return phase.forward(self._wrapped, batch)

    def _gradients(self, phase: Phase, update: Update, parts: list[Batch], shared: Outputs | None) -> Terms:
        """Leave the gradients of an update's loss, averaged over the parts of the batch; returns the terms' means."""
        networks = self.recipe.networks
        phase.require_grad(networks, update.networks)
        # What this update does not train is called without its distributed wrapper, which would wait for gradients.
        seen = {name: self._wrapped[name] if name in update.networks else networks[name] for name in networks}
        sums: Terms = {}
        for index, part in enumerate(parts):
            with self._exchange(update, wanted=index == len(parts) - 1):
                with self._autocast():
                    outputs = phase.forward(seen, part) if shared is None else shared
                    terms = update.terms(seen, part, outputs)
                loss = torch.stack(tuple(terms.values())).sum()
                # A loss that is not finite spoils this process's gradients, and by their average everybody's: so all
                # processes find out together, without a message of their own.
                finite = torch.where(loss.detach().isfinite(), 1.0, float("nan")).to(loss.dtype)
                loss.backward(self._scaler.scale(finite / len(parts)))
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach() / len(parts)
        return sums

    def _apply(self, update: Update) -> bool:
        """Step the optimizers of an update, unless a gradient is not finite; returns whether it did."""
        optimizers = [self.recipe.optimizers[name] for name in update.networks]
        for optimizer in optimizers:
            self._scaler.unscale_(optimizer)
        parameters = [p for o in optimizers for group in o.param_groups for p in group["params"] if p.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in parameters])
        is_finite = bool(norm.isfinite())
        if is_finite:
            if self.config.clip_norm is not None:
                clip_grads_with_norm_(parameters, self.config.clip_norm, norm)
            for optimizer in optimizers:
                optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        self._scaler.update()
        if is_finite:
            for name in update.networks:
                if name in self.averages:
                    self.averages[name].update_parameters(self.recipe.networks[name])
        return is_finite

    def _skip(self, update: Update, terms: Terms) -> None:
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._kept)
        self.skipped += 1
        wrong = [f"{name} is {value.item()}" for name, value in terms.items() if not value.isfinite()]
        cause = wrong[0] if wrong else f"a gradient of {', '.join(update.networks)}, here or elsewhere, is not finite"
        log.warning("an update of %s was not applied: %s", ", ".join(update.networks), cause)
        if self.skipped >= self.config.max_skipped:
            raise TrainingError(
                f"{cause}; {self.skipped} updates in a row were not applied. The weights are finite and the last "
                "checkpoint is kept; lower the learning rate or the weight of that term in params.yaml"
            )

    def _autocast(self) -> torch.autocast:
        dtype = _DTYPES.get(self.config.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    @contextlib.contextmanager
    def _exchange(self, update: Update, *, wanted: bool) -> Iterator[None]:
        """Exchange gradients with the other processes only where wanted: with the last part of a batch."""
        with contextlib.ExitStack() as stack:
            for name in update.networks:
                if not wanted and isinstance(self._wrapped[name], nn.parallel.DistributedDataParallel):
                    stack.enter_context(self._wrapped[name].no_sync())
            yield
