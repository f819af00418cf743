"""Facts of Neural Patch Synthesis: counts, patches against loops, the energy by hand, what a source may know."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.batches import make_batch, visible
from benchmarks.loops import neural_patch_synthesis as loops
from jobs.generators.context_encoder.losses import overlap_weights, reconstruction
from jobs.generators.neural_patch_synthesis import PARAMETERS, Config, losses, patches, texture
from jobs.generators.neural_patch_synthesis.recipe import build
from jobs.layers.composite import composite
from jobs.layers.vgg import VGG19
from jobs.layers.weights import WeightsError
from jobs.recipe.batch import Batch
from jobs.recipe.losses import bce_fake, bce_real

TINY = Config.tiny()


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def box(height: int, width: int, top: int, bottom: int, left: int, right: int) -> Tensor:
    mask = torch.zeros(1, 1, height, width)
    mask[..., top:bottom, left:right] = 1
    return mask


@pytest.fixture(scope="module")
def vgg() -> VGG19:
    return VGG19(("relu3_1", "relu4_1", "relu4_2"), "random")


# Counts


@pytest.mark.parametrize(
    ("variant", "generator", "discriminator"), [("random", *PARAMETERS.values()), ("centre", 71_124_544, 2_765_568)]
)
def test_parameter_counts_are_those_of_the_released_network(variant, generator, discriminator):
    with torch.device("meta"):
        networks = build(Config(variant=variant, texture_iterations=0)).networks
    assert {name: count(network) for name, network in networks.items()} == {
        "generator": generator,
        "generator_d": discriminator,
    }
    # The authors' modules have biases, too, which they set to zero before every step: those of the convolutions.
    biases = sum(
        m.out_channels for m in networks["generator"].modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    )
    if variant == "centre":
        assert generator + biases == 71_130_531
    assert PARAMETERS == {"generator": 71_190_208, "generator_d": 2_831_232}


def test_the_texture_network_ends_at_relu4_2_and_belongs_to_no_network():
    network = texture.build_vgg(Config(features="random"))
    assert count(network) == 5_865_536
    assert not any(p.requires_grad for p in network.parameters())
    assert {name: tuple(f.shape) for name, f in network(torch.zeros(1, 3, 512, 16)).items()} == {
        "relu4_1": (1, 512, 64, 2),
        "relu4_2": (1, 512, 64, 2),
    }
    recipe = build(TINY)
    assert set(recipe.networks) == {"generator", "generator_d"}
    assert all(p.shape[-1] != 3 for net in recipe.networks.values() for p in net.parameters())  # VGG's kernels


def test_without_iterations_or_scales_vgg_is_not_built(tmp_path):
    absent = dataclasses.replace(TINY, features=str(tmp_path / "absent.pth"))
    build(dataclasses.replace(absent, texture_iterations=0))
    build(dataclasses.replace(absent, texture_scales=0))
    with pytest.raises(WeightsError):
        build(absent)


# Patches


@pytest.mark.parametrize(("height", "width"), [(3, 3), (4, 7), (11, 12)])
def test_patches_lie_where_the_loop_puts_them(height, width):
    rows, columns = patches.grid(height, width)
    expected = loops.places(height, width)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == expected
    features = random(1, 5, height, width)
    for found, place in zip(patches.cut(features, (rows, columns)), expected, strict=True):
        assert torch.equal(found, loops.patch(features[0], place).flatten())
    cells = (random(1, 1, height, width, seed=1) < 0.1).float()
    assert patches.touching(cells, (rows, columns)).tolist() == [loops.touches(cells[0, 0], p) for p in expected]


def test_512_pixels_have_1024_patches():
    assert len(patches.grid(64, 64)[0]) == 1024


def test_a_map_without_a_patch_is_refused():
    with pytest.raises(ValueError, match="at least 3 x 3 cells, got 2 x 9"):
        patches.grid(2, 9)


@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_matches_are_those_of_the_loop_whatever_the_chunk(chunk):
    queries, sources = random(9, 18).double(), random(30, 18, seed=1).double()
    sources[20] = 3 * sources[10]  # equally near: the first counts
    queries[4] = sources[10]
    expected = [loops.best_source(query, sources) for query in queries]
    expected[4] = 10
    assert patches.match(queries, sources, chunk).tolist() == expected


@pytest.mark.parametrize("hole", [(3, 8, 2, 9), (0, 11, 0, 12), (10, 11, 11, 12)])
def test_the_mrf_term_and_its_gradient_are_the_loops(hole):
    features = random(1, 5, 11, 12).double().requires_grad_()
    source = random(1, 5, 9, 8, seed=1).double()
    where = patches.grid(11, 12)
    where = patches.select(where, patches.touching(box(11, 12, *hole), where))
    sources = patches.cut(source, patches.grid(9, 8))
    index = patches.match(patches.cut(features.detach(), where), sources, 5)
    blended, covered = patches.blend(sources[index], where, (11, 12))

    slow_places = [place for place in loops.places(11, 12) if loops.touches(box(11, 12, *hole)[0, 0], place)]
    slow_sources = [loops.patch(source[0], place) for place in loops.places(9, 8)]
    slow_index = [loops.best_source(loops.patch(features[0].detach(), place), slow_sources) for place in slow_places]
    assert index.tolist() == slow_index
    matched = [slow_sources[n] for n in slow_index]
    torch.testing.assert_close(blended[0], loops.blend(matched, slow_places, features[0].detach()))

    loss = losses.mrf(features, blended, covered)
    (gradient,) = torch.autograd.grad(loss, features)
    expected = loops.mrf_gradient(features[0].detach(), matched, slow_places)
    torch.testing.assert_close(gradient[0], expected, rtol=0, atol=1e-8)
    assert loss.item() == pytest.approx(0.5 * expected.square().sum().item())
    assert 0 < covered.sum() <= 11 * 12


def test_patches_compile_as_one_graph():
    queries, sources, where = (
        random(4, 45),
        random(9, 45, seed=1),
        patches.select(patches.grid(7, 8), torch.arange(12) < 4),
    )

    def synthesise(queries: Tensor, sources: Tensor) -> Tensor:
        return patches.blend(sources[patches.match(queries, sources, 4)], where, (7, 8))[0]

    compiled = torch.compile(synthesise, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(queries, sources), synthesise(queries, sources))


# Terms of the energy


def test_total_variation_by_hand_and_by_differences():
    pixels = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    pixels[0, 0, 1, 1], pixels[0, 0, 2, 2] = 2, 9  # the corner's own row and column do not count
    # (0, 1) down 2, (1, 0) right 2, (1, 1) right 2 and down 2
    assert losses.total_variation(pixels).item() == 0.5 * (4 + 4 + 4 + 4)
    assert losses.total_variation(torch.full((1, 3, 5, 4), 7.0)) == 0
    image = (256 * random(1, 3, 5, 4)).double().requires_grad_()
    assert torch.autograd.gradcheck(losses.total_variation, image)


def test_content_is_a_mean_over_all_cells_or_the_holes():
    features, target = torch.full((1, 2, 2, 2), 3.0), torch.zeros(1, 2, 2, 2)
    target[..., 0, 0] = 1
    assert losses.content(features, target).item() == (4 + 3 * 9) / 4
    assert losses.content(features, target, box(2, 2, 0, 1, 0, 1)).item() == 4
    assert losses.content(features, target, torch.zeros(1, 1, 2, 2)) == 0


def test_mrf_by_hand():
    features, blended = torch.full((1, 2, 1, 2), 3.0), torch.ones(1, 2, 1, 2)
    assert losses.mrf(features, blended, torch.tensor([[[[1.0, 0.0]]]])).item() == 0.5 * 2 * 4


def test_an_image_that_is_its_own_source_matches_itself(vgg):
    config = dataclasses.replace(TINY, texture_layers="relu3_1+relu4_1")
    base, none, all_free = 256 * random(1, 3, 48, 56), torch.zeros(1, 1, 48, 56), torch.ones(1, 1, 48, 56)
    energy = texture.Energy(vgg, base, none, all_free, none, config)
    total = energy(base, rematch=True)
    features = energy.features(base)
    assert set(energy.matches) == {"relu3_1", "relu4_1"}
    for layer, (blended, covered) in energy.matches.items():
        torch.testing.assert_close(blended, features[layer])
        assert covered.all()
    assert total.item() == pytest.approx(config.tv_weight * losses.total_variation(base).item(), rel=1e-5)


def test_the_energy_is_the_weighted_sum_of_its_terms(vgg):
    config = dataclasses.replace(TINY, content_weight=2.0, mrf_weight=3.0, tv_weight=5.0, content_region="hole")
    base, hole, none = 256 * random(1, 3, 48, 56), box(48, 56, 8, 25, 16, 31), torch.zeros(1, 1, 48, 56)
    energy = texture.Energy(vgg, base, hole, hole, none, config)
    pixels = 256 * random(1, 3, 48, 56, seed=1)
    total = energy(pixels, rematch=True)
    found, wanted = energy.features(pixels), energy.features(base)
    # relu4_2 has 6 x 7 cells of 8 pixels each; the hole has a pixel in rows 1 to 3, columns 2 and 3.
    content = (found["relu4_2"] - wanted["relu4_2"])[..., 1:4, 2:4].square().mean()
    places = loops.places(6, 7)
    asked = [place for place in places if loops.touches(box(6, 7, 1, 4, 2, 4)[0, 0], place)]
    sources = [loops.patch(wanted["relu4_1"][0], place) for place in places]
    matched = [sources[loops.best_source(loops.patch(found["relu4_1"][0], place), sources)] for place in asked]
    mrf = 0.5 * loops.mrf_gradient(found["relu4_1"][0], matched, asked).square().sum()
    expected = 2 * content + 3 * mrf + 5 * losses.total_variation(pixels)
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("preprocessing", ["imagenet", "caffe"])
def test_features_see_what_their_weights_were_trained_on(preprocessing):
    config = dataclasses.replace(TINY, preprocessing=preprocessing, feature_scale=7.0)
    energy = object.__new__(texture.Energy)
    energy.config, energy.vgg = config, lambda image: {"relu4_1": image}
    image = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)  # red 256, green 128, blue 0
    seen = energy.features(texture.to_pixels(image))["relu4_1"].flatten()
    if preprocessing == "caffe":
        expected = torch.tensor([0 - 103.939, 128 - 116.779, 256 - 123.68])
    else:
        expected = 7 * torch.tensor([(1 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0 - 0.406) / 0.225])
    torch.testing.assert_close(seen, expected)
    torch.testing.assert_close(texture.from_pixels(texture.to_pixels(image)), image)


# Sources


def test_there_are_nine_variants_and_the_first_is_the_image_itself():
    variants = texture.variants(Config())
    assert variants[0] == texture.Variant()
    assert {(v.angle, round(v.zoom, 3)) for v in variants} == {(a, z) for a in (-7.5, 0, 7.5) for z in (0.952, 1, 1.05)}
    assert len(variants) == 9
    assert texture.variants(TINY) == [texture.Variant()]


@pytest.mark.parametrize(("angle", "zoom"), [(7.5, 1.0), (-7.5, 1.05), (90.0, 1.0), (0.0, 2.0)])
def test_variants_turn_about_the_middle_and_ban_what_is_not_there(angle, zoom):
    height, width = 40, 60
    y, x = torch.meshgrid(torch.arange(40.0) - 19.5, torch.arange(60.0) - 29.5, indexing="ij")
    image = torch.stack((x, y, x - y))[None]
    banned = box(height, width, 18, 24, 27, 33)
    copy, blocked = texture.Variant(angle=angle, zoom=zoom).apply(image, banned)
    assert copy.shape[-2:] == blocked.shape[-2:] == (round(40 * zoom), round(60 * zoom))
    rows, columns = (torch.arange(float(n)) - (n - 1) / 2 for n in copy.shape[-2:])
    v, u = torch.meshgrid(rows * height / len(rows), columns * width / len(columns), indexing="ij")
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    from_x, from_y = cosine * u - sine * v, sine * u + cosine * v  # where a pixel of the copy comes from
    inside = (from_x.abs() <= 29.5) & (from_y.abs() <= 19.5)
    torch.testing.assert_close(copy[0, 0][inside], from_x[inside], atol=2e-3, rtol=0)
    torch.testing.assert_close(copy[0, 1][inside], from_y[inside], atol=2e-3, rtol=0)
    # All that is outside or in the hole is banned, and nothing that is two pixels away from either.
    in_hole = (from_x >= -2.5) & (from_x <= 2.5) & (from_y >= -1.5) & (from_y <= 3.5)
    assert blocked[0, 0][(from_x.abs() > 29.6) | (from_y.abs() > 19.6) | in_hole].all()
    near_hole = (from_x > -4.5) & (from_x < 4.5) & (from_y > -3.5) & (from_y < 5.5)
    assert not blocked[0, 0][(from_x.abs() < 27.5) & (from_y.abs() < 17.5) & ~near_hole].any()


def test_no_source_has_a_cell_of_the_hole(vgg):
    config = dataclasses.replace(TINY, texture_layers="relu3_1+relu4_1")
    base, banned = 256 * random(1, 3, 64, 48), box(64, 48, 20, 33, 9, 17)
    energy = texture.Energy(vgg, base, banned, banned, banned, config)
    for layer, size, hole in (("relu3_1", (16, 12), (5, 9, 2, 5)), ("relu4_1", (8, 6), (2, 5, 1, 3))):
        features = energy.features(base)[layer][0]
        known = [place for place in loops.places(*size) if not loops.touches(box(*size, *hole)[0, 0], place)]
        expected = torch.stack([loops.patch(features, place).flatten() for place in known])
        torch.testing.assert_close(energy.sources[layer], expected)
        assert len(known) < len(loops.places(*size))


def test_sources_beyond_the_receptive_field_know_nothing_of_the_hole(vgg):
    layers = {"texture_layers": "relu3_1+relu4_1", "source_angle": 7.5}
    config = dataclasses.replace(TINY, source_exclusion="receptive_field", **layers)
    banned = box(104, 104, 40, 44, 0, 8)
    base = 256 * random(1, 3, 104, 104)
    other = composite(torch.zeros_like(base), base, banned)

    def sources(image: Tensor, config: Config) -> dict[str, Tensor]:
        return texture.Energy(vgg, image, banned, banned, banned, config).sources

    first, second = sources(base, config), sources(other, config)
    for layer in ("relu3_1", "relu4_1"):
        assert len(first[layer]) > 0
        torch.testing.assert_close(first[layer], second[layer])
    # By the margin alone they see it, though none of them lies in it.
    config = dataclasses.replace(config, source_exclusion="margin")
    assert not torch.allclose(sources(base, config)["relu4_1"], sources(other, config)["relu4_1"])


@pytest.mark.parametrize(("layer", "stride"), [("relu3_1", 4), ("relu4_1", 8)])
def test_the_reach_of_a_layer_is_what_its_gradient_covers(vgg, layer, stride):
    image = random(1, 3, 96, 96).requires_grad_()
    cell = 6 * 8 // stride
    vgg(image)[layer][0, :, cell, cell].sum().backward()
    rows = image.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    reach = texture.REACHES[layer]
    assert rows[0] >= 48 - reach
    assert rows[-1] <= 48 + stride - 1 + reach
    assert len(rows) > 2 * reach - 4  # max-pooling passes some gradients only


def test_dilation_reaches_as_far_as_it_says():
    assert torch.equal(texture.dilate(box(9, 20, 4, 5, 6, 8), 3), box(9, 20, 1, 8, 3, 11))
    assert torch.equal(texture.dilate(box(9, 20, 4, 5, 6, 8), 0), box(9, 20, 4, 5, 6, 8))


# Minimising


def test_scales_double_up_to_the_images_own():
    assert texture.scales((512, 512), 3) == [(128, 128), (256, 256), (512, 512)]
    assert texture.scales((101, 64), 3) == [(50, 32), (101, 64)]  # 16 pixels are no patch of relu4_1
    assert texture.scales((23, 64), 2) == []


@pytest.mark.parametrize("region", ["hole", "image"])
def test_the_energy_falls_and_the_rest_stays(vgg, region):
    base, hole = 256 * F.interpolate(random(1, 3, 6, 7), (48, 56)), box(48, 56, 12, 30, 16, 40)
    free = texture.dilate(hole, 2) if region == "hole" else torch.ones_like(hole)
    energy = texture.Energy(vgg, base, hole, free, hole, TINY)
    start = torch.where(free > 0, base + 20 * random(1, 3, 48, 56, seed=1), base)
    found = texture.minimise(energy, start, free, 6)
    assert energy(found) < 0.9 * energy(start)
    assert torch.equal(found[free.expand_as(found) == 0], start[free.expand_as(found) == 0])
    if region == "hole":
        assert torch.equal(texture.minimise(energy, start, free, 6), found)


class FakeEnergy:
    """Sum of fourth powers; notes when it was asked to match, and is infinite when looked at without gradients."""

    def __init__(self, rematch_every: int, final: float = 0.0) -> None:
        self.config = dataclasses.replace(TINY, rematch_every=rematch_every)
        self.final, self.asked = final, []

    def __call__(self, pixels: Tensor, *, rematch: bool = False) -> Tensor:
        if not torch.is_grad_enabled():
            return torch.tensor(self.final)
        self.asked.append(rematch)
        return (pixels - 3).pow(4).sum()


@pytest.mark.parametrize(
    ("every", "asked"), [(0, [True, False, False, False]), (1, 4 * [True]), (2, [True, False, True, False])]
)
def test_matches_are_taken_once_or_every_so_often(every, asked):
    energy = FakeEnergy(every)
    texture.minimise(energy, torch.zeros(1, 3, 2, 2), torch.ones(1, 1, 2, 2), 4)
    assert energy.asked == asked


@pytest.mark.parametrize("final", [math.nan, math.inf, 1e9])
def test_a_scale_that_diverged_is_taken_back(final):
    start, free = torch.zeros(1, 3, 2, 2), torch.ones(1, 1, 2, 2)
    assert torch.equal(texture.minimise(FakeEnergy(0, final), start, free, 3), start)
    assert not torch.equal(texture.minimise(FakeEnergy(0), start, free, 3), start)


# The stage


def test_samples_are_refined_each_for_itself(vgg):
    config = dataclasses.replace(TINY, texture_scales=2, source_angle=7.5, source_margin=2)
    filled = 2 * random(4, 3, 48, 50) - 1
    mask = torch.cat(
        (box(48, 50, 9, 25, 30, 41), box(48, 50, 0, 0, 0, 0), box(48, 50, 0, 48, 0, 50), box(48, 50, 0, 48, 49, 50))
    )
    # The last hole lies beyond the last whole cell, so that it has no query.
    with torch.no_grad():
        found = texture.refine(vgg, filled, mask, config)
        with torch.autocast("cpu", torch.bfloat16):  # the stage stays in float32
            assert torch.equal(texture.refine(vgg, filled[:1], mask[:1], config), found[:1])
    assert found.isfinite().all()
    assert found.abs().max() <= 1
    assert torch.equal(found[1], filled[1])
    changed = (found != filled).any(dim=1, keepdim=True)
    near = texture.dilate(mask, config.texture_margin) > 0
    assert not changed[~near].any()
    assert changed[mask > 0].float().mean() > 0.9


def test_every_scale_starts_from_the_one_before_and_the_margin_bans_sources(vgg):
    filled, mask = 2 * random(1, 3, 48, 50) - 1, box(48, 50, 9, 25, 30, 41)

    def refined(**settings) -> Tensor:
        return texture.refine(vgg, filled, mask, dataclasses.replace(TINY, **settings))

    found = refined()
    assert not torch.equal(refined(texture_scales=2), found)
    without = refined(mrf_weight=0.0)
    assert not torch.equal(without, found)
    assert torch.equal(refined(source_margin=50), without)  # nothing is left to copy from
    assert torch.equal(refined(source_exclusion="receptive_field"), without)


def test_an_image_without_whole_patches_is_left_to_the_content_network(vgg):
    filled = 2 * random(1, 3, 23, 40) - 1
    assert torch.equal(texture.refine(vgg, filled, torch.ones(1, 1, 23, 40), TINY), filled)


def test_the_output_is_the_refined_content():
    torch.manual_seed(0)
    recipe, batch = build(TINY), make_batch((96, 72), num_samples=2)
    for network in recipe.networks.values():
        network.eval()
    with torch.no_grad():
        outputs = recipe.inpaint(recipe.networks, visible(batch))
        filled = composite(outputs["content"], batch.image, batch.mask)
        expected = texture.refine(texture.build_vgg(TINY), filled, batch.mask, TINY)
    assert torch.equal(outputs["output"], expected)
    assert not torch.equal(expected, filled)


# The content network


def make_recipe(**settings):
    torch.manual_seed(0)
    recipe = build(dataclasses.replace(TINY, texture_iterations=0, **settings))
    for network in recipe.networks.values():
        network.eval()
    return recipe


def inpaint(recipe, batch: Batch) -> Tensor:
    with torch.no_grad():
        return recipe.inpaint(recipe.networks, visible(batch))["output"]


def test_at_its_own_size_the_content_networks_answer_is_the_output():
    recipe, batch = make_recipe(), make_batch((64, 64))
    with torch.no_grad():
        assert torch.equal(inpaint(recipe, batch), recipe.networks["generator"](batch.image, batch.mask))


@pytest.mark.parametrize("size", [(128, 192), (50, 70), (200, 40)])
def test_other_sizes_are_squeezed_without_a_look_under_the_hole(size):
    recipe, batch = make_recipe(), make_batch(size)
    output = inpaint(recipe, batch)
    assert output.shape == batch.image.shape
    hidden = dataclasses.replace(batch, image=composite(torch.ones_like(batch.image), batch.image, batch.mask))
    assert torch.equal(inpaint(recipe, hidden), output)


def test_squeezing_keeps_means_of_what_is_known():
    recipe, batch = make_recipe(), make_batch((128, 128), num_samples=1)
    seen = []
    recipe.networks["generator"].register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    inpaint(recipe, batch)
    image, mask = seen
    assert torch.equal(mask, F.max_pool2d(batch.mask, 2))
    known = mask.expand_as(image) == 0
    torch.testing.assert_close(image[known], F.avg_pool2d(batch.image, 2)[known])


@pytest.mark.parametrize("size", [64, 128])
def test_the_centre_variant_fills_its_square_alone(size):
    recipe = make_recipe(variant="centre")
    batch = make_batch((size, size), num_samples=1)
    first = size * 20 // 64  # a quarter and the overlap
    batch = dataclasses.replace(batch, mask=box(size, size, first, size - first, first, size - first))
    prediction = inpaint(recipe, batch)
    assert prediction.shape == batch.image.shape
    with torch.no_grad():
        hole = box(64, 64, 20, 44, 20, 44)
        small = F.avg_pool2d(batch.image, size // 64) * (1 - hole)
        expected = recipe.networks["generator"](small, hole)
    expected = F.interpolate(expected, scale_factor=size / 64, mode="bilinear")
    inside = slice(first, size - first)
    ring = first - size // 4
    torch.testing.assert_close(prediction[..., inside, inside], expected[..., ring:-ring, ring:-ring])
    batch.mask[..., first - 1, first] = 1
    with pytest.raises(ValueError, match="rows and columns 20 to 43 of 64"):
        inpaint(recipe, batch)


def test_training_terms_are_the_codes():
    ring = overlap_weights(64, 4, 10.0)
    assert ring.sum() == 10 * (64**2 - 56**2) + 56**2 == 12_736
    for variant in ("random", "centre"):
        recipe, batch = make_recipe(variant=variant), make_batch((64, 64))
        phase = recipe.phases[0]
        outputs = phase.forward(recipe.networks, batch)
        hole = batch.mask if variant == "random" else box(64, 64, 20, 44, 20, 44).expand_as(batch.mask)
        prediction = recipe.networks["generator"](batch.image, hole)
        torch.testing.assert_close(outputs["prediction"], prediction)
        real = batch.image if variant == "random" else batch.image[..., 16:48, 16:48]
        weights = torch.ones(1, 1, 64, 64) if variant == "random" else overlap_weights(32, 4, 10.0)
        judge = recipe.networks["generator_d"]
        d_terms, g_terms = (update.terms(recipe.networks, batch, outputs) for update in phase.updates)
        torch.testing.assert_close(d_terms["d_real"], bce_real(judge(real)))
        torch.testing.assert_close(d_terms["d_fake"], bce_fake(judge(prediction)))
        expected = 0.999 * (weights * (prediction - real).square()).mean()
        torch.testing.assert_close(g_terms["reconstruction"], expected)
        torch.testing.assert_close(g_terms["adversarial"], 0.001 * bce_real(judge(prediction)))
    assert reconstruction(torch.full((1, 3, 2, 2), 3.0), torch.ones(1, 3, 2, 2)).item() == 4.0


def test_defaults_are_the_codes():
    config = Config()
    assert (config.texture_iterations, config.texture_scales, config.texture_layers) == (100, 3, "relu4_1")
    assert (config.content_weight, config.mrf_weight, config.tv_weight) == (20, 1e-4, 1e-4)
    recipe = make_recipe(learning_rate=config.learning_rate)
    assert recipe.optimizers["generator"].defaults["lr"] == 2e-3
    assert recipe.optimizers["generator_d"].defaults["lr"] == 2e-4
    assert all(optimizer.defaults["betas"] == (0.5, 0.999) for optimizer in recipe.optimizers.values())
    assert [update.networks for update in recipe.phases[0].updates] == [("generator_d",), ("generator",)]


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"content_size": 96}, "4 \\* 2\\^n"),
        ({"overlap": 32}, "below content_size / 4 = 32"),
        ({"texture_iterations": -1}, "texture_iterations must be at least 0"),
        ({"source_zoom": 0.0}, "source_zoom must be above 0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(settings, rule):
    with pytest.raises(ValueError, match=rule):
        Config(**settings)


def test_training_resizes_batches_of_any_size_as_filling_does():
    """The images of `scale=paper` have a side of 256, the content network one of 128."""
    recipe = make_recipe()
    (phase,) = recipe.phases
    large = make_batch((128, 128), num_samples=2)
    small = dataclasses.replace(
        large, image=F.avg_pool2d(large.image, 2), mask=F.max_pool2d(large.mask, 2), edge=None, semantics=None
    )
    found = []
    for batch in (large, small):
        outputs = phase.forward(recipe.networks, batch)
        terms = [update.terms(recipe.networks, batch, outputs) for update in phase.updates]
        found.append({name: float(value.detach()) for each in terms for name, value in each.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-5)
