"""The contract of every paper: networks, optimizers, phases, and how holes are filled. Read this first.

`jobs/generators/<name>/__init__.py` is the paper's card and has its `Config`. `recipe.py` beside it has
`build(config, for_training=True) -> Recipe`. A recipe is data: there is no trainer to subclass, and the training loop
knows no paper. With `for_training=False` the recipe only fills holes: it has no phases, and neither discriminators nor
the feature networks of losses are built. A paper that has none of these may leave the argument out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from jobs.recipe.batch import Batch

Networks = Mapping[str, nn.Module]
Outputs = dict[str, Tensor]
Terms = dict[str, Tensor]
Losses = Callable[[Networks, Batch, Outputs], Terms]


@dataclass(frozen=True, kw_only=True)
class Update:
    """One optimizer step. It minimises the sum of `terms` over the parameters of `networks`; all others stay fixed.

    networks: names of the networks whose optimizers step together.
    terms(networks, batch, outputs): returns named scalar losses, already weighted. `outputs` is the result of the
        phase's `forward`, evaluated once per step, with gradients. Detach it to train a discriminator.
        Call networks only through the mapping passed in: the trained ones in it are distributed wrappers, and a loss
        that closes over the bare module would train unsynchronised. Take random numbers from `batch.uniform`, and
        quotients whose denominator depends on the batch from `jobs.recipe.collectives`. Otherwise the result would
        depend on the number of processes.
    every: the update runs at each step whose number in the phase, counted from 1, is a multiple of this.
    """

    networks: tuple[str, ...]
    terms: Losses
    every: int = 1


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A number of steps with the same updates, which run in order once per step.

    name: appears in the names of logged losses.
    steps: number of steps; 0 leaves the phase out.
    updates: in the order in which they run.
    forward(networks, batch): computes what several updates share, usually the generators' outputs. Evaluated once per
        step, with gradients for the networks that this step updates.
    learning_rates: network name -> learning rate from the first step of this phase on, or a function from the number
        of steps done in this phase to the rate of the next. Other networks keep their rates.
    frozen: dotted names of modules, such as "generator.encoder.norms", of trained networks. They stay in eval mode and
        their parameters are fixed.
    fixed_statistics: dotted names of modules of trained networks, such as batch norms. They stay in eval mode while
        their parameters are trained.
    train_mode: names of networks that this phase does not train but keeps in training mode, for their batch statistics.
        All other networks that no update names are in eval mode, without gradients.
    """

    name: str
    steps: int
    updates: tuple[Update, ...]
    forward: Callable[[Networks, Batch], Outputs] = lambda networks, batch: {}
    learning_rates: Mapping[str, float | Callable[[int], float]] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    fixed_statistics: tuple[str, ...] = ()
    train_mode: tuple[str, ...] = ()

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the networks that some update of this phase moves."""
        return tuple(dict.fromkeys(name for update in self.updates for name in update.networks))

    def due(self, step: int) -> tuple[Update, ...]:
        """Return the updates of a step. Steps of a phase are counted from 0."""
        return tuple(update for update in self.updates if (step + 1) % update.every == 0)

    def set_learning_rates(self, optimizers: Mapping[str, torch.optim.Optimizer], step: int) -> None:
        """Set the learning rates of a step. Steps of a phase are counted from 0."""
        for name, rate in self.learning_rates.items():
            if callable(rate) or step == 0:
                for group in optimizers[name].param_groups:
                    group["lr"] = rate(step) if callable(rate) else rate

    def set_modes(self, networks: Networks) -> None:
        """Set training or eval mode of every network and of the modules that this phase keeps in eval mode."""
        for name, network in networks.items():
            network.train(name in self.trained or name in self.train_mode)
        for module in _modules(networks, self.frozen + self.fixed_statistics):
            module.eval()

    def require_grad(self, networks: Networks, names: Collection[str]) -> None:
        """Require gradients of the named networks' parameters only, without those of frozen modules."""
        for name, network in networks.items():
            network.requires_grad_(name in names)
        for module in _modules(networks, self.frozen):
            module.requires_grad_(False)


