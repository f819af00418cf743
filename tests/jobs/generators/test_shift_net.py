"""Facts of Shift-Net: counts, the shift against loops, its gradient, what it may know, losses by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.batches import make_batch
from benchmarks.loops import shift_net as loops
from jobs.generators.shift_net import PARAMETERS, Config
from jobs.generators.shift_net.losses import crop_hole, discounted_l1, guidance, style_and_content
from jobs.generators.shift_net.networks import Generator
from jobs.generators.shift_net.recipe import build
from jobs.generators.shift_net.shift import Shift
from jobs.layers.composite import composite
from jobs.layers.vgg import VGG16
from jobs.recipe.contract import Recipe
from tests.jobs.generators.steps import run_step, start_phase


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make_maps(height: int, width: int, *, num_samples: int = 4, channels: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """D and E as after a ReLU, without vectors of zeros, and holes: a box, scattered cells, none, all."""
    decoded, encoded = random(2, num_samples, channels, height, width).relu() + 0.01
    hole = torch.zeros(num_samples, 1, height, width, dtype=torch.float64)
    hole[0, :, 1:3, 1:4] = 1
    hole[1] = random(1, height, width, seed=1) > 0.3
    hole[3:] = 1
    return decoded, encoded, hole


def make_generator(**settings) -> Generator:
    torch.manual_seed(0)
    return Generator(**{"width": 4, "levels": 5} | settings)


def make_recipe(**settings) -> Recipe:
    torch.manual_seed(0)
    return build(dataclasses.replace(Config.tiny(), **settings))


# Counts and layers


def test_parameter_counts_are_the_published_networks():
    with torch.device("meta"):
        networks = build(Config()).networks
        without = build(Config(mask_channel=False)).networks["generator"]
        judge = networks["generator_d"]
        scores = judge(torch.zeros(1, 3, 256, 256)), judge(torch.zeros(1, 3, 120, 120))
    assert {name: count(network) for name, network in networks.items()} == PARAMETERS
    assert PARAMETERS == {"generator": 54_944_771, "generator_d": 2_766_529}
    assert count(without) == 54_943_747
    assert [score.shape[-2:] for score in scores] == [(30, 30), (13, 13)]
    ups = networks["generator"].unet.ups
    assert [stage[0].in_channels for stage in ups] == [512, 1024, 1024, 1024, 1024, 768, 256, 128]
    assert [stage[0].out_channels for stage in ups] == [512, 512, 512, 512, 256, 128, 64, 3]


def test_the_level_after_the_shift_sees_decoded_encoded_and_shifted():
    generator, batch = make_generator(), make_batch((64, 96))
    seen = {}
    generator.unet.ups[2].register_forward_pre_hook(lambda _, inputs: seen.update(joined=inputs[0]))
    generator.unet.downs[2].register_forward_hook(lambda _, __, output: seen.update(skip=output))
    found = generator(batch.image, batch.mask)
    encoded = seen["skip"].relu()
    assert found["decoded"].shape == (3, 16, 8, 12)
    assert found["hole"].any()
    shifted = generator.shift(found["decoded"], encoded, found["hole"])
    assert torch.equal(seen["joined"], torch.cat((found["decoded"], encoded, shifted), dim=1))
    assert shifted.any()


@pytest.mark.parametrize(
    ("settings", "colour"), [({}, 0.0), ({"mask_channel": False, "fill": (-0.5, 0.25, 0.5)}, (-0.5, 0.25, 0.5))]
)
def test_the_network_sees_the_filled_image_and_what_is_known(settings, colour):
    generator, batch = make_generator(**settings), make_batch((64, 64))
    seen = []
    generator.unet.downs[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    generator(batch.image, batch.mask, batch.image)
    filled = torch.where(batch.mask == 1, torch.tensor(colour).view(-1, 1, 1), batch.image)
    channels = [] if settings else [1 - batch.mask]
    assert torch.equal(seen[0], torch.cat((filled, *channels), dim=1))
    assert torch.equal(seen[1], torch.cat((batch.image, *channels), dim=1))  # the truth, with the same mask


def test_thin_strokes_are_hole_cells_with_the_maximum_only():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 20:23, :] = 1
    image = torch.zeros(1, 3, 64, 64)
    assert make_generator(mask_pool="vote")(image, mask)["hole"].sum() == 0
    assert make_generator(mask_pool="max")(image, mask)["hole"].sum() == 8


def test_sizes_and_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="multiples of 32"):
        make_generator()(torch.zeros(1, 3, 64, 72), torch.zeros(1, 1, 64, 72))
    with pytest.raises(ValueError, match="levels"):
        Config(levels=3)
    with pytest.raises(ValueError, match="hole_size"):
        Config(hole_size=120)
    with pytest.raises(ValueError, match="hole_size"):
        Config(hole_size=16, losses="v2")


# The shift


@pytest.mark.parametrize(("height", "width"), [(4, 5), (7, 4)])
def test_the_shift_agrees_with_a_loop_forward_and_backward(height, width):
    decoded, encoded, hole = make_maps(height, width)
    encoded.requires_grad_()
    fast, slow = Shift()(decoded, encoded, hole), loops.shift(decoded, encoded, hole)
    assert torch.equal(fast, slow)
    cotangent = random(*fast.shape, seed=2)
    (fast_gradient,) = torch.autograd.grad(fast, encoded, cotangent)
    (slow_gradient,) = torch.autograd.grad(slow, encoded, cotangent)
    torch.testing.assert_close(fast_gradient, slow_gradient, rtol=1e-12, atol=1e-12)
    assert fast_gradient[:2].any()


def test_hole_cells_get_a_known_vector_and_known_cells_nothing():
    _, encoded, hole = maps = make_maps(4, 5)
    shifted = Shift()(*maps)
    for sample in range(2):
        inside = hole[sample, 0] == 1
        assert not shifted[sample][:, ~inside].any()
        known = {tuple(vector) for vector in encoded[sample][:, ~inside].T.tolist()}
        assert all(tuple(vector) in known for vector in shifted[sample][:, inside].T.tolist())
    assert not shifted[2:].any()  # no hole; nothing known


def test_the_gradient_is_that_of_the_permutation_and_the_guess_gets_none():
    decoded, encoded, hole = (tensor[:2] for tensor in make_maps(4, 5))
    decoded.requires_grad_()
    encoded.requires_grad_()
    layer = Shift()
    shifted = layer(decoded, encoded, hole)
    cotangent = random(*shifted.shape, seed=2)
    of_decoded, of_encoded = torch.autograd.grad(shifted, (decoded, encoded), cotangent, allow_unused=True)
    assert of_decoded is None
    inside = hole.flatten(2).transpose(1, 2)  # (N, P, 1)
    permutation = F.one_hot(layer.matches(decoded, encoded, hole), 20) * inside  # S = P E, rows y, columns x
    expected = (cotangent.flatten(2) @ permutation).view_as(encoded)
    torch.testing.assert_close(of_encoded, expected, rtol=1e-12, atol=1e-12)
    assert not of_encoded[hole.expand_as(encoded) == 1].any()


def test_lengths_do_not_change_the_matches_but_a_sources_own_is_divided_out():
    decoded, encoded, hole = make_maps(4, 5)
    layer = Shift()
    expected = layer.matches(decoded, encoded, hole)
    lengths = 0.5 + random(4, 1, 4, 5, seed=3).abs()
    assert torch.equal(layer.matches(decoded * lengths, encoded, hole), expected)
    assert torch.equal(layer.matches(decoded, 7 * encoded, hole), expected)
    assert torch.equal(layer.matches(decoded, encoded * lengths, hole), expected)


def test_a_vector_of_zeros_changes_no_other_match():
    decoded, encoded, hole = (tensor[:1].clone() for tensor in make_maps(4, 5))
    layer = Shift()
    before = layer.matches(decoded, encoded, hole)
    decoded[..., 1, 1] = 0  # a hole cell without any guess
    encoded[..., 0, 0] = 0
    after = layer.matches(decoded, encoded, hole)
    others = (hole.flatten() == 1) & (before[0] != 0)
    others[1 * 5 + 1] = False
    assert others.any()
    assert torch.equal(after[0, others], before[0, others])
    assert layer(decoded, encoded, hole).isfinite().all()


def test_a_sample_does_not_depend_on_the_holes_of_others():
    maps = make_maps(4, 5)
    both = Shift()(*maps)
    for sample in range(4):
        alone = Shift()(*(tensor[sample : sample + 1] for tensor in maps))
        assert torch.equal(both[sample : sample + 1], alone)


def test_the_shift_compiles_as_one_graph():
    maps = make_maps(4, 5)
    compiled = torch.compile(Shift(), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*maps), Shift()(*maps))


def test_similarities_are_compared_in_float32_under_autocast():
    decoded, encoded = random(2, 1, 64, 6, 6, dtype=torch.float32).relu()
    encoded = encoded[..., :1, :1] + 0.01 * encoded  # sources so alike that half precision cannot tell them apart
    hole = torch.zeros(1, 1, 6, 6)
    hole[..., 2:4, 2:4] = 1
    layer = Shift()
    expected = layer.matches(decoded, encoded, hole)
    directions = F.normalize(encoded.flatten(2), dim=1)
    half = decoded.flatten(2).transpose(1, 2).bfloat16() @ directions.bfloat16()
    assert not torch.equal(half.masked_fill(hole.flatten(2) > 0, -torch.inf).argmax(dim=2), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.matches(decoded, encoded, hole), expected)
        assert layer(decoded.bfloat16(), encoded.bfloat16(), hole).dtype == torch.bfloat16


# What is known to what


@pytest.mark.parametrize("pool", ["vote", "max"])
def test_the_output_knows_nothing_under_the_hole_not_even_in_training(pool):
    generator, batch = make_generator(mask_pool=pool), make_batch((64, 64))
    other = composite(2 * torch.rand(batch.image.shape) - 1, batch.image, batch.mask)
    expected = generator(batch.image, batch.mask)["output"]
    assert torch.equal(generator(other, batch.mask)["output"], expected)
    assert torch.equal(generator(batch.image, batch.mask, batch.image)["output"], expected)


def test_guidance_is_the_encoders_view_of_the_truth_without_a_gradient():
    generator, batch = make_generator(), make_batch((64, 64))
    found = generator(batch.image, batch.mask, batch.image)
    seen = torch.cat((batch.image, 1 - batch.mask), dim=1)
    assert torch.equal(found["target"], generator.unet.encode(seen)[2].relu())
    assert not found["target"].requires_grad
    assert "target" not in generator(batch.image, batch.mask)


def test_half_precision_training_reaches_every_weight():
    """Also the encoder's, whose half-precision copies are shared with the pass without gradients."""
    recipe, batch = make_recipe(), make_batch((64, 64))
    generator = recipe.networks["generator"]
    with torch.autocast("cpu", torch.bfloat16):
        outputs = recipe.phases[0].forward(recipe.networks, batch)
        terms = recipe.phases[0].updates[1].terms(recipe.networks, batch, outputs)
    assert terms["guidance"].dtype == torch.float32
    assert outputs["output"].isfinite().all()
    sum(terms.values()).backward()
    weights = [layer.weight for layer in generator.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert all(weight.grad.isfinite().all() and weight.grad.any() for weight in weights)


# Losses


def test_guidance_by_hand():
    decoded = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 2, 2).expand(1, 2, 2, 2).clone().requires_grad_()
    target = torch.tensor([3.0, 2.0, 0.0, 9.0]).view(1, 1, 2, 2).expand(1, 2, 2, 2).clone().requires_grad_()
    hole = torch.tensor([[1.0, 1.0], [1.0, 0.0]]).view(1, 1, 2, 2)
    loss = guidance(decoded, target, hole)
    assert loss.item() == pytest.approx((4 + 0 + 9) * 2 / 8)
    loss.backward()
    torch.testing.assert_close(decoded.grad[0, 0], torch.tensor([[2 * -2 / 8, 0], [2 * 3 / 8, 0]]))
    assert target.grad is None


