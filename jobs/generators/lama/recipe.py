"""Recipe of LaMa: in every step the generator's update, then the discriminator's on the same prediction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jobs.generators.lama import Config
from jobs.generators.lama.losses import fake_loss, feature_matching, gradient_penalty, l1_of_known, stage_distance
from jobs.generators.lama.networks import MULTIPLE, SMALLEST_SIDE, Discriminator, Generator
from jobs.layers.composite import composite
from jobs.layers.resnet import ResNet50
from jobs.layers.vgg import imagenet_normalised, to_unit
from jobs.recipe.batch import Batch
from jobs.recipe.collectives import all_sum
from jobs.recipe.contract import Losses, Networks, Outputs, Phase, Recipe, Terms, Update, adam, make_networks
from jobs.recipe.losses import bce_real
from jobs.recipe.precision import wide_dtype


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build LaMa with initial weights from torch's global generator."""
    makers = {
        "generator": lambda: Generator(width=config.width, blocks=config.blocks),
        "generator_d": lambda: Discriminator(width=config.d_width),
    }
    networks = make_networks(makers, for_training=for_training)
    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(
            networks, config.learning_rate, config.d_learning_rate, (config.beta1, config.beta2)
        ),
        phases=_phases(config) if for_training else (),
        inpaint=lambda networks, batch: {"output": networks["generator"](batch.image, batch.mask)},
        batch_size=config.batch_size,
        multiple=MULTIPLE,
        smallest_side=SMALLEST_SIDE,
        differentiated_twice=("generator_d",),
    )


def _phases(config: Config) -> tuple[Phase, ...]:
    return (
        Phase(
            name="train",
            steps=config.steps,
            forward=_forward(config),
            updates=(
                Update(networks=("generator",), terms=_generator_terms(config)),
                Update(networks=("generator_d",), terms=_discriminator_terms(config)),
            ),
        ),
    )


# The updates share these outputs, both (N, 3, H, W) in [0, 1]: "predicted", the generator's; "judged", the image that
# discriminator and feature networks see.


def _forward(config: Config) -> Callable[[Networks, Batch], Outputs]:
    def forward(networks: Networks, batch: Batch) -> Outputs:
        predicted = to_unit(networks["generator"](batch.image, batch.mask).to(batch.image.dtype))
        is_composite = config.adversarial_on == "composite"
        judged = composite(predicted, to_unit(batch.image), batch.mask) if is_composite else predicted
        return {"predicted": predicted, "judged": judged}

    return forward


def _generator_terms(config: Config) -> Losses:
    features_of = _features(config)

    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        image, judged = to_unit(batch.image), outputs["judged"]
        # Real and fake images need a pass each: they must not share the statistics of batch normalisation.
        *fake_features, scores = networks["generator_d"](judged)
        with torch.no_grad():
            *real_features, _ = networks["generator_d"](image)
        weighted = {
            "l1": config.l1_weight * l1_of_known(outputs["predicted"], image, batch.mask),
            "adversarial": config.adversarial_weight * bce_real(scores),
            "feature_matching": config.feature_matching_weight * feature_matching(fake_features, real_features),
        }
        if features_of is not None:
            with torch.no_grad():
                targets = features_of(image)
            weighted["perceptual"] = config.perceptual_weight * stage_distance(features_of(judged), targets)
        # Without any known pixel all maps are constant, and each batch norm multiplies the gradient by 1 / sqrt(eps).
        has_known = (all_sum((1 - batch.mask).sum()) > 0).to(image.dtype)
        return {name: has_known * term for name, term in weighted.items()}

    return terms


def _features(config: Config) -> Callable[[Tensor], list[Tensor]] | None:
    """Return the function from images in [0, 1] to features; None if no loss needs them."""
    if not config.perceptual_weight:
        return None
    network = ResNet50(
        config.features,
        dilated=config.features_dilated,
        stem=config.features_stem,
        sha256=config.features_sha256,
        seed=config.features_seed,
    )
    return lambda image: network(imagenet_normalised(image))


def _discriminator_terms(config: Config) -> Losses:
    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        judge, fake = networks["generator_d"], outputs["judged"].detach()
        dtype = wide_dtype(batch.image)
        with torch.autocast(batch.image.device.type, enabled=False):  # the penalty is a gradient of a gradient
            image = to_unit(batch.image).to(dtype).requires_grad_()
            real_scores = judge(image)[-1]
            penalty = gradient_penalty(real_scores, image)
        return {
            "d_real": bce_real(real_scores),
            "d_fake": fake_loss(judge(fake)[-1], batch.mask),
            "d_penalty": config.gradient_penalty_weight * penalty,
        }

    return terms
