"""Recipe of RFR-Net: one network without a discriminator, trained, then fine-tuned with fixed batch statistics."""

from __future__ import annotations

from jobs.generators.rfr_net import Config
from jobs.generators.rfr_net.losses import VGG_LAYERS, pixel_losses, total_variation
from jobs.generators.rfr_net.networks import MULTIPLE, Generator
from jobs.layers.composite import composite
from jobs.layers.perceptual import of_output_and_completed
from jobs.layers.vgg import VGG16, to_unit
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Losses, Networks, Outputs, Phase, Recipe, Terms, Update, adam


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build RFR-Net with initial weights from torch's global generator."""
    generator = Generator(width=config.width, recurrences=config.recurrences, kernel_size=config.kernel_size)
    networks = {"generator": generator}
    betas = (config.beta1, config.beta2)
    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(networks, config.learning_rate, config.learning_rate, betas),
        phases=_phases(config, generator) if for_training else (),
        inpaint=_inpaint,
        batch_size=config.batch_size,
        multiple=MULTIPLE,
    )


def _phases(config: Config, generator: Generator) -> tuple[Phase, ...]:
    updates = (Update(networks=("generator",), terms=_terms(config)),)
    return (
        Phase(name="train", steps=config.train_steps, updates=updates),
        Phase(
            name="finetune",
            steps=config.finetune_steps,
            updates=updates,
            learning_rates={"generator": config.finetune_learning_rate},
            fixed_statistics=tuple(f"generator.{name}" for name in generator.norms),
        ),
    )


def _inpaint(networks: Networks, batch: Batch) -> Outputs:
    output, unfilled = networks["generator"](batch.image, batch.mask)
    return {"output": output.clamp(-1, 1), "unfilled": unfilled}


def _terms(config: Config) -> Losses:
    uses_vgg = bool(config.perceptual_weight or config.style_weight)
    vgg = VGG16(VGG_LAYERS, config.features, config.features_seed) if uses_vgg else None

    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        signed, _ = networks["generator"](batch.image, batch.mask)
        output, image = to_unit(signed), to_unit(batch.image)
        completed = composite(output, image, batch.mask)
        valid, hole = pixel_losses(output, image, batch.mask)
        weighted = {
            "valid": config.valid_weight * valid,
            "hole": config.hole_weight * hole,
            "tv": config.tv_weight * total_variation(completed, batch.mask),
        }
        if vgg is not None:
            perceptual, style_out, style_completed = of_output_and_completed(vgg, output, completed, image)
            weighted["perceptual"] = config.perceptual_weight * perceptual
            weighted["style"] = config.style_weight * (style_out + style_completed)
        return weighted

    return terms
