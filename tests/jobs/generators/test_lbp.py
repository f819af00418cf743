"""Facts of LBP: codes by hand, attention against loops, what may be seen, layers, phases, losses by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.batches import make_batch
from benchmarks.loops.lbp import pattern, spatial_attention
from jobs.generators.build import inpaint
from jobs.generators.lbp import Config, losses
from jobs.generators.lbp.attention import SpatialAttention
from jobs.generators.lbp.codes import grey_levels, local_binary_pattern, pattern_map, unknown_codes
from jobs.generators.lbp.networks import Generator, PatternGenerator
from jobs.generators.lbp.recipe import build
from jobs.layers.composite import composite
from jobs.layers.vgg import VGG16
from jobs.recipe.contract import Recipe
from tests.jobs.generators.steps import run_step, start_phase

BORDERS = ("zero", "code")
MODES = [("paper", False), ("paper", True), ("code", False), ("code", True)]


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def random_grey(*size: int, levels: int = 256, seed: int = 0) -> Tensor:
    return torch.randint(levels, (2, 1, *size), generator=torch.Generator().manual_seed(seed)).to(torch.int16)


def as_image(levels: Tensor) -> Tensor:
    """uint8 colours (N, 3, H, W) as a batch holds them."""
    return levels.float() / 127.5 - 1


def tiny(**values) -> Recipe:
    torch.manual_seed(0)
    return build(dataclasses.replace(Config.tiny(), **values))


def batch_with_grain():
    """A batch whose images have a texture, so that codes differ from place to place; 8-bit colours."""
    batch = make_batch((64, 64))
    noise = torch.randint(256, batch.image.shape, generator=torch.Generator().manual_seed(3))
    return dataclasses.replace(batch, image=as_image(noise))


def other_hole(batch):
    noise = torch.randint(256, batch.image.shape, generator=torch.Generator().manual_seed(4))
    return dataclasses.replace(batch, image=composite(as_image(noise), batch.image, batch.mask))


# Codes


def test_a_code_worked_out_by_hand():
    grey = torch.tensor([[9, 1, 5], [2, 5, 7], [5, 3, 4]], dtype=torch.int16)[None, None]
    assert local_binary_pattern(grey, "zero")[0, 0, 1, 1] == 64 + 1 + 2 + 16 == 83
    flat = torch.full((1, 1, 5, 5), 7, dtype=torch.int16)
    assert (local_binary_pattern(flat, "zero")[..., 1:-1, 1:-1] == 255).all()
    assert local_binary_pattern(flat, "zero")[0, 0, 0, 0] == 2 + 4 + 8
    flat[0, 0, 2, 2] = 8
    assert local_binary_pattern(flat, "zero")[0, 0, 2, 2] == 0


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("levels", [3, 256])  # with and without flat areas
def test_codes_equal_a_loop_over_pixels(border, levels):
    grey = random_grey(16, 11, levels=levels)
    expected = [pattern(image.tolist(), border) for image in grey[:, 0]]
    assert local_binary_pattern(grey, border)[:, 0].tolist() == expected


def test_codes_know_the_order_of_brightness_alone():
    grey = random_grey(16, 16, levels=100)
    codes = local_binary_pattern(grey, "zero")
    assert torch.equal(local_binary_pattern(grey + 100, "zero"), codes)
    assert torch.equal(local_binary_pattern(2 * grey + 3, "zero"), codes)
    assert not torch.equal(local_binary_pattern(255 - grey, "zero"), codes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grey_levels_are_exact_for_bytes(dtype):
    bytes_ = np.random.default_rng(0).integers(0, 256, (1, 3, 300, 300))
    bytes_[0, :, 0, :256] = np.arange(256)  # every level there is
    bytes_[0, :, 1, 0] = 0, 4, 166  # 0.587 * 4 + 0.114 * 166 = 21.272
    bytes_[0, :, 2, 0] = 0, 250, 0  # 146.75
    bytes_[0, :, 3, 0] = 1, 0, 23  # 2.921
    bytes_[0, :, 4, 0] = 0, 2, 167  # 20.212
    bytes_[0, :, 5, 0] = 0, 0, 250  # 28.5, up
    bytes_[0, :, 6, 0] = 0, 250, 250  # 175.25
    image = torch.from_numpy(bytes_).to(dtype) / 127.5 - 1
    grey = grey_levels(image)[0, 0].numpy()
    thousandths = 299 * bytes_[0, 0] + 587 * bytes_[0, 1] + 114 * bytes_[0, 2]
    assert (grey == np.floor(thousandths / 1000 + 0.5)).all()
    assert (grey[0, :256] == np.arange(256)).all()
    assert grey[1:7, 0].tolist() == [21, 147, 3, 20, 29, 175]


def test_maps_cover_the_range_without_rounding():
    image = as_image(torch.randint(256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0)))
    maps = pattern_map(image, "zero")
    codes = local_binary_pattern(grey_levels(image), "zero")
    assert torch.equal(((maps + 1) * 127.5).round().to(torch.int16), codes)
    assert maps.min() == -1
    assert maps.dtype == torch.float32


@pytest.mark.parametrize("border", BORDERS)
def test_unknown_codes_are_those_that_can_change(border):
    grey = random_grey(12, 12)
    mask = torch.zeros(2, 1, 12, 12)
    mask[0, :, 4:6, 5:9] = 1
    mask[1, :, 11, 3] = 1
    mask[1, :, 6, 11] = 1
    mask[1, :, 11, 11] = 1
    changed = torch.zeros_like(mask, dtype=torch.bool)
    codes = local_binary_pattern(grey, border)
    for value in (0, 255):  # the extremes flip every bit that can flip
        other = torch.where(mask == 1, value, grey).to(torch.int16)
        changed |= local_binary_pattern(other, border) != codes
    unknown = unknown_codes(mask, border)
    assert torch.equal(unknown == 1, changed | (mask == 1))
    assert unknown[0].sum() == 4 * 6


# Attention


def attention_inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Odd, not square, four samples: a block, strokes, no hole, nothing but hole."""
    random = torch.Generator().manual_seed(seed)
    generated, known = torch.randn(2, 4, 6, 5, 7, generator=random, dtype=torch.float64)
    mask = torch.zeros(4, 1, 5, 7, dtype=torch.float64)
    mask[0, :, 1:4, 2:5] = 1
    mask[1, :, 0], mask[1, :, :, 6] = 1, 1
    mask[3] = 1
    return generated.requires_grad_(), known.requires_grad_(), mask