def test_the_crop_is_each_samples_hole_kept_inside_the_image():
    image = random(5, 3, 12, 16)
    mask = torch.zeros(5, 1, 12, 16)
    mask[0, :, 2:7, 4:9] = 1
    mask[1, :, 7:12, 11:16] = 1
    mask[2, :, 10:, 13:] = 1  # smaller, in the corner
    mask[3] = 1
    found = crop_hole(image, mask, 5)
    corners = [(2, 4), (7, 11), (7, 11), (0, 0), (0, 0)]
    assert torch.equal(found, torch.stack([image[n, :, y : y + 5, x : x + 5] for n, (y, x) in enumerate(corners)]))
    with pytest.raises(ValueError, match="12 x 16"):
        crop_hole(image, mask, 13)


def test_discounted_l1_by_hand():
    output = torch.zeros(1, 3, 4, 4)
    image = torch.ones(1, 3, 4, 4)
    row = [1, 0.9, 0.81, 0.9]  # 0, 1, 2, 1 from the border
    assert discounted_l1(output, image) == pytest.approx(sum(max(a, b) for a in row for b in row) / 16)
    image[..., 1:, 1:] = 0  # of the weight 1 in the first row and column, all is left
    assert discounted_l1(output, image) == pytest.approx(7 / 16)


