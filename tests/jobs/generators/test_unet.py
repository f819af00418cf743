"""Facts of the plain U-Net: its input, its terms by hand, and its discriminator on request."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks.batches import make_batch
from jobs.generators.unet import Config
from jobs.generators.unet.first_guess import diffuse, roughness
from jobs.generators.unet.recipe import build
from tests.jobs.generators.steps import build_tiny, run_step, start_phase


def test_there_is_a_discriminator_on_request_alone():
    with torch.device("meta"):
        plain, adversarial = (build(Config(adversarial_weight=weight)) for weight in (0.0, 0.01))
    assert set(plain.networks) == {"generator"}
    assert [update.networks for update in plain.phases[0].updates] == [("generator",)]
    assert sum(p.numel() for p in adversarial.networks["generator_d"].parameters()) == 2_764_737
    assert [update.networks for update in adversarial.phases[0].updates] == [("generator_d",), ("generator",)]


def test_the_network_sees_the_known_pixels_and_the_mask():
    recipe = build_tiny("unet")
    batch = make_batch((64, 64))
    seen = {}
    recipe.networks["generator"].unet.register_forward_pre_hook(lambda _, inputs: seen.update(features=inputs[0]))
    recipe.networks["generator"](batch.image, batch.mask)
    expected = torch.cat((torch.where(batch.mask == 1, 0.0, batch.image), batch.mask), dim=1)
    assert torch.equal(seen["features"], expected)


def test_diffusion_continues_a_slope():
    """A ramp solves both equations, so that its middle can be restored."""
    image = torch.linspace(-1, 1, 32).expand(1, 3, 32, 32)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 10:22] = 1
    torch.testing.assert_close(diffuse(image, mask), image, atol=0.03, rtol=0)


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (20, 12), (1, 1)])
def test_diffusion_keeps_known_pixels_and_reads_no_others(size):
    batch = make_batch(size)
    filled = diffuse(torch.where(batch.mask == 1, float("nan"), batch.image), batch.mask)
    assert torch.equal(filled[batch.mask.expand_as(filled) == 0], batch.image[batch.mask.expand_as(filled) == 0])
    assert -1 <= filled.min() <= filled.max() <= 1
    assert torch.equal(diffuse(batch.image, torch.ones_like(batch.mask)), torch.zeros_like(batch.image))


def test_roughness_counts_pairs_of_known_pixels():
    image = torch.zeros(1, 3, 4, 4)
    image[..., 2:] = 0.5  # one of three differences across is 0.5, and none down
    mask = torch.zeros(1, 1, 4, 4)
    assert roughness(image, mask).item() == pytest.approx(4 * 0.5 / 24)
    mask[..., 3] = 1
    assert roughness(image, mask).item() == pytest.approx(4 * 0.5 / 17)
    assert roughness(image, torch.ones_like(mask)).item() == pytest.approx(1e-3)


def test_with_a_first_guess_the_network_changes_the_hole_alone():
    recipe = build(dataclasses.replace(Config.tiny(), first_guess="diffusion"))
    batch = make_batch((64, 64))
    output = recipe.networks["generator"](batch.image, batch.mask)
    assert torch.equal(output, diffuse(batch.image, batch.mask))
    start_phase(recipe, recipe.phases[0])
    run_step(recipe, recipe.phases[0], batch)
    changed = recipe.networks["generator"](batch.image, batch.mask) != output
    assert torch.equal(changed.any(dim=1, keepdim=True), batch.mask == 1)
    assert set(recipe.networks["generator"].state_dict()) == set(
        build(Config.tiny()).networks["generator"].state_dict()
    )


def test_terms_by_hand():
    recipe = build(dataclasses.replace(Config.tiny(), l1_weight=2.0, adversarial_weight=0.25))
    batch = make_batch((64, 64))
    networks = {name: network.eval() for name, network in recipe.networks.items()}
    phase = recipe.phases[0]
    outputs = phase.forward(networks, batch)
    completed = torch.where(batch.mask == 1, outputs["raw"], batch.image)
    real, fake = (torch.sigmoid(networks["generator_d"](image)) for image in (batch.image, completed))
    d_terms = phase.updates[0].terms(networks, batch, outputs)
    torch.testing.assert_close(d_terms["d_real"], -real.log().mean())
    torch.testing.assert_close(d_terms["d_fake"], -(1 - fake).log().mean())
    terms = phase.updates[1].terms(networks, batch, outputs)
    torch.testing.assert_close(terms["l1"], 2 * (outputs["raw"] - batch.image).abs().mean())
    torch.testing.assert_close(terms["adversarial"], -0.25 * fake.log().mean())


def test_a_fixed_batch_is_learned():
    torch.manual_seed(0)
    recipe = build(dataclasses.replace(Config.tiny(), width=8, adversarial_weight=0.0, learning_rate=2e-3))
    batch = make_batch((64, 64), num_samples=2)
    phase = recipe.phases[0]
    start_phase(recipe, phase)
    errors = [run_step(recipe, phase, batch)["l1"].item() for _ in range(60)]
    assert sum(errors[-5:]) / 5 < 0.5 * errors[0]


@pytest.mark.parametrize(("values", "match"), [({"levels": 0}, "levels"), ({"adversarial_weight": -1.0}, "weight")])
def test_settings_that_cannot_be_are_refused(values, match):
    with pytest.raises(ValueError, match=match):
        Config(**values)