def looped(layer: SpatialAttention, generated: Tensor, known: Tensor, hole: Tensor) -> Tensor:
    options = {"weights": layer.weights, "self_match": layer.self_match}
    samples = zip(generated, known, hole[:, 0] == 1, strict=True)
    return torch.stack([spatial_attention(*sample, **options) for sample in samples])


@pytest.mark.parametrize(("weights", "self_match"), MODES)
def test_attention_equals_a_loop_over_cells_forward_and_backward(weights, self_match):
    layer = SpatialAttention(weights=weights, self_match=self_match)
    generated, known, mask = attention_inputs()
    fine = mask.repeat_interleave(8, 2).repeat_interleave(8, 3)
    fast, slow = layer(generated, known, fine), looped(layer, generated, known, mask)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
    upstream = torch.randn(fast.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad(fast, (generated, known), upstream),
        torch.autograd.grad(slow, (generated, known), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("weights", "self_match"), MODES)
@pytest.mark.parametrize("size", [1, 2, 3, 33, 34, 35])
def test_attention_equals_the_loop_where_matches_are_missing(weights, self_match, size):
    """Holes of one to three cells, and all but as many known."""
    layer = SpatialAttention(weights=weights, self_match=self_match)
    generated, known, _ = attention_inputs(seed=1)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(size))
    mask = (order < size).double().view(1, 1, 5, 7).repeat(4, 1, 1, 1)
    torch.testing.assert_close(layer(generated, known, mask), looped(layer, generated, known, mask), rtol=0, atol=1e-12)


def test_attention_keeps_both_maps_and_borrows_for_the_hole_alone():
    generated, known, mask = attention_inputs()
    output = SpatialAttention()(generated, known, mask)
    assert torch.equal(output[:, :12], torch.cat((generated, known), dim=1))
    borrowed = output[:, 12:]
    assert not borrowed[(mask == 0).expand_as(borrowed)].any()
    assert (borrowed.abs().sum(1)[mask[:, 0] == 1] > 0).all()


