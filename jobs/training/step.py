"""One training step: the phase's forward pass, its updates, and the guard that skips an update that is not finite."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from files.errors import UserError
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Networks, Outputs, Phase, Recipe, Terms, Update, is_discriminator
from jobs.training.average import MovingAverage
from jobs.training.settings import TrainConfig

log = logging.getLogger(__name__)

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingError(UserError):
    """Training cannot continue, and would fail again. The message says at which step, why, and what to do."""


class TrainingStep:
    """Compute the steps of a recipe on one device, for this process's share of the global batch.

    recipe: its networks are on the device.
    config: precision, accumulation, clipping and average.

    Between steps it keeps `state` and `averages`, beside the recipe's networks and optimizers.
    """

    def __init__(self, recipe: Recipe, config: TrainConfig, device: torch.device) -> None:
        self.recipe = recipe
        self.config = config
        self.device = device
        self.skipped = 0
        """Number of updates in a row that were not applied."""
        self.averages = _make_averages(recipe.networks, config.ema_decay)
        """Network name -> its exponential moving average; discriminators have none."""
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self._phase: _PhaseInTraining | None = None
        if config.compile:
            for name in _generator_names(recipe.networks):
                recipe.networks[name].compile()

    @property
    def state(self) -> dict[str, Any]:
        """State that a checkpoint keeps beside tensors, as JSON."""
        return {"skipped": self.skipped, "loss_scale": self._scaler.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`."""
        self.skipped = state["skipped"]
        if state["loss_scale"]:
            self._scaler.load_state_dict(state["loss_scale"])

    @property
    def trained_networks(self) -> dict[str, nn.Module]:
        """Networks to use after training: the average of a network where there is one."""
        return {
            name: self.averages[name].module if name in self.averages else network
            for name, network in self.recipe.networks.items()
        }

    def start(self, phase: Phase, wrapped: Networks | None = None) -> None:
        """Prepare for the steps of a phase.

        wrapped: distributed wrappers of the networks that the phase trains, by name; None in a single process.
        """
        self._phase = _PhaseInTraining(phase, self.recipe.networks, wrapped or {})

    def __call__(self, step: int, batch: Batch) -> Terms:
        """Compute and apply the updates of one step of the phase that was started.

        step: counted from the start of the phase, the first being 0.
        batch: this process's share.

        Returns the terms of the updates, detached, by name. If the loss or a gradient of an update is not finite on any
        process, the update is applied on none, the step ends, and the buffers are restored to those before the step.
        Earlier updates of the step are kept.
        Raises TrainingError when that has happened `max_skipped` times in a row.
        """
        current = self._phase
        current.copy_buffers()
        micro_batches = batch.micro_batches(self.config.accumulate)
        updates = current.phase.due(step)
        # With one micro-batch its forward pass is shared by all updates; otherwise each update computes its own.
        outputs = self._forward(current, updates, batch) if len(micro_batches) == 1 else None
        terms: Terms = {}
        for update in updates:
            update_terms = self._compute_gradients(current, update, micro_batches, outputs)
            terms.update(update_terms)
            if not self._apply(update):
                current.restore_buffers()
                self._count_skipped(update, update_terms)
                return terms
        self.skipped = 0
        return terms

    def _forward(self, current: _PhaseInTraining, updates: tuple[Update, ...], batch: Batch) -> Outputs:
        current.require_grad(name for update in updates for name in update.networks)
        with self._autocast():
            return current.phase.forward(current.wrapped, batch)

    def _compute_gradients(
        self, current: _PhaseInTraining, update: Update, micro_batches: list[Batch], outputs: Outputs | None
    ) -> Terms:
        """Leave the gradients of an update's loss, averaged over the micro-batches.

        outputs: of the shared forward pass; None computes one for each micro-batch.

        Returns the mean of each term.
        """
        current.require_grad(update.networks)
        networks = current.networks_of(update)
        means: Terms = {}
        for index, micro_batch in enumerate(micro_batches):
            is_last = index == len(micro_batches) - 1
            with contextlib.nullcontext() if is_last else current.no_exchange(update):
                with self._autocast():
                    own = current.phase.forward(networks, micro_batch) if outputs is None else outputs
                    terms = update.terms(networks, micro_batch, own)
                self._backward(torch.stack(tuple(terms.values())).sum(), len(micro_batches))
            for name, value in terms.items():
                means[name] = means.get(name, 0) + value.detach() / len(micro_batches)
        return means

    def _backward(self, loss: Tensor, num_micro_batches: int) -> None:
        """Add the gradients of a loss. All of them are NaN if it is not finite.

        By the average over processes they become NaN everywhere, so that all processes skip the update without another
        message.
        """
        factor = torch.where(loss.detach().isfinite(), 1.0, float("nan")).to(loss.dtype)
        loss.backward(self._scaler.scale(factor / num_micro_batches))

    def _apply(self, update: Update) -> bool:
        """Step the optimizers of an update, unless a gradient is not finite. Returns whether it did."""
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
                    self.averages[name].update(self.recipe.networks[name])
        return is_finite

    def _count_skipped(self, update: Update, terms: Terms) -> None:
        """Log an update that was not applied. Raises TrainingError if there were too many in a row."""
        self.skipped += 1
        names = ", ".join(update.networks)
        causes = [f"{name} is {value.item()}" for name, value in terms.items() if not value.isfinite()]
        cause = causes[0] if causes else f"a gradient of {names}, here or elsewhere, is not finite"
        log.warning("an update of %s was not applied: %s", names, cause)
        if self.skipped >= self.config.max_skipped:
            raise TrainingError(
                f"{cause}; {self.skipped} updates in a row were not applied. The weights are finite and the last "
                "checkpoint is kept; lower the learning rate or the weight of that term in params.yaml"
            )

    def _autocast(self) -> torch.autocast:
        dtype = _DTYPES.get(self.config.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)


