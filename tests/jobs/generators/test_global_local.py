"""Facts of GLCIC: counts, layers, receptive field, phases, windows, losses by hand, post-processing."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.batches import make_batch
from jobs.generators.build import inpaint
from jobs.generators.global_local import Config
from jobs.generators.global_local.blending import blend
from jobs.generators.global_local.losses import reconstruction
from jobs.generators.global_local.networks import Discriminator, Generator
from jobs.generators.global_local.recipe import build, random_windows
from jobs.layers.windows import crop_windows, window_around_hole
from tests.jobs.generators.steps import build_tiny, run_step, start_phase

BLACK = (-1.0, -1.0, -1.0)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("image_size", "local_size", "layers", "parameters"),
    [(256, 128, 6, 45_063_681), (160, 96, 5, 39_557_121), (128, 64, 6, 32_480_769)],
)
def test_the_discriminator_has_the_parameters_of_every_setting(image_size, local_size, layers, parameters):
    with torch.device("meta"):
        network = Discriminator(image_size=image_size, local_size=local_size, global_layers=layers)
    assert count(network) == parameters


def test_layers_follow_the_table():
    with torch.device("meta"):
        layers = list(Generator(width=64, mean=BLACK).layers)
    rows = []
    for n, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            kind = "up" if isinstance(layer, nn.ConvTranspose2d) else "conv"
            rows.append((kind, layer.kernel_size[0], layer.stride[0], layer.dilation[0], layer.out_channels))
            followers = [type(follower).__name__ for follower in layers[n + 1 : n + 3]]
            assert followers == ([] if layer.out_channels == 3 else ["BatchNorm2d", "ReLU"])
    assert rows == [
        ("conv", 5, 1, 1, 64),
        ("conv", 3, 2, 1, 128),
        ("conv", 3, 1, 1, 128),
        ("conv", 3, 2, 1, 256),
        ("conv", 3, 1, 1, 256),
        ("conv", 3, 1, 1, 256),
        *(("conv", 3, 1, d, 256) for d in (2, 4, 8, 16)),
        ("conv", 3, 1, 1, 256),
        ("conv", 3, 1, 1, 256),
        ("up", 4, 2, 1, 128),
        ("conv", 3, 1, 1, 128),
        ("up", 4, 2, 1, 64),
        ("conv", 3, 1, 1, 32),
        ("conv", 3, 1, 1, 3),
    ]


@pytest.mark.parametrize("size", [(256, 256), (160, 160), (180, 220)])
def test_any_multiple_of_four_is_accepted_and_others_refused(size):
    generator = Generator(width=2, mean=BLACK)
    image, mask = torch.rand(2, 3, *size) * 2 - 1, (torch.rand(2, 1, *size) < 0.3).float()
    with torch.no_grad():
        raw = generator(image, mask)
    assert raw.shape == image.shape
    assert raw.abs().max() <= 1
    with pytest.raises(ValueError, match="multiples of 4"):
        generator(image[..., 2:], mask[..., 2:])


def test_the_discriminator_scores_images_of_one_size():
    network = Discriminator(image_size=64, local_size=32, width=2, units=4)
    assert network(torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 32, 32)).shape == (2, 1)
    with pytest.raises(ValueError, match="fix their sizes"):
        network(torch.zeros(2, 3, 64, 60), torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize(("dilated", "rows"), [(True, {299, 303}), (False, {91, 95})])
def test_the_receptive_field_is_the_measured_one(dilated, rows):
    generator = Generator(width=2, mean=BLACK).double().eval()
    for layer in generator.layers:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())  # positive, and no overflow
            nn.init.zeros_(layer.bias)
            if not dilated and layer.dilation[0] > 1:
                layer.dilation, layer.padding = (1, 1), (1, 1)
    image = torch.ones(1, 3, 320, 8, dtype=torch.float64, requires_grad=True)
    raw = generator(image, torch.zeros(1, 1, 320, 8, dtype=torch.float64))
    found = set()
    for row in range(158, 162):
        (gradient,) = torch.autograd.grad(raw[0, :, row, 4].sum(), image, retain_graph=True)
        found.add(int((gradient.abs().sum((0, 1, 3)) > 0).sum()))
    assert found == rows


def test_shifting_the_input_shifts_the_output_by_as_much():
    torch.manual_seed(0)
    generator = Generator(width=2, mean=BLACK).double().eval()
    image = torch.rand(1, 3, 340, 340, dtype=torch.float64) * 2 - 1
    mask = torch.zeros(1, 1, 340, 340, dtype=torch.float64)
    mask[..., 150:190, 140:200] = 1
    with torch.no_grad():
        raw, shifted = generator(image, mask), generator(image.roll((4, 4), (2, 3)), mask.roll((4, 4), (2, 3)))
    centre = slice(165, 176)  # out of the borders' reach, 152 pixels and the shift
    torch.testing.assert_close(shifted[..., centre, centre], raw.roll((4, 4), (2, 3))[..., centre, centre])
    assert raw[..., centre, centre].std() > 1e-6  # two constants would agree as well


def test_the_hole_has_the_mean_colour_and_the_mask_is_an_input():
    recipe = build(dataclasses.replace(Config.tiny(), mean_red=255.0, mean_green=127.5, mean_blue=0.0))
    batch = make_batch((64, 64))
    seen = {}
    recipe.networks["generator"].layers.register_forward_pre_hook(lambda _, inputs: seen.update(features=inputs[0]))
    recipe.networks["generator"](batch.image, batch.mask)
    colour = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1).expand_as(batch.image)
    expected = torch.where(batch.mask == 1, colour, batch.image)
    assert torch.equal(seen["features"], torch.cat((expected, batch.mask), dim=1))


def test_reconstruction_by_hand_and_on_the_scale_of_zero_to_one():
    image, raw = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    mask = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).view(1, 1, 2, 2)
    assert reconstruction(raw, image, mask) == 0.25 / 4  # 3 of 12 elements differ by 1, which is 0.5 in [0, 1]
    assert reconstruction(raw, image, 0 * mask) == 0
    raw, image = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    whole = torch.ones(2, 1, 8, 8)
    torch.testing.assert_close(reconstruction(2 * raw - 1, 2 * image - 1, whole), F.mse_loss(raw, image))


def test_each_phase_trains_what_the_paper_says():
    with torch.device("meta"):
        recipe = build(Config())
    steps = [(phase.name, phase.steps, [update.networks for update in phase.updates]) for phase in recipe.phases]
    assert steps == [
        ("completion", 90_000, [("generator",)]),
        ("discriminator", 10_000, [("generator_d",)]),
        ("joint", 400_000, [("generator_d",), ("generator",)]),
    ]
    assert all(isinstance(optimizer, torch.optim.Adadelta) for optimizer in recipe.optimizers.values())
    assert recipe.optimizers["generator"].defaults["lr"] == 1.0


def test_the_second_phase_keeps_the_generators_statistics_running():
    recipe = build_tiny("global_local")
    batch = make_batch((64, 64))
    phase = recipe.phases[1]
    start_phase(recipe, phase)
    generator = recipe.networks["generator"]
    statistics = {key: value.clone() for key, value in generator.named_buffers() if "running" in key}
    weights = [p.clone() for p in generator.parameters()]
    run_step(recipe, phase, batch)
    now = dict(generator.named_buffers())
    assert all(not torch.equal(now[key], value) for key, value in statistics.items())
    assert all(torch.equal(old, new) for old, new in zip(weights, generator.parameters(), strict=True))
    assert all(p.grad is None for p in generator.parameters())


def test_the_generators_step_leaves_no_gradient_in_the_discriminator():
    recipe = build_tiny("global_local")
    phase = recipe.phases[2]
    start_phase(recipe, phase)
    held = []

    def note(update, _terms):
        held.append({name: any(p.grad is not None for p in net.parameters()) for name, net in recipe.networks.items()})

    run_step(recipe, phase, make_batch((64, 64)), note)
    assert held == [{"generator": False, "generator_d": True}, {"generator": True, "generator_d": False}]


def test_terms_are_those_of_the_paper():
    recipe = build(dataclasses.replace(Config.tiny(), adversarial_weight=0.25))
    batch = make_batch((64, 64))
    for network in recipe.networks.values():
        network.eval()  # each pass in training mode would move the statistics
    phase = recipe.phases[2]
    outputs = phase.forward(recipe.networks, batch)
    completed = torch.where(batch.mask == 1, outputs["raw"], batch.image)
    assert torch.equal(outputs["completed"], completed)
    judge = recipe.networks["generator_d"]
    fake = judge(completed, crop_windows(completed, window_around_hole(batch.mask, 32), 32))
    real = judge(batch.image, crop_windows(batch.image, random_windows(batch, 32), 32))
    d_terms = phase.updates[0].terms(recipe.networks, batch, outputs)
    torch.testing.assert_close(d_terms["d_real"], -torch.sigmoid(real).log().mean())
    torch.testing.assert_close(d_terms["d_fake"], -(1 - torch.sigmoid(fake)).log().mean())
    terms = phase.updates[1].terms(recipe.networks, batch, outputs)
    torch.testing.assert_close(terms["adversarial"], -0.25 * torch.sigmoid(fake).log().mean())
    torch.testing.assert_close(terms["reconstruction"], reconstruction(outputs["raw"], batch.image, batch.mask))


def test_the_adversarial_gradient_stays_inside_the_hole():
    recipe = build_tiny("global_local")
    batch = make_batch((64, 64))
    phase = recipe.phases[2]
    outputs = phase.forward(recipe.networks, batch)
    outputs["raw"].retain_grad()
    phase.updates[1].terms(recipe.networks, batch, outputs)["adversarial"].backward()
    gradient = outputs["raw"].grad.abs().sum(dim=1, keepdim=True)
    assert not gradient[batch.mask == 0].any()
    assert gradient[batch.mask == 1].any()


def test_real_windows_reach_every_place_and_do_not_follow_the_hole():
    batch = make_batch((16, 20), num_samples=600)
    starts = random_windows(batch, 12)
    assert {tuple(start) for start in starts.tolist()} == {(y, x) for y in range(5) for x in range(9)}
    other = dataclasses.replace(batch, mask=1 - batch.mask)
    assert torch.equal(random_windows(other, 12), starts)


def test_blending_takes_the_colours_of_the_surroundings_and_the_outputs_texture():
    generator = torch.Generator().manual_seed(0)
    image = -0.4 + 0.02 * torch.rand(4, 3, 40, 53, generator=generator)
    texture = 0.1 * torch.sin(torch.arange(53) / 1.5).expand_as(image)  # waves along the rows
    output = 0.2 + texture
    mask = torch.zeros(4, 1, 40, 53)
    mask[0, :, 12:28, 20:41] = 1
    mask[1, :, :15, 30:] = 1  # over a corner
    mask[2] = 1  # the last one is empty
    blended = blend(output, image, mask)
    assert torch.equal(blended[2:], output[2:])
    known = mask.expand_as(image) == 0
    assert torch.equal(blended[known], output[known])
    slopes, wanted = blended.diff(dim=3), texture.diff(dim=3)
    inner = (F.avg_pool2d(mask, 9, stride=1, padding=4) == 1)[..., 1:].expand_as(slopes)  # OpenCV smooths the rim
    for n in range(2):
        assert abs(blended[n][~known[n]].mean() + 0.39) < 0.05
        assert torch.corrcoef(torch.stack((slopes[n][inner[n]], wanted[n][inner[n]])))[0, 1] > 0.95
    other = torch.where(mask == 1, torch.rand(image.shape, generator=generator), image)
    assert torch.equal(blend(output, other, mask), blended)


def test_inpainting_blends_on_request_alone():
    batch = make_batch((61, 83))
    plain, blended = (build(dataclasses.replace(Config.tiny(), blend=wanted)) for wanted in (False, True))
    blended.networks["generator"].load_state_dict(plain.networks["generator"].state_dict())
    outputs = []
    for recipe in (plain, blended):
        outputs.append(inpaint(recipe, batch)["output"])
    assert outputs[0].shape == batch.image.shape
    assert torch.equal(blend(outputs[0], batch.image, batch.mask), outputs[1])
    assert not torch.equal(*outputs)


def test_a_fixed_batch_is_learned():
    torch.manual_seed(0)
    recipe = build(dataclasses.replace(Config.tiny(), width=8))
    batch = make_batch((64, 64), num_samples=2)
    phase = recipe.phases[0]
    start_phase(recipe, phase)
    errors = [run_step(recipe, phase, batch)["reconstruction"].item() for _ in range(60)]
    assert sum(errors[-5:]) / 5 < 0.5 * errors[0]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"width": 5}, "even"),
        ({"image_size": 66}, "multiple of 4"),
        ({"image_size": 64, "local_size": 65}, "local_size"),
        ({"d_global_layers": 7}, "d_global_layers"),
    ],
)
def test_settings_that_cannot_be_are_refused(values, match):
    with pytest.raises(ValueError, match=match):
        Config(**values)
