"""The contract every paper fulfils: networks, optimizers, phases, and how holes are filled. Read this first.

`jobs/generators/<name>/__init__.py` is the paper's card and holds its `Config`; `recipe.py` beside it offers
`build(config) -> Recipe`. A recipe is data: nothing subclasses a trainer, and the loop knows no paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from datasets.plan import derive_seed
from jobs.batches import Batch
from jobs.generators import load

Networks = Mapping[str, nn.Module]
Outputs = dict[str, Tensor]
Terms = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Update:
    """One optimizer step: the sum of `terms` is minimised over the parameters of `networks`, all others held fixed.

    networks: names whose optimizers step together.
    terms(networks, batch, outputs): named scalar losses, already weighted. `outputs` is what the phase's `forward`
        returned, once per step, with gradients: detach it where a discriminator is trained. Call networks only through
        the mapping passed in: what is trained there is the distributed wrapper, and a loss that closes over the bare
        module would train unsynchronised.
    """

    networks: tuple[str, ...]
    terms: Callable[[Networks, Batch, Outputs], Terms]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Some steps of training in which the same updates follow one another, in order, once per step.

    steps: how many; 0 leaves the phase out.
    forward(networks, batch): what several updates share, usually the generators' outputs; evaluated once per step.
    learning_rates: network name -> rate from the first step of this phase on; others keep theirs.
    Networks named in no update of the phase are in eval mode, without gradients.
    """

    name: str
    steps: int
    updates: tuple[Update, ...]
    forward: Callable[[Networks, Batch], Outputs] = lambda networks, batch: {}
    learning_rates: Mapping[str, float] = field(default_factory=dict)

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the networks that some update of this phase moves."""
        return tuple(dict.fromkeys(name for update in self.updates for name in update.networks))


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
    columns: what it needs beside image and mask, such as ("edge",).
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


def composite(output: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """The output in the hole, the image elsewhere, the latter bit for bit.

    output, image: (N, 3, H, W); mask: (N, 1, H, W), 1 = hole.
    """
    return mask * output + (1 - mask) * image


def build_recipe(generator: str, config: Any, seed: int) -> Recipe:
    """The recipe with its initial weights, which depend on the seed and the generator's name alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights", generator))
        return load(generator).build(config)


def inpaint(recipe: Recipe, batch: Batch) -> dict[str, Tensor]:
    """The recipe's `inpaint` as it is used everywhere: networks in eval mode, where they stay, and no gradients."""
    for network in recipe.networks.values():
        network.eval()
    with torch.no_grad():
        return recipe.inpaint(recipe.networks, batch)
