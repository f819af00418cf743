"""Facts of LaMa: counts, sizes, the Fourier unit by its definition, reach, losses by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.batches import make_batch
from benchmarks.loops import lama
from jobs.generators.lama import Config
from jobs.generators.lama.losses import fake_loss, feature_matching, gradient_penalty, l1_of_known, stage_distance
from jobs.generators.lama.networks import Discriminator, FourierBlock, FourierConvolution, FourierUnit, Generator
from jobs.generators.lama.recipe import build
from tests.jobs.generators.steps import build_tiny, run_step, start_phase


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_networks_have_the_published_numbers_of_parameters_and_sizes():
    with torch.device("meta"):
        assert [count(Generator(width=64, blocks=blocks)) for blocks in (9, 18)] == [27_048_835, 50_975_875]
        assert count(FourierBlock(512)) == 2 * 1_329_280
        discriminator = Discriminator()
        features = discriminator(torch.empty(1, 3, 256, 256))
    assert [count(stage) for stage in discriminator.stages] == [3_136, 131_456, 525_056, 2_098_688, 4_195_840, 8_193]
    assert [tuple(f.shape[1:]) for f in features] == [
        (64, 129, 129), (128, 65, 65), (256, 33, 33), (512, 17, 17), (512, 18, 18), (1, 19, 19),
    ]  # fmt: skip


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (3, 4)])
def test_the_fourier_unit_agrees_with_the_definition_of_the_transform(size):
    torch.manual_seed(0)
    unit = FourierUnit(3).double().eval()
    conv, norm = unit.layers[0], unit.layers[1]
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    features = torch.randn(2, 3, *size, dtype=torch.float64)
    result = unit(features)
    assert result.shape == features.shape
    torch.testing.assert_close(result, lama.fourier_unit(features, conv.weight[:, :, 0, 0], scale, shift))


def test_a_constant_map_stays_itself_or_becomes_zero():
    unit = FourierUnit(1).eval()
    nn.init.eye_(unit.layers[0].weight[:, :, 0, 0])
    for value, expected in ((0.5, 0.5 / (1 + 1e-5) ** 0.5), (-0.5, 0.0)):
        result = unit(torch.full((1, 1, 8, 8), value))
        torch.testing.assert_close(result, torch.full_like(result, expected))


def test_a_single_cell_reaches_the_whole_map_through_the_spectrum_alone():
    torch.manual_seed(0)
    layer = FourierConvolution(16).eval()
    features = torch.zeros(2, 16, 16, 16)
    features[1, 10, 7, 7] = 1
    for has_spectrum, cells in ((True, 256), (False, 9)):
        if not has_spectrum:
            nn.init.zeros_(layer.spectral.leave.weight)
            features = features.clone()
        base, changed = layer(features)
        difference = (changed - base).abs()
        reached = difference[layer.num_local :] if has_spectrum else difference
        assert int((reached.amax(0) > 0).sum()) == cells


def test_the_residual_branch_ends_with_relu_and_can_be_the_identity():
    torch.manual_seed(0)
    block = FourierBlock(16)
    features = torch.randn(2, 16, 8, 8)
    assert (block(features) - features).min() >= -1e-6
    nn.init.zeros_(block.layers[4].weight)
    nn.init.zeros_(block.layers[4].bias)
    assert torch.equal(block(features), features)


def test_any_multiple_of_eight_is_filled_by_the_same_weights():
    recipe = build_tiny("lama")
    generator = recipe.networks["generator"].eval()
    for size in ((96, 96), (64, 160), (16, 16)):
        batch = make_batch(size)
        assert generator(batch.image, batch.mask).shape == batch.image.shape
    with pytest.raises(ValueError, match="at least 16"):
        generator(torch.zeros(1, 3, 8, 16), torch.zeros(1, 1, 8, 16))


def test_losses_by_hand():
    mask = torch.zeros(2, 1, 16, 16)
    mask[:, :, :8] = 1
    image = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(l1_of_known(image + 0.5, image, mask), torch.tensor(0.25))
    hidden = torch.where(mask == 1, torch.rand_like(image), image)
    assert l1_of_known(hidden, image, mask) == 0
    scores = torch.randn(2, 1, 5, 5)
    torch.testing.assert_close(fake_loss(scores, torch.ones_like(mask)), F.softplus(scores).mean())
    torch.testing.assert_close(fake_loss(scores, torch.zeros_like(mask)), F.softplus(-scores).mean())
    half = torch.cat((F.softplus(scores[:, :, :3]).flatten(), F.softplus(-scores[:, :, 3:]).flatten())).mean()
    torch.testing.assert_close(fake_loss(scores, mask), half)  # rows 0 to 2 of 5 begin in the upper half of 16
    maps = [torch.ones(1, 2, 4, 4), torch.ones(1, 3, 2, 2)]
    zeros = [torch.zeros_like(m) for m in maps]
    assert feature_matching(maps, zeros) == 1
    assert feature_matching(maps, maps) == 0
    assert stage_distance(maps, zeros) == 2


def test_the_gradient_penalty_of_a_linear_score_is_its_squared_norm():
    weight = torch.randn(3, 8, 8)
    image = torch.rand(4, 3, 8, 8, requires_grad=True)
    scores = (weight * image).sum((1, 2, 3))
    torch.testing.assert_close(gradient_penalty(scores, image), weight.square().sum())


def test_terms_are_those_of_the_code():
    recipe = build(dataclasses.replace(Config.tiny(), perceptual_weight=1.0))
    batch = make_batch((64, 64))
    networks = {name: network.eval() for name, network in recipe.networks.items()}
    phase = recipe.phases[0]
    outputs = phase.forward(networks, batch)
    image, predicted = (batch.image + 1) / 2, (networks["generator"](batch.image, batch.mask) + 1) / 2
    torch.testing.assert_close(outputs["predicted"], predicted)
    real, fake = networks["generator_d"](image), networks["generator_d"](predicted)
    terms = phase.updates[0].terms(networks, batch, outputs)
    torch.testing.assert_close(terms["l1"], 10 * ((predicted - image).abs() * (1 - batch.mask)).mean())
    torch.testing.assert_close(terms["adversarial"], 10 * F.softplus(-fake[-1]).mean())
    matched = sum(F.mse_loss(f, r) for f, r in zip(fake[:5], real[:5], strict=True)) / 5
    torch.testing.assert_close(terms["feature_matching"], 100 * matched)
    assert terms["perceptual"] > 0
    d_terms = phase.updates[1].terms(networks, batch, outputs)
    torch.testing.assert_close(d_terms["d_real"], F.softplus(-real[-1]).mean())
    torch.testing.assert_close(d_terms["d_fake"], fake_loss(fake[-1], batch.mask))
    assert d_terms["d_penalty"] > 0


def test_updates_leave_the_other_network_without_gradients():
    recipe = build_tiny("lama")
    start_phase(recipe, recipe.phases[0])
    held = []

    def note(update, _terms):
        held.append({name: any(p.grad is not None for p in net.parameters()) for name, net in recipe.networks.items()})
        for network in recipe.networks.values():
            network.zero_grad()

    run_step(recipe, recipe.phases[0], make_batch((64, 64)), note)
    assert held == [{"generator": True, "generator_d": False}, {"generator": False, "generator_d": True}]


def test_a_fixed_batch_is_learned():
    torch.manual_seed(0)
    recipe = build(
        dataclasses.replace(Config.tiny(), adversarial_weight=0.1, feature_matching_weight=1.0, learning_rate=1e-2)
    )
    batch = make_batch((32, 32), num_samples=2)
    start_phase(recipe, recipe.phases[0])
    errors = [run_step(recipe, recipe.phases[0], batch)["l1"].item() for _ in range(80)]
    assert sum(errors[-5:]) / 5 < 0.5 * errors[0]


@pytest.mark.parametrize(("values", "match"), [({"blocks": 0}, "blocks"), ({"features_stem": "deep"}, "needs a file")])
def test_settings_that_cannot_be_are_refused(values, match):
    with pytest.raises(ValueError, match=match):
        Config(**values)
