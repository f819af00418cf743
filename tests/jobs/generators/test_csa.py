"""Facts of CSA: layers, the attention against loops, its gradient, losses by hand, who teaches whom, the schedule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from benchmarks.batches import make_batch
from benchmarks.loops.csa import csa as loops
from jobs.generators.csa import Config, attention
from jobs.generators.csa.attention import CoherentSemanticAttention
from jobs.generators.csa.losses import consistency, relativistic
from jobs.generators.csa.networks import FeatureDiscriminator, RefinementNetwork, RoughNetwork
from jobs.generators.csa.recipe import build
from jobs.layers.discriminators import PatchDiscriminator
from jobs.layers.vgg import VGG16, imagenet_normalised
from tests.jobs.generators.steps import run_step, start_phase

FILL = Config().fill
SOLVERS = ("scan", "sweeps")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def holes(height: int, width: int) -> torch.Tensor:
    """Four maps: scattered cells, none, all, and two separate rectangles; (4, 1, height, width)."""
    hole = torch.zeros(4, 1, height, width, dtype=torch.float64)
    hole[0] = (random(height, width, seed=9) > 0).double()
    hole[2] = 1
    hole[3, :, 1:3, 1:4] = hole[3, :, 4:, -2:] = 1
    return hole


# Networks


def test_shapes_are_the_papers_at_256():
    with torch.device("meta"):
        image, mask = torch.zeros(1, 3, 256, 256), torch.zeros(1, 1, 256, 256)
        rough = RoughNetwork(width=64, levels=8, fill=FILL)(image, mask)
        network = RefinementNetwork(width=64, levels=8, fill=FILL, attention=CoherentSemanticAttention())
        refined, attended, decoded, hole = network(rough, image, mask)
        scores = PatchDiscriminator(3, 64, spectral=False, norm=True)(image)
        features = torch.zeros(1, 256, 32, 32)
        feature_scores = [FeatureDiscriminator(width=64, strides=s)(features) for s in ("code", "figure")]
    assert rough.shape == refined.shape == image.shape
    assert attended.shape == decoded.shape == (1, 512, 32, 32)
    assert hole.shape == (1, 1, 32, 32)
    assert scores.shape == (1, 1, 30, 30)
    assert [s.shape for s in feature_scores] == [(1, 512, 4, 4), (1, 512, 14, 14)]


def test_layers_of_the_refinement_network_follow_the_table():
    found: list[tuple] = []

    def note(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            transposed = "t" if isinstance(module, nn.ConvTranspose2d) else ""
            shape = (module.kernel_size[0], module.stride[0], module.padding[0], module.dilation[0])
            found.append((transposed, module.in_channels, module.out_channels, *shape))
        else:
            found.append((type(module).__name__, output.shape[1]))

    with torch.device("meta"):
        network = RefinementNetwork(width=64, levels=8, fill=FILL, attention=CoherentSemanticAttention())
        for module in network.modules():
            if not list(module.children()):
                module.register_forward_hook(note)
        network(torch.zeros(1, 3, 256, 256), torch.zeros(1, 3, 256, 256), torch.zeros(1, 1, 256, 256))

    def norm(c: int) -> tuple:
        return ("InstanceNorm2d", c)

    def down(a: int, b: int) -> list[tuple]:
        leaky = ("LeakyReLU", a)
        return [leaky, ("", a, a, 4, 2, 3, 2), norm(a), leaky, ("", a, b, 3, 1, 1, 1), norm(b)]

    def up(c: int, o: int) -> list[tuple]:
        return [("ReLU", c), ("t", c, o, 3, 1, 1, 1), norm(o), ("ReLU", o), ("t", o, o, 4, 2, 1, 1), norm(o)]

    expected = [("", 6, 64, 3, 1, 1, 1), *down(64, 128), *down(128, 256), *down(256, 512)]
    expected.insert(-1, ("CoherentSemanticAttention", 512))  # between the third level's last convolution and its norm
    expected += down(512, 512) * 4 + [("LeakyReLU", 512), ("", 512, 512, 4, 2, 3, 2)]
    expected += [("ReLU", 512), ("t", 512, 512, 4, 2, 1, 1), norm(512), *up(1024, 512) * 4]
    expected += [*up(1024, 256), *up(512, 128), *up(256, 64), ("ReLU", 128), ("t", 128, 3, 3, 1, 1, 1)]
    assert found == expected


def test_the_rough_network_sees_the_fill_and_the_refinement_network_the_pasted_guess_first():
    batch = make_batch((64, 64))
    rough = RoughNetwork(width=2, levels=6, fill=FILL)
    refine = RefinementNetwork(width=2, levels=6, fill=FILL, attention=CoherentSemanticAttention())
    seen = {}
    rough.unet.downs[0].register_forward_pre_hook(lambda _, inputs: seen.update(rough=inputs[0]))
    refine.entry.register_forward_pre_hook(lambda _, inputs: seen.update(refine=inputs[0]))
    guess = rough(batch.image, batch.mask)
    refine(guess, batch.image, batch.mask)
    inside = batch.mask == 1
    filled = torch.where(inside, torch.tensor(FILL).view(1, 3, 1, 1), batch.image)
    assert guess.abs().max() <= 1
    torch.testing.assert_close(seen["rough"], filled)
    torch.testing.assert_close(seen["refine"], torch.cat((torch.where(inside, guess, batch.image), filled), dim=1))


def test_cells_are_replaced_where_the_vote_says_hole():
    mask = torch.zeros(4, 1, 256, 256)
    mask[0, :, 64:192, 64:192] = mask[1, :, 68:188, 68:188] = mask[2] = mask[3, :, 100:108, 100:108] = 1
    network = RefinementNetwork(width=1, levels=4, fill=FILL, attention=CoherentSemanticAttention())
    seen = {}
    network.attention.register_forward_hook(lambda _, inputs, output: seen.update(hole=inputs[1]))
    with torch.no_grad():
        hole = network(torch.zeros(4, 3, 256, 256), torch.zeros(4, 3, 256, 256), mask)[3]
    assert hole.flatten(1).sum(1).tolist() == [256, 252, 1024, 0]
    assert torch.equal(seen["hole"], hole)


# The attention layer


def test_three_cells_by_hand():
    # Known (2, 0) and (0, 1) around the holes (3, 1) and (1, 2). o_1 = (2, 0); then Dmax = 2 / sqrt 5 = 2 Dad.
    features = torch.tensor([[2.0, 3, 1, 0], [0, 1, 2, 1]]).view(1, 2, 1, 4)
    hole = torch.tensor([0.0, 1, 1, 0]).view(1, 1, 1, 4)
    expected = torch.tensor([[2.0, 2, 2 / 3, 0], [0, 0, 2 / 3, 1]]).view(1, 2, 1, 4)
    torch.testing.assert_close(CoherentSemanticAttention()(features, hole), expected)
    # The authors' likenesses: Dmax = 2, Dad = 2 / sqrt 5.
    share = 1 / (1 + math.sqrt(5))
    expected[0, :, 0, 2] = torch.tensor([2 * share, 1 - share])
    torch.testing.assert_close(CoherentSemanticAttention(norm="code", clamp=False)(features, hole), expected)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("norm", "clamp"), [("cosine", True), ("code", True), ("cosine", False), ("code", False)])
@pytest.mark.parametrize("size", [(7, 6), (6, 9)])
def test_output_and_gradient_are_those_of_the_loops(norm, clamp, solver, size):
    features, gradient, hole = random(4, 5, *size), random(4, 5, *size, seed=1), holes(*size)
    if not clamp:
        features = features.abs()  # or denominators near 0 would magnify rounding without bound
    features.requires_grad_()
    output = CoherentSemanticAttention(norm=norm, clamp=clamp, solver=solver)(features, hole)
    output.backward(gradient)
    expected, matrix = loops(features.detach(), hole, norm, clamp)
    tolerance = {"rtol": 1e-6, "atol": 1e-6 if solver == "sweeps" else 1e-7}
    torch.testing.assert_close(output, expected, **tolerance)
    passed = (matrix.mT @ gradient.flatten(2).mT).mT.view_as(gradient)
    torch.testing.assert_close(features.grad, gradient + passed, **tolerance)
    inside = (hole == 1).expand_as(gradient) & (hole == 0).flatten(1).any(1).view(-1, 1, 1, 1)
    assert torch.equal(features.grad[inside], gradient[inside])


def test_attention_keeps_known_cells_starts_with_a_match_and_stays_in_the_hull():
    features, hole = random(4, 8, 9, 11).float(), holes(9, 11).float()
    output = CoherentSemanticAttention()(features, hole)
    known = (hole == 0).expand_as(features)
    assert torch.equal(output[known], features[known])
    assert torch.equal(output[1:3], features[1:3])  # no hole, and nothing known
    for index in (0, 3):
        sample, inside = features[index].flatten(1), hole[index].flatten() == 1
        outside = sample[:, ~inside]
        first = sample[:, inside][:, 0]
        best = nn.functional.cosine_similarity(outside, first[:, None], dim=0).argmax()
        generated = output[index].flatten(1)[:, inside]
        assert torch.equal(generated[:, 0], outside[:, best])
        low, high = outside.min(1, keepdim=True).values - 1e-6, outside.max(1, keepdim=True).values + 1e-6
        assert ((low <= generated) & (generated <= high)).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_samples_of_a_batch_do_not_meet(solver):
    layer, features, hole = CoherentSemanticAttention(solver=solver), random(4, 8, 9, 11).float(), holes(9, 11).float()
    alone = torch.cat([layer(features[n : n + 1], hole[n : n + 1]) for n in range(4)])
    torch.testing.assert_close(layer(features, hole), alone, rtol=0, atol=2e-6)


def test_sweeps_settle_on_the_scan_without_its_help(monkeypatch):
    features = nn.functional.avg_pool2d(random(2, 32, 32, 32).float(), 5, stride=1, padding=2)
    hole = torch.zeros(2, 1, 32, 32)
    hole[0, :, 8:24, 8:24] = hole[1, :, 2:9, 3:30] = hole[1, :, 20:31, 5:17] = 1
    expected = CoherentSemanticAttention(solver="scan")(features, hole)
    with monkeypatch.context() as patch:
        patch.delattr(attention, "_scan")
        swept = CoherentSemanticAttention(solver="sweeps")(features, hole)
    assert (swept - expected).abs().max() <= 2e-6 * expected.abs().max()
    with monkeypatch.context() as patch:  # as on a GPU
        patch.delattr(attention, "_scan")
        patch.setattr(CoherentSemanticAttention, "_sweeps_on", lambda self, features: attention.SWEEPS_PER_LOOK)
        swept = CoherentSemanticAttention()(features, hole)
    assert (swept - expected).abs().max() <= 2e-6 * expected.abs().max()
    assert torch.equal(CoherentSemanticAttention()(features, hole), expected)  # "auto" scans on a CPU
    monkeypatch.setattr(attention, "SWEEPS", 1)  # too few to settle: the scan takes over
    assert torch.equal(CoherentSemanticAttention(solver="sweeps")(features, hole), expected)


@pytest.mark.parametrize("solver", SOLVERS)
def test_opposite_and_empty_features_stay_finite(solver):
    half = random(1, 4, 6, 3).float().abs()
    features = torch.cat((half, -half), dim=3)
    hole = torch.zeros(1, 1, 6, 6)
    hole[..., 3:] = 1
    for inputs in (features, torch.zeros_like(features)):
        inputs = inputs.clone().requires_grad_()
        output = CoherentSemanticAttention(solver=solver)(inputs, hole)
        output.sum().backward()
        assert output.isfinite().all()
        assert inputs.grad.isfinite().all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_compiled_layer_agrees_for_any_number_of_hole_cells(solver):
    layer = CoherentSemanticAttention(solver=solver)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for hole in (holes(7, 6), holes(7, 6).flip(0).flip(3)):
        inputs = [random(4, 5, 7, 6).requires_grad_() for _ in range(2)]
        for run, features in zip((layer, compiled), inputs, strict=True):
            run(features, hole).square().sum().backward()
        torch.testing.assert_close(compiled(inputs[0], hole), layer(inputs[0], hole), rtol=0, atol=0)
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=0, atol=0)


def test_the_operator_is_declared_as_it_is():
    features = random(2, 5, 7, 6).float().requires_grad_()
    hole = holes(7, 6)[[0, 3]].flatten(1) > 0
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")  # compiling is checked above
    torch.library.opcheck(attention._attend, (features, hole, True, True, False), test_utils=checks)


def test_half_precision_is_left_for_matching_and_recurrence():
    features, hole = random(4, 16, 9, 11).bfloat16(), holes(9, 11).float()
    layer = CoherentSemanticAttention()
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(features, hole)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, layer(features.float(), hole).bfloat16())


def test_a_hole_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(1, 1, 8, 8\)"):
        CoherentSemanticAttention()(torch.zeros(1, 4, 8, 8), torch.zeros(1, 1, 64, 64))


# Losses


def test_relativistic_losses_by_hand():
    real, fake = torch.tensor([2.0, 4.0]), torch.tensor([0.0, 1.0])
    # (0.5^2 + 2.5^2) / 2 = 3.25 and (2^2 + 1^2) / 2 = 2.5; the other way round 12.5 and 13.25.
    assert relativistic(real, fake).item() == pytest.approx((3.25 + 2.5) / 2)
    assert relativistic(fake, real).item() == pytest.approx((12.5 + 13.25) / 2)
    equal = torch.full((2, 1, 3, 3), 0.7)
    assert relativistic(equal, equal.clone()).item() == pytest.approx(1)
    assert relativistic(torch.full((4,), 0.5), torch.full((4,), -0.5)).item() == 0
    # Of one score each it is (r - f - 1)^2; with detached means the gradient would be half of that.
    real, fake = torch.tensor([3.0]), torch.tensor([0.0], requires_grad=True)
    relativistic(real, fake).backward()
    assert fake.grad.item() == pytest.approx(-4)


def test_consistency_is_the_mean_over_hole_cells_and_channels():
    target = torch.zeros(2, 2, 1, 2)
    first, second = torch.full_like(target, 1.0), torch.full_like(target, 2.0)
    first[0, 0, 0, 0] = 3.0  # in the hole
    first[1, :, 0, 0] = 50.0  # known
    hole = torch.tensor([[1.0, 1.0], [0.0, 1.0]]).view(2, 1, 1, 2)
    # 3 cells of 2 channels: (9 + 5 * 1) / 6 from the first map, 4 from the second.
    assert consistency((first, second), target, hole).item() == pytest.approx(14 / 6 + 4)
    assert consistency((first, second), target, torch.zeros_like(hole)).item() == 0


def test_every_term_teaches_whom_it_should():
    """With VGG-16 and the feature discriminator, which the tiny config does without."""
    torch.manual_seed(0)
    config = Config(d_width=4, levels=4, batch_size=1, features="random")
    recipe = build(config)
    phase, networks = recipe.phases[0], recipe.networks
    batch = make_batch((64, 64), num_samples=1)
    start_phase(recipe, phase)
    phase.require_grad(networks, ("rough", "generator"))
    outputs = phase.forward(networks, batch)
    target = VGG16(("relu4_3",), "random")(imagenet_normalised((batch.image + 1) / 2))["relu4_3"]
    torch.testing.assert_close(outputs["target"], target)
    assert outputs["target"].shape == outputs["attended"].shape

    terms = phase.updates[1].terms(networks, batch, outputs)
    assert terms.keys() == {"rough_l1", "refined_l1", "adversarial", "feature_adversarial", "consistency"}
    rough, generator = networks["rough"].unet, networks["generator"]
    watched = {
        "rough": rough.ups[-1][0].weight,
        "before_attention": generator.before_attention[-1].weight,
        "output": generator.exit[-1].weight,
    }
    for name, term in terms.items():
        found = torch.autograd.grad(term, list(watched.values()), retain_graph=True, allow_unused=True)
        taught = {key for key, gradient in zip(watched, found, strict=True) if gradient is not None and gradient.any()}
        if name == "rough_l1":
            assert taught == {"rough"}
        elif name == "consistency":
            assert taught == {"before_attention"}
        else:
            assert taught == {"before_attention", "output"}, name

    stepped = {}
    run_step(recipe, phase, batch, lambda update, terms: stepped.update({update.networks: terms.keys()}))
    assert stepped == {("generator_d", "features_d"): {"d_image", "d_features"}, ("rough", "generator"): terms.keys()}


def test_the_discriminators_look_at_raw_outputs_with_halved_losses():
    recipe = build(Config.tiny())
    phase, batch = recipe.phases[0], make_batch((64, 64))
    with torch.no_grad():
        outputs = phase.forward(recipe.networks, batch)
        judge = recipe.networks["generator_d"]
        real, fake = judge(batch.image), judge(outputs["refined"])
        loss = ((real - fake.mean() - 1) ** 2).mean() / 2 + ((fake - real.mean() + 1) ** 2).mean() / 2
        torch.testing.assert_close(phase.updates[0].terms(recipe.networks, batch, outputs)["d_image"], loss / 2)
        loss = ((real - fake.mean() + 1) ** 2).mean() / 2 + ((fake - real.mean() - 1) ** 2).mean() / 2
        terms = phase.updates[1].terms(recipe.networks, batch, outputs)
        torch.testing.assert_close(terms["adversarial"], 0.002 * loss)


def test_rates_are_constant_for_19_epochs_then_fall_to_zero_in_the_last():
    config = Config.tiny()
    config = type(config)(**(vars(config) | {"steps": 120 * 7, "steps_per_epoch": 7, "constant_epochs": 19}))
    phase = build(config).phases[0]
    assert set(phase.learning_rates) == {"rough", "generator", "generator_d"}
    rate = phase.learning_rates["generator"]
    by_epoch = [rate(7 * epoch) for epoch in range(120)]
    assert by_epoch == pytest.approx([2e-4 * (1 - max(0, epoch - 18) / 101) for epoch in range(120)])
    assert rate(19 * 7 - 1) == 2e-4 > rate(19 * 7)
    assert rate(120 * 7 - 1) == 0


def test_settings_and_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="levels"):
        Config(levels=3)
    with pytest.raises(ValueError, match="width must be 64"):
        Config(width=32)
    network = RoughNetwork(width=2, levels=6, fill=FILL)
    with pytest.raises(ValueError, match="multiples of 64"):
        network(torch.zeros(1, 3, 64, 96), torch.zeros(1, 1, 64, 96))
