"""Facts of DeepFill v1: counts, layers, discount maps, losses by hand, gradient penalty, order of updates."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.batches import make_batch
from jobs.generators.deepfill_v1 import Config
from jobs.generators.deepfill_v1.losses import box_discount, gradient_penalty, hole_discount, l1_of_known
from jobs.generators.deepfill_v1.networks import Critic, Generator
from jobs.generators.deepfill_v1.recipe import build
from jobs.layers.attention import ContextualAttention
from jobs.layers.windows import crop_windows, window_around_hole
from tests.jobs.generators.steps import build_tiny, run_step, start_phase


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def executed(generator: Generator) -> list[tuple]:
    """(in, out, kernel, stride, dilation, activation) of the convolutions, in order of execution."""
    layers: list[list] = []

    def note(module, _inputs, _output):
        if isinstance(module, nn.Conv2d):
            conv = (module.in_channels, module.out_channels, module.kernel_size[0], module.stride[0])
            layers.append([*conv, module.dilation[0], None])
        elif isinstance(module, nn.ELU | nn.ReLU):
            layers[-1][-1] = type(module).__name__

    for module in generator.modules():
        module.register_forward_hook(note)
    with torch.no_grad():
        generator(torch.zeros(1, 3, 16, 16), torch.ones(1, 1, 16, 16))
    return [tuple(layer) for layer in layers]


def test_both_stages_have_the_published_number_of_parameters():
    with torch.device("meta"):
        generator = Generator(width=32)
    assert (count(generator.coarse), count(generator.refinement)) == (1_448_227, 2_153_315)


def test_layers_follow_the_table():
    def rows(in_channels, *layers):
        result = []
        for out, kernel, stride, dilation, *rest in layers:
            result.append((in_channels, out, kernel, stride, dilation, rest[0] if rest else "ELU"))
            in_channels = out
        return result

    dilated = [(128, 3, 1, d) for d in (2, 4, 8, 16)]
    decoder = [(64, 3, 1, 1), (64, 3, 1, 1), (32, 3, 1, 1), (16, 3, 1, 1), (3, 3, 1, 1, None)]
    plain = (128, 3, 1, 1)
    coarse = [(32, 5, 1, 1), (64, 3, 2, 1), (64, 3, 1, 1), (128, 3, 2, 1), plain, plain, *dilated, plain, plain]
    hallucination = [(32, 5, 1, 1), (32, 3, 2, 1), (64, 3, 1, 1), (64, 3, 2, 1), plain, plain, *dilated]
    attention = [(32, 5, 1, 1), (32, 3, 2, 1), (64, 3, 1, 1), (128, 3, 2, 1), plain, (*plain, "ReLU"), plain, plain]
    expected = rows(5, *coarse, *decoder) + rows(5, *hallucination) + rows(5, *attention)
    expected += rows(256, plain, plain, *decoder)
    assert executed(Generator(width=32)) == expected


@pytest.mark.parametrize("size", [(256, 256), (128, 192), (8, 16)])
def test_any_multiple_of_eight_is_accepted_and_others_refused(size):
    generator = Generator(width=2)
    image, mask = torch.rand(2, 3, *size) * 2 - 1, (torch.rand(2, 1, *size) < 0.3).float()
    with torch.no_grad():
        outputs = generator(image, mask)
    assert len(outputs) == 2
    for output in outputs:
        assert output.shape == image.shape
        assert output.abs().max() <= 1
    with pytest.raises(ValueError, match="multiples of 8"):
        generator(image[..., 4:], mask[..., 4:])


def test_outputs_are_clamped():
    generator = Generator(width=2)
    for stage in (generator.coarse.layers[-1], generator.refinement.merge[-1]):
        nn.init.constant_(stage.bias, 7.0)
    with torch.no_grad():
        coarse, refined = generator(torch.zeros(1, 3, 16, 16), torch.ones(1, 1, 16, 16))
    assert coarse.max() == refined.max() == 1


def test_the_stages_see_what_the_code_shows_them_in_that_order():
    generator = Generator(width=4)
    batch = make_batch((64, 64))
    seen: dict[str, Tensor] = {}
    refinement = generator.refinement
    generator.coarse.layers[0].register_forward_pre_hook(lambda _, inputs: seen.update(coarse=inputs[0]))
    refinement.hallucination.register_forward_pre_hook(lambda _, inputs: seen.update(hallucination=inputs[0]))
    refinement.hallucination.register_forward_hook(lambda _, inputs, output: seen.update(hallucinated=output))
    refinement.before_attention.register_forward_pre_hook(lambda _, inputs: seen.update(attention=inputs[0]))
    refinement.after_attention.register_forward_hook(lambda _, inputs, output: seen.update(attended=output))
    refinement.merge.register_forward_pre_hook(lambda _, inputs: seen.update(merged=inputs[0]))
    coarse, _ = generator(batch.image, batch.mask)
    ones = torch.ones_like(batch.mask)
    grey, pasted = (torch.where(batch.mask == 1, filling, batch.image) for filling in (torch.zeros(1), coarse))
    assert torch.equal(seen["coarse"], torch.cat((grey, ones, batch.mask), dim=1))
    assert torch.equal(seen["hallucination"], torch.cat((pasted, ones, batch.mask), dim=1))
    assert torch.equal(seen["attention"], seen["hallucination"])
    assert torch.equal(seen["merged"], torch.cat((seen["hallucinated"], seen["attended"]), dim=1))


@pytest.mark.parametrize(("size", "factors"), [(256, (1, 2, 4, 4)), (128, (1, 2, 4, 8))])
def test_critics_score_images_of_one_size(size, factors):
    critic = Critic(size=size, width=1, factors=factors)
    assert critic(torch.zeros(2, 3, size, size)).shape == (2, 1)
    assert [type(layer).__name__ for layer in critic.layers] == ["Conv2d", "LeakyReLU"] * 4 + ["Flatten", "Linear"]
    with pytest.raises(ValueError, match="fixes the size"):
        critic(torch.zeros(2, 3, size, size - 8))


def test_tensorflows_padding_is_that_of_its_documentation():
    """Output i of a strided convolution reads inputs 2 i - 1 to 2 i + 3 with kernel 5, and 2 i to 2 i + 2 with 3."""
    critic = Critic(size=16, width=1, factors=(1,), tf_same=True)
    generator = Generator(width=2, tf_same=True)
    strided = [
        generator.coarse.layers[2:4],
        generator.refinement.hallucination[2:4],
        generator.refinement.before_attention[2:4],
    ]
    for layers, first, last in [(critic.layers[:2], 5, 9), *((layers, 6, 8) for layers in strided)]:
        conv = layers[1]
        image = torch.randn(1, conv.in_channels, 16, 16, requires_grad=True)
        output = layers(image)
        assert output.shape[-2:] == (8, 8)
        (gradient,) = torch.autograd.grad(output[0, :, 3, 3].sum(), image)
        rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
        columns = gradient.abs().sum((0, 1, 2)).nonzero().flatten()
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (first, last, first, last)
    assert count(generator) == count(Generator(width=2))


def test_the_boxs_discount_has_the_codes_values():
    weights = box_discount(128, 0.9)
    assert (weights[0] == 1).all()
    assert (weights[:, 0] == 1).all()
    assert weights[64, 64].item() == pytest.approx(0.9**64)
    assert weights[127, 64].item() == weights[1, 64].item() == pytest.approx(0.9)
    assert weights.mean().item() == pytest.approx(0.2529, abs=5e-5)


def test_the_holes_discount_agrees_with_a_search_for_the_nearest_known_pixel():
    mask = (torch.rand(5, 1, 9, 13, generator=torch.Generator().manual_seed(0)) < 0.8).double()
    mask[3], mask[4] = 1, 0
    mask[2, :, 1:, :] = 1  # known pixels on one line only
    found = hole_discount(mask, 0.5)
    for sample, weights in zip(mask[:3, 0], found[:, 0], strict=False):
        known = (sample == 0).nonzero()
        for y in range(9):
            for x in range(13):
                distance = (known - torch.tensor([y, x])).abs().sum(1).min().item()
                assert weights[y, x] == (0.5 ** (distance - 1) if distance else 0)
    assert (found[3] == 1).all()
    assert not found[4].any()


def test_in_a_box_the_holes_discount_is_the_boxs_without_its_asymmetry():
    mask = torch.zeros(1, 1, 20, 20, dtype=torch.float64)
    mask[..., 4:16, 5:17] = 1
    weights = hole_discount(mask, 0.9)[0, 0, 4:16, 5:17]
    torch.testing.assert_close(weights[:6, :6], box_discount(12, 0.9)[:6, :6])
    torch.testing.assert_close(weights, weights.flip(0))


def test_l1_of_known_pixels_by_hand():
    image = torch.zeros(2, 3, 1, 4)
    prediction = torch.tensor([1.0, 2.0, 4.0, 9.0]).view(1, 1, 1, 4).expand(2, 3, 1, 4)
    mask = torch.zeros(2, 1, 1, 4)
    mask[0, ..., 3] = 1
    mask[1, ..., 1:] = 1
    assert l1_of_known(prediction, image, mask) == (1 + 2 + 4 + 1) / 4
    assert l1_of_known(prediction, image, torch.ones_like(mask)) == 0


class Linear(nn.Module):
    """A critic whose gradient is known: everywhere `slope`."""

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.slope = nn.Parameter(slope)

    def forward(self, image: Tensor) -> Tensor:
        return (image * self.slope).sum((1, 2, 3)).view(-1, 1)


def test_the_gradient_penalty_counts_hole_pixels_by_hand():
    slope = torch.zeros(3, 2, 2)
    slope[:, 0, 0] = torch.tensor([2.0, 2.0, 1.0])  # norm 3
    slope[0, 1, 1] = 4.0
    mask = torch.zeros(3, 1, 2, 2)
    mask[0, 0, 0, 0] = 1  # norm 3
    mask[1, 0, :, :] = 1  # norm 5
    # the third is empty: norm 0
    critic = Linear(slope)
    real, fake = torch.rand(2, 3, 3, 2, 2)
    penalty = gradient_penalty(critic, real, fake, mask, torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(penalty, torch.tensor((2.0**2 + 4.0**2 + 1.0) / 3))
    penalty.backward()
    assert critic.slope.grad.isfinite().all()


def test_the_gradient_penalty_is_taken_between_real_and_fake():
    seen = []
    critic = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    critic.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    real, fake = torch.zeros(2, 3, 2, 2), torch.ones(2, 3, 2, 2)
    gradient_penalty(critic, real, fake, torch.ones(2, 1, 2, 2), torch.tensor([0.25, 0.75]))
    assert (seen[0][0] == 0.25).all()
    assert (seen[0][1] == 0.75).all()


def test_terms_are_those_of_the_code():
    config = dataclasses.replace(Config.tiny(), gradient_penalty_weight=7.0, coarse_weight=1.5)
    recipe = build(config)
    batch = make_batch((64, 64))
    phase = recipe.phases[1]
    outputs = phase.forward(recipe.networks, batch)
    starts = window_around_hole(batch.mask, 32)
    completed = torch.where(batch.mask == 1, outputs["refined"], batch.image)
    assert torch.equal(outputs["completed"], completed)

    critic_terms = phase.updates[0].terms(recipe.networks, batch, outputs)
    terms = phase.updates[1].terms(recipe.networks, batch, outputs)
    for purpose, (name, cut) in enumerate([("global_d", False), ("local_d", True)]):
        critic = recipe.networks[name]
        fake, real, mask = (
            crop_windows(image, starts, 32) if cut else image for image in (completed, batch.image, batch.mask)
        )
        expected = (critic(fake) - critic(real)).mean()
        torch.testing.assert_close(critic_terms[f"{name}_wasserstein"], expected)
        penalty = 7 * gradient_penalty(critic, real, fake.detach(), mask, batch.uniform(purpose))
        torch.testing.assert_close(critic_terms[f"{name}_penalty"], penalty)
        torch.testing.assert_close(terms[f"{name}_adversarial"], -0.001 * critic(fake).mean())
    for name, weight in (("coarse", 1.5 * 1.2), ("refined", 1.2)):
        error = (outputs[name] - batch.image).abs()
        inside = crop_windows(error, starts, 32) * box_discount(32, 0.9).float()
        torch.testing.assert_close(terms[f"{name}_l1"], weight * inside.mean())
        known = (error * (1 - batch.mask)).mean() / (1 - batch.mask).mean()
        torch.testing.assert_close(terms[f"{name}_ae"], weight * known)
    assert len(critic_terms) == 4
    assert len(terms) == 6


def test_l1_on_the_hole_counts_all_of_it_and_nothing_else():
    recipe = build(dataclasses.replace(Config.tiny(), l1_region="hole", discount=1.0))
    batch = make_batch((64, 64))
    phase = recipe.phases[1]
    outputs = phase.forward(recipe.networks, batch)
    terms = phase.updates[1].terms(recipe.networks, batch, outputs)
    error = ((outputs["refined"] - batch.image).abs() * batch.mask).sum()
    torch.testing.assert_close(terms["refined_l1"], 1.2 * error / (3 * 32 * 32 * len(batch.image)))


def test_without_a_local_critic_there_is_none():
    recipe = build(dataclasses.replace(Config.tiny(), local_critic=False))
    assert set(recipe.networks) == {"generator", "global_d"}
    start_phase(recipe, recipe.phases[1])
    terms = run_step(recipe, recipe.phases[1], make_batch((64, 64)))
    assert not any(name.startswith("local") for name in terms)


def test_the_generator_moves_at_every_fifth_update_of_the_critics():
    with torch.device("meta"):
        assert build(Config()).phases[1].updates[1].every == 5
    recipe = build(dataclasses.replace(Config.tiny(), num_critic=5))
    phase = recipe.phases[1]
    start_phase(recipe, phase)
    moved = []
    for step in range(10):
        before = {name: [p.detach().clone() for p in net.parameters()] for name, net in recipe.networks.items()}
        run_step(recipe, phase, make_batch((64, 64), seed=step), step=step)
        moved.append(
            {
                name
                for name, old in before.items()
                if any(not torch.equal(a, b) for a, b in zip(old, recipe.networks[name].parameters(), strict=True))
            }
        )
    critics = {"global_d", "local_d"}
    assert moved == ([critics] * 4 + [critics | {"generator"}]) * 2


def test_the_adversarial_gradient_stays_inside_the_hole():
    recipe = build_tiny("deepfill_v1")
    batch = make_batch((64, 64))
    phase = recipe.phases[1]
    outputs = phase.forward(recipe.networks, batch)
    outputs["refined"].retain_grad()
    terms = phase.updates[1].terms(recipe.networks, batch, outputs)
    (terms["global_d_adversarial"] + terms["local_d_adversarial"]).backward()
    gradient = outputs["refined"].grad.abs().sum(dim=1, keepdim=True)
    assert not gradient[batch.mask == 0].any()
    assert gradient[batch.mask == 1].any()


@pytest.mark.parametrize("has_hole", [True, False])
def test_the_second_stage_teaches_the_first_through_the_hole_only(has_hole):
    generator = Generator(width=4)
    batch = make_batch((64, 64))
    _, refined = generator(batch.image, batch.mask * has_hole)
    F.l1_loss(refined, batch.image).backward()
    assert has_hole == any(p.grad.any() for p in generator.coarse.parameters())


def test_pretraining_moves_the_coarse_network_alone():
    recipe = build_tiny("deepfill_v1")
    phase = recipe.phases[0]
    start_phase(recipe, phase)
    generator = recipe.networks["generator"]
    before = {name: p.detach().clone() for name, p in generator.named_parameters()}
    terms = run_step(recipe, phase, make_batch((64, 64)))
    assert set(terms) == {"coarse_l1", "coarse_ae"}
    for name, parameter in generator.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("refinement.")


def test_without_attention_the_second_stage_has_the_layers_of_the_first():
    with torch.device("meta"):
        generator = build(Config(attention=False)).networks["generator"]
    assert sum(p.numel() for p in generator.parameters()) == 2 * 1_448_227
    assert str(generator.refinement) == str(generator.coarse)
    recipe = build(dataclasses.replace(Config.tiny(), attention=False))
    batch = make_batch((64, 64))
    for phase in recipe.phases:
        start_phase(recipe, phase)
        assert all(term.isfinite() for term in run_step(recipe, phase, batch).values())
    networks = recipe.networks["generator"]
    coarse, refined = networks(batch.image, batch.mask)
    pasted = torch.where(batch.mask == 1, coarse, batch.image)
    torch.testing.assert_close(refined, networks.refinement(pasted, batch.mask))


def test_the_attention_compiles_whole_and_agrees_with_eager():
    layer = ContextualAttention()
    features = 0.1 * torch.randn(2, 4, 8, 12, requires_grad=True)
    mask = torch.zeros(2, 1, 32, 48)
    mask[0, :, :9, :20] = 1
    results = []
    for run in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        output = run(features, features, mask)
        results.append((output, *torch.autograd.grad(output.square().sum(), features)))
    torch.testing.assert_close(results[0], results[1])


def test_the_penalty_stays_single_in_half_precision():
    recipe, batch = build_tiny("deepfill_v1"), make_batch((64, 64))
    arguments = (recipe.networks["global_d"], batch.image, -batch.image, batch.mask, batch.uniform(0))
    expected = gradient_penalty(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gradient_penalty(*arguments), expected)


def test_a_fixed_batch_is_learned():
    torch.manual_seed(0)
    faster = {"width": 8, "learning_rate": 3e-3, "beta1": 0.9, "num_critic": 1, "image_size": 32, "local_size": 16}
    recipe = build(dataclasses.replace(Config.tiny(), l1_region="hole", **faster))
    batch = make_batch((32, 32), num_samples=2)
    phase = recipe.phases[1]
    start_phase(recipe, phase)
    errors = [run_step(recipe, phase, batch)["refined_l1"].item() for _ in range(50)]
    assert sum(errors[-5:]) / 5 < 0.6 * errors[0]  # grey everywhere stays at errors[0]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"width": 5}, "even"),
        ({"image_size": 60}, "multiple of 8"),
        ({"image_size": 64, "local_size": 65}, "local_size"),
        ({"discount": 0.0}, "discount"),
        ({"num_critic": 0}, "num_critic"),
    ],
)
def test_settings_that_cannot_be_are_refused(values, match):
    with pytest.raises(ValueError, match=match):
        Config(**values)
