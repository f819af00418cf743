"""Facts of AOT-GAN: counts, sizes, the block and its gate, soft masks, losses by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.batches import make_batch
from benchmarks.loops import aot_gan
from jobs.generators.aot_gan import Config
from jobs.generators.aot_gan.losses import blur, discriminator_loss, generator_loss
from jobs.generators.aot_gan.networks import AOTBlock, Discriminator, Generator, normalise_gate
from jobs.generators.aot_gan.recipe import build
from tests.jobs.generators.steps import build_tiny, run_step, start_phase


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_every_stage_has_the_published_number_of_parameters():
    with torch.device("meta"):
        generator, discriminator = Generator(width=64, blocks=8), Discriminator()
        counts = [count(stage) for stage in (generator.encoder, generator.middle, generator.decoder, discriminator)]
        sizes = [tuple(discriminator(torch.empty(1, 3, side, side)).shape[2:]) for side in (256, 512)]
    assert counts == [668_352, 14_161_920, 370_563, 2_763_777]
    assert sizes == [(30, 30), (62, 62)]


@pytest.mark.parametrize("size", [(9, 9), (10, 13)])
def test_a_block_agrees_with_its_equations_in_value_and_gradient(size):
    torch.manual_seed(0)
    block = AOTBlock(4).double()
    features = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 4, *size, dtype=torch.float64)
    fast, slow = block(features), aot_gan.block(block, features)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-12)
    inputs = [features, *block.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad((fast * weights).sum(), inputs),
        torch.autograd.grad((slow * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_the_gate_mixes_the_features_with_the_fused_branches():
    block = AOTBlock(4).eval()
    features = torch.randn(1, 4, 12, 12)
    for value in (-1e4, 1e4):
        handle = block.gate.register_forward_hook(lambda *_, value=value: torch.full((1, 4, 12, 12), value))
        out = block(features)
        handle.remove()
        # A constant map is normalised to -5 before the sigmoid, whatever its value.
        closed = 1 / (1 + math.exp(5))
        fused = block.fuse(torch.cat([F.relu(branch(features)) for branch in block.branches], dim=1))
        torch.testing.assert_close(out, features * (1 - closed) + fused * closed)


def test_the_gates_map_has_mean_minus_five_and_deviation_ten():
    features = torch.randn(2, 3, 40, 40) * 3 + 7
    for norm in ("rsqrt", "released"):
        gate = normalise_gate(features, norm)
        torch.testing.assert_close(gate.mean((2, 3)), torch.full((2, 3), -5.0), rtol=0, atol=1e-5)
        torch.testing.assert_close(gate.std((2, 3)), torch.full((2, 3), 10.0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_a_constant_map_keeps_the_gate_closed_with_a_bounded_gradient(value):
    features = torch.full((1, 1, 64, 64), value, requires_grad=True)
    gate = normalise_gate(features, "rsqrt").sigmoid()
    assert gate.min() > 0.0065
    assert gate.max() < 0.0076
    if value in (0.0, 0.5, 1.0):
        torch.testing.assert_close(gate, torch.full_like(gate, 0.0066928510), rtol=1e-6, atol=0)
    (gate * torch.randn(gate.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert features.grad.abs().max() < 1e5


def test_the_blur_pads_with_zeros_and_leaves_a_distant_border_alone():
    mask = torch.zeros(1, 1, 128, 128)
    assert torch.equal(1 - blur(mask, 35, 5.0), torch.ones_like(mask))
    full = 1 - blur(torch.ones_like(mask), 35, 5.0)
    assert full[..., 40:-40, 40:-40].abs().max() < 1e-5
    assert full[..., 0, 0] > 0.5
    mask[..., 64:80, 64:80] = 1
    soft = blur(mask, 35, 5.0)
    assert soft[..., :46].abs().max() == 0
    torch.testing.assert_close(soft.sum(), mask.sum())
    by_definition = sum(
        math.exp(-((y - 17) ** 2 + (x - 17) ** 2) / 50) for y in range(35) for x in range(35) if y >= 17 and x >= 17
    ) / sum(math.exp(-((y - 17) ** 2 + (x - 17) ** 2) / 50) for y in range(35) for x in range(35))
    corner = torch.zeros(1, 1, 128, 128)
    corner[..., 64:, 64:] = 1
    torch.testing.assert_close(blur(corner, 35, 5.0)[0, 0, 64, 64].item(), by_definition, rtol=1e-5, atol=0)


def test_the_generators_loss_counts_the_hole_alone():
    scores = torch.randn(2, 1, 16, 16)
    mask = torch.zeros(2, 1, 16, 16)
    mask[0, :, :4, :4] = 1
    expected = (scores[0, :, :4, :4] - 1).square().mean()
    torch.testing.assert_close(generator_loss(scores, mask, released=False), expected)
    other = torch.where(mask == 1, scores, torch.randn(2, 1, 16, 16))
    torch.testing.assert_close(generator_loss(other, mask, released=False), expected)
    assert generator_loss(torch.ones_like(scores), mask, released=False) == 0
    assert generator_loss(scores, torch.zeros_like(mask), released=False) == 0
    torch.testing.assert_close(generator_loss(scores, mask, released=True), F.mse_loss(scores, torch.ones_like(scores)))


@pytest.mark.parametrize("released", [False, True])
def test_the_discriminators_targets_are_those_of_paper_and_code(released):
    real, fake, soft = torch.randn(1, 1, 8, 8), torch.randn(1, 1, 8, 8), torch.rand(1, 1, 8, 8)
    target = soft if released else 1 - soft
    expected = F.mse_loss(real, torch.full_like(real, 0.0 if released else 1.0)) + F.mse_loss(fake, target)
    torch.testing.assert_close(discriminator_loss(real, fake, soft, released=released), expected)


@pytest.mark.parametrize("gan", ["smgan", "nsgan"])
def test_the_networks_leave_each_other_alone(gan):
    recipe = build(dataclasses.replace(Config.tiny(), gan=gan))
    start_phase(recipe, recipe.phases[0])
    held = []

    def note(update, _terms):
        held.append({name: any(p.grad is not None for p in net.parameters()) for name, net in recipe.networks.items()})
        for network in recipe.networks.values():
            network.zero_grad()

    run_step(recipe, recipe.phases[0], make_batch((64, 64)), note)
    assert held == [{"generator": True, "generator_d": False}, {"generator": False, "generator_d": True}]


def test_reconstruction_covers_the_image_and_the_adversarial_term_the_hole():
    recipe = build(dataclasses.replace(Config.tiny(), perceptual_weight=0.1, style_weight=250.0))
    batch = make_batch((64, 64))
    phase = recipe.phases[0]
    outputs = phase.forward(recipe.networks, batch)
    outputs["raw"].retain_grad()
    terms = phase.updates[0].terms(recipe.networks, batch, outputs)
    known = batch.mask.expand_as(batch.image) == 0
    for name, reaches_known in (("l1", True), ("perceptual", True), ("style", True), ("adversarial", False)):
        outputs["raw"].grad = None
        terms[name].backward(retain_graph=True)
        assert outputs["raw"].grad[~known].any()
        assert bool(outputs["raw"].grad[known].any()) == reaches_known


def test_holes_are_white_to_the_network():
    recipe = build_tiny("aot_gan")
    batch = make_batch((64, 64))
    seen = {}
    recipe.networks["generator"].encoder.register_forward_pre_hook(lambda _, inputs: seen.update(features=inputs[0]))
    recipe.networks["generator"](batch.image, batch.mask)
    expected = torch.cat((torch.where(batch.mask == 1, 1.0, batch.image), batch.mask), dim=1)
    assert torch.equal(seen["features"], expected)


def test_a_fixed_batch_is_learned():
    torch.manual_seed(0)
    recipe = build(dataclasses.replace(Config.tiny(), width=8, learning_rate=2e-3))
    batch = make_batch((64, 64), num_samples=2)
    start_phase(recipe, recipe.phases[0])
    errors = [run_step(recipe, recipe.phases[0], batch)["l1"].item() for _ in range(80)]
    assert sum(errors[-5:]) / 5 < 0.5 * errors[0]


@pytest.mark.parametrize(
    ("values", "match"), [({"soft_kernel": 70}, "odd"), ({"soft_sigma": 0.0}, "soft_sigma"), ({"blocks": 0}, "blocks")]
)
def test_settings_that_cannot_be_are_refused(values, match):
    with pytest.raises(ValueError, match=match):
        Config(**values)
