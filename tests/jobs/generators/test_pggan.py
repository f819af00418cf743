"""Facts of PGGAN: counts, blocks, receptive field, branches of the discriminator, losses by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from benchmarks.batches import make_batch
from jobs.generators.pggan import Config
from jobs.generators.pggan.networks import Discriminator, Generator, ResidualBlock
from jobs.generators.pggan.recipe import build
from tests.jobs.generators.steps import build_tiny, run_step, start_phase


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("values", "generator", "discriminator"),
    [
        ({}, 6_662_595, 13_324_866),
        ({"blocks": 4}, 5_482_179, 13_324_866),
        ({"blocks": 6}, 7_843_011, 13_324_866),
        ({"variant": "res"}, 26_721_987, 13_324_866),
        ({"variant": "res", "blocks": 6}, 31_442_115, 13_324_866),
        ({"image_size": 512}, 6_662_595, 18_504_002),
        ({"patch_fc": False}, 6_662_595, 13_259_074),
    ],
)
def test_every_setting_has_the_known_number_of_parameters(values, generator, discriminator):
    with torch.device("meta"):
        networks = build(Config(**values)).networks
    assert (count(networks["generator"]), count(networks["generator_d"])) == (generator, discriminator)


def test_the_generator_resizes_before_it_convolves_and_transposes_nothing():
    with torch.device("meta"):
        networks = [build(Config(variant=variant)).networks["generator"] for variant in ("dres", "res")]
    for network, doublings in zip(networks, (2, 3), strict=True):
        modules = [type(module).__name__ for module in network.modules()]
        assert modules.count("Resize") == doublings
        assert "ConvTranspose2d" not in modules
    convolutions = [module for module in networks[0].modules() if isinstance(module, nn.Conv2d)]
    assert [conv.dilation[0] for conv in convolutions[3:-3]] == [1, 1, 2, 1, 4, 1, 8, 1, 16, 1]
    assert all(conv.padding_mode == "reflect" for conv in convolutions)


@pytest.mark.parametrize(("first", "second"), [(4, 1), (1, 4), (1, 1)])
def test_a_block_adds_to_its_input_and_reaches_as_far_as_its_dilations(first, second):
    torch.manual_seed(0)
    block = ResidualBlock(3, first, second).double().eval()
    features = torch.randn(1, 3, 21, 21, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(features)[0, :, 10, 10].sum(), features)
    rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (rows.min(), rows.max()) == (10 - first - second, 10 + first + second)
    nn.init.zeros_(block.block[3].weight)
    nn.init.zeros_(block.block[3].bias)
    assert torch.equal(block(features), features)  # negative values, too: nothing follows the sum
    assert features.min() < 0


@pytest.mark.parametrize(("blocks", "pixels"), [(4, 165), (5, 301)])
def test_the_receptive_field_grows_with_the_blocks(blocks, pixels):
    # Linear and positive, so that no path cancels: the field at the last block is that of stem and blocks.
    generator = Generator(width=1, halvings=2, dilations=tuple((2**n, 1) for n in range(blocks)), resize="nearest")
    stem = generator.layers[: 3 + blocks].double().eval()
    for module in stem.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    image = torch.ones(1, 4, 400, 68, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(stem(image)[0, :, 50, 8].sum(), image)
    assert int((gradient.abs().sum((0, 1, 3)) > 0).sum()) == pixels


def test_the_discriminator_has_a_score_and_a_score_per_patch():
    discriminator = Discriminator(image_size=64, width=2)
    linear = discriminator.patches[-1]
    with torch.no_grad():
        linear.weight.copy_(torch.eye(16))
        linear.bias.zero_()
    image = torch.randn(3, 3, 64, 64)
    whole, patches = discriminator.eval()(image)
    assert whole.shape == (3, 1)
    assert torch.equal(patches, discriminator.patches[:2](discriminator.shared(image)).reshape(3, 16))
    with pytest.raises(ValueError, match="a linear layer fixes it"):
        discriminator(torch.randn(1, 3, 64, 128))
    with torch.device("meta"):
        shapes = [tuple(scores.shape) for scores in Discriminator(image_size=256)(torch.empty(2, 3, 256, 256))]
    assert shapes == [(2, 1), (2, 256)]


@pytest.mark.parametrize("branch", [0, 1])
def test_each_branch_trains_the_shared_layers_and_not_the_other_branch(branch):
    discriminator = Discriminator(image_size=64, width=2)
    discriminator(torch.randn(2, 3, 64, 64))[branch].sum().backward()
    trained = {name.split(".")[0] for name, p in discriminator.named_parameters() if p.grad is not None}
    assert trained == {"shared", ("whole", "patches")[branch]}


@pytest.mark.parametrize("judged", ["raw", "composite"])
def test_terms_are_those_of_the_paper(judged):
    recipe = build(dataclasses.replace(Config.tiny(), adversarial_on=judged))
    batch = make_batch((64, 64))
    networks = {name: network.eval() for name, network in recipe.networks.items()}
    phase = recipe.phases[0]
    outputs = phase.forward(networks, batch)
    seen = outputs["raw"] if judged == "raw" else torch.where(batch.mask == 1, outputs["raw"], batch.image)
    real, fake = ([torch.sigmoid(score) for score in networks["generator_d"](image)] for image in (batch.image, seen))
    d_terms = phase.updates[0].terms(networks, batch, outputs)
    for number, name in enumerate(("global", "patch")):
        torch.testing.assert_close(d_terms[f"d_real_{name}"], -real[number].log().mean())
        torch.testing.assert_close(d_terms[f"d_fake_{name}"], -(1 - fake[number]).log().mean())
    terms = phase.updates[1].terms(networks, batch, outputs)
    torch.testing.assert_close(terms["reconstruction"], 0.995 * (outputs["raw"] - batch.image).abs().mean())
    torch.testing.assert_close(terms["adversarial_global"], -0.0025 * fake[0].log().mean())
    torch.testing.assert_close(terms["adversarial_patch"], -0.0025 * fake[1].log().mean())


def test_a_constant_error_costs_the_same_for_every_mask():
    recipe = build_tiny("pggan")
    batch = make_batch((64, 64))
    outputs = {"raw": batch.image + 0.5, "judged": batch.image}
    for mask in (batch.mask, torch.zeros_like(batch.mask), torch.ones_like(batch.mask)):
        other = dataclasses.replace(batch, mask=mask)
        terms = recipe.phases[0].updates[1].terms(recipe.networks, other, outputs)
        torch.testing.assert_close(terms["reconstruction"], torch.tensor(0.995 * 0.5))


def test_a_fixed_batch_is_learned():
    torch.manual_seed(0)
    recipe = build(dataclasses.replace(Config.tiny(), width=8, learning_rate=1e-3))
    batch = make_batch((64, 64), num_samples=2)
    phase = recipe.phases[0]
    start_phase(recipe, phase)
    errors = [run_step(recipe, phase, batch)["reconstruction"].item() for _ in range(60)]
    assert sum(errors[-5:]) / 5 < 0.5 * errors[0]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"image_size": 96}, "power of two"),
        ({"image_size": 32}, "at least 64"),
        ({"image_size": 64}, "lower blocks"),
        ({"blocks": 0}, "blocks must be 1 to 12"),
    ],
)
def test_settings_that_cannot_be_are_refused(values, match):
    with pytest.raises(ValueError, match=match):
        Config(**values)