@pytest.mark.parametrize(("weights", "self_match"), MODES)
def test_what_is_alike_everywhere_is_borrowed_unchanged(weights, self_match):
    _, _, mask = attention_inputs()
    colour = torch.tensor([1.0, -2.0, 3.0])[None, :, None, None]
    noise = torch.randn(4, 3, 5, 7, generator=torch.Generator().manual_seed(2))
    mask = mask.float()
    # The known map is the colour where known, the generated one in the hole: only those may be borrowed.
    known, generated = composite(noise, colour, mask), composite(colour, noise, mask)
    borrowed = SpatialAttention(weights=weights, self_match=self_match)(generated, known, mask)[:, 6:]
    torch.testing.assert_close(borrowed, colour * mask)


@pytest.mark.parametrize(("weights", "self_match"), MODES)
def test_weights_sum_to_one_in_the_hole(weights, self_match):
    generated, known, mask = (tensor.detach() for tensor in attention_inputs())
    inner, outer = generated.flatten(2).transpose(1, 2), known.flatten(2).transpose(1, 2)
    hole = mask.flatten(1) == 1
    cells, found = SpatialAttention(weights=weights, self_match=self_match).match(inner, outer, hole)
    torch.testing.assert_close(found.sum(2), hole.double())
    alike = [bool((found[n, hole[n]] == found[n, hole[n]][0]).all()) for n in (0, 1)]
    assert alike == [weights == "code"] * 2
    itself = cells[0, :, 2] == torch.arange(35)
    assert bool(itself[hole[0]].all()) == self_match
    assert self_match or not (cells[0] == torch.arange(35)[:, None])[hole[0], 2:].any()


def test_the_gradient_of_what_is_borrowed_is_the_sum_of_its_weights():
    generated, known, mask = attention_inputs()
    layer = SpatialAttention()
    inner, outer = generated.flatten(2).transpose(1, 2), known.flatten(2).transpose(1, 2)
    cells, weights = layer.match(inner, outer, mask.flatten(1) == 1)
    assert not weights.requires_grad
    layer(generated, known, mask)[:, 12:].sum().backward()
    for source, ranks in ((known, slice(0, 2)), (generated, slice(2, 4))):
        picked = torch.zeros(4, 35, dtype=torch.float64)
        picked.scatter_add_(1, cells[:, :, ranks].flatten(1), weights[:, :, ranks].flatten(1))
        torch.testing.assert_close(source.grad.flatten(2), picked[:, None].expand(4, 6, 35))


