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
from jobs.training.buffers import BufferCopies, by_dtype, step_unless
from jobs.training.guard import Guard
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
        self._guard = Guard(device)
        self.averages = _make_averages(recipe.networks, config.ema_decay)
        """Network name -> its exponential moving average; discriminators have none."""
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self._phase: _PhaseInTraining | None = None
        if config.compile:
            for network in _compilable(recipe):
                network.compile()

    @property
    def state(self) -> dict[str, Any]:
        """State that a checkpoint keeps beside tensors, as JSON."""
        return {"skipped": self.skipped, "loss_scale": self._scaler.state_dict()}

    @property
    def skipped(self) -> int:
        """Number of steps in a row, up to the last one, with an update that was not applied."""
        return self._guard.in_a_row

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore a `state`."""
        self._guard.in_a_row = state["skipped"]
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
        self._phase = _PhaseInTraining(phase, self.recipe.networks, wrapped or {}, self.averages)

    def __call__(self, step: int, batch: Batch) -> Terms:
        """Compute and apply the updates of one step of the phase that was started.

        step: counted from the start of the phase, the first being 0.
        batch: this process's share.

        Returns the terms of the updates, detached, by name. If the loss or a gradient of an update is not finite on any
        process, neither this update nor a later one of the step is applied on any, and the buffers are restored to
        those before the step. Earlier updates of the step are kept. On a CPU, `check` follows at once.
        """
        current = self._phase
        current.copy_buffers()
        micro_batches = batch.micro_batches(self.config.accumulate)
        updates = current.phase.due(step)
        # With one micro-batch its forward pass is shared by all updates; otherwise each update computes its own.
        outputs = self._forward(current, updates, batch) if len(micro_batches) == 1 else None
        terms: Terms = {}
        self._guard.begin_step()
        for update in updates:
            update_terms = self._compute_gradients(current, update, micro_batches, outputs)
            terms.update(update_terms)
            self._apply(update, update_terms)
        current.restore_buffers_if(self._guard.failed)  # not earlier: a graph of the step may need them
        self._guard.end_step()
        if self.device.type == "cpu":
            self.check()
        return terms

    def check(self) -> None:
        """Log the updates that were not applied since the last call. On a GPU this waits for the steps so far.

        Raises TrainingError if there were `max_skipped` in a row.
        """
        in_a_row, failures = self._guard.read()
        for failure in failures:
            times = f" at {failure.count} steps" if failure.count > 1 else ""
            log.warning("an update of %s was not applied%s: %s", ", ".join(failure.networks), times, failure.cause)
        if failures and in_a_row >= self.config.max_skipped:
            raise TrainingError(
                f"{failures[-1].cause}; {in_a_row} updates in a row were not applied. The weights are finite and the "
                "last checkpoint is kept; lower the learning rate or the weight of that term in params.yaml"
            )

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

    def _apply(self, update: Update, terms: Terms) -> None:
        """Step the optimizers of an update and take its weights into the averages, unless the guard has judged."""
        optimizers = [self.recipe.optimizers[name] for name in update.networks]
        for optimizer in optimizers:
            self._scaler.unscale_(optimizer)
        parameters = [p for o in optimizers for group in o.param_groups for p in group["params"] if p.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in parameters])
        self._guard.judge(update, terms, norm)
        if self.config.clip_norm is not None:
            clip_grads_with_norm_(parameters, self.config.clip_norm, norm)
        for optimizer in optimizers:
            self._step_unless_failed(optimizer)
            optimizer.zero_grad(set_to_none=True)
        self._scaler.update()
        for name in update.networks:
            if name in self.averages:
                self.averages[name].update(self.recipe.networks[name])

    def _step_unless_failed(self, optimizer: torch.optim.Optimizer) -> None:
        if getattr(optimizer, "_step_supports_amp_scaling", False):  # fused: it looks at `found_inf` on the device
            optimizer.found_inf = self._guard.failed
            optimizer.step()
        elif self.device.type == "cuda" and optimizer.state:
            step_unless(optimizer, self._guard.failed)
        elif self._guard.failed == 0:  # the host waits, at a GPU's first step alone
            optimizer.step()

    def _autocast(self) -> torch.autocast:
        dtype = _DTYPES.get(self.config.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)


class _PhaseInTraining:
    """A phase with its networks in the right modes, their distributed wrappers, and a copy of their buffers.

    networks: all networks of the recipe, not wrapped.
    wrappers: distributed wrappers of the networks that the phase trains.
    averages: moving averages of some networks.
    """

    def __init__(
        self, phase: Phase, networks: Networks, wrappers: Networks, averages: Mapping[str, MovingAverage]
    ) -> None:
        phase.require_grad(networks, phase.trained)
        phase.set_modes(networks)
        self.phase = phase
        self.networks = networks
        self.wrapped = {**networks, **wrappers}
        # A forward pass changes them beside the gradients: running statistics, power iterations.
        changed = [networks[name] for name in (*phase.trained, *phase.train_mode)]
        changed += [averages[name].module for name in phase.trained if name in averages]
        self._buffers = [BufferCopies(each) for each in by_dtype(b for network in changed for b in network.buffers())]

    def copy_buffers(self) -> None:
        """Keep the present buffers for `restore_buffers_if`."""
        for copies in self._buffers:
            copies.take()

    def restore_buffers_if(self, condition: Tensor) -> None:
        """Set the buffers to those of the last `copy_buffers` if a scalar on their device is not 0."""
        for copies in self._buffers:
            copies.put_back_if(condition)

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
    return {name: MovingAverage(networks[name], decay) for name in networks if not is_discriminator(name)}


def _compilable(recipe: Recipe) -> list[nn.Module]:
    """Return the networks that can be compiled."""
    once = [network for name, network in recipe.networks.items() if name not in recipe.differentiated_twice]
    return [*once, *recipe.feature_networks]
