"""Training of EdgeConnect: its stages as phases (Nazeri et al. 2019, Sec. 3). The card lists the differences."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from files.colours import GREY_WEIGHTS
from files.errors import UserError
from jobs.generators.edge_connect import Config
from jobs.generators.edge_connect.losses import discriminator_loss, generator_loss, l1_by_hole
from jobs.generators.edge_connect.networks import Discriminator, EdgeGenerator, ImageGenerator, complete_edges
from jobs.layers.constants import constant
from jobs.layers.perceptual import PERCEPTUAL_LAYERS, STYLE_LAYERS, perceptual_and_style
from jobs.layers.vgg import VGG19, to_unit
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Losses, Networks, Outputs, Phase, Recipe, Terms, Update, adam, make_networks
from jobs.recipe.losses import feature_matching

SMALLEST_SIDE = 9  # padded to 12, so 3 in the residual blocks, which mirror 2


def build(config: Config, *, for_training: bool = True) -> Recipe:
    """Build EdgeConnect. Initial weights are drawn from torch's global generator."""
    makers = {
        "edges": lambda: EdgeGenerator(config.width, config.residual_blocks),
        "edges_d": lambda: Discriminator(2, config.width),
        "image": lambda: ImageGenerator(config.width, config.residual_blocks),
        "image_d": lambda: Discriminator(3, config.width),
    }
    networks = make_networks(makers, for_training=for_training)
    d_learning_rate = config.d2g * config.learning_rate
    return Recipe(
        networks=networks,
        make_optimizers=lambda: adam(networks, config.learning_rate, d_learning_rate, (config.beta1, config.beta2)),
        phases=_phases(config) if for_training else (),
        inpaint=_inpaint,
        batch_size=config.batch_size,
        multiple=4,
        smallest_side=SMALLEST_SIDE,
        columns=("edge",),
    )


def _phases(config: Config) -> tuple[Phase, ...]:
    edges, image = _edges_terms(config), _image_terms(config)
    edges_d = Update(networks=("edges_d",), terms=_edges_d_terms(config))
    image_d = Update(networks=("image_d",), terms=_image_d_terms(config))
    step_edges = Update(networks=("edges",), terms=edges)
    step_image = Update(networks=("image",), terms=image)
    # The code backpropagates the image loss and the edge loss one after the other, which adds up their gradients.
    step_both = Update(
        networks=("edges", "image"),
        terms=lambda networks, batch, outputs: edges(networks, batch, outputs) | image(networks, batch, outputs),
    )
    # Generators step first: their losses are computed with the discriminator before its step.
    return (
        Phase(name="edges", steps=config.edges_steps, updates=(step_edges, edges_d), forward=_predict_edges),
        Phase(name="image", steps=config.image_steps, updates=(step_image, image_d), forward=_paint_true_edges),
        Phase(name="inpaint", steps=config.inpaint_steps, updates=(step_image, image_d), forward=_paint_fixed_edges),
        Phase(
            name="joint",
            steps=config.joint_steps,
            updates=(step_both, edges_d, image_d),
            forward=_paint_predicted_edges,
            learning_rates=_learning_rates(config.joint_learning_rate, config),
        ),
    )


def _learning_rates(generators: float, config: Config) -> dict[str, float]:
    discriminators = generators * config.d2g
    return {"edges": generators, "edges_d": discriminators, "image": generators, "image_d": discriminators}


# The updates of a phase share these outputs, in [0, 1]:
# "edge": C_pred, (N, 1, H, W).
# "output": I_pred, (N, 3, H, W).


def _predict_edges(networks: Networks, batch: Batch) -> Outputs:
    return {"edge": networks["edges"](_grey(to_unit(batch.image)), _edge(batch), batch.mask)}


def _paint(networks: Networks, batch: Batch, edge: Tensor) -> Tensor:
    return networks["image"](to_unit(batch.image), edge, batch.mask)