@pytest.mark.parametrize(("weights", "self_match"), MODES)
def test_vectors_of_zero_are_finite(weights, self_match):
    _, _, mask = attention_inputs()
    zeros = torch.zeros(4, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    output = SpatialAttention(weights=weights, self_match=self_match)(zeros, zeros, mask)
    output.sum().backward()
    assert not output.any()
    assert zeros.grad.isfinite().all()


def test_the_mask_is_sampled_or_pooled():
    mask = torch.zeros(1, 1, 16, 16)
    mask[0, 0, 3, :] = 1  # a stroke between the sampled rows
    maps = torch.rand(2, 1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    borrowed = {pool: SpatialAttention(mask_pool=pool)(*maps, mask)[:, 6:] for pool in ("nearest", "max")}
    assert not borrowed["nearest"].any()
    assert borrowed["max"][:, :, 0].all()
    assert not borrowed["max"][:, :, 1].any()


@pytest.mark.parametrize("size", [(1, 1, 5, 6), (1, 1, 10, 7), (2, 1, 5, 7), (1, 2, 5, 7)])
def test_a_mask_that_does_not_fit_is_refused(size):
    maps = torch.zeros(1, 3, 5, 7)
    with pytest.raises(ValueError, match="mask must be"):
        SpatialAttention()(maps, maps, torch.zeros(size))


def test_attention_compiles_into_one_graph():
    layer = SpatialAttention()
    generated, known, mask = attention_inputs()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    ours, theirs = compiled(generated, known, mask), layer(generated, known, mask)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(out.square().sum(), (generated, known)) for out in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_similarities_stay_in_float32_under_autocast():
    generated, known, mask = (tensor.detach().float() for tensor in attention_inputs())
    layer, found = SpatialAttention(), []
    match = layer.match
    layer.match = lambda *inputs: found.append(match(*inputs)) or found[-1]
    half = [maps.bfloat16() for maps in (generated, known)]
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(*half, mask)
    layer(*(maps.float() for maps in half), mask)
    assert output.dtype == torch.bfloat16
    assert found[0][1].dtype == torch.float32
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


# Networks


def executed(network: nn.Module, *inputs: Tensor) -> list[tuple]:
    """(in, out) of convolutions, with "t" of transposed ones, and "norm", in order of execution."""
    rows, handles = [], []

    def note(module, _inputs, _output):
        if isinstance(module, nn.InstanceNorm2d):
            assert not module.affine
            rows.append("norm")
        else:
            assert (module.kernel_size, module.stride, module.padding) == ((4, 4), (2, 2), (1, 1))
            kind = ("t",) if isinstance(module, nn.ConvTranspose2d) else ()
            rows.append((module.in_channels, module.out_channels, *kind))

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.InstanceNorm2d):
            handles.append(module.register_forward_hook(note))
    network(*inputs)
    for handle in handles:
        handle.remove()
    return rows


def test_layers_follow_the_table():
    def rows(first: int, attended: int, last: int) -> list[tuple]:
        down = [(first, 64), (64, 128), "norm", (128, 256), "norm", (256, 512), "norm"]
        down += [(512, 512), "norm"] * 3 + [(512, 512)]
        up = [(512, 512, "t"), "norm"] + [(1024, 512, "t"), "norm"] * 3 + [(1024, 256, "t"), "norm"]
        return down + up + [(attended, 128, "t"), "norm", (256, 64, "t"), "norm", (128, last, "t")]

    with torch.device("meta"):
        plane, image = torch.zeros(1, 1, 256, 256), torch.zeros(1, 3, 256, 256)
        patterns, generator = PatternGenerator(), Generator()
        # No autocast on this device, so something of the attention's shape stands in for it.
        generator.attention.forward = lambda generated, known, mask: torch.cat((generated, known, known), dim=1)
        assert executed(patterns, plane, plane) == rows(2, 512, 1)
        assert executed(generator, image, plane, plane) == rows(5, 768, 3)
        _, features = generator(image, plane, plane)
    sizes = [(64, 128), (128, 64), (256, 32), (512, 16), (512, 8), (512, 4), (512, 2)]
    decoded = [(512, 2), (512, 4), (512, 8), (512, 16), (256, 32), (128, 64), (64, 128)]
    assert [tuple(maps.shape[1:]) for maps in features] == [(c, s, s) for c, s in sizes + decoded]


def test_networks_start_as_in_the_code():
    torch.manual_seed(0)
    networks = build(dataclasses.replace(Config.tiny(), width=16, d_width=16)).networks
    for name, network in networks.items():
        for key, parameter in network.named_parameters():
            if key.endswith("bias"):
                assert not parameter.any(), f"{name}.{key}"
            elif parameter.ndim > 1 and parameter.numel() > 2000:
                assert parameter.std().item() == pytest.approx(0.02, rel=0.1), f"{name}.{key}"


def test_features_are_those_between_the_layers():
    torch.manual_seed(0)
    generator = Generator(width=4, levels=5)
    seen = []
    for stage in (*generator.unet.downs, *generator.unet.ups):
        stage.register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
    batch = make_batch((64, 64))
    painted, features = generator(batch.image, batch.mask, batch.mask)
    encoder = [torch.where(maps > 0, maps, 0.2 * maps) for maps in seen[:4]]  # not the deepest
    for maps, expected in zip(features, encoder + seen[5:9], strict=True):
        torch.testing.assert_close(maps, expected)
    assert torch.equal(painted, torch.tanh(seen[9]))


def test_attention_stands_between_the_relu_and_the_third_level():
    torch.manual_seed(0)
    generator = Generator(width=4, levels=5)
    seen = {}
    generator.attention.register_forward_pre_hook(lambda _module, inputs: seen.update(attended=inputs))
    generator.unet.ups[2].register_forward_pre_hook(lambda _module, inputs: seen.update(joined=inputs[0]))
    batch = make_batch((64, 64))
    _, features = generator(batch.image, batch.mask, batch.mask)
    generated, known, mask = seen["attended"]
    assert generated.shape == known.shape == (3, 16, 8, 8)
    assert torch.equal(generated, features[5].relu())  # d4
    assert torch.equal(known, features[2].relu())  # e3
    assert torch.equal(mask, batch.mask)
    assert torch.equal(seen["joined"], generator.attention(generated, known, mask))


def test_a_network_sees_what_the_table_lists_in_that_order():
    recipe, batch, seen = tiny(), batch_with_grain(), {}
    for name in ("lbp", "generator"):
        recipe.networks[name].unet.downs[0].register_forward_pre_hook(
            lambda _module, inputs, name=name: seen.update({name: inputs[0]})
        )
    outputs = recipe.phases[1].forward(recipe.networks, batch)
    truth = pattern_map(batch.image, "zero")
    unknown = nn.functional.max_pool2d(batch.mask, 3, stride=1, padding=1)
    known, open_ = 1 - batch.mask, 1 - unknown
    assert torch.equal(seen["lbp"], torch.cat((truth * open_, open_), dim=1))
    masked = torch.cat((batch.image * known, outputs["patterns"], known), dim=1)
    complete = torch.cat((batch.image, truth, known), dim=1)
    assert torch.equal(seen["generator"], torch.cat((masked, complete)))


@pytest.mark.parametrize("name", ["lbp", "generator"])
def test_other_sizes_are_refused_in_training(name):
    channels = {"lbp": (1, 1), "generator": (3, 1, 1)}[name]
    with pytest.raises(ValueError, match="multiples of 32"):
        tiny().networks[name](*(torch.zeros(1, c, 64, 80) for c in channels))


def test_inpainting_pads_any_size():
    recipe = tiny()
    batch = make_batch((33, 70))
    outputs = inpaint(recipe, batch)
    assert outputs["output"].shape == batch.image.shape
    assert outputs["patterns"].shape == batch.mask.shape
    assert 0 <= outputs["patterns"].min() <= outputs["patterns"].max() <= 1


# What may be seen


def test_composites_keep_what_is_known():
    recipe, batch = tiny(), batch_with_grain()
    outputs = recipe.phases[1].forward(recipe.networks, batch)
    unknown = unknown_codes(batch.mask, "zero")
    known = (batch.mask == 0).expand_as(batch.image)
    assert torch.equal(outputs["output"][known], batch.image[known])
    assert torch.equal(outputs["patterns"][unknown == 0], pattern_map(batch.image, "zero")[unknown == 0])


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("leaky", [False, True])
def test_only_the_leaky_map_tells_of_the_hole_in_training(border, leaky):
    recipe, batch, seen = tiny(lbp_border=border, leaky_lbp=leaky), batch_with_grain(), []
    recipe.networks["lbp"].unet.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    outputs = [recipe.phases[1].forward(recipe.networks, b)["output"] for b in (batch, other_hole(batch))]
    hole = batch.mask.expand_as(batch.image) == 1
    assert torch.equal(*seen) != leaky
    assert torch.equal(outputs[0][hole], outputs[1][hole]) != leaky
    assert torch.equal(*(o[~hole] for o in outputs))


def test_inpainting_never_reads_the_hole_even_if_leaky():
    recipe, batch = tiny(leaky_lbp=True, lbp_border="code"), batch_with_grain()
    first, second = (inpaint(recipe, b) for b in (batch, other_hole(batch)))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_one_pass_over_both_images_is_two_passes():
    recipe, batch = tiny(), batch_with_grain()
    outputs = recipe.phases[1].forward(recipe.networks, batch)
    generator = recipe.networks["generator"]
    _, masked = generator(batch.image * (1 - batch.mask), outputs["patterns"], batch.mask)
    _, complete = generator(batch.image, outputs["true_patterns"], batch.mask)
    assert len(masked) == 8
    for number, pair in enumerate(zip(masked, complete, strict=True), 1):
        torch.testing.assert_close(outputs[f"features_{number}"], torch.cat(pair))
    without = tiny(multi_level_weight=0.0)
    plain = without.phases[1].forward(without.networks, batch)
    torch.testing.assert_close(plain["output"], outputs["output"])
    assert not any(key.startswith("features") for key in plain)
    assert "multi_level" not in without.phases[1].updates[1].terms(without.networks, batch, plain)


# Phases and losses


def test_phases_train_what_they_name():
    phases = {phase.name: [update.networks for update in phase.updates] for phase in build(Config.tiny()).phases}
    assert phases == {
        "lbp": [("lbp_d",), ("lbp",)],
        "image": [("generator_d",), ("generator",)],
        "joint": [("lbp_d",), ("generator_d",), ("lbp", "generator")],
    }
    config = Config()
    assert (config.lbp_steps > 0, config.image_steps > 0, config.joint_steps) == (True, True, 0)


def test_the_image_phase_leaves_l_as_it_is_and_the_joint_one_teaches_it_by_the_image():
    recipe, batch = tiny(lbp_l2_weight=0.0, lbp_adversarial_weight=0.0), batch_with_grain()
    lbp = recipe.networks["lbp"]
    before = {key: value.clone() for key, value in lbp.state_dict().items()}
    start_phase(recipe, recipe.phases[1])
    run_step(recipe, recipe.phases[1], batch)
    assert all(torch.equal(before[key], value) for key, value in lbp.state_dict().items())
    start_phase(recipe, recipe.phases[2])
    run_step(recipe, recipe.phases[2], batch)  # only the image's losses are left
    assert not torch.equal(before["unet.downs.0.0.weight"], lbp.state_dict()["unet.downs.0.0.weight"])


def terms_of(recipe: Recipe, phase: int, update: int, outputs: dict[str, Tensor], batch) -> dict[str, float]:
    for network in recipe.networks.values():
        network.eval()  # no power iteration
    terms = recipe.phases[phase].updates[update].terms(recipe.networks, batch, outputs)
    return {name: value.item() for name, value in terms.items()}


def test_generator_terms_by_hand():
    recipe, batch = tiny(), make_batch((64, 64))
    image = torch.zeros_like(batch.image)
    output = image.clone()
    output[..., :32, :32] = 0.5  # a quarter of the pixels
    batch = dataclasses.replace(batch, image=image)
    maps = {"features_1": torch.tensor([3.0, 1.0, 0.0, 1.0]), "features_2": torch.tensor([1.0, 1.0, 0.0, 1.0])}
    terms = terms_of(recipe, 1, 1, {"output": output} | maps, batch)
    assert terms["l2"] == pytest.approx(10 * 0.25 * 0.25)  # 0.625
    assert terms["multi_level"] == pytest.approx(0.01 * (9 / 2 + 1 / 2))
    scores = recipe.networks["generator_d"](output)
    assert terms["adversarial"] == pytest.approx(0.2 * -torch.sigmoid(scores).log().mean().item())

    patterns = {"patterns": output[:, :1], "true_patterns": image[:, :1]}
    terms = terms_of(recipe, 0, 1, patterns, batch)
    assert terms["lbp_l2"] == pytest.approx(100 * 0.25 * 0.25)
    scores = recipe.networks["lbp_d"](output[:, :1])
    assert terms["lbp_adversarial"] == pytest.approx(0.2 * -torch.sigmoid(scores).log().mean().item())


@pytest.mark.parametrize(("phase", "network", "key"), [(0, "lbp_d", "patterns"), (1, "generator_d", "output")])
def test_discriminator_terms_by_hand(phase, network, key):
    recipe, batch = tiny(), batch_with_grain()
    outputs = recipe.phases[phase].forward(recipe.networks, batch)
    terms = terms_of(recipe, phase, 0, outputs, batch)
    truth, prefix = (outputs["true_patterns"], "lbp_") if phase == 0 else (batch.image, "")
    real, fake = (torch.sigmoid(recipe.networks[network](maps)) for maps in (truth, outputs[key]))
    assert terms[f"{prefix}d_real"] == pytest.approx(-0.5 * real.log().mean().item(), rel=1e-5)
    assert terms[f"{prefix}d_fake"] == pytest.approx(-0.5 * (1 - fake).log().mean().item(), rel=1e-5)


@pytest.mark.parametrize("detach", [False, True])
def test_multi_level_pulls_both_passes_unless_told_otherwise(detach):
    recipe, batch = tiny(detach_target=detach), make_batch((64, 64))
    maps = torch.tensor([3.0, 1.0], requires_grad=True)
    outputs = {"output": batch.image, "features_1": maps}
    recipe.phases[1].updates[1].terms(recipe.networks, batch, outputs)["multi_level"].backward()
    torch.testing.assert_close(maps.grad, torch.tensor([0.04, 0.0 if detach else -0.04]))


def test_without_a_hole_there_is_nothing_to_pull():
    recipe, batch = tiny(), batch_with_grain()
    batch = dataclasses.replace(batch, mask=torch.zeros_like(batch.mask))
    outputs = recipe.phases[1].forward(recipe.networks, batch)
    terms = terms_of(recipe, 1, 1, outputs, batch)
    assert terms["l2"] == terms["multi_level"] == 0


def test_perceptual_and_style_by_hand():
    class Shrink(nn.Module):
        """Stands for VGG-16: one map, the picture itself."""

        def forward(self, image: Tensor) -> dict[str, Tensor]:
            return {"pool1": image}

    predicted = torch.tensor([1.0, 0.0, 2.0]).view(1, 3, 1, 1)
    perceptual, style = losses.perceptual_and_style(Shrink(), "raw", predicted, torch.zeros(1, 3, 1, 1))
    assert perceptual == pytest.approx(5 / 3)
    assert style == pytest.approx((1 + 2 * 4 + 16) / 9 / 9)  # Gram: products of channels, divided by 3 * 1 * 1
    kept = []
    probe = Shrink()
    probe.register_forward_hook(lambda _module, inputs, _output: kept.append(inputs[0].flatten().tolist()))
    losses.perceptual_and_style(probe, "raw", predicted, predicted)
    losses.perceptual_and_style(probe, "imagenet", predicted, predicted)
    assert kept[0] == [2.0, 0.0, 1.0]  # BGR
    assert kept[2] == pytest.approx([(1 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (1.5 - 0.406) / 0.225], rel=1e-5)


def test_a_step_with_vgg_has_all_terms():
    recipe, batch = tiny(perceptual_weight=1.0, style_weight=10.0, crop_size=32), batch_with_grain()
    start_phase(recipe, recipe.phases[1])
    terms = run_step(recipe, recipe.phases[1], batch)
    assert set(terms) == {"d_real", "d_fake", "l2", "adversarial", "perceptual", "style", "multi_level"}
    assert all(term.isfinite() and term > 0 for term in terms.values())
    assert losses.VGG_LAYERS == ("pool1", "pool2", "pool3")
    sizes = [tuple(maps.shape[1:]) for maps in VGG16(losses.VGG_LAYERS, "random")(torch.zeros(1, 3, 32, 32)).values()]
    assert sizes == [(64, 16, 16), (128, 8, 8), (256, 4, 4)]


def test_a_crop_lies_around_each_samples_hole_and_inside_the_image():
    mask = torch.zeros(4, 1, 20, 30)
    mask[0, 0, 8:12, 10:14] = 1
    mask[1, 0, :3, 27:] = 1
    mask[2, 0, 19, 0] = 1
    place = torch.arange(600.0).view(1, 1, 20, 30).repeat(4, 1, 1, 1)
    found = losses.square_around_hole(place, mask, 8)
    assert found.shape == (4, 1, 8, 8)
    for sample, (top, left) in enumerate([(6, 8), (0, 22), (12, 0), (6, 11)]):  # the last has no hole: the middle
        assert torch.equal(found[sample], place[sample, :, top : top + 8, left : left + 8])
    assert torch.equal(losses.square_around_hole(place, mask, 24)[0], place[0, :, :, :24])


def test_a_crop_is_what_the_judges_see():
    recipe, batch = tiny(crop_size=24), batch_with_grain()
    seen = []
    recipe.networks["generator_d"].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape))
    recipe.networks["lbp_d"].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape))
    run_step(recipe, recipe.phases[2], batch)
    assert sorted(tuple(shape) for shape in seen) == [(3, 1, 24, 24), (3, 3, 24, 24), (6, 1, 24, 24), (6, 3, 24, 24)]


def test_steps_are_finite_under_autocast():
    recipe, batch = tiny(perceptual_weight=1.0, style_weight=10.0), batch_with_grain()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = recipe.phases[2].forward(recipe.networks, batch)
        terms = recipe.phases[2].updates[2].terms(recipe.networks, batch, outputs)
        sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    assert all(p.grad.isfinite().all() for p in recipe.networks["lbp"].parameters())
    unknown = unknown_codes(batch.mask, "zero")
    assert torch.equal(outputs["patterns"][unknown == 0], pattern_map(batch.image, "zero")[unknown == 0])


def test_a_fixed_batch_is_learned():
    recipe = tiny(learning_rate=1e-2, beta1=0.9, adversarial_weight=0.01, lbp_adversarial_weight=0.01)
    batch = make_batch((32, 32), num_samples=1)
    for number, term in ((0, "lbp_l2"), (1, "l2")):
        phase = recipe.phases[number]
        start_phase(recipe, phase)
        errors = [run_step(recipe, phase, batch)[term].item() for _ in range(20)]
        assert errors[-1] < 0.5 * errors[0], term


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="levels"):
        Config(levels=3)
    with pytest.raises(ValueError, match="crop_size"):
        Config(crop_size=16)
