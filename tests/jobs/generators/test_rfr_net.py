"""Facts of RFR-Net: counts, masks, reach, attention against loops, losses by hand, fine-tuning."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from benchmarks.batches import make_batch
from benchmarks.loops import rfr_net
from jobs.generators.rfr_net import Config
from jobs.generators.rfr_net.attention import KnowledgeConsistentAttention
from jobs.generators.rfr_net.losses import pixel_losses, total_variation
from jobs.generators.rfr_net.networks import Generator
from jobs.generators.rfr_net.recipe import build
from tests.jobs.generators.steps import build_tiny, run_step, start_phase


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parts_have_the_published_number_of_parameters():
    with torch.device("meta"):
        generator = Generator(width=64, recurrences=6, kernel_size=7)
    stages = [*generator.reason.encoder, *generator.reason.middle, *generator.reason.decoder]
    assert [count(stage) for stage in stages] == [
        73_984, 295_424, 1_180_672, 2_360_320, 2_360_320, 2_360_320,
        4_719_616, 4_719_616, 8_389_632, 3_146_240, 393_344,
    ]  # fmt: skip
    assert count(generator.reason.attention) == 524_801
    assert [count(part) for part in (generator.paint, generator.polish, generator.last)] == [19_296, 1_184, 1_728]
    assert count(generator) == 31_224_065


def masks_of(generator: Generator, mask: torch.Tensor) -> list[torch.Tensor]:
    """The masks after the first layers and after each recurrence, 1 = known, at half size."""
    seen = []
    hooks = [
        stage.register_forward_hook(lambda _module, _inputs, result: seen.append(result[1]))
        for stage in (generator.enter, generator.enlarge[1])
    ]
    generator(torch.zeros(len(mask), 3, *mask.shape[-2:]), mask)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize(("row", "sides"), [(96, [9, 21, 33, 45, 57, 69, 81]), (97, [10, 22, 34, 46, 58, 70, 82])])
def test_a_known_pixel_grows_by_six_cells_in_each_recurrence(row, sides):
    generator = Generator(width=2, recurrences=6, kernel_size=7).eval()
    mask = torch.ones(1, 1, 192, 192)
    mask[..., row, row] = 0
    masks = masks_of(generator, mask)
    assert [int(m[0, 0].any(dim=1).sum()) for m in masks] == sides
    assert [int(m.sum()) for m in masks] == [side**2 for side in sides]


def test_cells_beyond_the_reach_stay_empty():
    generator = Generator(width=2, recurrences=6, kernel_size=7).eval()
    mask = torch.zeros(1, 1, 256, 256)
    mask[..., 38:218, 38:218] = 1  # the centre is 90 pixels from the rim
    _, unfilled = generator(torch.zeros(1, 3, 256, 256), mask)
    assert unfilled[0, 0, 128, 128] == 1
    assert unfilled[0, 0, 128, 38 + 70] == 0
    mask[...] = 0
    _, unfilled = generator(torch.zeros(1, 3, 256, 256), mask)
    assert not unfilled.any()


def test_without_a_hole_the_merge_is_the_mean_of_the_groups():
    torch.manual_seed(0)
    generator = Generator(width=2, recurrences=3, kernel_size=7).eval()
    groups = []
    generator.enter.register_forward_hook(lambda _module, _inputs, result: groups.append(result[0]))
    generator.reason.register_forward_hook(lambda _module, _inputs, result: groups.append(result[0]))
    merged, valid = generator._reason_recurrently(torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32))
    assert len(groups) == 4
    torch.testing.assert_close(merged, sum(groups) / 4)
    assert valid.min() == 1


@pytest.mark.parametrize("size", [(4, 4), (5, 3)])
def test_attention_agrees_with_loops_in_value_and_gradient(size):
    torch.manual_seed(0)
    layer = KnowledgeConsistentAttention(6).double()
    nn.init.constant_(layer.ratio, -0.7)
    cells = size[0] * size[1]
    first, second = (torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True) for _ in range(2))
    filled = (torch.rand(2, 1, *size) < 0.5).double()
    weights = torch.randn(2, 6, *size, dtype=torch.float64)
    parameters = (layer.ratio, layer.join.weight, layer.join.bias)
    outputs = []
    for attend in (layer, lambda *inputs: rfr_net.attention(*inputs, *parameters)):
        _, scores = attend(first, filled, None)
        torch.testing.assert_close(scores.sum(2), torch.ones(2, cells, dtype=torch.float64))
        result, blended = attend(second, filled, scores)
        torch.testing.assert_close(blended.sum(2), torch.ones(2, cells, dtype=torch.float64))
        gradients = torch.autograd.grad((result * weights).sum(), (first, second, *parameters))
        outputs.append((result, blended, *gradients))
    for fast, slow in zip(*outputs, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-11)


def test_scores_are_blended_where_a_query_was_filled_before():
    layer = KnowledgeConsistentAttention(4)
    features, previous = torch.randn(1, 4, 3, 3), torch.rand(1, 9, 9).softmax(2)
    _, fresh = layer(features, torch.zeros(1, 1, 3, 3), None)
    _, unfilled = layer(features, torch.zeros(1, 1, 3, 3), previous)
    _, filled = layer(features, torch.ones(1, 1, 3, 3), previous)
    torch.testing.assert_close(unfilled, fresh)
    torch.testing.assert_close(filled, (fresh + previous) / 2, rtol=1e-6, atol=1e-6)


def test_constant_features_attend_to_their_unit_vector():
    layer = KnowledgeConsistentAttention(4).eval()
    vector = torch.tensor([1.0, -2.0, 2.0, 4.0])
    features = vector.view(1, 4, 1, 1).expand(1, 4, 5, 5)
    seen = {}
    layer.join.register_forward_pre_hook(lambda _module, inputs: seen.update(joined=inputs[0]))
    layer(features, torch.ones(1, 1, 5, 5), None)
    torch.testing.assert_close(seen["joined"][:, :4], (vector / 5).view(1, 4, 1, 1).expand(1, 4, 5, 5))
    assert torch.equal(seen["joined"][:, 4:], features)


def test_nothing_stays_in_the_network_between_calls():
    torch.manual_seed(0)
    generator = Generator(width=2, recurrences=2, kernel_size=7).eval()
    small, large = (make_batch((32, 32), num_samples=n, seed=n) for n in (1, 3))
    fresh = generator(small.image, small.mask)[0]
    generator(large.image, large.mask)
    assert torch.equal(generator(small.image, small.mask)[0], fresh)


def test_losses_by_hand():
    mask = torch.zeros(1, 1, 8, 10)
    mask[..., 2:5, 3:7] = 1  # 3 rows, 4 columns
    image = torch.rand(1, 3, 8, 10)
    valid, hole = pixel_losses(image + 0.5, image, mask)
    torch.testing.assert_close(valid, torch.tensor(0.5 * 68 / 80))
    torch.testing.assert_close(hole, torch.tensor(0.5 * 12 / 80))
    expected = 0.5 * (2 * 4 / (7 * 10) + 2 * 3 / (8 * 9))
    torch.testing.assert_close(total_variation(torch.full_like(image, 0.5), mask), torch.tensor(expected))


def test_feature_terms_see_outputs_and_composites_in_zero_to_one():
    recipe = build(dataclasses.replace(Config.tiny(), perceptual_weight=0.05, style_weight=120.0))
    batch = make_batch((32, 32))
    outputs = recipe.phases[0].updates[0].terms(recipe.networks, batch, {})
    assert outputs.keys() == {"valid", "hole", "tv", "perceptual", "style"}
    assert all(term > 0 for term in outputs.values())


def test_fine_tuning_keeps_the_statistics_and_trains_scale_and_shift():
    recipe = build_tiny("rfr_net")
    batch = make_batch((32, 32))
    generator = recipe.networks["generator"]
    for phase, keeps in zip(recipe.phases, (False, True), strict=True):
        start_phase(recipe, phase)
        statistics = {name: value.clone() for name, value in generator.named_buffers()}
        weights = {name: p.detach().clone() for name, p in generator.named_parameters()}
        run_step(recipe, phase, batch)
        assert all(torch.equal(value, statistics[name]) == keeps for name, value in generator.named_buffers())
        norms = [f"{name}.{part}" for name in generator.norms for part in ("weight", "bias")]
        assert norms
        assert all(not torch.equal(weights[name], generator.get_parameter(name)) for name in norms)
    assert recipe.optimizers["generator"].param_groups[0]["lr"] == Config.tiny().finetune_learning_rate


def test_a_fixed_batch_is_learned():
    torch.manual_seed(0)
    recipe = build(dataclasses.replace(Config.tiny(), learning_rate=5e-3))
    batch = make_batch((32, 32), num_samples=2)
    start_phase(recipe, recipe.phases[0])
    errors = [run_step(recipe, recipe.phases[0], batch)["hole"].item() for _ in range(25)]
    assert sum(errors[-5:]) / 5 < 0.6 * errors[0]


@pytest.mark.parametrize(
    ("values", "match"), [({"recurrences": 1}, "recurrences"), ({"kernel_size": 4}, "odd"), ({"width": 3}, "even")]
)
def test_settings_that_cannot_be_are_refused(values, match):
    with pytest.raises(ValueError, match=match):
        Config(**values)
