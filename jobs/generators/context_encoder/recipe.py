"""Context Encoder, ready to train: one phase, discriminator then generator."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from files.errors import UserError
from jobs.generators.context_encoder import Config
from jobs.generators.context_encoder.losses import reconstruction_in_hole
from jobs.layers.context_encoder import (
    Discriminator,
    Generator,
    central_half,
    central_hole,
    overlap_weights,
    reconstruction,
)
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Networks, Outputs, Phase, Recipe, Terms, adam, alternating
from jobs.recipe.losses import bce_fake, bce_real


def build(config: Config) -> Recipe:
    """Context Encoder with fresh weights, drawn from torch's global generator."""
    is_centre = config.variant == "centre"
    predicted_size = config.image_size // 2 if is_centre else config.image_size
    generator = Generator(
        image_size=config.image_size,
        variant=config.variant,
        width=config.width,
        bottleneck=config.bottleneck,
        bottleneck_units=config.bottleneck_units,
        mask_channel=config.mask_channel,
        fill=tuple(2 * value / 255 - 1 for value in (config.fill_red, config.fill_green, config.fill_blue)),
    )
    discriminator = Discriminator(size=predicted_size, width=config.width)
    ring = overlap_weights(predicted_size, config.overlap, config.overlap_weight)

    def hole(batch: Batch) -> Tensor:
        return central_hole(batch.mask, config.overlap) if is_centre else batch.mask

    def target(batch: Batch) -> Tensor:
        return central_half(batch.image) if is_centre else batch.image

    def forward(networks: Networks, batch: Batch) -> Outputs:
        return {"prediction": networks["generator"](batch.image, hole(batch))}

    def discriminator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        # Two passes, not one over both: batch normalisation must see real and generated images apart.
        judge = networks["generator_d"]
        return {
            "d_real": bce_real(judge(target(batch))),
            "d_fake": bce_fake(judge(outputs["prediction"].detach())),
        }

    def generator_terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        prediction = outputs["prediction"]
        if is_centre:
            error = reconstruction(prediction, target(batch), ring.to(prediction.device))
        elif config.rec_region == "hole":
            error = reconstruction_in_hole(prediction, target(batch), batch.mask)
        else:
            error = reconstruction(prediction, target(batch))
        return {
            "reconstruction": config.reconstruction_weight * error,
            "adversarial": config.adversarial_weight * bce_real(networks["generator_d"](prediction)),
        }

    def inpaint(networks: Networks, batch: Batch) -> Outputs:
        prediction = networks["generator"](batch.image, hole(batch))  # first: it checks the size
        if not is_centre:
            return {"output": prediction}
        if (batch.mask > hole(batch)).any():
            first = config.image_size // 4 + config.overlap
            rule = f"rows and columns {first} to {config.image_size - first - 1}"
            raise UserError(f"variant centre fills {rule} only, but a mask reaches beyond them; use variant random")
        return {"output": F.pad(prediction, (config.image_size // 4,) * 4)}

    networks = {"generator": generator, "generator_d": discriminator}
    return Recipe(
        networks=networks,
        optimizers=adam(networks, config.learning_rate, config.d_learning_rate, (config.beta1, config.beta2)),
        phases=(
            Phase(
                name="joint",
                steps=config.steps,
                forward=forward,
                updates=alternating(discriminator_terms, generator_terms),
            ),
        ),
        inpaint=inpaint,
        batch_size=config.batch_size,
    )
