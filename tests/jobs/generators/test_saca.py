"""Facts of SACA: counts, the module against loops, what its regions may know, losses by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.batches import make_batch, visible
from benchmarks.loops.saca import saca
from files.pictures import IGNORE
from jobs.generators.build import inpaint
from jobs.generators.saca import PARAMETERS, Config, losses
from jobs.generators.saca.networks import SACA, Generator
from jobs.generators.saca.recipe import build
from jobs.layers.perceptual import PERCEPTUAL_LAYERS, STYLE_LAYERS
from jobs.layers.vgg import VGG19
from jobs.layers.weights import WeightsError
from tests.jobs.generators.steps import run_step, start_phase

NO_VGG = {"perceptual_weight": 0.0, "style_weight": 0.0}


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def make_layer(channels: int = 6, regions: int = 4, *, gamma: float = 1.0) -> SACA:
    torch.manual_seed(0)
    layer = SACA(channels, regions)
    nn.init.normal_(layer.norm.weight)
    nn.init.normal_(layer.norm.bias)
    nn.init.constant_(layer.gamma, gamma)
    return layer


def make_features(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def regions_of(layer: SACA, features: Tensor, mask: Tensor) -> Tensor:
    """R as the module computes it on its way."""
    found = []
    described = layer.describe
    layer.describe = lambda *inputs: found.append(described(*inputs)) or found[0]
    layer(features, mask)
    layer.describe = described
    return found[0]


# Counts


def test_parameter_counts_are_those_of_the_table():
    with torch.device("meta"):
        networks = build(Config(**NO_VGG)).networks
        plain = build(Config(saca_at="neither", **NO_VGG)).networks["generator"]
        small = SACA(64, 8)
    assert {name: count(network) for name, network in networks.items()} == PARAMETERS
    assert PARAMETERS == {"generator": 10_824_325, "generator_d": 2_764_737}
    assert {name: count(part) for name, part in networks["generator"].named_children()} == {
        "e0": 6_592, "e1": 131_456, "e2": 525_056, "mid1": 4_724_736, "saca_high": 123_425, "mid2": 4_724_736,
        "u1": 442_752, "saca_low": 33_057, "u0": 110_784, "out": 1_731,
    }  # fmt: skip
    assert count(plain) == 10_667_843
    assert count(small) == 64 * 8 + 8 + 64 * 32 + 3 * 32**2 + 32 * 64 + 128 + 1 == 7_817


@pytest.mark.parametrize(
    ("saca_at", "sizes"), [("both", [16, 32]), ("bottleneck", [16]), ("dec128", [32]), ("neither", [])]
)
def test_modules_stand_at_a_quarter_and_at_half_of_the_size(saca_at, sizes):
    generator = build(dataclasses.replace(Config.tiny(), saca_at=saca_at)).networks["generator"]
    output, assignments = generator(torch.zeros(1, 3, 64, 64), torch.ones(1, 1, 64, 64))
    assert output.shape == (1, 3, 64, 64)
    assert [tuple(logits.shape) for logits in assignments] == [(1, 3, size, size) for size in sizes]


def test_layers_run_in_the_order_of_the_table():
    generator = Generator(width=4, regions=2)
    names = {module: name for name, module in generator.named_children()}
    order = []
    for module in names:
        module.register_forward_hook(lambda module, _inputs, _output: order.append(names[module]))
    generator(torch.zeros(1, 3, 64, 48), torch.ones(1, 1, 64, 48))
    assert order == list(names.values())
    assert order == ["e0", "e1", "e2", "mid1", "saca_high", "mid2", "u1", "saca_low", "u0", "out"]
    convolutions = [m for m in generator.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    table = [(4, 4, 5, 1, 1), (4, 8, 4, 2, 1), (8, 16, 4, 2, 1)]
    table += 8 * [(16, 16, 3, 1, 2), (16, 16, 3, 1, 1)]
    table += [(24, 8, 3, 1, 1), (12, 4, 3, 1, 1), (4, 3, 3, 1, 1)]
    found = [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0], c.dilation[0]) for c in convolutions]
    assert found == table


# The module


@pytest.mark.parametrize(("height", "width"), [(3, 5), (4, 2)])
def test_the_module_agrees_with_loops_over_cells_and_regions(height, width):
    layer = make_layer().double()
    features = make_features(4, 6, height, width).double().requires_grad_()
    mask = torch.zeros(4, 1, 4 * height, 4 * width, dtype=torch.float64)
    mask[0, :, 3, 2] = 1  # one pixel makes a hole cell
    mask[1, :, 4:] = 1
    mask[2] = 1  # all hole; the last has none
    wanted = [features, *layer.parameters()]
    found = layer(features, mask)[0]
    slow = saca(features, mask, layer)
    torch.testing.assert_close(found, slow, rtol=1e-9, atol=1e-9)
    cotangent = make_features(*found.shape).double()
    for ours, theirs in zip(
        torch.autograd.grad(found, wanted, cotangent), torch.autograd.grad(slow, wanted, cotangent), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def test_the_module_starts_as_the_identity():
    features, mask = make_features(2, 6, 5, 4), torch.zeros(2, 1, 5, 4)
    assert torch.equal(SACA(6, 4)(features, mask)[0], features)
    assert not torch.equal(make_layer()(features, mask)[0], features)


def test_one_region_of_a_known_map_is_its_mean():
    layer, features = make_layer(regions=1), make_features(2, 6, 5, 4)
    expected = layer.value(features).mean(dim=(2, 3))
    torch.testing.assert_close(regions_of(layer, features, torch.zeros(2, 1, 5, 4))[:, 0], expected)


def test_regions_do_not_know_the_hole_not_even_half_covered_cells():
    layer, features = make_layer(), make_features(1, 6, 5, 4)
    mask = torch.zeros(1, 1, 20, 16)
    mask[..., 4:9, 4:9] = 1  # covers cell (1, 1) and reaches into (1, 2), (2, 1) and (2, 2)
    expected = regions_of(layer, features, mask)
    for place, known in (((1, 1), False), ((1, 2), False), ((2, 2), False), ((0, 0), True), ((3, 1), True)):
        changed = features.clone()
        changed[:, :, *place] += 1
        assert torch.equal(regions_of(layer, changed, mask), expected) != known, place


def test_the_order_of_regions_means_nothing():
    layer, features, mask = make_layer(), make_features(2, 6, 5, 4), torch.zeros(2, 1, 5, 4)
    mask[..., 1:3, 1:3] = 1
    expected = layer(features, mask)[0]
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        layer.assign.weight.copy_(layer.assign.weight[order])
        layer.assign.bias.copy_(layer.assign.bias[order])
    torch.testing.assert_close(layer(features, mask)[0], expected)


def test_places_mean_nothing_to_the_module():
    layer, features, mask = make_layer(), make_features(2, 6, 5, 4), torch.zeros(2, 1, 5, 4)
    mask[..., 1:3, 1:3] = 1
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))

    def shuffled(tensor: Tensor) -> Tensor:
        return tensor.flatten(2)[..., order].view_as(tensor)

    torch.testing.assert_close(layer(shuffled(features), shuffled(mask))[0], shuffled(layer(features, mask)[0]))


def test_which_parameters_learn():
    features = make_features(2, 6, 5, 4)
    partly = torch.zeros(2, 1, 5, 4)
    partly[..., 1:3, 1:3] = 1
    cases = {
        "gamma alone at the start": (0.0, partly, {"gamma"}),
        "all of them later": (1.0, partly, {name for name, _ in SACA(6, 4).named_parameters()}),
        "without anything known, the gate and the shift": (1.0, torch.ones(2, 1, 5, 4), {"gamma", "norm.bias"}),
    }
    for case, (gamma, mask, expected) in cases.items():
        layer = make_layer(gamma=gamma)
        (layer(features, mask)[0] * make_features(2, 6, 5, 4).roll(1, 0)).sum().backward()
        gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
        assert all(gradient.isfinite().all() for gradient in gradients.values()), case
        assert {name for name, gradient in gradients.items() if gradient.any()} == expected, case


def test_memory_grows_with_the_cells_and_not_with_their_square():
    class Largest(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.elements = 0

        def __torch_dispatch__(self, function, types, inputs=(), keywords=None):
            result = function(*inputs, **(keywords or {}))
            sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            self.elements = max([self.elements, *sizes])
            return result

    layer, features = make_layer(8, 4), make_features(1, 8, 32, 32).requires_grad_()
    with Largest() as largest:
        layer(features, torch.zeros(1, 1, 32, 32))[0].sum().backward()
    assert largest.elements == 8 * 32 * 32


def test_the_module_compiles_as_one_graph():
    layer, features, mask = make_layer(), make_features(2, 6, 5, 4), torch.zeros(2, 1, 20, 16)
    mask[..., 4:9, 4:9] = 1
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for found, expected in zip(compiled(features, mask), layer(features, mask), strict=True):
        torch.testing.assert_close(found, expected)


def test_mixed_precision_keeps_softmax_and_means_in_float32():
    layer, features, mask = make_layer(), make_features(2, 6, 5, 4), torch.zeros(2, 1, 5, 4)
    mask[0] = 1
    seen = {}
    for name in ("describe", "relate"):
        plain = getattr(layer, name)
        setattr(layer, name, lambda *x, name=name, plain=plain: seen.setdefault(name, (x, plain(*x)))[1])
    with torch.autocast("cpu", torch.bfloat16):
        output, logits = layer(features, mask)
    assert logits.dtype == torch.bfloat16
    for inputs, result in seen.values():
        assert {tensor.dtype for tensor in (*inputs, result)} == {torch.float32}
    torch.testing.assert_close(seen["describe"][0][0].sum(dim=1), torch.ones(2, 20))
    assert output.isfinite().all()
    torch.testing.assert_close(output.float(), make_layer()(features, mask)[0], rtol=0.1, atol=0.1)


# Losses


def test_l1_is_the_mean_over_the_image_by_the_share_of_the_hole():
    image, predicted, mask = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.25), torch.zeros(2, 1, 4, 4)
    mask[0, :, :2] = 1  # a quarter of the batch
    assert losses.l1_by_hole(predicted, image, mask).item() == pytest.approx(1.0)
    assert losses.l1_by_hole(predicted, image, 0 * mask).item() == pytest.approx(250.0)


def test_perceptual_counts_the_image_and_style_the_hole_alone():
    batch = make_batch((32, 32), num_samples=2)
    image = (batch.image + 1) / 2
    predicted = torch.rand(image.shape, generator=torch.Generator().manual_seed(2))
    vgg = VGG19(PERCEPTUAL_LAYERS + STYLE_LAYERS, "random")
    perceptual, style = losses.perceptual_and_style(vgg, predicted, image, batch.mask)

    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def features(shown: Tensor) -> dict[str, Tensor]:
        return vgg(((shown.permute(0, 2, 3, 1) - mean) / deviation).permute(0, 3, 1, 2))

    found, wanted = features(predicted), features(image)
    layers = [f"relu{n}_1" for n in range(1, 6)]
    expected = sum((found[name] - wanted[name]).abs().mean().item() for name in layers)
    assert perceptual.item() == pytest.approx(expected, rel=1e-4)
    found, wanted, expected = features(predicted * batch.mask), features(image * batch.mask), 0.0
    for name in ("relu2_2", "relu3_4", "relu4_4", "relu5_2"):
        for ours, theirs in zip(found[name], wanted[name], strict=True):
            ours, theirs = ours.flatten(1).double(), theirs.flatten(1).double()
            expected += ((ours @ ours.T - theirs @ theirs.T).abs().mean() / ours.numel() / 2).item()
    assert style.item() == pytest.approx(expected, rel=1e-3)


def test_supervision_is_the_cross_entropy_where_labels_are_known():
    labels = torch.full((1, 4, 4), IGNORE)
    labels[0, 0, 0] = 1
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 1] = math.log(2)  # the true label has probability 1/2
    assert losses.supervision([logits, logits], labels).item() == pytest.approx(2 * math.log(2))
    assert losses.supervision([logits], torch.full((1, 4, 4), IGNORE)) == 0
    labels[0, 3, 3] = 3
    with pytest.raises(ValueError, match="label 3 is no region"):
        losses.supervision([logits], labels)


def test_entropy_is_that_of_the_mean_assignment():
    logits = torch.full((2, 4, 1, 2), -100.0)
    logits[0, 0, 0, 0] = logits[0, 1, 0, 1] = 100  # two cells, two regions: log 2
    logits[1, 2] = 100  # one region: 0
    assert losses.negative_entropy([logits, logits]).item() == pytest.approx(-math.log(2))
    even = torch.zeros(1, 4, 3, 3, requires_grad=True)
    assert losses.negative_entropy([even]).item() == pytest.approx(-math.log(4))


# Training


def test_terms_are_weighted_and_see_the_output_as_it_is():
    weights = {"l1": 2.0, "adversarial": 3.0, "perceptual": 5.0, "style": 7.0, "supervision": 11.0, "entropy": 13.0}
    config = dataclasses.replace(Config.tiny(), regions=4, **{f"{name}_weight": w for name, w in weights.items()})
    torch.manual_seed(0)
    recipe = build(config)
    assert recipe.columns == ("semantics",)
    batch = make_batch((64, 64), recipe.columns, num_samples=2)
    for network in recipe.networks.values():
        network.eval()  # no power iteration between the two evaluations
    outputs = recipe.phases[0].forward(recipe.networks, batch)
    output, assignments = recipe.networks["generator"](batch.image, batch.mask)
    judge = recipe.networks["generator_d"]
    d_terms, g_terms = (update.terms(recipe.networks, batch, outputs) for update in recipe.phases[0].updates)
    torch.testing.assert_close(d_terms["d_real"], (1 - judge(batch.image)).clamp_min(0).mean() / 2)
    torch.testing.assert_close(d_terms["d_fake"], (1 + judge(output)).clamp_min(0).mean() / 2)

    vgg = VGG19(PERCEPTUAL_LAYERS + STYLE_LAYERS, "random")
    unit = ((output + 1) / 2, (batch.image + 1) / 2, batch.mask)
    perceptual, style = losses.perceptual_and_style(vgg, *unit)
    expected = {
        "l1": losses.l1_by_hole(*unit),
        "adversarial": -judge(output).mean(),
        "perceptual": perceptual,
        "style": style,
        "supervision": losses.supervision(assignments, batch.semantics),
        "entropy": losses.negative_entropy(assignments),
    }
    assert g_terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(g_terms[name], weights[name] * value, msg=name)
    with pytest.raises(ValueError, match="'semantics'"):
        recipe.phases[0].updates[1].terms(recipe.networks, visible(batch), outputs)


def test_defaults_are_edge_connects():
    config = Config()
    weights = (config.l1_weight, config.perceptual_weight, config.style_weight, config.adversarial_weight)
    assert weights == (1, 0.1, 250, 0.1)
    assert (config.supervision_weight, config.entropy_weight) == (0, 0)
    recipe = build(dataclasses.replace(Config.tiny(), learning_rate=config.learning_rate))
    assert recipe.optimizers["generator"].defaults["lr"] == 1e-4
    assert recipe.optimizers["generator_d"].defaults["lr"] == 1e-5
    assert all(optimizer.defaults["betas"] == (0.0, 0.9) for optimizer in recipe.optimizers.values())
    assert [update.networks for update in recipe.phases[0].updates] == [("generator_d",), ("generator",)]


def test_a_fixed_batch_is_learned():
    torch.manual_seed(0)
    faster = {"width": 8, "learning_rate": 3e-3, "beta1": 0.9, "adversarial_weight": 0.01}
    recipe = build(dataclasses.replace(Config.tiny(), **faster))
    batch = make_batch((32, 32), num_samples=2)
    start_phase(recipe, recipe.phases[0])
    errors = [run_step(recipe, recipe.phases[0], batch)["l1"].item() for _ in range(40)]
    assert sum(errors[-5:]) / 5 < 0.4 * errors[0]
    # The gates have opened.
    generator = recipe.networks["generator"]
    assert generator.saca_high.gamma.abs() > 1e-3
    assert generator.saca_low.gamma.abs() > 1e-3


# Inpainting


@pytest.mark.parametrize("size", [(66, 51), (5, 5)])
def test_odd_sizes_come_back_as_they_were(size):
    recipe = build(Config.tiny())
    image, mask = torch.zeros(2, 3, *size), torch.ones(2, 1, *size)
    batch = dataclasses.replace(make_batch((64, 64)), image=image, mask=mask)
    assert inpaint(recipe, visible(batch))["output"].shape == (2, 3, *size)


def test_what_cannot_be_done_is_refused_with_the_rule():
    recipe = build(Config.tiny())
    with pytest.raises(ValueError, match="at least 5 pixels, got 4 x 64"):
        inpaint(recipe, visible(make_batch((4, 64))))
    for size in ((64, 66), (4, 64)):
        with pytest.raises(ValueError, match=rf"multiples of 4, at least 8, got {size[0]} x {size[1]}"):
            Generator(width=2)(torch.zeros(1, 3, *size), torch.zeros(1, 1, *size))
    with pytest.raises(ValueError, match="at least 1"):
        Config(regions=0)
    with pytest.raises(ValueError, match="neither"):
        Config(saca_at="neither", entropy_weight=0.01)


def test_without_its_terms_vgg_is_not_built(tmp_path):
    absent = {"features": str(tmp_path / "absent.pth")}
    build(dataclasses.replace(Config.tiny(), **absent))
    with pytest.raises(WeightsError):
        build(dataclasses.replace(Config.tiny(), style_weight=1.0, **absent))