def _modules(networks: Networks, names: tuple[str, ...]) -> list[nn.Module]:
    """Return modules of networks by their dotted names."""
    return [networks[name.partition(".")[0]].get_submodule(name.partition(".")[2]) for name in names]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One paper, ready to train.

    networks: by name; names of discriminators end in `_d`.
    make_optimizers: makes one optimizer per network, by the network's name. Called for training only.
    phases: in the order in which they are trained.
    inpaint(networks, batch): fills holes with networks in eval mode. Returns "output", (N, 3, H, W) in [-1, 1], the
        network's prediction of every pixel, and other maps worth showing, such as "edge", (N, 1, H, W) in [0, 1].
        The result must not depend on the pixels under the hole. Call it through `jobs.generators.build.inpaint`, which
        pads and crops. Raises UserError for a batch that it cannot fill, with the rule.
    batch_size: of the global batch, over all workers.
    columns: columns it needs beside image and mask: "edge", "semantics" or both.
    multiple: H and W of the batches that `inpaint` gets are multiples of it.
    smallest_side: shortest H or W that can be inpainted, in pixels, before padding.
    finish(outputs, batch): changes the cropped outputs. It gets the batch as it was before padding.
    differentiated_twice: names of networks of which a loss differentiates a gradient, as a gradient penalty does. They
        are never compiled, since PyTorch cannot differentiate compiled code twice.
    feature_networks: those of losses, neither trained nor saved. `build_recipe` fills them in.
    """

    networks: dict[str, nn.Module]
    make_optimizers: Callable[[], dict[str, torch.optim.Optimizer]]
    phases: tuple[Phase, ...]
    inpaint: Callable[[Networks, Batch], Outputs]
    batch_size: int
    columns: tuple[str, ...] = ()
    multiple: int = 1
    smallest_side: int = 1
    finish: Callable[[Outputs, Batch], Outputs] = lambda outputs, batch: outputs
    differentiated_twice: tuple[str, ...] = ()
    feature_networks: tuple[nn.Module, ...] = ()

    @cached_property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The optimizers, made at the first access. PyTorch takes seconds for its first one."""
        return self.make_optimizers()

    @property
    def steps(self) -> int:
        """Steps of all phases together."""
        return sum(phase.steps for phase in self.phases)


def is_discriminator(name: str) -> bool:
    """Tell from a network's name whether it is a discriminator."""
    return name.endswith("_d")


def make_networks(makers: Mapping[str, Callable[[], nn.Module]], *, for_training: bool) -> dict[str, nn.Module]:
    """Make the networks of a recipe in the order of their names in the mapping, which decides their initial weights.

    makers: name of a network -> function that makes it.
    for_training: False leaves out the discriminators, which fill no hole.
    """
    return {name: make() for name, make in makers.items() if for_training or not is_discriminator(name)}


def adam(
    networks: Networks, learning_rate: float, d_learning_rate: float, betas: tuple[float, float]
) -> dict[str, torch.optim.Optimizer]:
    """Make one Adam per network. It reads and writes every parameter and its moments once per step (`fused`).

    networks: by name.
    learning_rate, d_learning_rate: of generators and of discriminators.
    betas: Adam's decay rates.
    """
    rates = {name: d_learning_rate if is_discriminator(name) else learning_rate for name in networks}
    return {
        name: torch.optim.Adam(network.parameters(), rates[name], betas, fused=True)
        for name, network in networks.items()
    }


def alternating(discriminator_terms: Losses, generator_terms: Losses) -> tuple[Update, ...]:
    """Return two updates: one of "generator_d", then one of "generator"."""
    return (
        Update(networks=("generator_d",), terms=discriminator_terms),
        Update(networks=("generator",), terms=generator_terms),
    )
