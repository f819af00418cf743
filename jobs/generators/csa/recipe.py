"""Training of CSA: one phase, in which both discriminators step first, then both generators."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.generators.csa import Config
from jobs.generators.csa.attention import CoherentSemanticAttention
from jobs.generators.csa.losses import consistency, relativistic
from jobs.generators.csa.networks import FeatureDiscriminator, RefinementNetwork, RoughNetwork
from jobs.layers.discriminators import PatchDiscriminator
from jobs.layers.vgg import VGG16, imagenet_normalised, to_unit
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Networks, Outputs, Phase, Recipe, Terms, Update, adam, is_discriminator, make_networks


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build CSA. Initial weights are drawn from torch's global generator.

    The feature discriminator is left out if `feature_adversarial_weight` is 0, and VGG-16 if `consistency_weight` is 0
    as well.
    """
    attention = CoherentSemanticAttention(norm=config.norm, clamp=config.clamp, solver=config.solver)
    shape = {"width": config.width, "levels": config.levels, "fill": config.fill}
    makers: dict[str, Callable[[], nn.Module]] = {
        "rough": lambda: RoughNetwork(**shape),
        "generator": lambda: RefinementNetwork(**shape, attention=attention),
        "generator_d": lambda: PatchDiscriminator(3, config.d_width, spectral=False, norm=True),
    }
    if config.feature_adversarial_weight:
        makers["features_d"] = lambda: FeatureDiscriminator(width=config.d_width, strides=config.feature_d)
    networks = make_networks(makers, for_training=for_training)

    def inpaint(networks: Networks, batch: Batch) -> Outputs:
        rough = networks["rough"](batch.image, batch.mask)
        refined = networks["generator"](rough, batch.image, batch.mask)[0]
        return {"output": refined.clamp(-1, 1), "rough": rough}

    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(
            networks, config.learning_rate, config.d_learning_rate, (config.beta1, config.beta2)
        ),
        phases=(_joint_phase(config, tuple(networks)),) if for_training else (),
        inpaint=inpaint,
        batch_size=config.batch_size,
        multiple=2**config.levels,
    )


def _joint_phase(config: Config, networks: tuple[str, ...]) -> Phase:
    rates = {n: config.d_learning_rate if is_discriminator(n) else config.learning_rate for n in networks}
    discriminators = tuple(n for n in networks if is_discriminator(n))
    return Phase(
        name="joint",
        steps=config.steps,
        forward=_forward(config),
        updates=(
            Update(networks=discriminators, terms=_discriminator_terms),
            Update(networks=("rough", "generator"), terms=_generator_terms(config)),
        ),
        learning_rates={n: _decaying(rate, config) for n, rate in rates.items()},
    )


def _forward(config: Config) -> Callable[[Networks, Batch], Outputs]:
    """Return the forward function, which computes outputs of both generators and features of VGG-16.

    Its outputs in addition to those of the generators:
    real_features, fake_features: pool3 of the real and the refined image, (N, 256, H / 8, W / 8), for the feature
        discriminator.
    target: relu4_3 of the real image, (N, 512, H / 8, W / 8), for the consistency loss.
    """
    judges, compares = bool(config.feature_adversarial_weight), bool(config.consistency_weight)
    layers = {"pool3": judges, "relu4_3": compares}
    real_layers = tuple(layer for layer, is_needed in layers.items() if is_needed)
    real_vgg = VGG16(real_layers, config.features, config.features_seed) if real_layers else None
    # Fakes have their own network, which ends at pool3: no loss reads more of them.
    fake_vgg = VGG16(("pool3",), config.features, config.features_seed) if judges else None

    def seen(image: Tensor) -> Tensor:
        return imagenet_normalised(to_unit(image)) if config.vgg_norm == "imagenet" else image

    def forward(networks: Networks, batch: Batch) -> Outputs:
        rough = networks["rough"](batch.image, batch.mask)
        refined, attended, decoded, hole = networks["generator"](rough, batch.image, batch.mask)
        outputs = {"rough": rough, "refined": refined, "attended": attended, "decoded": decoded, "hole": hole}
        if real_vgg is not None:
            with torch.no_grad():
                real = real_vgg(seen(batch.image))
            outputs |= {name: real[layer] for name, layer in (("real_features", "pool3"), ("target", "relu4_3"))
                        if layer in real}  # fmt: skip
        if fake_vgg is not None:
            outputs["fake_features"] = fake_vgg(seen(refined))["pool3"]
        return outputs

    return forward


def _discriminator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
    # The factors 0.5 are the code's, in addition to the one inside the loss.
    real, fake = networks["generator_d"](torch.cat((batch.image, outputs["refined"].detach()))).chunk(2)
    terms = {"d_image": 0.5 * relativistic(real, fake)}
    if "features_d" in networks:
        both = torch.cat((outputs["real_features"], outputs["fake_features"].detach()))
        real, fake = networks["features_d"](both).chunk(2)
        terms["d_features"] = 0.5 * relativistic(real, fake)
    return terms


def _generator_terms(config: Config) -> Callable[[Networks, Batch, Outputs], Terms]:
    def adversarial(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        with torch.no_grad():  # the scores of real images are constants here; no graph is kept for them
            wanted = discriminator(real)
        return relativistic(discriminator(fake), wanted)

    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        refined = outputs["refined"]
        weighted = {
            "rough_l1": config.l1_weight * F.l1_loss(outputs["rough"], batch.image),
            "refined_l1": config.l1_weight * F.l1_loss(refined, batch.image),
            "adversarial": config.adversarial_weight * adversarial(networks["generator_d"], batch.image, refined),
        }
        if "target" in outputs:
            maps = (outputs["attended"], outputs["decoded"])
            weighted["consistency"] = config.consistency_weight * consistency(maps, outputs["target"], outputs["hole"])
        if "features_d" in networks:
            loss = adversarial(networks["features_d"], outputs["real_features"], outputs["fake_features"])
            weighted["feature_adversarial"] = config.feature_adversarial_weight * loss
        return weighted

    return terms


def _decaying(rate: float, config: Config) -> Callable[[int], float]:
    """Return the schedule of a rate: constant at first, then linear decay from epoch to epoch; 0 in the last epoch."""
    epochs = -(-config.steps // config.steps_per_epoch)

    def at(step: int) -> float:
        decayed = max(0, step // config.steps_per_epoch + 1 - config.constant_epochs)
        return rate * max(0.0, 1 - decayed / max(1, epochs - config.constant_epochs))

    return at
