"""EdgeConnect's facts: sizes, stages, each loss by hand, and what may depend on what."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from skimage.color import rgb2gray
from torch import Tensor

from jobs.generators.build import inpaint
from jobs.generators.edge_connect import losses
from jobs.generators.edge_connect.networks import Discriminator, EdgeGenerator, Generator, ImageGenerator, ResidualBlock
from jobs.generators.edge_connect.recipe import Config, build
from jobs.layers.composite import composite
from jobs.layers.perceptual import PERCEPTUAL_LAYERS, STYLE_LAYERS, perceptual_and_style
from jobs.layers.vgg import VGG19
from jobs.layers.weights import WeightsError
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Phase, Recipe, Terms, is_discriminator

PHASES = ("edges", "image", "inpaint", "joint")


def make_recipe(**settings) -> Recipe:
    torch.manual_seed(0)
    return build(dataclasses.replace(Config.tiny(), **settings))


def make_batch(height: int = 32, width: int = 32, num_samples: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(num_samples, 1, height, width)
    mask[:, :, 8:20, 6:16] = 1
    return Batch(
        image=2 * torch.rand(num_samples, 3, height, width, generator=generator) - 1,
        mask=mask,
        edge=(torch.rand(mask.shape, generator=generator) < 0.1).float(),
    )


def phase_of(recipe: Recipe, name: str) -> Phase:
    return next(phase for phase in recipe.phases if phase.name == name)


def require_grad(recipe: Recipe, trained: tuple[str, ...]) -> None:
    for name, network in recipe.networks.items():
        network.requires_grad_(name in trained)


def run_step(recipe: Recipe, name: str, batch: Batch) -> Terms:
    """One step of the phase, as the contract has it."""
    phase, logged = phase_of(recipe, name), {}
    for key, network in recipe.networks.items():
        network.train(key in phase.trained)
    require_grad(recipe, phase.trained)
    outputs = phase.forward(recipe.networks, batch)
    for update in phase.updates:
        require_grad(recipe, update.networks)
        terms = update.terms(recipe.networks, batch, outputs)
        sum(terms.values()).backward()
        for key in update.networks:
            recipe.optimizers[key].step()
            recipe.optimizers[key].zero_grad(set_to_none=True)
        logged |= {key: term.detach() for key, term in terms.items()}
    return logged


def state_of(recipe: Recipe, name: str) -> dict[str, Tensor]:
    return copy.deepcopy(recipe.networks[name].state_dict())


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return any(not torch.equal(before[key], after[key]) for key in before)


# Networks


def test_parameter_counts_are_the_papers():
    config = Config()
    counts = {
        "edges": EdgeGenerator(config.width, config.residual_blocks),
        "image": ImageGenerator(config.width, config.residual_blocks),
        "edges_d": Discriminator(2, config.width),
        "image_d": Discriminator(3, config.width),
    }
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in counts.items()}
    assert counts == {"edges": 10_761_089, "image": 10_774_595, "edges_d": 2_762_752, "image_d": 2_763_776}


def test_discriminator_features_have_the_papers_shapes():
    features = Discriminator(3, 64)(torch.rand(1, 3, 256, 256))
    shapes = [(1, 64, 128, 128), (1, 128, 64, 64), (1, 256, 32, 32), (1, 512, 31, 31), (1, 1, 30, 30)]
    assert [tuple(feature.shape) for feature in features] == shapes


def test_discriminator_sees_patches_of_70_pixels():
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)).requires_grad_()
    Discriminator(3, 4).eval()(image)[-1][0, 0, 15, 15].backward()
    assert [len(image.grad.abs().sum(dim=(0, 1)).sum(dim=side).nonzero()) for side in (0, 1)] == [70, 70]


def test_which_layers_have_spectral_norm_and_bias():
    def names_of(network: torch.nn.Module, ending: str) -> list[str]:
        return [name for name, _ in network.named_parameters() if name.endswith(ending)]

    edges, image = EdgeGenerator(4, 8), ImageGenerator(4, 8)
    # Three layers down, 16 in residual blocks, two up; the last one without norm.
    assert len(names_of(edges, "weight.original")) == 21
    assert len(names_of(edges, "bias")) == 6
    assert names_of(image, "original") == []
    assert len(names_of(image, "bias")) == 22
    assert len(names_of(Discriminator(3, 4), "original")) == 5
    assert names_of(Discriminator(3, 4), "bias") == []


def test_weights_start_normal_before_the_spectral_norm():
    torch.manual_seed(0)
    network = EdgeGenerator(32, 1)
    convolution = network.layers[4]
    assert convolution.parametrizations.weight.original.std().item() == pytest.approx(0.02, rel=0.05)
    assert not convolution.bias.any()
    # Transposed convolutions are normed over their output channels, dimension 1.
    transposed = network.eval().layers[-8].weight
    assert isinstance(network.layers[-8], torch.nn.ConvTranspose2d)
    for weight in (convolution.weight, transposed.transpose(0, 1)):
        assert torch.linalg.matrix_norm(weight.flatten(1), ord=2).item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(("generator", "channels"), [(EdgeGenerator, 1), (ImageGenerator, 3)])
def test_generator_layers_are_those_of_the_table(generator, channels):
    def describe(layer: torch.nn.Module) -> tuple:
        if isinstance(layer, torch.nn.ReflectionPad2d):
            return "mirror", layer.padding[0]
        if isinstance(layer, torch.nn.InstanceNorm2d):
            return "norm", layer.affine, layer.track_running_stats
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            kind = "up" if isinstance(layer, torch.nn.ConvTranspose2d) else "conv"
            return kind, layer.out_channels, layer.kernel_size[0], layer.stride[0], layer.padding[0], layer.dilation[0]
        assert isinstance(layer, torch.nn.ReLU)
        return ("relu",)

    norm, relu = ("norm", False, False), ("relu",)
    block = [("mirror", 2), ("conv", 16, 3, 1, 0, 2), norm, relu, ("mirror", 1), ("conv", 16, 3, 1, 0, 1), norm]
    down = [("mirror", 3), ("conv", 4, 7, 1, 0, 1), norm, relu]
    down += [("conv", 8, 4, 2, 1, 1), norm, relu, ("conv", 16, 4, 2, 1, 1), norm, relu]
    up = [("up", 8, 4, 2, 1, 1), norm, relu, ("up", 4, 4, 2, 1, 1), norm, relu]
    last = [("mirror", 3), ("conv", channels, 7, 1, 0, 1)]
    found = []
    for layer in generator(4, 8).layers:
        found += [describe(part) for part in (layer.block if isinstance(layer, ResidualBlock) else [layer])]
    assert found == down + 8 * block + up + last


def test_residual_blocks_have_no_relu_after_the_sum():
    block = ResidualBlock(4, spectral=False)
    torch.nn.init.zeros_(block.block[5].weight)
    features = torch.full((1, 4, 8, 8), -3.0)
    assert torch.equal(block(features), features)


def test_generators_end_in_the_unit_interval():
    batch = make_batch()
    edges, image = EdgeGenerator(4, 1), ImageGenerator(4, 1)
    for generator in (edges, image):
        generator.layers[-1].weight.data.mul_(1000)  # far into saturation
    grey = batch.image[:, :1]
    for output, channels in ((edges(grey, batch.edge, batch.mask), 1), (image(batch.image, batch.edge, batch.mask), 3)):
        assert output.shape == (2, channels, 32, 32)
        assert output.min() >= 0
        assert output.max() <= 1
        assert output.std() > 0.3


def test_generators_do_not_look_under_the_hole():
    batch = make_batch()
    grey = batch.image[:, :1]
    edges, image = EdgeGenerator(4, 1).eval(), ImageGenerator(4, 1).eval()
    expected = edges(grey, batch.edge, batch.mask)
    hidden = composite(torch.full_like(grey, 0.3), grey, batch.mask)
    assert torch.equal(edges(hidden, batch.edge, batch.mask), expected)
    assert torch.equal(edges(grey, composite(1 - batch.edge, batch.edge, batch.mask), batch.mask), expected)
    assert not torch.equal(edges(grey, batch.edge, batch.mask.flip(3)), expected)

    expected = image(batch.image, batch.edge, batch.mask)
    hidden = composite(torch.full_like(batch.image, 0.3), batch.image, batch.mask)
    assert torch.equal(image(hidden, batch.edge, batch.mask), expected)
    # Edges in the hole are what it paints by.
    assert not torch.equal(image(batch.image, composite(1 - batch.edge, batch.edge, batch.mask), batch.mask), expected)


@pytest.mark.parametrize("size", [(64, 66), (65, 64), (8, 64)])
def test_other_sizes_are_refused_in_training(size):
    with pytest.raises(ValueError, match=rf"multiples of 4, at least 12, got {size[0]} x {size[1]}"):
        Generator(3, 1, 4, 1, spectral=False)(torch.zeros(1, 3, *size))


# Losses


@pytest.mark.parametrize(
    ("gan", "discriminator", "generator"),
    [
        # D(real) = 3/4, D(fake) = 1/4
        ("nsgan", -math.log(3 / 4), math.log(4)),
        ("lsgan", (1 / 16 + 1 / 16) / 2, 9 / 16),
        ("hinge", 0.0, math.log(3)),
    ],
)
def test_adversarial_losses_by_hand(gan, discriminator, generator):
    real, fake = torch.tensor([math.log(3.0)]), torch.tensor([-math.log(3.0)])
    assert losses.discriminator_loss(gan, real, fake).item() == pytest.approx(discriminator, rel=1e-6)
    assert losses.generator_loss(gan, fake).item() == pytest.approx(generator, rel=1e-6)


def test_hinge_discriminator_by_hand():
    loss = losses.discriminator_loss("hinge", torch.tensor([0.5]), torch.tensor([0.25]))
    assert loss.item() == pytest.approx((0.5 + 1.25) / 2)


def test_l1_is_the_mean_over_the_image_by_the_share_of_the_hole():
    image, predicted = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.25)
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, :, :2] = 1  # a quarter of the batch
    assert losses.l1_by_hole(predicted, image, mask).item() == pytest.approx(1.0)
    mask[0, :, 1] = 0  # half the hole, twice the loss
    assert losses.l1_by_hole(predicted, image, mask).item() == pytest.approx(2.0)
    assert losses.l1_by_hole(predicted, image, 0 * mask).item() == pytest.approx(0.25 * 16)


def test_perceptual_counts_the_image_and_style_the_hole_alone():
    batch = make_batch()
    image = (batch.image + 1) / 2
    vgg = VGG19(PERCEPTUAL_LAYERS + STYLE_LAYERS, "random")
    predicted = torch.rand(image.shape, generator=torch.Generator().manual_seed(2))
    perceptual, style = perceptual_and_style(vgg, predicted, image, batch.mask)
    # Layer by layer, with a plain loop over matrices for the Gram.
    found, wanted = vgg(predicted), vgg(image)
    assert perceptual.item() == pytest.approx(
        sum((found[f"relu{n}_1"] - wanted[f"relu{n}_1"]).abs().mean().item() for n in range(1, 6)), rel=1e-4
    )
    found, wanted, expected = vgg(predicted * batch.mask), vgg(image * batch.mask), 0.0
    for name in ("relu2_2", "relu3_4", "relu4_4", "relu5_2"):
        for ours, theirs in zip(found[name], wanted[name], strict=True):
            ours, theirs = ours.flatten(1).double(), theirs.flatten(1).double()
            expected += ((ours @ ours.T - theirs @ theirs.T).abs().mean() / ours.numel() / 2).item()
    assert style.item() == pytest.approx(expected, rel=1e-3)

    outside = composite(predicted, torch.rand(image.shape), batch.mask)
    changed_perceptual, unchanged_style = perceptual_and_style(vgg, outside, image, batch.mask)
    assert torch.equal(unchanged_style, style)
    assert not torch.equal(changed_perceptual, perceptual)


def test_both_vanish_for_the_image_itself():
    batch = make_batch()
    vgg = VGG19(PERCEPTUAL_LAYERS + STYLE_LAYERS, "random")
    assert perceptual_and_style(vgg, batch.image, batch.image, batch.mask) == (0, 0)


def test_feature_matching_vanishes_for_the_true_edges_and_moves_no_discriminator():
    recipe, batch = make_recipe(), make_batch()
    terms = phase_of(recipe, "edges").updates[0].terms
    edge = batch.edge.clone().requires_grad_()
    assert terms(recipe.networks, batch, {"edge": edge})["edges_feature_matching"] == 0

    recipe.networks["edges_d"].requires_grad_(False)
    loss = terms(recipe.networks, batch, {"edge": 1 - edge})["edges_feature_matching"]
    loss.backward()
    assert loss > 0
    assert edge.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in recipe.networks["edges_d"].parameters())


def test_edges_are_judged_beside_the_whole_grey_image():
    stored = torch.randint(256, (32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    batch = make_batch(num_samples=1)
    batch = dataclasses.replace(batch, image=stored.permute(2, 0, 1)[None] / 127.5 - 1)
    seen = []
    recipe = make_recipe()
    recipe.networks["edges_d"].register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0]))
    prediction = torch.rand(1, 1, 32, 32)
    phase_of(recipe, "edges").updates[1].terms(recipe.networks, batch, {"edge": prediction})
    grey = torch.from_numpy(rgb2gray(stored.numpy())).float()
    torch.testing.assert_close(seen[0][:, 0], grey.expand(2, 32, 32), atol=1e-6, rtol=0)
    assert torch.equal(seen[0][:, 1:], torch.cat([prediction, batch.edge]))


def test_weights_multiply_their_terms():
    weights = {"edges_adversarial": 2.0, "feature_matching": 3.0, "l1": 5.0, "adversarial": 7.0}
    weights |= {"perceptual": 11.0, "style": 13.0}
    settings = {f"{name}_weight": weight for name, weight in weights.items()}
    weighted = run_step(make_recipe(**settings), "joint", make_batch())
    plain = run_step(make_recipe(**dict.fromkeys(settings, 1.0)), "joint", make_batch())
    for name, weight in weights.items():
        term = name if name.startswith("edges") else f"edges_{name}" if name == "feature_matching" else f"image_{name}"
        assert weighted[term].item() == pytest.approx(weight * plain[term].item(), rel=1e-5), term
    for term in ("edges_d_adversarial", "image_d_adversarial"):
        assert torch.isfinite(plain[term])


# Phases


def test_the_defaults_are_the_papers():
    config = Config()
    weights = (config.l1_weight, config.adversarial_weight, config.perceptual_weight, config.style_weight)
    assert weights == (1, 0.1, 0.1, 250)
    assert (config.edges_adversarial_weight, config.feature_matching_weight) == (1, 10)
    recipe = make_recipe(learning_rate=1e-4)
    assert tuple(phase.name for phase in recipe.phases) == PHASES
    assert phase_of(recipe, "joint").learning_rates == pytest.approx(
        {"edges": 1e-6, "edges_d": 1e-7, "image": 1e-6, "image_d": 1e-7}
    )
    for name, optimizer in recipe.optimizers.items():
        assert optimizer.defaults["lr"] == pytest.approx(1e-5 if is_discriminator(name) else 1e-4)
        assert optimizer.defaults["betas"] == (0.0, 0.9)


@pytest.mark.parametrize("gan", ["nsgan", "lsgan", "hinge"])
def test_every_stage_takes_a_step_with_all_its_terms(gan):
    recipe = make_recipe(gan=gan, perceptual_weight=0.1, style_weight=250.0)
    edges = {"edges_adversarial", "edges_feature_matching", "edges_d_adversarial"}
    image = {"image_l1", "image_adversarial", "image_perceptual", "image_style", "image_d_adversarial"}
    for name, expected in zip(PHASES, (edges, image, image, edges | image), strict=True):
        terms = run_step(recipe, name, make_batch())
        assert set(terms) == expected
        assert all(term.isfinite() for term in terms.values())


def test_generators_step_before_their_discriminators():
    for phase in make_recipe().phases:
        names = [name for update in phase.updates for name in update.networks]
        assert names == sorted(names, key=lambda name: is_discriminator(name))


def test_without_its_terms_vgg_is_not_built(tmp_path):
    absent = str(tmp_path / "absent.pth")
    make_recipe(features=absent)
    with pytest.raises(WeightsError):
        make_recipe(features=absent, style_weight=1.0)


def test_the_image_stage_paints_by_the_true_edges_also_in_the_hole():
    recipe, batch = make_recipe(), make_batch()
    other = dataclasses.replace(batch, edge=composite(1 - batch.edge, batch.edge, batch.mask))
    for name, differs in (("image", True), ("inpaint", False)):
        forward = phase_of(recipe, name).forward
        recipe.networks["edges"].eval()
        first, second = (forward(recipe.networks, b)["output"] for b in (batch, other))
        assert torch.equal(first, second) != differs


def test_the_inpaint_stage_leaves_the_edge_generator_alone():
    recipe, batch = make_recipe(), make_batch()
    before = {name: state_of(recipe, name) for name in recipe.networks}
    run_step(recipe, "inpaint", batch)
    for name in recipe.networks:
        assert changed(before[name], state_of(recipe, name)) == name.startswith("image"), name


def test_in_the_joint_stage_the_image_loss_reaches_the_edge_generator():
    recipe, batch = make_recipe(), make_batch()
    for name, reaches in (("joint", True), ("inpaint", False)):
        phase = phase_of(recipe, name)
        outputs = phase.forward(recipe.networks, batch)
        (outputs["output"] - (batch.image + 1) / 2).abs().mean().backward()
        gradients = [parameter.grad for parameter in recipe.networks["edges"].parameters()]
        assert any(gradient is not None and gradient.any() for gradient in gradients) == reaches
        recipe.networks["edges"].zero_grad(set_to_none=True)


def test_the_networks_can_learn_one_image():
    recipe = make_recipe(width=8, learning_rate=2e-3)
    batch = make_batch()
    ramp = torch.linspace(-0.8, 0.8, 32).expand(2, 1, 32, 32)
    batch = dataclasses.replace(batch, image=torch.cat([ramp, -ramp, ramp.transpose(2, 3)], dim=1))
    history = [run_step(recipe, "image", batch)["image_l1"].item() for _ in range(30)]
    assert history[-1] < 0.5 * history[0]


# Inpainting


def test_known_edges_stay_and_the_hole_has_soft_ones():
    batch = make_batch()
    edge = inpaint(make_recipe(), batch)["edge"]
    known = batch.mask == 0
    assert torch.equal(edge[known], batch.edge[known])
    assert ((edge[~known] > 0) & (edge[~known] < 1)).all()


def test_inpainting_shows_what_the_image_generator_says_of_the_completed_edges():
    recipe, batch = make_recipe(), make_batch()
    outputs = inpaint(recipe, batch)
    expected = recipe.networks["image"]((batch.image + 1) / 2, outputs["edge"], batch.mask)
    torch.testing.assert_close(outputs["output"], 2 * expected - 1)


@pytest.mark.parametrize("size", [(255, 257), (33, 30), (9, 9)])
def test_odd_sizes_come_back_as_they_were(size):
    outputs = inpaint(make_recipe(), make_batch(*size))
    assert outputs["output"].shape == (2, 3, *size)
    assert outputs["edge"].shape == (2, 1, *size)


def test_a_hole_at_a_padded_border_stays_hidden():
    recipe, batch = make_recipe(), make_batch(33, 30)
    batch.mask[:, :, 20:, 10:] = 1
    expected = inpaint(recipe, batch)
    for hidden in (-1.0, 0.3):
        image = composite(torch.full_like(batch.image, hidden), batch.image, batch.mask)
        edge = composite(1 - batch.edge, batch.edge, batch.mask)
        found = inpaint(recipe, dataclasses.replace(batch, image=image, edge=edge))
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_cannot_be_inpainted_is_refused_with_the_rule():
    with pytest.raises(ValueError, match="at least 9 pixels, got 8 x 32"):
        inpaint(make_recipe(), make_batch(8, 32))
    with pytest.raises(ValueError, match="column 'edge'"):
        inpaint(make_recipe(), dataclasses.replace(make_batch(), edge=None))
