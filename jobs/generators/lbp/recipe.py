"""Training of LBP: patterns, then the image, then both (Wu et al. 2021). The card lists the differences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.generators.lbp import Config
from jobs.generators.lbp.codes import pattern_map, unknown_codes
from jobs.generators.lbp.losses import VGG_LAYERS, perceptual_and_style, square_around_hole, squared_differences
from jobs.generators.lbp.networks import Discriminator, Generator, PatternGenerator
from jobs.layers.composite import composite
from jobs.layers.vgg import VGG16
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Losses, Networks, Outputs, Phase, Recipe, Terms, Update, adam, make_networks
from jobs.recipe.losses import bce_fake, bce_real


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build LBP. Initial weights are drawn from torch's global generator."""
    makers = {
        "lbp": lambda: PatternGenerator(config.width, config.levels),
        "generator": lambda: Generator(
            config.width,
            config.levels,
            attention_weights=config.attention_weights,
            self_match=config.attention_self_match,
            mask_pool=config.mask_pool,
        ),
        "lbp_d": lambda: Discriminator(1, config.d_width),
        "generator_d": lambda: Discriminator(3, config.d_width),
    }
    networks = make_networks(makers, for_training=for_training)
    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(
            networks, config.learning_rate, config.d_learning_rate, (config.beta1, config.beta2)
        ),
        phases=_phases(config) if for_training else (),
        inpaint=_inpaint(config),
        batch_size=config.batch_size,
        multiple=2**config.levels,
    )


def _phases(config: Config) -> tuple[Phase, ...]:
    lbp, image = _lbp_terms(config), _image_terms(config)
    lbp_d = Update(networks=("lbp_d",), terms=_discriminator_terms(config, "lbp_d", "patterns", prefix="lbp_"))
    image_d = Update(networks=("generator_d",), terms=_discriminator_terms(config, "generator_d", "output"))
    step_lbp = Update(networks=("lbp",), terms=lbp)
    step_image = Update(networks=("generator",), terms=image)
    step_both = Update(
        networks=("lbp", "generator"),
        terms=lambda networks, batch, outputs: lbp(networks, batch, outputs) | image(networks, batch, outputs),
    )

    def complete(networks: Networks, batch: Batch) -> Outputs:
        return _complete_patterns(config, networks, batch)

    def paint(networks: Networks, batch: Batch) -> Outputs:
        return _paint(config, networks, batch)

    return (
        Phase(name="lbp", steps=config.lbp_steps, updates=(lbp_d, step_lbp), forward=complete),
        Phase(name="image", steps=config.image_steps, updates=(image_d, step_image), forward=paint),
        Phase(name="joint", steps=config.joint_steps, updates=(lbp_d, image_d, step_both), forward=paint),
    )


# The updates of a phase share these outputs:
# "patterns": L_o, (N, 1, H, W) in [-1, 1].
# "true_patterns": (N, 1, H, W) in [-1, 1].
# "output": I_o, (N, 3, H, W) in [-1, 1].
# "features_1", "features_2", ...: maps of G, (2 N, C, h, w), of the masked images and then of the complete ones.


def _complete_patterns(config: Config, networks: Networks, batch: Batch) -> Outputs:
    true_patterns = pattern_map(batch.image, config.lbp_border)
    unknown = _unknown(config, batch.mask)
    completed = composite(networks["lbp"](true_patterns, unknown), true_patterns, unknown)
    return {"patterns": completed, "true_patterns": true_patterns}


def _paint(config: Config, networks: Networks, batch: Batch) -> Outputs:
    outputs = _complete_patterns(config, networks, batch)
    image, patterns, mask = batch.image * (1 - batch.mask), outputs["patterns"], batch.mask
    features: list[Tensor] = []
    if config.multi_level_weight:
        # One pass over both: no layer of G mixes samples, and a network wrapped for several processes must be called
        # only once per step.
        painted, features = networks["generator"](
            torch.cat((image, batch.image)), torch.cat((patterns, outputs["true_patterns"])), torch.cat((mask, mask))
        )
        painted = painted.chunk(2)[0]
    else:
        painted, _ = networks["generator"](image, patterns, mask)
    named = {f"features_{number}": maps for number, maps in enumerate(features, 1)}
    return outputs | {"output": composite(painted, batch.image, mask)} | named


def _unknown(config: Config, mask: Tensor) -> Tensor:
    """Return the pixels whose code L must predict: (N, 1, H, W), 1 = hole."""
    return mask if config.leaky_lbp else unknown_codes(mask, config.lbp_border)


def _looked_at(config: Config, tensor: Tensor, batch: Batch) -> Tensor:
    """Return the pixels that discriminators, style and perceptual loss see."""
    return square_around_hole(tensor, batch.mask, config.crop_size) if config.crop_size else tensor


def _lbp_terms(config: Config) -> Losses:
    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        patterns = outputs["patterns"]
        scores = networks["lbp_d"](_looked_at(config, patterns, batch))
        return {
            "lbp_l2": config.lbp_l2_weight * F.mse_loss(patterns, outputs["true_patterns"]),
            "lbp_adversarial": config.lbp_adversarial_weight * bce_real(scores),
        }

    return terms


def _image_terms(config: Config) -> Losses:
    uses_vgg = bool(config.perceptual_weight or config.style_weight)
    vgg = VGG16(VGG_LAYERS, config.features, config.features_seed) if uses_vgg else None

    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        seen = _looked_at(config, outputs["output"], batch)
        weighted = {
            "l2": config.l2_weight * F.mse_loss(outputs["output"], batch.image),
            "adversarial": config.adversarial_weight * bce_real(networks["generator_d"](seen)),
        }
        if vgg is not None:
            truth = _looked_at(config, batch.image, batch)
            perceptual, style = perceptual_and_style(vgg, config.vgg_input, seen, truth)
            weighted["perceptual"] = config.perceptual_weight * perceptual
            weighted["style"] = config.style_weight * style
        if config.multi_level_weight:
            pairs = [maps.chunk(2) for name, maps in outputs.items() if name.startswith("features_")]
            masked, complete = zip(*pairs, strict=True)
            if config.detach_target:
                complete = [maps.detach() for maps in complete]
            weighted["multi_level"] = config.multi_level_weight * squared_differences(masked, complete)
        return weighted

    return terms


def _discriminator_terms(config: Config, network: str, fake_name: str, prefix: str = "") -> Losses:
    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        real = outputs["true_patterns"] if fake_name == "patterns" else batch.image
        pair = [_looked_at(config, tensor, batch) for tensor in (real, outputs[fake_name].detach())]
        # One pass over both: one power iteration of spectral norm per step; no batch statistics would mix.
        real_scores, fake_scores = networks[network](torch.cat(pair)).chunk(2)
        return {f"{prefix}d_real": 0.5 * bce_real(real_scores), f"{prefix}d_fake": 0.5 * bce_fake(fake_scores)}

    return terms


def _inpaint(config: Config) -> Callable[[Networks, Batch], Outputs]:
    def inpaint(networks: Networks, batch: Batch) -> Outputs:
        mask = batch.mask
        image = batch.image * (1 - mask)
        patterns = _complete_patterns(config, networks, Batch(image=image, mask=mask))["patterns"]
        painted, _ = networks["generator"](image, patterns, mask)
        return {"output": composite(painted, image, mask), "patterns": (patterns + 1) / 2}

    return inpaint
