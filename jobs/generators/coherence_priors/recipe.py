"""Training of coherence priors: first image and segmentation losses, then the two coherence losses as well."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jobs.generators.coherence_priors import Config
from jobs.generators.coherence_priors.losses import one_hot, patch_coherence, straight_through_one_hot
from jobs.generators.coherence_priors.networks import Generator
from jobs.layers.composite import composite
from jobs.layers.discriminators import PatchDiscriminator
from jobs.layers.semantic import (
    SMALLEST_MULTIPLE,
    check_labels,
    cross_entropy_of_all_scales,
    hole_cells,
    l1_of_all_scales,
)
from jobs.layers.vgg import VGG19, imagenet_normalised, to_unit
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Losses, Networks, Outputs, Phase, Recipe, Terms, Update, adam, make_networks
from jobs.recipe.losses import hinge_fake, hinge_generator, hinge_real

PATCH_LAYER, PATCH_SCALE = "relu3_1", 2  # its cells are 2^2 pixels wide


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build coherence priors. Initial weights are drawn from torch's global generator."""
    makers = {
        "generator": lambda: Generator(width=config.width, num_classes=config.num_classes),
        "texture_d": lambda: PatchDiscriminator(3 + config.num_classes, config.d_width),
        "structure_d": lambda: PatchDiscriminator(3 + config.num_classes, config.d_width),
    }
    networks = make_networks(makers, for_training=for_training)
    rates = {name: config.learning_rate if name == "generator" else config.d_learning_rate for name in networks}
    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(
            networks, config.learning_rate, config.d_learning_rate, (config.beta1, config.beta2)
        ),
        phases=_phases(config, rates) if for_training else (),
        inpaint=_inpaint,
        batch_size=config.batch_size,
        multiple=SMALLEST_MULTIPLE,
        columns=("semantics",),
    )


def _phases(config: Config, rates: dict[str, float]) -> tuple[Phase, Phase]:
    def predict(networks: Networks, batch: Batch) -> Outputs:
        check_labels(batch.semantics, config.num_classes)
        return networks["generator"](batch.image, batch.mask)

    def predict_and_compose(networks: Networks, batch: Batch) -> Outputs:
        """Add "completed" (I_c) and the layouts that discriminators see: "layout" (S_hat) and "true_layout" (Y)."""
        outputs = predict(networks, batch)
        layout = straight_through_one_hot(outputs["logits0"], batch.semantics)
        return outputs | {
            "completed": composite(outputs["image0"], batch.image, batch.mask),
            "layout": layout,
            "true_layout": one_hot(batch.semantics, config.num_classes, layout.dtype),
        }

    def supervised(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        return {
            "l1": config.l1_weight * l1_of_all_scales(outputs, batch.image),
            "segmentation": config.segmentation_weight * cross_entropy_of_all_scales(outputs, batch.semantics),
        }

    coherence = _coherence_terms(config)

    def both(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        return supervised(networks, batch, outputs) | coherence(networks, batch, outputs)

    return (
        Phase(
            name="supervised",
            steps=config.supervised_steps,
            forward=predict,
            updates=(Update(networks=("generator",), terms=supervised),),
            learning_rates=_halved(rates, config.halving_steps, 0, ("generator",)),
        ),
        Phase(
            name="coherence",
            steps=config.coherence_steps,
            forward=predict_and_compose,
            updates=(
                Update(networks=("texture_d", "structure_d"), terms=_discriminator_terms),
                Update(networks=("generator",), terms=both),
            ),
            learning_rates=_halved(rates, config.halving_steps, config.supervised_steps, tuple(rates)),
        ),
    )


def _discriminator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
    real = torch.cat((batch.image, outputs["true_layout"]), dim=1)
    fake = torch.cat((outputs["completed"], outputs["layout"]), dim=1).detach()
    # One pass over both: one power iteration of spectral norm per step; no batch statistics would mix.
    pairs = torch.cat((real, fake))
    terms: Terms = {}
    for name in ("texture_d", "structure_d"):
        scores = networks[name](pairs)
        terms[f"{name}_real"] = hinge_real(scores[: len(real)])
        terms[f"{name}_fake"] = hinge_fake(scores[len(real) :])
    return terms


def _coherence_terms(config: Config) -> Losses:
    vgg = VGG19((PATCH_LAYER,), config.features, config.features_seed) if config.patch_weight else None

    def structure(networks: Networks, outputs: Outputs) -> Tensor:
        completed, layout = outputs["completed"], outputs["layout"]
        # Each trains one side of the pair, since otherwise both heads could agree on a wrong answer (inferred).
        texture_scores = networks["texture_d"](torch.cat((completed, layout.detach()), dim=1))
        structure_scores = networks["structure_d"](torch.cat((completed.detach(), layout), dim=1))
        return hinge_generator(texture_scores) + hinge_generator(structure_scores)

    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        weighted = {"structure": config.structure_weight * structure(networks, outputs)}
        if vgg is not None:
            with torch.no_grad():
                real = vgg(_vgg_input(batch.image))[PATCH_LAYER]
            generated = vgg(_vgg_input(outputs["completed"]))[PATCH_LAYER]
            labels = batch.semantics[:, :: 2**PATCH_SCALE, :: 2**PATCH_SCALE]  # nearest
            weighted["patch"] = config.patch_weight * patch_coherence(
                generated, real, labels, hole_cells(batch.mask, PATCH_SCALE)
            )
        return weighted

    return terms


def _vgg_input(image: Tensor) -> Tensor:
    return imagenet_normalised(to_unit(image))


def _halved(
    rates: dict[str, float], halving_steps: tuple[int, ...], first: int, names: tuple[str, ...]
) -> dict[str, Callable[[int], float]]:
    """Return the schedules of the learning rates in one phase.

    rates: network -> initial learning rate.
    halving_steps: steps at which every rate is halved, counted from the start of the training.
    first: step of the training at which the phase starts.
    names: networks that the phase trains.
    """

    def halved(rate: float) -> Callable[[int], float]:
        return lambda step: rate * 0.5 ** sum(first + step >= halving for halving in halving_steps)

    return {name: halved(rates[name]) for name in names}


def _inpaint(networks: Networks, batch: Batch) -> Outputs:
    return {"output": networks["generator"](batch.image, batch.mask, all_scales=False)["image0"]}
