"""Recipe of DeepFill v1: train the coarse network alone if set, then the critics and, less often, the generator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from jobs.generators.deepfill_v1 import Config
from jobs.generators.deepfill_v1.losses import box_discount, gradient_penalty, hole_discount, l1_of_known
from jobs.generators.deepfill_v1.networks import Critic, Generator
from jobs.layers.composite import composite
from jobs.layers.constants import placed_like
from jobs.layers.windows import crop_windows, window_around_hole
from jobs.recipe.batch import Batch
from jobs.recipe.contract import (
    Losses,
    Networks,
    Outputs,
    Phase,
    Recipe,
    Terms,
    Update,
    adam,
    is_discriminator,
    make_networks,
)


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build DeepFill v1 with initial weights from torch's global generator."""
    critic = {"width": config.d_width, "tf_same": config.tf_same}
    makers: dict[str, Callable[[], nn.Module]] = {
        "generator": lambda: Generator(
            width=config.width, mask_pool=config.mask_pool, tf_same=config.tf_same, attention=config.attention
        ),
        "global_d": lambda: Critic(size=config.image_size, factors=(1, 2, 4, 4), **critic),
    }
    if config.local_critic:
        makers["local_d"] = lambda: Critic(size=config.local_size, factors=(1, 2, 4, 8), **critic)
    networks = make_networks(makers, for_training=for_training)

    def inpaint(networks: Networks, batch: Batch) -> Outputs:
        coarse, refined = networks["generator"](batch.image, batch.mask)
        return {"output": refined, "coarse": coarse}

    critics = tuple(name for name in networks if is_discriminator(name))
    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(
            networks, config.learning_rate, config.d_learning_rate, (config.beta1, config.beta2)
        ),
        phases=_phases(config, critics) if for_training else (),
        inpaint=inpaint,
        batch_size=config.batch_size,
        multiple=8,
        differentiated_twice=critics,
    )


def _phases(config: Config, critics: tuple[str, ...]) -> tuple[Phase, Phase]:
    reconstruct = _reconstruction(config)
    coarse_terms = _coarse_terms(config, reconstruct)
    train_critics = Update(networks=critics, terms=_critic_terms(config, critics))
    generator_terms = _generator_terms(config, critics, coarse_terms, reconstruct)
    return (
        Phase(
            name="pretrain",
            steps=config.pretrain_steps,
            forward=_predict_coarse,
            updates=(Update(networks=("generator",), terms=coarse_terms),),
            frozen=("generator.refinement",),
        ),
        Phase(
            name="adversarial",
            steps=config.steps,
            forward=_predict,
            updates=(
                train_critics,
                Update(networks=("generator",), terms=generator_terms, every=config.num_critic),
            ),
        ),
    )


def _predict_coarse(networks: Networks, batch: Batch) -> Outputs:
    (coarse,) = networks["generator"](batch.image, batch.mask, refine=False)
    return {"coarse": coarse}


def _predict(networks: Networks, batch: Batch) -> Outputs:
    coarse, refined = networks["generator"](batch.image, batch.mask)
    return {"coarse": coarse, "refined": refined, "completed": composite(refined, batch.image, batch.mask)}


def _box(config: Config, image: Tensor, batch: Batch) -> Tensor:
    """Cut the window around the hole out of each sample."""
    return crop_windows(image, window_around_hole(batch.mask, config.local_size), config.local_size)


def _view(config: Config, critic: str, image: Tensor, batch: Batch) -> Tensor:
    """Return a critic's view of an image: the whole image, or the window around the hole."""
    return image if critic == "global_d" else _box(config, image, batch)


def _reconstruction(config: Config) -> Callable[[str, Tensor, Batch, float], Terms]:
    """Return the function that computes the two l1 terms of a prediction.

    Its arguments are the prefix of the terms' names, the prediction, the batch and the weight of the prediction.
    """
    box_weights = placed_like(box_discount(config.local_size, config.discount))

    def discounted_l1(prediction: Tensor, batch: Batch) -> Tensor:
        if config.l1_region == "hole":
            weights = hole_discount(batch.mask, config.discount)
            error = ((prediction - batch.image).abs() * weights).sum((1, 2, 3)).mean()
            return error / (3 * config.local_size**2)  # the elements of the box, as below
        return (_box(config, (prediction - batch.image).abs(), batch) * box_weights(batch.image)).mean()

    def terms(prefix: str, prediction: Tensor, batch: Batch, weight: float) -> Terms:
        return {
            f"{prefix}_l1": weight * config.l1_weight * discounted_l1(prediction, batch),
            f"{prefix}_ae": weight * config.ae_weight * l1_of_known(prediction, batch.image, batch.mask),
        }

    return terms


def _coarse_terms(config: Config, reconstruct: Callable[[str, Tensor, Batch, float], Terms]) -> Losses:
    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        return reconstruct("coarse", outputs["coarse"], batch, config.coarse_weight)

    return terms


def _critic_terms(config: Config, critics: tuple[str, ...]) -> Losses:
    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        images = (batch.image, outputs["completed"].detach(), batch.mask)
        terms: Terms = {}
        for purpose, name in enumerate(critics):
            real, fake, mask = (_view(config, name, image, batch) for image in images)
            real_scores, fake_scores = networks[name](torch.cat((real, fake))).chunk(2)
            terms[f"{name}_wasserstein"] = fake_scores.mean() - real_scores.mean()
            penalty = gradient_penalty(networks[name], real, fake, mask, batch.uniform(purpose))
            terms[f"{name}_penalty"] = config.gradient_penalty_weight * penalty
        return terms

    return terms


def _generator_terms(
    config: Config,
    critics: tuple[str, ...],
    coarse_terms: Losses,
    reconstruct: Callable[[str, Tensor, Batch, float], Terms],
) -> Losses:
    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        terms = coarse_terms(networks, batch, outputs) | reconstruct("refined", outputs["refined"], batch, 1.0)
        for name in critics:
            scores = networks[name](_view(config, name, outputs["completed"], batch))
            terms[f"{name}_adversarial"] = -config.adversarial_weight * scores.mean()
        return terms

    return terms
