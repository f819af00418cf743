"""Facts of DeepFill v2: counts, layers, gating, masks and sketches, SN-PatchGAN, losses by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from jobs.generators.build import inpaint
from jobs.generators.deepfill_v2 import Config
from jobs.generators.deepfill_v2.losses import l1
from jobs.generators.deepfill_v2.networks import Discriminator, Generator
from jobs.generators.deepfill_v2.recipe import build
from jobs.layers.composite import composite
from jobs.layers.convolution import GatedConv2d
from jobs.recipe.batch import Batch
from tests.jobs.generators.test_contract import make_batch, run_step, start_phase

GUIDED = dataclasses.replace(Config.tiny(), guided=True)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def executed(generator: Generator) -> list[tuple]:
    """(in, out after gating, kernel, stride, dilation, activation) of the convolutions, in order of execution."""
    layers, handles = [], []

    def note(module, _inputs, _output):
        conv = module.conv if isinstance(module, GatedConv2d) else module
        gated = isinstance(module, GatedConv2d)
        out_channels = conv.out_channels // 2 if gated else conv.out_channels
        activation = module.activation.__name__ if gated else None
        layers.append(
            (conv.in_channels, out_channels, conv.kernel_size[0], conv.stride[0], conv.dilation[0], activation)
        )

    inside = {m.conv for m in generator.modules() if isinstance(m, GatedConv2d)}
    for module in generator.modules():
        if isinstance(module, GatedConv2d) or (isinstance(module, nn.Conv2d) and module not in inside):
            handles.append(module.register_forward_hook(note))
    generator(torch.zeros(1, 3, 16, 16), torch.ones(1, 1, 16, 16))
    for handle in handles:
        handle.remove()
    return layers


@pytest.mark.parametrize(
    ("guided", "generator", "discriminator"), [(False, 4_052_478, 5_946_816), (True, 4_053_678, 5_948_416)]
)
def test_parameter_counts_are_the_published_networks(guided, generator, discriminator):
    networks = build(Config(guided=guided)).networks
    assert count(networks["generator"]) == generator
    assert count(networks["generator_d"]) == discriminator
    assert count(networks["generator"].coarse) == (1_632_351 if guided else 1_631_151)


def test_layers_follow_the_table():
    def rows(in_channels, *layers):
        result = []
        for out, kernel, stride, dilation, *rest in layers:
            result.append((in_channels, out, kernel, stride, dilation, rest[0] if rest else "elu"))
            in_channels = out
        return result

    dilated = [(96, 3, 1, d) for d in (2, 4, 8, 16)]
    decoder = [(48, 3, 1, 1), (48, 3, 1, 1), (24, 3, 1, 1), (12, 3, 1, 1), (3, 3, 1, 1, None)]
    coarse = [(24, 5, 1, 1), (48, 3, 2, 1), (48, 3, 1, 1), (96, 3, 2, 1), (96, 3, 1, 1), (96, 3, 1, 1), *dilated]
    coarse += [(96, 3, 1, 1), (96, 3, 1, 1), *decoder]
    hallucination = [(24, 5, 1, 1), (24, 3, 2, 1), (48, 3, 1, 1), (48, 3, 2, 1), (96, 3, 1, 1), (96, 3, 1, 1), *dilated]
    attention = [(24, 5, 1, 1), (24, 3, 2, 1), (48, 3, 1, 1), (96, 3, 2, 1), (96, 3, 1, 1), (96, 3, 1, 1, "relu")]
    attention += [(96, 3, 1, 1), (96, 3, 1, 1)]
    merge = [(96, 3, 1, 1), (96, 3, 1, 1), *decoder]
    expected = rows(5, *coarse) + rows(3, *hallucination) + rows(3, *attention) + rows(192, *merge)
    assert executed(Generator(width=24)) == expected


@pytest.mark.parametrize("size", [(256, 256), (128, 192), (512, 680)])
def test_any_multiple_of_eight_is_accepted(size):
    generator = Generator(width=2)
    with torch.no_grad():
        coarse, refined = generator(torch.rand(1, 3, *size) * 2 - 1, (torch.rand(1, 1, *size) < 0.3).float())
    for image in (coarse, refined):
        assert image.shape == (1, 3, *size)
        assert image.abs().max() < 1


def test_other_sizes_are_refused_in_training_and_padded_in_inpainting():
    with pytest.raises(ValueError, match="multiples of 8"):
        Generator(width=2)(torch.zeros(1, 3, 64, 60), torch.zeros(1, 1, 64, 60))
    batch = make_batch((61, 83))
    outputs = inpaint(build(Config.tiny()), batch)
    assert outputs["output"].shape == outputs["coarse"].shape == batch.image.shape


@pytest.mark.parametrize(("size", "features"), [(128, 1024), (256, 4096), (512, 16384)])
def test_the_discriminator_scores_every_place_and_channel(size, features):
    discriminator = build(Config()).networks["generator_d"]
    with torch.no_grad():
        scores = discriminator(torch.rand(1, 3, size, size), torch.zeros(1, 1, size, size))
    assert scores.shape[1] == 256
    assert scores[0].numel() == features


def test_the_discriminator_is_activated_after_every_layer_unless_told_otherwise():
    kinds = [type(m).__name__ for m in Discriminator(width=4).stages]
    assert [kind.endswith("Conv2d") for kind in kinds] == [True, False] * 6
    assert isinstance(Discriminator(width=4).stages[-1], nn.LeakyReLU)
    assert not isinstance(Discriminator(width=4, last_activation=False).stages[-1], nn.LeakyReLU)


def test_the_generator_sees_what_the_paper_lists_in_that_order():
    generator = Generator(width=4, guided=True)
    batch = make_batch((64, 64), ("edge",))
    seen = {}
    generator.hallucination.register_forward_hook(lambda _, inputs, output: seen.update(hallucinated=output))
    generator.after_attention.register_forward_hook(lambda _, inputs, output: seen.update(attended=output))
    generator.merge.register_forward_pre_hook(lambda _, inputs: seen.update(merged=inputs[0]))
    generator.coarse.register_forward_pre_hook(lambda _, inputs: seen.update(coarse=inputs[0]))
    generator.hallucination.register_forward_pre_hook(lambda _, inputs: seen.update(refined=inputs[0]))
    coarse, _ = generator(batch.image, batch.mask, batch.edge)
    known = batch.image * (1 - batch.mask)
    expected = torch.cat((known, batch.edge * batch.mask, torch.ones_like(batch.mask), batch.mask), dim=1)
    assert torch.equal(seen["coarse"], expected)
    assert torch.equal(seen["refined"], composite(coarse, batch.image, batch.mask))
    assert torch.equal(seen["merged"], torch.cat((seen["hallucinated"], seen["attended"]), dim=1))


def test_a_sketch_counts_inside_the_hole_only():
    generator = Generator(width=4, guided=True)
    batch = make_batch((64, 64), ("edge",))
    plain, _ = generator(batch.image, batch.mask, batch.edge)
    outside, _ = generator(batch.image, batch.mask, (1 - batch.edge) * (1 - batch.mask) + batch.edge * batch.mask)
    inside, _ = generator(batch.image, batch.mask, batch.edge * (1 - batch.mask))
    assert torch.equal(plain, outside)
    assert not torch.equal(plain, inside)
    with pytest.raises(ValueError, match="sketch"):
        generator(batch.image, batch.mask)


def test_guided_training_reads_edges_and_drops_some_sketches():
    assert build(GUIDED).columns == ("edge",)
    assert build(Config.tiny()).columns == ()
    batch = make_batch((64, 64), ("edge",), num_samples=40)
    for dropout, expected in ((0.0, 40), (1.0, 0), (0.5, 20)):
        torch.manual_seed(0)
        recipe = build(dataclasses.replace(GUIDED, sketch_dropout=dropout))
        with torch.no_grad():
            sketch = recipe.phases[0].forward(recipe.networks, batch)["sketch"]
        kept = sketch.flatten(1).any(dim=1)
        assert abs(kept.sum() - expected) <= (10 if 0 < dropout < 1 else 0)
        assert torch.equal(sketch[kept], (batch.edge * batch.mask)[kept])


def test_a_guided_step_works_and_inpainting_follows_the_sketch():
    recipe = build(GUIDED)
    batch = make_batch((64, 64), ("edge",))
    start_phase(recipe, recipe.phases[0])
    terms = run_step(recipe, recipe.phases[0], batch)
    assert all(term.isfinite() for term in terms.values())
    for network in recipe.networks.values():
        network.eval()
    drawn = inpaint(recipe, batch)["output"]
    empty = inpaint(recipe, dataclasses.replace(batch, edge=torch.zeros_like(batch.mask)))["output"]
    assert not torch.equal(drawn, empty)
    with pytest.raises(ValueError, match=r"batch\.edge"):
        inpaint(recipe, dataclasses.replace(batch, edge=None))


def test_l1_counts_known_pixels_too():
    prediction = torch.zeros(1, 3, 2, 2)
    image = torch.tensor([1.0, 0.0, 0.0, -3.0]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert l1(prediction, image) == 1.0


def test_terms_are_those_of_the_paper():
    recipe = build(Config.tiny())
    batch = make_batch((64, 64))
    phase = recipe.phases[0]
    for network in recipe.networks.values():
        network.eval()  # no power iteration between the two evaluations
    outputs = phase.forward(recipe.networks, batch)
    judge = recipe.networks["generator_d"]
    completed = torch.where(batch.mask == 1, outputs["refined"], batch.image)
    real, fake = judge(batch.image, batch.mask), judge(completed, batch.mask)

    d_terms = phase.updates[0].terms(recipe.networks, batch, outputs)
    torch.testing.assert_close(d_terms["d_real"], (1 - real).clamp_min(0).mean() / 2)
    torch.testing.assert_close(d_terms["d_fake"], (1 + fake).clamp_min(0).mean() / 2)
    terms = phase.updates[1].terms(recipe.networks, batch, outputs)
    torch.testing.assert_close(terms["coarse_l1"], (batch.image - outputs["coarse"]).abs().mean())
    torch.testing.assert_close(terms["refined_l1"], (batch.image - outputs["refined"]).abs().mean())
    torch.testing.assert_close(terms["adversarial"], -fake.mean())


def test_without_an_adversarial_weight_l1_is_all_and_no_discriminator_is_built():
    recipe = build(dataclasses.replace(Config.tiny(), adversarial_weight=0.0))
    assert set(recipe.networks) == set(recipe.optimizers) == {"generator"}
    assert set(run_step(recipe, recipe.phases[0], make_batch((32, 32)))) == {"coarse_l1", "refined_l1"}


def test_the_adversarial_gradient_stays_inside_the_hole():
    recipe = build(Config.tiny())
    batch = make_batch((64, 64))
    phase = recipe.phases[0]
    outputs = phase.forward(recipe.networks, batch)
    outputs["refined"].retain_grad()
    phase.updates[1].terms(recipe.networks, batch, outputs)["adversarial"].backward()
    gradient = outputs["refined"].grad.abs().sum(dim=1, keepdim=True)
    assert not gradient[batch.mask == 0].any()
    assert gradient[batch.mask == 1].any()


@pytest.mark.parametrize("has_hole", [True, False])
def test_the_second_stage_teaches_the_first_through_the_hole_only(has_hole):
    generator = Generator(width=4)
    batch = make_batch((64, 64))
    _, refined = generator(batch.image, batch.mask * has_hole)
    l1(refined, batch.image).backward()
    assert has_hole == any(p.grad.any() for p in generator.coarse.parameters())


def test_spectral_norms_settle_at_one_and_evaluation_keeps_them():
    torch.manual_seed(0)
    discriminator = Discriminator(width=16)
    image, mask = torch.randn(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    for _ in range(50):
        discriminator(image, mask)
    convs = [layer for layer in discriminator.stages if isinstance(layer, nn.Conv2d)]
    assert len(convs) == 6
    discriminator.eval()
    before = {key: value.clone() for key, value in discriminator.state_dict().items()}
    discriminator(image, mask)
    assert all(torch.equal(before[key], value) for key, value in discriminator.state_dict().items())
    for conv in convs:
        assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(1.0, abs=0.01)


def test_spectral_norms_are_right_from_the_first_forward():
    torch.manual_seed(0)
    for layer in Discriminator(width=16).stages:
        if isinstance(layer, nn.Conv2d):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1.0, abs=0.1)


def test_a_fixed_batch_is_learned():
    torch.manual_seed(0)
    faster = {"width": 8, "learning_rate": 3e-3, "beta1": 0.9, "adversarial_weight": 0.01}
    recipe = build(dataclasses.replace(Config.tiny(), **faster))
    batch = make_batch((32, 32), num_samples=2)
    phase = recipe.phases[0]
    start_phase(recipe, phase)
    errors = [run_step(recipe, phase, batch)["refined_l1"].item() for _ in range(70)]
    assert sum(errors[-5:]) / 5 < 0.7 * errors[0]  # grey everywhere stays at errors[0]


def test_widths_and_shares_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="even"):
        Config(width=5)
    with pytest.raises(ValueError, match="sketch_dropout"):
        Config(sketch_dropout=1.5)


def test_a_drawn_sketch_stands_in_for_the_edges_of_the_hole():
    recipe = build(GUIDED)
    for parameter in recipe.networks["generator"].parameters():
        parameter.data.mul_(3)  # outputs of initial weights are all but equal
    batch = make_batch((32, 32), recipe.columns)
    lines = torch.zeros_like(batch.mask)
    lines[..., ::4] = 1

    def output(**changes):
        return inpaint(recipe, dataclasses.replace(batch, **changes))["output"]

    assert torch.equal(output(edge=lines), output(edge=1 - lines, sketch=lines))
    assert torch.equal(output(sketch=lines * batch.mask), output(sketch=lines))
    assert not torch.equal(output(sketch=lines), output(sketch=0 * lines))


@pytest.mark.slow
def test_a_guided_network_learns_to_put_a_stripe_where_the_line_is():
    """A stripe of 11 pixels in the middle of which the line is; beyond the hole, nothing tells where it is."""
    config = dataclasses.replace(
        Config.tiny(), width=8, guided=True, sketch_dropout=0.0, adversarial_weight=0.0, learning_rate=1e-3
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        recipe = build(config)
    hole = torch.zeros(1, 1, 16, 32)
    hole[..., 6:26] = 1

    def stripes(places):
        columns, centres = torch.arange(32).view(1, 1, 1, 32), torch.tensor(places).view(-1, 1, 1, 1)
        lines = (columns == centres).float().expand(-1, 1, 16, 32)
        image = torch.where((columns - centres).abs() <= 5, 0.4, -0.3).expand(-1, 3, 16, 32)
        return Batch(
            image=image, mask=hole.expand(len(places), -1, -1, -1), edge=lines, seed=torch.arange(len(places)),
            key=("",) * len(places),
        )  # fmt: skip

    generator, phase = torch.Generator().manual_seed(0), recipe.phases[0]
    for _ in range(110):
        batch = stripes(torch.randint(11, 21, (4,), generator=generator).tolist())
        run_step(recipe, phase, batch)
    places = [11, 15, 20]
    batch = stripes(places)
    filled = inpaint(recipe, dataclasses.replace(batch, edge=0 * batch.edge, sketch=batch.edge))["output"]
    is_stripe = filled.mean(dim=(1, 2))[:, 6:26] > 0.05
    centres = [6 + torch.nonzero(row).float().mean() for row in is_stripe]
    assert torch.stack(centres).tolist() == pytest.approx(places, abs=1.5)