def _paint_true_edges(networks: Networks, batch: Batch) -> Outputs:
    return {"output": _paint(networks, batch, _edge(batch))}


def _paint_predicted_edges(networks: Networks, batch: Batch) -> Outputs:
    outputs = _predict_edges(networks, batch)
    completed = complete_edges(outputs["edge"], _edge(batch), batch.mask)
    return outputs | {"output": _paint(networks, batch, completed)}


def _paint_fixed_edges(networks: Networks, batch: Batch) -> Outputs:
    with torch.no_grad():
        predicted = _predict_edges(networks, batch)["edge"]
    return {"output": _paint(networks, batch, complete_edges(predicted, _edge(batch), batch.mask))}


def _judge_edges(networks: Networks, batch: Batch, edge: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return D1's features of predicted edges and of true edges.

    D1 sees each edge map beside the whole grey image, all in one batch of 2 N.
    edge: predicted edges, (N, 1, H, W) in [0, 1].
    """
    grey = _grey(to_unit(batch.image))
    features = networks["edges_d"](torch.cat([torch.cat([grey, edge], dim=1), torch.cat([grey, _edge(batch)], dim=1)]))
    fake, real = zip(*(feature.chunk(2) for feature in features), strict=True)
    return list(fake), list(real)


def _edges_terms(config: Config) -> Losses:
    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        fake, real = _judge_edges(networks, batch, outputs["edge"])
        return {
            "edges_adversarial": config.edges_adversarial_weight * generator_loss(config.gan, fake[-1]),
            "edges_feature_matching": config.feature_matching_weight * feature_matching(fake, real),
        }

    return terms


def _edges_d_terms(config: Config) -> Losses:
    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        fake, real = _judge_edges(networks, batch, outputs["edge"].detach())
        return {"edges_d_adversarial": discriminator_loss(config.gan, real[-1], fake[-1])}

    return terms


def _image_terms(config: Config) -> Losses:
    uses_vgg = bool(config.perceptual_weight or config.style_weight)
    vgg = VGG19(PERCEPTUAL_LAYERS + STYLE_LAYERS, config.features, config.features_seed) if uses_vgg else None

    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        image, predicted = to_unit(batch.image), outputs["output"]
        scores = networks["image_d"](predicted)[-1]
        weighted = {
            "image_l1": config.l1_weight * l1_by_hole(predicted, image, batch.mask),
            "image_adversarial": config.adversarial_weight * generator_loss(config.gan, scores),
        }
        if vgg is not None:
            perceptual, style = perceptual_and_style(vgg, predicted, image, batch.mask)
            weighted["image_perceptual"] = config.perceptual_weight * perceptual
            weighted["image_style"] = config.style_weight * style
        return weighted

    return terms


def _image_d_terms(config: Config) -> Losses:
    def terms(networks: Networks, batch: Batch, outputs: Outputs) -> Terms:
        both = torch.cat([to_unit(batch.image), outputs["output"].detach()])
        real, fake = networks["image_d"](both)[-1].chunk(2)
        return {"image_d_adversarial": discriminator_loss(config.gan, real, fake)}

    return terms


def _inpaint(networks: Networks, batch: Batch) -> Outputs:
    visible = replace(batch, edge=_edge(batch) * (1 - batch.mask))
    inside = _predict_edges(networks, visible)["edge"] if batch.sketch is None else batch.sketch
    completed = complete_edges(inside, visible.edge, visible.mask)
    return {"output": 2 * _paint(networks, visible, completed) - 1, "edge": completed}


def _edge(batch: Batch) -> Tensor:
    if batch.edge is None:
        raise UserError("EdgeConnect needs edge maps; give the batch the column 'edge'")
    return batch.edge


def _grey(image: Tensor) -> Tensor:
    """Return the grey values of an RGB image: (N, 3, H, W) -> (N, 1, H, W), both in [0, 1]."""
    return (image * constant(GREY_WEIGHTS, image.device, image.dtype).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
