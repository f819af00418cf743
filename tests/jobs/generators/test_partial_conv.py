"""Facts of PartialConv: counts, layers, the partial convolution against loops, masks, losses by hand, fine-tuning."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.batches import make_batch
from benchmarks.loops.partial_conv import partial_convolution
from jobs.generators.build import inpaint
from jobs.generators.partial_conv import PARAMETERS, Config
from jobs.generators.partial_conv.losses import VGG_LAYERS, pixel_losses, scaled, total_variation
from jobs.generators.partial_conv.networks import Generator
from jobs.generators.partial_conv.recipe import build
from jobs.layers.composite import composite
from jobs.layers.partial_convolution import PartialConv2d
from jobs.layers.perceptual import of_output_and_completed
from jobs.layers.vgg import VGG16
from tests.jobs.generators.steps import build_tiny, run_step, start_phase


def random_valid(*shape: int, share: float = 0.5, seed: int = 0) -> Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share).double()


def test_parameter_counts_are_the_published_networks():
    for levels, expected in ((8, PARAMETERS["generator"]), (7, 25_779_796)):
        with torch.device("meta"):
            generator = Generator(width=Config().width, levels=levels)
        assert sum(p.numel() for p in generator.parameters()) == expected
    assert PARAMETERS == {"generator": 32_859_732}
    assert Config().levels == 8


def test_masks_bring_neither_parameters_nor_buffers():
    with torch.device("meta"):
        state = Generator(width=4, levels=3).state_dict()
    kinds = {name.split(".", 2)[-1] for name in state}
    statistics = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert kinds == {"conv.weight", "conv.bias", "norm.weight", "norm.bias"} | statistics
    assert [name for name in state if name.endswith("conv.bias")] == ["decoder.2.conv.bias"]


def test_layers_follow_the_table_in_order_of_execution():
    with torch.device("meta"):
        generator = Generator(width=64, levels=8)
        seen = []
        for stage in (*generator.encoder, *generator.decoder):
            stage.register_forward_hook(lambda module, _, output: seen.append((module, output[0].shape[-1])))
        generator(torch.empty(1, 3, 512, 512), torch.empty(1, 1, 512, 512))
    rows = [
        (m.conv.in_channels, m.conv.out_channels, m.conv.kernel_size[0], m.conv.stride[0], size) for m, size in seen
    ]
    encoder = [(3, 64, 7, 2, 256), (64, 128, 5, 2, 128), (128, 256, 5, 2, 64), (256, 512, 3, 2, 32)]
    encoder += [(512, 512, 3, 2, size) for size in (16, 8, 4, 2)]
    decoder = [(1024, 512, 3, 1, size) for size in (4, 8, 16, 32)]
    decoder += [(768, 256, 3, 1, 64), (384, 128, 3, 1, 128), (192, 64, 3, 1, 256), (67, 3, 3, 1, 512)]
    assert rows == encoder + decoder
    kinds = [(m.norm is not None, m.activation and type(m.activation).__name__) for m, _ in seen]
    expected = [(False, "ReLU")] + 7 * [(True, "ReLU")] + 7 * [(True, "LeakyReLU")] + [(False, None)]
    assert kinds == expected
    assert all(m.activation.negative_slope == 0.2 for m, _ in seen[8:15])


@pytest.mark.parametrize(
    ("in_channels", "kernel_size", "stride", "bias"),
    [((3,), 7, 2, False), ((2,), 5, 2, True), ((3, 2), 3, 1, True), ((1, 4), 3, 1, False)],
)
def test_the_layer_equals_the_loop_in_values_masks_and_gradients(in_channels, kernel_size, stride, bias):
    torch.manual_seed(0)
    layer = PartialConv2d(in_channels, 4, kernel_size, stride=stride, bias=bias).double()
    if bias:
        nn.init.normal_(layer.bias)
    height, width = 7, 11
    groups, dense = [], []
    for number, channels in enumerate(in_channels):
        features = torch.randn(4, channels, height, width, dtype=torch.float64, requires_grad=True)
        valid = random_valid(4, 1, height, width, share=0.1, seed=number)
        valid[0], valid[1], valid[2, :, :, 3:] = 1, 0, 0  # all known, all hole, a hole larger than a window
        groups.append((features, valid))
        dense.append(valid.expand_as(features))
    inputs = [*(features for features, _ in groups), *layer.parameters()]
    fast, fast_valid = layer(*groups)
    joined = torch.cat([features for features, _ in groups], dim=1)
    slow, slow_valid = partial_convolution(joined, torch.cat(dense, dim=1), layer.weight, layer.bias, stride)
    torch.testing.assert_close(fast, slow)
    assert torch.equal(fast_valid.expand_as(slow_valid), slow_valid)
    assert 0 < fast_valid[2].sum() < fast_valid[2].numel()
    probe = torch.randn_like(slow)
    for ours, loops in zip(
        torch.autograd.grad((fast * probe).sum(), inputs),
        torch.autograd.grad((slow * probe).sum(), inputs),
        strict=True,
    ):
        assert loops.isfinite().all()
        torch.testing.assert_close(ours, loops)


def test_where_all_is_known_it_convolves_and_makes_up_for_the_border():
    layer = PartialConv2d((4,), 5, 3).double()
    features = torch.randn(2, 4, 8, 9, dtype=torch.float64)
    plain = F.conv2d(features, layer.weight, padding=1)
    partial, valid = layer((features, torch.ones(2, 1, 8, 9).double()))
    expected = torch.ones(8, 9, dtype=torch.float64)
    expected[[0, -1]] *= 1.5
    expected[:, [0, -1]] *= 1.5  # 2.25 in the corners
    torch.testing.assert_close(partial, plain * expected)
    assert valid.min() == 1


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_a_constant_image_stays_constant_under_any_mask(share):
    layer = PartialConv2d((3, 2), 1, 5, stride=2, bias=True).double()
    nn.init.constant_(layer.weight, 0.5)
    nn.init.constant_(layer.bias, 7)
    groups = [
        (torch.full((2, c, 33, 20), 3.0).double(), random_valid(2, 1, 33, 20, share=share, seed=c)) for c in (3, 2)
    ]
    output, valid = layer(*groups)
    torch.testing.assert_close(output, (3 * 0.5 * 5 * 25 + 7) * valid)  # sum(1) = 5 channels of 5x5; 0 without a pixel
    assert share == 0.5 or valid.min() == 0


def test_groups_of_other_widths_and_even_kernels_are_refused():
    with pytest.raises(ValueError, match=r"\(64, 3\) channels, got \(67,\)"):
        PartialConv2d((64, 3), 3, 3)((torch.zeros(1, 67, 4, 4), torch.ones(1, 1, 4, 4)))
    with pytest.raises(ValueError, match="odd"):
        PartialConv2d((3,), 3, 4)


def test_the_layer_compiles_without_a_break_and_agrees():
    layer = PartialConv2d((3, 2), 4, 3, bias=True)
    groups = [(torch.randn(2, c, 8, 10), random_valid(2, 1, 8, 10, share=0.1).float()) for c in (3, 2)]
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")(*groups)
    for ours, eager in zip(compiled, layer(*groups), strict=True):
        torch.testing.assert_close(ours, eager)


def test_autocast_keeps_the_counts_exact():
    """1,003 valid values are no number of bfloat16: rounded to 1,004, the scale would be off."""
    layer = PartialConv2d((1000, 3), 1, 1)
    nn.init.constant_(layer.weight, 1)
    groups = [(torch.full((1, c, 2, 2), 2.0**-10), torch.ones(1, 1, 2, 2)) for c in (1000, 3)]
    with torch.autocast("cpu", torch.bfloat16):
        scale, valid = layer._scale([mask for _, mask in groups])
        assert layer(*groups)[0].dtype == torch.bfloat16
    assert scale.dtype == valid.dtype == torch.float32
    assert (scale == 1).all()


def test_autocast_gives_a_finite_output_of_full_precision_and_the_same_masks():
    batch = make_batch((64, 64))
    recipe = build_tiny("partial_conv")
    lone = torch.ones_like(batch.mask)
    lone[..., -1, -1] = 0
    for mask in (batch.mask, lone, torch.ones_like(lone), torch.zeros_like(lone)):
        recipe.networks["generator"].eval()
        expected, unfilled = recipe.networks["generator"](batch.image, mask)
        with torch.autocast("cpu", torch.bfloat16):
            output, unfilled_too = recipe.networks["generator"](batch.image, mask)
        assert output.dtype == torch.float32
        assert torch.equal(unfilled, unfilled_too)
        torch.testing.assert_close(output, expected, rtol=0.05, atol=0.05 * expected.abs().max().item() + 1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_output_is_the_same_whatever_stands_under_the_hole(training):
    batch = make_batch((64, 64))
    generator = build_tiny("partial_conv").networks["generator"].train(training)
    outputs = []
    for content in (0.0, 100.0, -7.0, float("nan")):
        image = torch.where(batch.mask == 1, content, batch.image)
        output, _ = generator(image, batch.mask)
        gradients = torch.autograd.grad(output.sum(), list(generator.parameters()))
        outputs.append((output, *gradients))
    for other in outputs[1:]:
        assert all(torch.equal(first, second) for first, second in zip(outputs[0], other, strict=True))


def test_a_centred_hole_closes_level_by_level():
    generator = Generator(width=1, levels=8)
    holes = []
    for stage in generator.encoder:
        stage.register_forward_hook(lambda _, inputs, output: holes.append(1 - output[1].mean().item()))
    mask = torch.zeros(1, 1, 512, 512)
    mask[..., 128:384, 128:384] = 1
    with torch.no_grad():
        _, unfilled = generator.eval()(torch.zeros(1, 3, 512, 512), mask)
    assert holes == pytest.approx([0.238, 0.227, 0.205, 0.165, 0.098, 0.016, 0, 0], abs=6e-4)
    assert unfilled.max() == 0


def test_a_lone_known_pixel_leaves_a_hole_that_says_so():
    """It fills one of 2x2 cells of the bottleneck, and v of n cells become 2 v + 1 of 2 n: 127 of 128 in the end."""
    generator = Generator(width=4, levels=6).eval()
    nn.init.constant_(generator.decoder[-1].conv.bias, 5)
    mask = torch.ones(1, 1, 128, 128)
    mask[..., -1, -1] = 0
    with torch.no_grad():
        output, unfilled = generator(torch.ones(1, 3, 128, 128), mask)
    assert unfilled.mean() == 1 - (127 / 128) ** 2
    assert torch.equal((output == 0).all(dim=1, keepdim=True).float(), unfilled)


def test_masks_never_lose_a_known_cell():
    valid = random_valid(3, 1, 9, 12, share=0.2)
    for kernel_size in (3, 5, 7):
        _, after = PartialConv2d((2,), 1, kernel_size).double()((torch.zeros(3, 2, 9, 12).double(), valid))
        assert (after >= valid).all()
        assert after.sum() > valid.sum()


def test_other_sizes_are_refused_in_training():
    generator = build_tiny("partial_conv").networks["generator"]
    with pytest.raises(ValueError, match="multiples of 32, got 64 x 60"):
        generator(torch.zeros(1, 3, 64, 60), torch.zeros(1, 1, 64, 60))


def test_other_sizes_are_padded_with_hole_in_inpainting():
    recipe = build_tiny("partial_conv")
    recipe.networks["generator"].eval()
    whole = make_batch((64, 96))
    small = dataclasses.replace(whole, image=whole.image[..., :40, :70], mask=whole.mask[..., :40, :70])
    beyond = torch.ones_like(whole.mask)
    beyond[..., :40, :70] = small.mask
    expected = inpaint(recipe, dataclasses.replace(whole, mask=beyond))["output"]
    assert torch.equal(inpaint(recipe, small)["output"], expected[..., :40, :70])


def test_where_nothing_is_known_nothing_is_said():
    recipe = build_tiny("partial_conv")
    nn.init.constant_(recipe.networks["generator"].decoder[-1].conv.bias, 5)
    recipe.networks["generator"].eval()
    batch = dataclasses.replace(make_batch((64, 64)), image=torch.rand(2, 3, 1, 5), mask=torch.ones(2, 1, 1, 5))
    outputs = inpaint(recipe, batch)
    assert outputs["output"].shape == (2, 3, 1, 5)
    assert outputs["output"].abs().max() == 0
    assert outputs["unfilled"].min() == 1


def test_valid_and_hole_by_hand_and_together():
    image = torch.zeros(1, 3, 2, 2)
    output = torch.tensor([[1.0, -2.0], [3.0, 4.0]]).expand(1, 3, 2, 2)
    mask = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).expand(1, 1, 2, 2)
    assert [loss.item() for loss in pixel_losses(output, image, mask)] == [7 / 4, 3 / 4]


def test_total_variation_by_hand():
    """The hole is the top left pixel, R the 2x2 around it; pairs that leave R do not count."""
    mask = torch.zeros(1, 1, 3, 3)
    mask[..., 0, 0] = 1
    completed = torch.tensor([[1.0, 3.0, 90.0], [6.0, 10.0, 80.0], [70.0, 60.0, 50.0]]).expand(1, 3, 3, 3)
    across, down = (3 - 1) + (10 - 6), (6 - 1) + (10 - 3)
    assert total_variation(completed, mask).item() == pytest.approx((across + down) / 9)  # three channels of nine
    flat = torch.where(F.max_pool2d(mask, 3, 1, 1) == 1, 0.3, completed)
    assert total_variation(flat, mask) == 0


def test_total_variation_teaches_the_hole_alone():
    batch = make_batch((20, 30))
    output = torch.randn(batch.image.shape, requires_grad=True)
    total_variation(composite(output, batch.image, batch.mask), batch.mask).backward()
    assert not output.grad[batch.mask.expand_as(output) == 0].any()
    assert output.grad[batch.mask.expand_as(output) == 1].any()


def test_feature_losses_by_hand():
    """One stage whose features are the colours themselves: white, black and grey, in ImageNet's units."""
    grey = torch.zeros(1, 3, 2, 2)
    deviation = torch.tensor((0.229, 0.224, 0.225))
    low, high = -torch.tensor((0.485, 0.456, 0.406)) / deviation, (1 - torch.tensor((0.485, 0.456, 0.406))) / deviation
    middle = (low + high) / 2
    found = of_output_and_completed(lambda image: {"pool1": scaled(image, "imagenet")}, grey + 1, grey - 1, grey)
    both, style_out, style_comp = (value.item() for value in found)
    assert both == pytest.approx(((high - middle).abs().mean() + (low - middle).abs().mean()).item())
    # F F^T of four equal places, over C * H * W = 12: a third of the outer product of the colour.
    grams = [torch.outer(colour, colour) / 3 for colour in (low, middle, high)]
    assert style_out == pytest.approx((grams[2] - grams[1]).abs().mean().item())
    assert style_comp == pytest.approx((grams[0] - grams[1]).abs().mean().item())


