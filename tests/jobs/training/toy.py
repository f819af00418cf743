"""The smallest generator with all kinds of state: two networks that alternate, and running statistics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from files.seeds import derive_seed
from jobs.layers.composite import composite
from jobs.layers.normalization import BatchNorm2d
from jobs.recipe.contract import Phase, Recipe, adam, alternating
from jobs.recipe.losses import hinge_fake, hinge_generator, hinge_real


@dataclass(frozen=True, kw_only=True)
class Toy:
    """norm: whether the generator has batch norm over the global batch."""

    steps: int = 40
    batch_size: int = 4
    norm: bool = True


def build_toy(generator: str, config: Toy, seed: int) -> Recipe:
    """Build the toy in place of `jobs.generators.build.build_recipe`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights", generator))
        # No bias before the hinge: its first gradient is 0 up to rounding, which Adam would magnify.
        norm = BatchNorm2d(8) if config.norm else nn.Identity()
        networks = {
            "generator": nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1)),
            "generator_d": nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 3, 2, bias=False)),
        }

    def fill(networks, batch):
        masked = batch.image * (1 - batch.mask)
        return {"output": torch.tanh(networks["generator"](torch.cat((masked, batch.mask), dim=1)))}

    def d_terms(networks, batch, outputs):
        fake = composite(outputs["output"].detach(), batch.image, batch.mask)
        real, fake = networks["generator_d"](torch.cat((batch.image, fake))).chunk(2)
        return {"d_real": hinge_real(real), "d_fake": hinge_fake(fake)}

    def g_terms(networks, batch, outputs):
        noise = 0.1 * batch.uniform(0)[:, None, None, None]  # one number per sample
        fake = composite(outputs["output"], batch.image, batch.mask)
        return {
            "l1": (outputs["output"] - batch.image - noise).abs().mean(),
            "adversarial": 0.01 * hinge_generator(networks["generator_d"](fake)),
        }

    phase = Phase(name="joint", steps=config.steps, updates=alternating(d_terms, g_terms), forward=fill)
    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(networks, 2e-4, 2e-4, (0.5, 0.9)),
        phases=(phase,),
        inpaint=fill,
        batch_size=config.batch_size,
    )