class _PhaseInTraining:
    """A phase with its networks in the right modes, their distributed wrappers, and a copy of their buffers.

    networks: all networks of the recipe, not wrapped.
    wrappers: distributed wrappers of the networks that the phase trains.
    """

    def __init__(self, phase: Phase, networks: Networks, wrappers: Networks) -> None:
        phase.require_grad(networks, phase.trained)
        phase.set_modes(networks)
        self.phase = phase
        self.networks = networks
        self.wrapped = {**networks, **wrappers}
        # A forward pass changes them beside the gradients: running statistics, power iterations.
        self._buffers = [b for name in (*phase.trained, *phase.train_mode) for b in networks[name].buffers()]
        self._copies = [buffer.clone() for buffer in self._buffers]

    def copy_buffers(self) -> None:
        """Keep the present buffers for `restore_buffers`."""
        if self._buffers:
            torch._foreach_copy_(self._copies, self._buffers)

    def restore_buffers(self) -> None:
        """Set the buffers to those of the last `copy_buffers`."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._copies)

    def require_grad(self, names: Iterable[str]) -> None:
        """Let gradients flow to the parameters of the named networks alone."""
        self.phase.require_grad(self.networks, set(names))

    def networks_of(self, update: Update) -> Networks:
        """Return all networks, those that the update trains in their wrappers.

        The others are called without: a wrapper whose network gets no gradients would wait for them.
        """
        return {**self.networks, **{name: self.wrapped[name] for name in update.networks}}

    @contextlib.contextmanager
    def no_exchange(self, update: Update) -> Iterator[None]:
        """Keep an update's gradients in this process. The pass of the last micro-batch, outside, averages their sum."""
        with contextlib.ExitStack() as stack:
            for name in update.networks:
                if isinstance(self.wrapped[name], nn.parallel.DistributedDataParallel):
                    stack.enter_context(self.wrapped[name].no_sync())
            yield


def _make_averages(networks: Networks, decay: float | None) -> dict[str, MovingAverage]:
    if decay is None:
        return {}
    return {name: MovingAverage(networks[name], decay) for name in _generator_names(networks)}


def _generator_names(networks: Networks) -> list[str]:
    """Return the names of the networks that are averaged and compiled: all but discriminators.

    A gradient penalty differentiates a discriminator twice, which compiled code cannot.
    """
    return [name for name in networks if not is_discriminator(name)]
