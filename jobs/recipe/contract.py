"""The contract every paper fulfils: networks, optimizers, phases, and how holes are filled. Read this first.

`jobs/generators/<name>/__init__.py` is the paper's card and holds its `Config`; `recipe.py` beside it offers
`build(config) -> Recipe`. A recipe is data: nothing subclasses a trainer, and the loop knows no paper.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from jobs.recipe.batch import Batch

Networks = Mapping[str, nn.Module]
Outputs = dict[str, Tensor]
Terms = dict[str, Tensor]
Losses = Callable[[Networks, Batch, Outputs], Terms]


@dataclass(frozen=True, kw_only=True)
class Update:
    """One optimizer step: the sum of `terms` is minimised over the parameters of `networks`, all others held fixed.

    networks: names whose optimizers step together.
    terms(networks, batch, outputs): named scalar losses, already weighted. `outputs` is what the phase's `forward`
        returned, once per step, with gradients: detach it where a discriminator is trained. Call networks only through
        the mapping passed in: what is trained there is the distributed wrapper, and a loss that closes over the bare
        module would train unsynchronised. Random numbers come from `batch.uniform`; quotients whose denominator depends
        on the batch from `jobs.recipe.collectives`, or the result would depend on the number of processes.
    every: done at each step whose number from the start of the phase, counted from 1, is a multiple of this.
    """

    networks: tuple[str, ...]
    terms: Losses
    every: int = 1


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Some steps of training in which the same updates follow one another, in order, once per step.

    steps: how many; 0 leaves the phase out.
    forward(networks, batch): what several updates share, usually the generators' outputs; evaluated once per step, with
        gradients for the networks that this step updates.
    learning_rates: network name -> rate from the first step of this phase on, or a function from steps done in this
        phase to the rate of the next; others keep theirs.
    frozen: dotted names of modules, "generator.encoder.norms", that stay in eval mode with their parameters fixed
        though their network is trained.
    train_mode: names of networks that this phase does not train but keeps in training mode, for their batch statistics.
    All other networks that no update names are in eval mode, without gradients.
    """

    name: str
    steps: int
    updates: tuple[Update, ...]
    forward: Callable[[Networks, Batch], Outputs] = lambda networks, batch: {}
    learning_rates: Mapping[str, float | Callable[[int], float]] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    train_mode: tuple[str, ...] = ()

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the networks that some update of this phase moves."""
        return tuple(dict.fromkeys(name for update in self.updates for name in update.networks))

    def due(self, step: int) -> tuple[Update, ...]:
        """The updates of a step, counted from the start of the phase, the first being 0."""
        return tuple(update for update in self.updates if (step + 1) % update.every == 0)

    def set_learning_rates(self, optimizers: Mapping[str, torch.optim.Optimizer], step: int) -> None:
        """Set what this phase says of learning rates at a step, counted from its start."""
        for name, rate in self.learning_rates.items():
            if callable(rate) or step == 0:
                for group in optimizers[name].param_groups:
                    group["lr"] = rate(step) if callable(rate) else rate

    def set_modes(self, networks: Networks) -> None:
        """Put every network, and what is frozen of it, into the mode it has in this phase."""
        for name, network in networks.items():
            network.train(name in self.trained or name in self.train_mode)
        for module in self._frozen_modules(networks):
            module.eval()

    def require_grad(self, networks: Networks, names: Collection[str]) -> None:
        """Let gradients flow to the parameters of the named networks alone, save what is frozen."""
        for name, network in networks.items():
            network.requires_grad_(name in names)
        for module in self._frozen_modules(networks):
            module.requires_grad_(False)

    def _frozen_modules(self, networks: Networks) -> list[nn.Module]:
        return [networks[name.partition(".")[0]].get_submodule(name.partition(".")[2]) for name in self.frozen]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One paper, ready to train.

    networks: by name; discriminators end in `_d`.
    optimizers: one per network, by the network's name.
    batch_size: the global batch, over all workers.
    inpaint(networks, batch): fills holes with networks in eval mode. Returns "output", (N, 3, H, W) in [-1, 1], what
        the network says everywhere, and whatever else is worth showing, such as "edge", (N, 1, H, W) in [0, 1].
        Accepts any H x W that the paper allows, padding and cropping itself; raises ValueError with the rule otherwise.
        Must not depend on what stands under the hole.
    columns: what it needs beside image and mask: "edge", "semantics" or both.
    """

    networks: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    phases: tuple[Phase, ...]
    inpaint: Callable[[Networks, Batch], Outputs]
    batch_size: int
    columns: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Steps of all phases together."""
        return sum(phase.steps for phase in self.phases)


def adam(
    networks: Networks, learning_rate: float, d_learning_rate: float, betas: tuple[float, float]
) -> dict[str, torch.optim.Optimizer]:
    """An Adam for every network: discriminators, whose names end in `_d`, learn at a rate of their own."""
    rates = {name: d_learning_rate if name.endswith("_d") else learning_rate for name in networks}
    return {name: torch.optim.Adam(network.parameters(), rates[name], betas) for name, network in networks.items()}


def alternating(discriminator_terms: Losses, generator_terms: Losses) -> tuple[Update, ...]:
    """One step of "generator_d", then one of "generator"."""
    return (
        Update(networks=("generator_d",), terms=discriminator_terms),
        Update(networks=("generator",), terms=generator_terms),
    )
