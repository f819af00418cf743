"""Facts of Context Encoder: sizes, counts, the channel-wise layer, the losses by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jobs.generators.context_encoder import Config
from jobs.generators.context_encoder.losses import overlap_weights, reconstruction, reconstruction_in_hole
from jobs.generators.context_encoder.networks import (
    ChannelwiseFullyConnected,
    Discriminator,
    Generator,
)
from jobs.generators.context_encoder.recipe import build
from jobs.recipe.batch import Batch
from jobs.recipe.losses import bce_real
from tests.jobs.generators.test_contract import inpaint, make_batch, run_step, start_phase

TINY_CENTRE = dataclasses.replace(Config.tiny(), variant="centre")


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def central_mask(batch: Batch, border: int) -> Batch:
    mask = torch.zeros_like(batch.mask)
    mask[..., border:-border, border:-border] = 1
    return dataclasses.replace(batch, mask=mask)


@pytest.mark.parametrize(
    ("settings", "generator", "discriminator"),
    [
        ({"variant": "centre"}, 5_982_976, 2_765_568),
        ({}, 6_048_640, 2_831_232),
        ({"image_size": 256}, 6_179_968, None),
        ({"variant": "centre", "bottleneck": "conv"}, 71_124_544, 2_765_568),
        ({"bottleneck": "conv"}, 71_190_208, 2_831_232),
        ({"bottleneck": "conv", "image_size": 64}, 71_058_880, 2_765_568),
    ],
)
def test_parameter_counts_are_the_published_networks(settings, generator, discriminator):
    with torch.device("meta"):
        networks = build(Config(**settings)).networks
    assert count(networks["generator"]) == generator
    if discriminator:
        assert count(networks["generator_d"]) == discriminator


def test_the_channelwise_layer_has_m_n4_weights():
    layer = ChannelwiseFullyConnected(512, 4)
    assert layer.weight.numel() == 512 * 4**4 == 131_072
    assert count(layer) == 139_264


def test_the_channelwise_layer_is_the_identity_for_identity_weights():
    layer = ChannelwiseFullyConnected(6, 4)
    features = torch.randn(2, 6, 4, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(16).expand(6, 16, 16))
    torch.testing.assert_close(layer(features), features)


def test_the_channelwise_layer_is_one_matrix_per_map():
    layer = ChannelwiseFullyConnected(6, 4)
    nn.init.normal_(layer.bias)
    features = torch.randn(2, 6, 4, 4)
    expected = [features[:, c].flatten(1) @ layer.weight[c] + layer.bias[c] for c in range(6)]
    torch.testing.assert_close(layer(features), torch.stack(expected, dim=1).view(2, 6, 4, 4))
    changed = features.clone()
    changed[:, 2] += 1
    moved = (layer(changed) != layer(features)).flatten(2).any(dim=2)
    assert moved.tolist() == [[False, False, True, False, False, False]] * 2


@pytest.mark.parametrize(
    ("variant", "bottleneck", "size", "predicted"),
    [
        ("centre", "channelwise_fc", 128, 64),
        ("random", "channelwise_fc", 128, 128),
        ("random", "conv", 64, 64),
        ("random", "channelwise_fc", 256, 256),
    ],
)
def test_sizes_of_prediction_and_score(variant, bottleneck, size, predicted):
    config = Config(variant=variant, bottleneck=bottleneck, image_size=size, width=8, bottleneck_units=20)
    networks = build(config).networks
    image = torch.rand(2, 3, size, size) * 2 - 1
    prediction = networks["generator"](image, torch.zeros(2, 1, size, size))
    assert prediction.shape == (2, 3, predicted, predicted)
    assert prediction.abs().max() < 1
    assert networks["generator_d"](prediction).shape == (2, 1)


def test_layers_follow_the_table():
    networks = build(Config()).networks
    layers = [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], m.padding[0], m.bias is None)
        for m in networks["generator"].modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]
    encoder = [(3, 64), (64, 64), (64, 128), (128, 256), (256, 512)]
    decoder = [(512, 256), (256, 128), (128, 64), (64, 64), (64, 3)]
    expected = [(i, o, 4, 2, 1, True) for i, o in encoder] + [(512, 512, 1, 1, 0, True)]
    assert layers == expected + [(i, o, 4, 2, 1, True) for i, o in decoder]
    kinds = [type(m).__name__ for m in networks["generator"].encoder]
    assert kinds == ["Conv2d", "LeakyReLU"] + ["Conv2d", "BatchNorm2d", "LeakyReLU"] * 4
    kinds = [type(m).__name__ for m in networks["generator"].decoder]
    assert kinds == ["ConvTranspose2d", "BatchNorm2d", "ReLU"] * 4 + ["ConvTranspose2d", "Tanh"]
    assert {m.negative_slope for m in networks["generator"].modules() if isinstance(m, nn.LeakyReLU)} == {0.2}


def test_the_hole_is_painted_in_the_constant_colour():
    generator = build(Config.tiny()).networks["generator"].eval()
    batch = make_batch((64, 64))
    colour = torch.tensor([-0.0824, -0.1843, -0.0353]).view(1, 3, 1, 1)
    torch.testing.assert_close(generator.fill, colour, atol=5e-5, rtol=0)
    painted = torch.where(batch.mask == 1, generator.fill, batch.image)
    assert torch.equal(generator(painted, torch.zeros_like(batch.mask)), generator(batch.image, batch.mask))


def test_the_mask_is_shown_to_the_network_only_on_request():
    recipe = build(dataclasses.replace(Config.tiny(), mask_channel=True))
    generator = recipe.networks["generator"].eval()
    assert generator.encoder[0].in_channels == 4
    batch = make_batch((64, 64))
    painted = torch.where(batch.mask == 1, generator.fill, batch.image)
    assert not torch.equal(generator(painted, torch.zeros_like(batch.mask)), generator(batch.image, batch.mask))


@pytest.mark.parametrize("bottleneck", ["channelwise_fc", "conv"])
def test_every_output_pixel_sees_every_corner(bottleneck):
    recipe = build(Config(image_size=128, width=8, bottleneck=bottleneck, bottleneck_units=30))
    generator = recipe.networks["generator"].eval()
    image = torch.randn(1, 3, 128, 128, requires_grad=True)
    generator(image, torch.zeros(1, 1, 128, 128))[0, :, 5, 70].sum().backward()
    for rows in (slice(16), slice(-16, None)):
        for columns in (slice(16), slice(-16, None)):
            assert image.grad[..., rows, columns].any()


def test_without_the_bottleneck_the_view_is_local():
    generator = build(Config(image_size=128, width=8)).networks["generator"].eval()
    with torch.no_grad():
        generator.bottleneck[0].weight.copy_(torch.eye(16).expand(64, 16, 16))
    image = torch.randn(1, 3, 128, 128, requires_grad=True)
    code = generator.bottleneck(generator.encoder(image))
    code[0, :, 0, 0].sum().backward()
    rows = image.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    assert rows.max() == 62  # 94 pixels, 31 of them beyond the border


def test_another_size_is_refused_with_the_rule():
    recipe = build(Config.tiny())
    with pytest.raises(ValueError, match="H and W must be 64"):
        inpaint(recipe, make_batch((128, 128)))
    for size in (32, 96, 0):
        with pytest.raises(ValueError, match="4 \\* 2\\^n"):
            Config(image_size=size)
    with pytest.raises(ValueError, match="overlap"):
        Config(image_size=64, overlap=16)


def test_the_centre_variant_pastes_only_the_central_square():
    recipe = build(TINY_CENTRE)
    batch = central_mask(make_batch((64, 64)), 20)  # 64 / 4 + 4
    output = inpaint(recipe, batch)["output"]
    assert output.shape == batch.image.shape
    assert not output[..., :16, :].any()
    assert not output[..., :, 48:].any()
    assert output[..., 16:48, 16:48].all()


@pytest.mark.parametrize("border", [19, 16])
def test_the_centre_variant_refuses_a_mask_beyond_its_square(border):
    recipe = build(TINY_CENTRE)
    with pytest.raises(ValueError, match="rows and columns 20 to 43"):
        inpaint(recipe, central_mask(make_batch((64, 64)), border))


def test_the_centre_variant_trains_on_its_own_hole_and_both_updates_work():
    batch = make_batch((64, 64))
    terms = []
    for mask in (batch.mask, torch.zeros_like(batch.mask)):
        torch.manual_seed(0)
        recipe = build(TINY_CENTRE)
        start_phase(recipe, recipe.phases[0])
        terms.append(run_step(recipe, recipe.phases[0], dataclasses.replace(batch, mask=mask)))
    assert terms[0] == terms[1]
    assert set(terms[0]) == {"d_real", "d_fake", "reconstruction", "adversarial"}


def test_the_overlap_is_a_ring_of_width_four():
    weights = overlap_weights(64, 4, 10.0)
    assert weights.sum() == 12_736
    assert weights[0, 0, 3, 30] == weights[0, 0, 30, 60] == 10
    assert weights[0, 0, 4, 4] == weights[0, 0, 59, 59] == 1


def test_reconstruction_by_hand():
    prediction = torch.zeros(1, 3, 2, 2)
    target = torch.zeros(1, 3, 2, 2)
    target[:, :, 0, 0] = 2.0
    assert reconstruction(prediction, target) == 1.0  # 3 * 4 / 12
    weights = torch.tensor([[10.0, 1.0], [1.0, 1.0]])
    assert reconstruction(prediction, target, weights) == 10.0  # not divided by the weights' mean
    mask = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    assert reconstruction_in_hole(prediction, target, mask) == 2.0  # 3 * 4 / 6
    assert reconstruction_in_hole(prediction, target, torch.zeros(1, 1, 2, 2)) == 0


@pytest.mark.parametrize("variant", ["random", "centre"])
def test_terms_are_weighted_as_published(variant):
    recipe = build(dataclasses.replace(Config.tiny(), variant=variant))
    batch = make_batch((64, 64))
    phase = recipe.phases[0]
    outputs = phase.forward(recipe.networks, batch)
    terms = phase.updates[1].terms(recipe.networks, batch, outputs)
    prediction = outputs["prediction"]
    target = batch.image if variant == "random" else batch.image[..., 16:48, 16:48]
    squared = (prediction - target) ** 2
    if variant == "centre":
        squared[..., 4:-4, 4:-4] /= 10
        squared *= 10
    torch.testing.assert_close(terms["reconstruction"], 0.999 * squared.mean())
    score = F.softplus(-recipe.networks["generator_d"](prediction)).mean()  # -log sigmoid
    torch.testing.assert_close(terms["adversarial"], 0.001 * score)


def test_the_hole_alone_may_be_reconstructed():
    recipe = build(dataclasses.replace(Config.tiny(), rec_region="hole"))
    batch = make_batch((64, 64))
    phase = recipe.phases[0]
    outputs = phase.forward(recipe.networks, batch)
    terms = phase.updates[1].terms(recipe.networks, batch, outputs)
    hole = batch.mask.expand_as(batch.image) == 1
    expected = 0.999 * ((outputs["prediction"] - batch.image)[hole] ** 2).mean()
    torch.testing.assert_close(terms["reconstruction"], expected)


def test_real_and_generated_images_are_normalised_apart():
    """Two passes through the discriminator: one over both would mix their statistics."""
    recipe = build(Config.tiny())
    batch = make_batch((64, 64))
    phase = recipe.phases[0]
    outputs = phase.forward(recipe.networks, batch)
    terms = phase.updates[0].terms(recipe.networks, batch, outputs)
    torch.testing.assert_close(terms["d_real"], bce_real(recipe.networks["generator_d"](batch.image)))
    assert outputs["prediction"].requires_grad
    terms["d_fake"].backward()
    assert all(p.grad is None for p in recipe.networks["generator"].parameters())


def test_a_fixed_batch_is_learned():
    torch.manual_seed(0)
    recipe = build(Config.tiny())
    batch = make_batch((64, 64), num_samples=4)
    phase = recipe.phases[0]
    start_phase(recipe, phase)
    errors = [run_step(recipe, phase, batch)["reconstruction"].item() for _ in range(60)]
    assert sum(errors[-5:]) / 5 < 0.1 * errors[0]


def test_networks_are_drawn_as_published():
    torch.manual_seed(0)
    networks = (
        Generator(
            image_size=64,
            variant="random",
            width=32,
            bottleneck="channelwise_fc",
            bottleneck_units=1,
            mask_channel=False,
            fill=(0.0, 0.0, 0.0),
        ),
        Discriminator(size=64, width=32),
    )
    for module in (module for network in networks for module in network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | ChannelwiseFullyConnected):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1.0, abs=0.02)
