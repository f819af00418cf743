"""Facts of SPL: counts, region normalisation, the prior's way through the networks, its teacher, losses by hand."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from benchmarks.batches import make_batch
from benchmarks.loops.spl import region_norm_loop, region_norm_two_passes
from jobs.generators.build import build_recipe, inpaint
from jobs.generators.spl import Config
from jobs.generators.spl.losses import hole_weighted_l1
from jobs.generators.spl.networks import FusionConv2d, ModulatedBlock, ResidualDenseBlock
from jobs.generators.spl.normalization import BasicRegionNorm, LearnableRegionNorm, region_norm
from jobs.generators.spl.recipe import build, enlarged
from jobs.generators.spl.teacher import CHECKPOINT, Blur, SpaceToDepth, Teacher, TResNet, converted, count_channels
from jobs.layers.weights import WeightsError
from tests.jobs.generators.steps import run_step, start_phase


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def with_values(module: nn.Module) -> nn.Module:
    """The module with every parameter drawn anew, so that what starts at 0 takes part."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return module


def odd_masks() -> torch.Tensor:
    """A box, nothing, everything, and single pixels: (4, 1, 7, 9)."""
    mask = torch.zeros(4, 1, 7, 9)
    mask[0, :, 2:5, 3:] = 1
    mask[2] = 1
    mask[3, :, 6, 8] = mask[3, :, 0, 2] = 1
    return mask


# Networks


def test_parts_have_the_counts_of_the_table_and_the_sizes_of_the_paper():
    with torch.device("meta"):
        networks = build(Config(teacher="random")).networks
        generator, teacher = networks["generator"], TResNet()
        parts = {"encoder": 667_008, "semantics": 19_837_784, "middle": 23_607_296, "decoder": 1_485_135}
        assert {name: count(part) for name, part in generator.named_children()} == parts
        assert count(ResidualDenseBlock(256, growth=32, layers=6)) == 695_744
        assert count(ModulatedBlock(256, hidden=128)) == 2_950_912
        assert (count(BasicRegionNorm(64)), count(LearnableRegionNorm(0.8))) == (256, 198)
        assert count(teacher) == 2_578_192
        assert sum(b.numel() for name, b in teacher.named_buffers() if "running" in name) == 4_712

        layout, prior = generator.semantics(torch.zeros(1, 4, 512, 512))
        assert (layout.shape, prior.shape) == ((1, 256, 64, 64), (1, 152, 64, 64))
        assert teacher(torch.zeros(1, 3, 512, 512)).shape == prior.shape
        assert networks["generator_d"](torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)


def test_layers_follow_the_tables_in_their_order():
    config = Config(teacher="random", dense_blocks=2, residual_blocks=1, modulated_blocks=1)
    generator = build(config).networks["generator"]
    executed = []
    for layer in generator.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda conv, _, output: executed.append(
                    (conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.dilation[0], output.shape[-1])
                )
            )
    with torch.no_grad():
        generator(torch.zeros(1, 3, 24, 24), torch.zeros(1, 1, 24, 24))
    dense = [(256 + 32 * number, 32, 3, 1, 6) for number in range(6)] + [(448, 256, 1, 1, 6)]
    spade = [(256, 128, 3, 1, 6), (128, 256, 3, 1, 6), (128, 256, 3, 1, 6)]
    assert executed == [
        *[(3, 64, 7, 1, 24), (64, 128, 4, 1, 12), (128, 256, 4, 1, 6)],
        *[(4, 64, 7, 1, 48), (64, 128, 4, 1, 24), (128, 256, 4, 1, 12), (256, 256, 4, 1, 6)],
        *[(256, 256, 3, 1, 6), *dense, *dense, (512, 256, 1, 1, 6), (256, 256, 3, 1, 6)],
        *[(256, 256, 3, 1, 6), (256, 256, 3, 1, 6), (256, 152, 1, 1, 6)],
        *[*spade, (256, 256, 3, 2, 6), *spade, (256, 256, 3, 1, 6)],
        *[(256, 512, 3, 1, 6), (2, 1, 7, 1, 12), (1, 1, 7, 1, 12), (1, 1, 7, 1, 12)],
        *[(128, 256, 3, 1, 12), (2, 1, 7, 1, 24), (1, 1, 7, 1, 24), (1, 1, 7, 1, 24), (64, 3, 7, 1, 24)],
    ]