def test_style_and_content_are_squared_differences_in_the_first_three_pools():
    vgg = VGG16(("pool1", "pool2", "pool3"), "random")
    output, image = random(2, 2, 3, 32, 32, dtype=torch.float32).tanh()
    style, content = style_and_content(vgg, output, image)
    styles, contents, maps = [], [], torch.cat((output, image))
    for layer in vgg.features:
        maps = layer(maps)
        if isinstance(layer, nn.MaxPool2d):
            fake, real = maps.flatten(2).chunk(2)
            scale = fake[0].numel()
            grams = [torch.einsum("ncp,ndp->ncd", part, part) / scale for part in (fake, real)]
            styles.append((grams[0] - grams[1]).square().mean())
            contents.append((fake - real).square().mean())
    assert len(styles) == 3
    torch.testing.assert_close(style, sum(styles))
    torch.testing.assert_close(content, sum(contents))


def evaluate_terms(recipe: Recipe, batch) -> tuple[dict, dict, dict]:
    """Outputs, the discriminator's terms and the generator's, without a power iteration in between."""
    for network in recipe.networks.values():
        network.eval()
    phase = recipe.phases[0]
    outputs = phase.forward(recipe.networks, batch)
    return outputs, *(update.terms(recipe.networks, batch, outputs) for update in phase.updates)


