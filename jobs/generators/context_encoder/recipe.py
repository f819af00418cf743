"""Recipe of Context Encoder: one phase, in which every step updates the discriminator, then the generator."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from files.errors import UserError
from jobs.generators.context_encoder import Config
from jobs.generators.context_encoder.losses import overlap_weights, reconstruction, reconstruction_in_hole
from jobs.generators.context_encoder.networks import Discriminator, Generator, central_half, central_hole
from jobs.layers.constants import placed_like
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Losses, Networks, Outputs, Phase, Recipe, Terms, adam, alternating, make_networks
from jobs.recipe.losses import bce_fake, bce_real


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build Context Encoder with initial weights from torch's global generator."""
    is_centre = config.variant == "centre"
    makers = {
        "generator": lambda: Generator(
            image_size=config.image_size,
            variant=config.variant,
            width=config.width,
            bottleneck=config.bottleneck,
            bottleneck_units=config.bottleneck_units,
            mask_channel=config.mask_channel,
            fill=tuple(2 * value / 255 - 1 for value in (config.fill_red, config.fill_green, config.fill_blue)),
        ),
        "generator_d": lambda: Discriminator(size=config.image_size // (2 if is_centre else 1), width=config.width),
    }
    networks = make_networks(makers, for_training=for_training)

    def forward(networks: Networks, batch: Batch) -> Outputs:
        return {"prediction": networks["generator"](batch.image, _hole(config, batch))}

    def inpaint(networks: Networks, batch: Batch) -> Outputs:
        prediction = forward(networks, batch)["prediction"]  # before the mask is checked: it checks the size
        if not is_centre:
            return {"output": prediction}
        check_centre(batch.mask, config.overlap)
        return {"output": F.pad(prediction, (config.image_size // 4,) * 4)}

    joint = Phase(
        name="joint",
        steps=config.steps,
        forward=forward,
        updates=alternating(_discriminator_terms(config), _generator_terms(config)),
    )
    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(
            networks, config.learning_rate, config.d_learning_rate, (config.beta1, config.beta2)
        ),
        phases=(joint,) if for_training else (),
        inpaint=inpaint,
        batch_size=config.batch_size,
    )


def check_centre(mask: Tensor, overlap: int) -> None:
    """Raise UserError if a mask reaches beyond the hole of the centre variant.

    mask: (N, 1, S, S), 1 = hole.
    overlap: pixels between the border of the hole and of the prediction.
    """
    if (mask > central_hole(mask, overlap)).any():
        size = mask.shape[-1]
        first = size // 4 + overlap
        rule = f"rows and columns {first} to {size - first - 1} of {size}"
        raise UserError(f"variant centre fills {rule} only, but a mask reaches beyond them; use variant random")


def _hole(config: Config, batch: Batch) -> Tensor:
    return central_hole(batch.mask, config.overlap) if config.variant == "centre" else batch.mask


def _target(config: Config, batch: Batch) -> Tensor:
    return central_half(batch.image) if config.variant == "centre" else batch.image


def _discriminator_terms(config: Config) -> Losses:
    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        # Real and generated images need a pass each: they must not share the statistics of batch normalisation.
        judge = networks["generator_d"]
        return {
            "d_real": bce_real(judge(_target(config, batch))),
            "d_fake": bce_fake(judge(outputs["prediction"].detach())),
        }

    return terms


def _generator_terms(config: Config) -> Losses:
    ring = placed_like(overlap_weights(config.image_size // 2, config.overlap, config.overlap_weight))

    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        prediction, target = outputs["prediction"], _target(config, batch)
        if config.variant == "centre":
            error = reconstruction(prediction, target, ring(target))
        elif config.rec_region == "hole":
            error = reconstruction_in_hole(prediction, target, batch.mask)
        else:
            error = reconstruction(prediction, target)
        return {
            "reconstruction": config.reconstruction_weight * error,
            "adversarial": config.adversarial_weight * bce_real(networks["generator_d"](prediction)),
        }

    return terms