def test_the_modulated_block_normalises_before_each_convolution():
    block = with_values(ModulatedBlock(4, hidden=3))
    features, layout = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6)

    def spade(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
        a = norm.shared(layout).relu()
        return F.instance_norm(x) * (1 + norm.gamma(a)) + norm.beta(a)

    first, second = block.conv1[1], block.conv2[1]
    x = F.pad(spade(block.norm1, features).relu(), (2, 2, 2, 2), mode="reflect")
    x = F.conv2d(x, first.weight, first.bias, dilation=2)
    x = F.pad(spade(block.norm2, x).relu(), (1, 1, 1, 1), mode="reflect")
    torch.testing.assert_close(block(features, layout), features + F.conv2d(x, second.weight, second.bias))


def test_the_prior_learner_sees_the_white_hole_enlarged_and_adds_its_encoders_output():
    generator = build(Config.tiny()).networks["generator"]
    batch = make_batch((24, 32), num_samples=2)
    seen: dict[str, torch.Tensor] = {}
    semantics = generator.semantics
    for name in ("encoder", "conv", "dense.0", "dense.1", "fused", "residual"):
        semantics.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({f"{name} in": inputs[0], name: output})
        )
    layouts = []
    for block in generator.middle:
        block.register_forward_pre_hook(lambda _, inputs: layouts.append(inputs[1]))
    fused = []
    semantics.fusion.register_forward_pre_hook(lambda _, inputs: fused.extend(inputs[0]))
    output, prior = generator(batch.image, batch.mask)

    white = torch.where(batch.mask == 1, 1.0, (batch.image + 1) / 2)
    enlarged_twice = torch.cat((white, batch.mask), dim=1).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(seen["encoder in"], enlarged_twice)
    assert torch.equal(seen["dense.1 in"], seen["dense.0"])
    assert [torch.equal(a, b) for a, b in zip(fused, (seen["dense.0"], seen["dense.1"]), strict=True)] == [True, True]
    assert torch.equal(seen["residual in"], seen["fused"] + seen["encoder"])
    assert all(layout is seen["residual"] for layout in layouts)
    assert torch.equal(prior, semantics.head(seen["residual"]))
    assert prior.shape == (2, 8, 6, 8)
    assert output.shape == batch.image.shape


def test_neither_output_nor_prior_reads_what_stands_under_the_hole():
    generator = build(Config.tiny()).networks["generator"]
    batch = make_batch((24, 32))
    hidden, known = batch.image.clone(), batch.image.clone()
    hidden[batch.mask.expand_as(hidden) == 1] = 0.7
    known[:, :, -1, -1] = 0.7
    with torch.no_grad():
        first, second, third = (generator(image, batch.mask) for image in (batch.image, hidden, known))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, third, strict=True))


@pytest.mark.parametrize("size", [(24, 30), (8, 24)])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match="multiples of 4, at least 12"):
        build(Config.tiny()).networks["generator"](torch.zeros(1, 3, *size), torch.zeros(1, 1, *size))