def test_terms_are_the_papers_and_the_discriminator_sees_the_raw_output():
    recipe, batch = make_recipe(), make_batch((64, 64))
    outputs, d_terms, terms = evaluate_terms(recipe, batch)
    judge, output = recipe.networks["generator_d"], outputs["output"]
    real, fake = judge(batch.image).sigmoid(), judge(output).sigmoid()
    expected = {
        "l1": 100 * (output - batch.image).abs().mean(),
        "guidance": (outputs["hole"] * (outputs["decoded"] - outputs["target"])).square().mean(),
        "adversarial": 0.2 * -fake.log().mean(),
    }
    torch.testing.assert_close(terms, expected)
    torch.testing.assert_close(d_terms, {"d_real": -real.log().mean() / 2, "d_fake": -(1 - fake).log().mean() / 2})


def test_v2_adds_its_terms_on_square_holes_and_judges_the_hole_alone():
    batch = make_batch((64, 64))
    batch.mask.zero_()
    for sample in range(3):
        batch.mask[sample, :, 8 * sample : 8 * sample + 32, 5 : 5 + 32] = 1
    recipe = make_recipe(losses="v2", hole_size=32, style_weight=10.0, content_weight=1.0)
    outputs, d_terms, terms = evaluate_terms(recipe, batch)
    judge = recipe.networks["generator_d"]
    fake, real = (
        torch.stack([image[n, :, 8 * n : 8 * n + 32, 5:37] for n in range(3)])
        for image in (outputs["output"], batch.image)
    )
    torch.testing.assert_close(d_terms["d_real"], F.softplus(-judge(real)).mean() / 2)
    torch.testing.assert_close(terms["adversarial"], 0.2 * F.softplus(-judge(fake)).mean())
    torch.testing.assert_close(terms["hole_l1"], 400 * discounted_l1(fake, real))
    style, content = style_and_content(VGG16(("pool1", "pool2", "pool3"), "random"), fake, real)
    torch.testing.assert_close(terms["style"], 10 * style)
    torch.testing.assert_close(terms["content"], content)
    assert terms.keys() == {"l1", "guidance", "adversarial", "hole_l1", "style", "content"}


@pytest.mark.parametrize("value", [None, 0.0, 1.0])
@pytest.mark.parametrize("hole_size", [0, 32])
def test_v2_takes_holes_of_any_shape(hole_size, value):
    batch = make_batch((64, 64), num_samples=2)
    if value is not None:
        batch.mask.fill_(value)
    recipe = make_recipe(losses="v2", hole_size=hole_size)
    start_phase(recipe, recipe.phases[0])
    terms = run_step(recipe, recipe.phases[0], batch)
    assert ("hole_l1" in terms) == bool(hole_size)
    assert all(term.isfinite() for term in terms.values())
    assert all(p.isfinite().all() for network in recipe.networks.values() for p in network.parameters())