def test_pixel_scales():
    image = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    assert torch.equal(scaled(image, "signed"), image)
    assert scaled(image, "unit").unique().tolist() == [0, 1]
    torch.testing.assert_close(scaled(image, "imagenet").diff(dim=3).flatten(), 1 / torch.tensor((0.229, 0.224, 0.225)))


def test_terms_are_those_of_the_paper():
    config = dataclasses.replace(
        Config.tiny(), perceptual_weight=0.05, style_out_weight=120.0, style_comp_weight=60.0, pixel_scale="imagenet"
    )
    torch.manual_seed(0)
    recipe = build(config)
    batch = make_batch((64, 64), num_samples=2)
    generator = recipe.networks["generator"].eval()
    phase = recipe.phases[0]
    terms = phase.updates[0].terms(recipe.networks, batch, phase.forward(recipe.networks, batch))

    output, _ = generator(batch.image, batch.mask)
    completed = torch.where(batch.mask == 1, output, batch.image)
    deviation = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    difference = (output - batch.image).abs() / 2 / deviation
    torch.testing.assert_close(terms["valid"], (difference * (1 - batch.mask)).mean())
    torch.testing.assert_close(terms["hole"], 6 * (difference * batch.mask).mean())
    torch.testing.assert_close(terms["tv"], 0.1 * total_variation(completed / 2 / deviation, batch.mask))

    vgg = VGG16(VGG_LAYERS, "random", 0)
    of = {
        name: list(vgg(((image + 1) / 2 - torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)) / deviation).values())
        for name, image in {"out": output, "comp": completed, "truth": batch.image}.items()
    }
    assert [tuple(feature.shape[1:]) for feature in of["out"]] == [(64, 32, 32), (128, 16, 16), (256, 8, 8)]

    def distance(name: str) -> Tensor:
        return sum((a - b).abs().mean() for a, b in zip(of[name], of["truth"], strict=True))

    def style(name: str) -> Tensor:
        grams = [
            [torch.einsum("nahw,nbhw->nab", f, f) / f[0].numel() for f in features]
            for features in (of[name], of["truth"])
        ]
        return sum((a - b).abs().mean() for a, b in zip(*grams, strict=True))

    torch.testing.assert_close(terms["perceptual"], 0.05 * (distance("out") + distance("comp")))
    torch.testing.assert_close(terms["style_out"], 120 * style("out"))
    torch.testing.assert_close(terms["style_comp"], 60 * style("comp"))


def test_fine_tuning_leaves_the_encoders_norms_alone():
    recipe = build_tiny("partial_conv")
    first, second = recipe.phases
    batch = make_batch((64, 64))
    generator = recipe.networks["generator"]
    for phase, frozen in ((first, False), (second, True)):
        before = {key: value.clone() for key, value in generator.state_dict().items()}
        generator.train()
        start_phase(recipe, phase)
        run_step(recipe, phase, batch)
        changed = {key for key, value in generator.state_dict().items() if not torch.equal(before[key], value)}
        norms = {key for key in before if ".norm." in key}
        assert len(norms) == 5 * 8  # of five values each: four in the encoder, four in the decoder
        expected = {key for key in norms if not (frozen and key.startswith("encoder"))}
        assert changed & norms == expected
        assert {key for key in before if "conv" in key} <= changed
    assert recipe.optimizers["generator"].param_groups[0]["lr"] == Config().finetune_learning_rate


def test_a_recipe_without_a_level_is_refused():
    with pytest.raises(ValueError, match="levels"):
        Config(levels=0)