def test_fusion_by_slices_is_the_convolution_of_the_concatenation():
    fusion = FusionConv2d(6, 4, 5).double()
    maps = [torch.randn(2, 6, 3, 5, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    inputs = [*maps, fusion.weight, fusion.bias]
    sliced = fusion(maps)
    whole = F.conv2d(torch.cat(maps, dim=1), fusion.weight, fusion.bias)
    torch.testing.assert_close(sliced, whole)
    for ours, theirs in zip(
        torch.autograd.grad(sliced.square().sum(), inputs),
        torch.autograd.grad(whole.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_recomputed_blocks_give_the_same_gradients():
    batch = make_batch((24, 24))
    found = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        generator = build(dataclasses.replace(Config.tiny(), checkpoint_blocks=checkpointed)).networks["generator"]
        output, prior = generator(batch.image, batch.mask)
        (output.square().sum() + prior.square().sum()).backward()
        found.append([parameter.grad for parameter in generator.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# Region normalisation


def test_region_norm_equals_the_loop_and_the_two_passes_with_gradients():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, 3, 7, 9, generator=generator, dtype=torch.float64).mul(2).add(5).requires_grad_()
    weights = torch.randn(features.shape, generator=generator, dtype=torch.float64)
    mask = odd_masks().double()
    fast = region_norm(features, mask)
    (gradient,) = torch.autograd.grad((fast * weights).sum(), features)
    for reference in (region_norm_loop, region_norm_two_passes):
        slow = reference(features, mask)
        torch.testing.assert_close(fast, slow)
        torch.testing.assert_close(gradient, torch.autograd.grad((slow * weights).sum(), features)[0])
    assert gradient.isfinite().all()


def test_region_norm_by_hand():
    features = torch.full((1, 1, 4, 4), 3.0)
    mask = torch.zeros(1, 1, 4, 4)
    features[..., 0, :2] = torch.tensor([0.0, 2.0])
    mask[..., 0, :2] = 1
    # Hole: mean 1, variance 1, share 1/8, so eps / p = 8. The known part is constant.
    expected = torch.zeros_like(features)
    expected[..., 0, :2] = torch.tensor([-1 / 3, 1 / 3])
    torch.testing.assert_close(region_norm(features, mask, eps=1.0), expected)


def test_rn_b_scales_regions_apart_and_shifts_everywhere():
    features, mask = torch.randn(4, 3, 7, 9), odd_masks()
    norm = BasicRegionNorm(3)
    plain = norm(features, mask)
    assert torch.equal(plain, region_norm(features, mask))
    nn.init.ones_(norm.hole_gamma)
    torch.testing.assert_close(norm(features, mask), plain * (1 + mask))
    nn.init.zeros_(norm.hole_gamma)
    nn.init.constant_(norm.known_gamma, 2.0)
    torch.testing.assert_close(norm(features, mask), plain * (3 - 2 * mask))
    nn.init.zeros_(norm.known_gamma)
    nn.init.ones_(norm.hole_beta)
    torch.testing.assert_close(norm(features, mask), plain + 1)
    norm.region_bias = True
    torch.testing.assert_close(norm(features, mask), plain + mask)


def test_rn_b_takes_the_nearest_mask_pixel_and_may_lose_a_stroke():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 1, :] = 1
    features = torch.randn(1, 2, 4, 4)
    torch.testing.assert_close(BasicRegionNorm(2)(features, mask), F.instance_norm(features))


def test_rn_l_starts_as_an_instance_norm():
    features = torch.randn(2, 3, 6, 8)
    norm = LearnableRegionNorm(0.8)
    q = torch.sigmoid(norm.likeness(torch.cat((features.mean(1, True), features.max(1, True).values), dim=1)))
    assert q.max() < 0.8  # an empty region
    torch.testing.assert_close(norm(features), F.instance_norm(features) * (1 + norm.gamma(q)) + norm.beta(q))


def test_rn_l_normalises_the_region_it_finds_and_learns_it_not_through_the_threshold():
    features = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    norm = LearnableRegionNorm(0.8)
    for parameter in norm.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(norm.likeness.weight[:, 1, 3, 3], 4.0)  # q = sigmoid(4 max)
    region = (features.max(1, True).values >= math.log(4) / 4).float()  # sigmoid(log 4) = 0.8
    assert 0.1 < region.mean() < 0.9
    normalised = norm(features)
    torch.testing.assert_close(normalised, region_norm(features, region))
    normalised.square().sum().backward()
    assert not norm.likeness.weight.grad.any()  # gamma and beta, its only ways, are closed
    nn.init.ones_(norm.gamma.weight)
    norm.zero_grad()
    norm(features).square().sum().backward()
    assert norm.likeness.weight.grad.any()


def test_statistics_stay_in_float32_under_autocast():
    features = (100 + torch.randn(4, 3, 7, 9)).bfloat16()  # values are 0.5 apart: sums in bfloat16 would be far off
    mask = odd_masks()
    with torch.autocast("cpu", torch.bfloat16):
        ours = region_norm(features, mask)
    assert ours.dtype == torch.bfloat16
    expected = region_norm_loop(features.double(), mask.double())
    torch.testing.assert_close(ours.double(), expected, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize(("layer", "num_inputs"), [(BasicRegionNorm(3), 2), (LearnableRegionNorm(0.55), 1)])
def test_norms_compile_into_one_graph(layer, num_inputs):
    inputs = (torch.randn(4, 3, 7, 9), odd_masks())[:num_inputs]
    layer = with_values(layer)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), layer(*inputs))


# Losses and phases


def test_hole_weighted_l1_by_hand():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    image = torch.rand(1, 3, 4, 4)
    # Error 0.1 everywhere, half of it hole: 0.1 (0.5 * 3 + 0.5 * 1).
    torch.testing.assert_close(hole_weighted_l1(image + 0.1, image, mask, 3.0), torch.tensor(0.2))
    # Features at a quarter of the size look at pixels 0, 4, ... alone: one of four is hole, 0.25 * 4 + 0.75.
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4, 0] = mask[..., 1:4, :] = 1
    torch.testing.assert_close(
        hole_weighted_l1(torch.ones(1, 5, 2, 2), torch.zeros(1, 5, 2, 2), mask, 4.0), torch.tensor(1.75)
    )


def test_terms_are_those_of_the_code_on_images_in_unit_range():
    recipe, batch = build(Config.tiny()), make_batch((64, 64))
    phase = recipe.phases[0]
    for network in recipe.networks.values():
        network.eval()  # no power iteration between the two evaluations
    outputs = phase.forward(recipe.networks, batch)
    output, image = (outputs["output"] + 1) / 2, (batch.image + 1) / 2
    target = TResNet(4).draw(0).eval()(F.interpolate(image, scale_factor=2, mode="bilinear"))
    real, fake = (torch.sigmoid(recipe.networks["generator_d"](x)) for x in (image, output))

    d_terms = phase.updates[0].terms(recipe.networks, batch, outputs)
    torch.testing.assert_close(d_terms["d_real"], -real.log().mean() / 2)
    torch.testing.assert_close(d_terms["d_fake"], -(1 - fake).log().mean() / 2)
    terms = phase.updates[1].terms(recipe.networks, batch, outputs)
    torch.testing.assert_close(terms["l1"], 10 * ((output - image).abs() * (1 + 2 * batch.mask)).mean())
    torch.testing.assert_close(terms["adversarial"], -fake.log().mean())
    weights = 1 + 3 * batch.mask[..., ::4, ::4]
    torch.testing.assert_close(terms["prior"], ((outputs["prior"] - target).abs() * weights).mean())
    assert set(terms) == {"l1", "adversarial", "prior"}


def test_rates_fall_and_the_prior_ends_as_the_phases_say():
    recipe, batch = build(Config.tiny()), make_batch((64, 64))
    head = recipe.networks["generator"].semantics.head
    found = {}
    for phase in recipe.phases:
        start_phase(recipe, phase)
        before = head.weight.clone()
        terms = run_step(recipe, phase, batch)
        rates = {optimizer.param_groups[0]["lr"] for optimizer in recipe.optimizers.values()}
        found[phase.name] = (rates, "prior" in terms, not torch.equal(before, head.weight))
    assert found == {
        "joint": ({1e-4}, True, True),
        "decayed": ({1e-5}, True, True),
        "without_prior": ({1e-5}, False, False),
    }


def test_a_fixed_batch_is_learned():
    torch.manual_seed(0)
    faster = {"width": 8, "learning_rate": 2e-3, "beta1": 0.9, "adversarial_weight": 0.01}
    recipe, batch = build(dataclasses.replace(Config.tiny(), **faster)), make_batch((24, 24), num_samples=2)
    start_phase(recipe, recipe.phases[0])
    terms = [run_step(recipe, recipe.phases[0], batch) for _ in range(30)]
    for name in ("l1", "prior"):
        assert terms[-1][name] < 0.6 * terms[0][name]


# Teacher


def test_a_teacher_is_frozen_and_belongs_to_no_network():
    recipe, batch = build_recipe("spl", Config.tiny(), seed=1), make_batch((64, 64))
    assert [type(network) for network in recipe.feature_networks] == [Teacher]  # and so it is compiled
    assert not any("teacher" in key or "running" in key for key in recipe.networks["generator"].state_dict())
    teacher = Teacher("random", width=4)
    before = {key: value.clone() for key, value in teacher.network.state_dict().items()}
    image = batch.image.clone().requires_grad_()
    assert not teacher(enlarged(image)).requires_grad
    assert not teacher.network.training
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    assert all(torch.equal(before[key], value) for key, value in teacher.network.state_dict().items())
    assert teacher(image.double()).dtype == torch.float64


def test_a_random_teacher_follows_its_seed_alone():
    state = torch.get_rng_state()
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    first, again, other = (Teacher("random", width=4, seed=seed)(image) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_prior_no_teacher_is_asked_and_filling_holes_never_needs_one(tmp_path):
    batch = make_batch((64, 64))
    config = dataclasses.replace(Config.tiny(), teacher=str(tmp_path / "absent.pth"), teacher_width=76)
    recipe = build(config)
    assert inpaint(recipe, batch)["output"].shape == batch.image.shape
    start_phase(recipe, recipe.phases[0])
    with pytest.raises(WeightsError, match=rf"absent\.pth: no such file.*{CHECKPOINT}.*prior_weight 0"):
        run_step(recipe, recipe.phases[0], batch)
    recipe = build(dataclasses.replace(config, prior_weight=0.0))
    for phase in recipe.phases:
        start_phase(recipe, phase)
        assert "prior" not in run_step(recipe, phase, batch)


def test_space_to_depth_puts_colours_last():
    channels = torch.arange(48.0)
    dy, dx, c = torch.meshgrid(torch.arange(4), torch.arange(4), torch.arange(3), indexing="ij")
    block = (3 * (4 * dy + dx) + c).permute(2, 0, 1)[None].float()  # (1, 3, 4, 4)
    assert torch.equal(SpaceToDepth()(block.repeat(1, 1, 2, 3)), channels.view(1, 48, 1, 1).expand(1, 48, 2, 3))


def test_the_blur_is_binomial_at_every_second_place():
    image = torch.zeros(1, 2, 8, 8)
    image[:, 1, 3, 4] = 16
    blurred = Blur()(image)
    expected = torch.zeros(1, 2, 4, 4)
    expected[:, 1, 1, 2] = expected[:, 1, 2, 2] = 2  # rows 2 and 4 are one off, column 4 is met
    assert torch.equal(blurred, expected)


def test_in_place_batch_norms_are_converted():
    names = ("body.conv1.1.weight", "body.layer2.0.conv1.0.1.weight", "body.layer2.0.downsample.1.1.weight")
    found = converted({name: torch.tensor([-0.3]) for name in names} | {"body.conv1.0.weight": torch.tensor([-0.3])})
    assert {name: round(value.item(), 6) for name, value in found.items()} == {
        "conv1.bn.weight": 0.30001,
        "layer2.0.conv1.bn.weight": 0.30001,
        "layer2.0.downsample.1.bn.weight": 0.30001,
        "conv1.conv.weight": -0.3,
    }


def authors_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state as the authors' checkpoint names it: in-place batch norms, one level deeper before the blur."""
    found = {"head.fc.bias": torch.zeros(9605)}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        deeper = ".0" if name.startswith("layer2.0.conv1") else ""
        name = re.sub(r"(conv1|conv2|downsample\.1)\.(conv|bn)", rf"\1{deeper}.\2", name)
        found["body." + name.replace(".conv.", ".0.").replace(".bn.", ".1.")] = value
    return found


@pytest.mark.parametrize("kind", ["authors", "safetensors", "timm"])
def test_teachers_come_from_a_file(tmp_path, monkeypatch, kind):
    source = TResNet().draw(5).eval()
    generator = torch.Generator().manual_seed(0)
    for layer in source.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.0, generator=generator)
            nn.init.uniform_(layer.running_mean, -0.1, 0.1, generator=generator)
    image = torch.rand(1, 3, 32, 48)
    state = dict(source.state_dict())
    # |-w + 1e-5| + 1e-5 = w: what an in-place norm would store for the same scale.
    stored = {name: 1e-5 - value if name.endswith("bn.weight") else value for name, value in state.items()}
    if kind == "authors":
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        (tmp_path / "checkpoints").mkdir()
        torch.save({"model": authors_names(stored), "num_classes": 9605}, tmp_path / "checkpoints" / CHECKPOINT)
        name = "tresnet_l"
    elif kind == "safetensors":
        name = str(tmp_path / "teacher.safetensors")
        save_file(authors_names(stored), name)
    else:
        name = str(tmp_path / "timm.pth")
        torch.save({f"body.{key}": value for key, value in state.items()}, name)
    with torch.no_grad():
        torch.testing.assert_close(Teacher(name)(image), source(image))


def test_files_of_something_else_are_refused(tmp_path):
    image = torch.rand(1, 3, 32, 32)
    path = tmp_path / "other.pth"
    torch.save({"model": {"body.conv1.0.weight": torch.zeros(76, 48, 5, 5)}}, path)
    with pytest.raises(ValueError, match=r"not the weights of TResNet-L.*conv1\.conv\.weight.* more"):
        Teacher(str(path))(image)
    path.write_text("not weights")
    with pytest.raises(ValueError, match="not a file of weights"):
        Teacher(str(path))(image)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="of a list"):
        Teacher(str(path))(image)


@pytest.mark.parametrize(("name", "layers"), [("resnet18", 6), ("mobilenet_v3_small", 4)])
def test_a_torchvision_teacher_is_that_model_up_to_an_eighth(tmp_path, monkeypatch, name, layers):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    torch.save(model.state_dict(), tmp_path / "checkpoints" / url.rpartition("/")[2])
    image = torch.rand(1, 3, 32, 40)
    seen = torchvision.transforms.functional.normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    body = getattr(model, "features", None) or nn.Sequential(*model.children())
    state = torch.get_rng_state()
    teacher = Teacher(name)
    found = teacher(image)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        torch.testing.assert_close(found, body[:layers](seen))
    assert found.shape == (1, count_channels(name, 76), 4, 5)


def test_a_failed_download_and_unusable_models_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(WeightsError, match=r"resnet18 could not be fetched .*no route.*another teacher"):
        Teacher("resnet18")(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match="no layer at an eighth"):
        build(Config(teacher="vit_b_16"))
    with pytest.raises(ValueError, match="did you mean resnet50"):
        build(Config(teacher="resnet05"))
    with pytest.raises(ValueError, match="teacher_width is 76"):
        Config(teacher_width=8)
