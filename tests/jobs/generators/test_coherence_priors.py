"""Facts of coherence priors: counts, attention within classes, both coherence losses, who teaches whom."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from benchmarks.batches import make_batch
from benchmarks.loops.coherence_priors import cut_patches, measure_coherence, propagate
from files.pictures import IGNORE
from jobs.generators.coherence_priors import PARAMETERS, Config
from jobs.generators.coherence_priors.attention import SemanticWiseAttention, patch_cosines
from jobs.generators.coherence_priors.losses import one_hot, patch_coherence, straight_through_one_hot
from jobs.generators.coherence_priors.networks import Generator, SemanticWisePropagation
from jobs.generators.coherence_priors.recipe import build
from jobs.layers.weights import WeightsError
from tests.jobs.generators.steps import run_step, start_phase


def tiny_generator() -> Generator:
    torch.manual_seed(0)
    return build(Config.tiny()).networks["generator"]


def mixed_holes(height: int, width: int) -> torch.Tensor:
    """Four different holes: scattered, none, everything, and a box at the border."""
    hole = torch.zeros(4, 1, height, width, dtype=torch.float64)
    hole[0] = (torch.rand(1, height, width) < 0.4).double()
    hole[2] = 1
    hole[3, :, : height // 2, : width // 2] = 1
    return hole


@pytest.mark.parametrize(
    ("num_classes", "generator", "judge"), [(8, 61_911_735, 2_772_929), (20, 61_921_011, 2_785_217)]
)
def test_parameter_counts_are_those_of_the_tables(num_classes, generator, judge):
    with torch.device("meta"):
        networks = build(Config(num_classes=num_classes, features="random")).networks
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    assert counts == {"generator": generator, "texture_d": judge, "structure_d": judge}
    assert list(counts) == list(PARAMETERS)
    parts = [sum(p.numel() for p in part.parameters()) for part in networks["generator"].propagation]
    assert parts == [295_680, 1_181_184, 4_721_664, 4_721_664]


def test_every_scale_is_predicted_from_image_and_mask_alone():
    generator, batch = tiny_generator(), make_batch((64, 80))
    predictions = generator(batch.image, batch.mask)
    for scale in range(5):
        size = (64 >> scale, 80 >> scale)
        assert predictions[f"logits{scale}"].shape == (3, 4, *size)
        assert predictions[f"image{scale}"].shape == (3, 3, *size)
    alone = generator(batch.image, batch.mask, all_scales=False)
    assert list(alone) == ["image0"]
    assert torch.equal(alone["image0"], predictions["image0"])


def test_no_prediction_reads_what_stands_under_the_hole():
    generator, batch = tiny_generator(), make_batch((64, 64))
    image = batch.image.requires_grad_()
    sum(prediction.square().sum() for prediction in generator(image, batch.mask).values()).backward()
    assert not (image.grad * batch.mask).any()
    assert (image.grad * (1 - batch.mask)).any()


def test_cosines_are_those_of_unfolded_patches():
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 32, 16, 16), torch.randn(2, 32, 16, 16)
    queries[0, :, 4:9, 4:9] = 0  # patches without length
    expected = torch.stack([cut_patches(q) @ cut_patches(k).T for q, k in zip(queries, keys, strict=True)])
    torch.testing.assert_close(patch_cosines(queries, keys), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("rate", "size"), [(1, (7, 10)), (2, (10, 6))])
def test_the_attention_is_that_of_the_loop(rate, size):
    torch.manual_seed(1)
    features = torch.randn(4, 5, *size, dtype=torch.float64, requires_grad=True)
    logits, hole, weight = torch.randn(4, 3, *size), mixed_holes(*size), torch.randn(4, 5, *size).double()
    found = SemanticWiseAttention(rate=rate)(features, logits, hole)
    expected = propagate(features, logits, hole, rate)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((filled * weight).sum(), features)[0] for filled in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert torch.equal(found * (1 - hole), features * (1 - hole))  # known cells pass, bit for bit
    assert torch.equal(found[2], features[2])  # without any known cell there is nothing to copy


def test_no_weight_crosses_classes_or_falls_on_the_hole():
    torch.manual_seed(2)
    features, hole = torch.randn(1, 4, 6, 8), torch.zeros(1, 1, 6, 8)
    classes = torch.zeros(1, 6, 8, dtype=torch.int64)
    hole[..., 1:5, 2:6] = 1
    classes[:, 3:] = 1
    classes[:, 2, 3] = 2  # a class of the hole alone
    weights = SemanticWiseAttention().weights(features, classes, hole)[0]
    known, flat = hole.flatten() == 0, classes.flatten()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(48))
    lonely = flat == 2
    allowed = (flat[:, None] == flat) & known | lonely[:, None] & known
    assert torch.equal(weights > 0, allowed)
    # One class everywhere: plain attention over the known cells.
    plain = SemanticWiseAttention().weights(features, torch.zeros_like(classes), hole)[0]
    scores = 10 * patch_cosines(features, features)[0][:, known]
    torch.testing.assert_close(plain[:, known], scores.softmax(dim=1))
    torch.testing.assert_close(plain[lonely], weights[lonely])


def test_a_constant_map_stays_constant():
    features = torch.full((2, 3, 6, 6), 0.7)
    hole = torch.zeros(2, 1, 6, 6)
    hole[0, :, 2:5, 1:4], hole[1, :, 0, 0] = 1, 1
    torch.testing.assert_close(SemanticWiseAttention(rate=2)(features, torch.randn(2, 3, 6, 6), hole), features)


def test_the_attention_compiles_and_agrees():
    torch.manual_seed(3)
    layer = SemanticWiseAttention(rate=2)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    logits, hole = torch.randn(4, 3, 8, 6), mixed_holes(8, 6)
    gradients = []
    for attention in (layer, compiled):
        features = torch.randn(4, 5, 8, 6, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
        filled = attention(features, logits, hole)
        filled.square().sum().backward()
        gradients.append((filled.detach(), features.grad))
    torch.testing.assert_close(*gradients)


def test_half_precision_compares_in_float32():
    torch.manual_seed(4)
    features, logits, hole = torch.randn(4, 8, 6, 6), torch.randn(4, 3, 6, 6), mixed_holes(6, 6).float()
    layer = SemanticWisePropagation(8, rate=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(features.bfloat16(), logits.bfloat16(), hole).isfinite().all()
        attended = layer.attention(features, logits, hole)
    assert torch.equal(attended, layer.attention(features, logits, hole))


def test_odd_maps_are_refused_at_rate_two():
    with pytest.raises(ValueError, match="multiples of the attention's rate 2"):
        SemanticWiseAttention(rate=2)(torch.zeros(1, 1, 6, 5), torch.zeros(1, 2, 6, 5), torch.zeros(1, 1, 6, 5))


def test_patch_coherence_is_that_of_the_loop():
    torch.manual_seed(5)
    generated = torch.randn(4, 6, 7, 5, dtype=torch.float64, requires_grad=True)
    real, hole = torch.randn(4, 6, 7, 5, dtype=torch.float64), mixed_holes(7, 5)
    labels = torch.randint(3, (4, 7, 5))
    labels[0, :2], labels[3, 1] = IGNORE, 3  # unlabelled cells, and a class that only the hole's row has
    labels[3, 1, 3:] = IGNORE
    found = patch_coherence(generated, real, labels, hole)
    expected = measure_coherence(generated, real, labels, hole)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*[torch.autograd.grad(loss, generated)[0] for loss in (found, expected)])
    assert 0 < found < 2


def test_patch_coherence_by_hand():
    """One row of one channel: queries 1 and 2 hold (1, 0, 2) and (0, 2, 3); the keys 0 and 4 are known."""
    generated = torch.tensor([1.0, 0, 2, 3, 1]).view(1, 1, 1, 5)
    real = torch.tensor([4.0, 3, 0, 0, 1]).view(1, 1, 1, 5)
    hole = torch.tensor([0.0, 1, 1, 0, 0]).view(1, 1, 1, 5)
    labels = torch.tensor([[[0, 0, 1, 0, 1]]])
    # Query 1 may look at keys 0, (0, 4, 3), and 3, (0, 0, 1); query 2 at key 4, (0, 1, 0).
    first = max(6 / (5**0.5 * 5), 2 / 5**0.5)
    second = 2 / 13**0.5
    loss = patch_coherence(generated, real, labels, hole)
    assert loss.item() == pytest.approx((2 - first - second) / 2)
    labels[0, 0, 4] = 0  # query 2 has no key any more
    assert patch_coherence(generated, real, labels, hole).item() == pytest.approx(1 - first)


def test_copies_are_coherent_and_nothing_to_compare_is_nothing():
    features = torch.full((2, 3, 9, 9), 0.5, requires_grad=True)
    hole = torch.zeros(2, 1, 9, 9)
    hole[..., 3:6, 3:6] = 1
    labels = torch.zeros(2, 9, 9, dtype=torch.int64)
    assert patch_coherence(features, features, labels, hole).item() == pytest.approx(0, abs=1e-6)
    for nothing in (torch.full_like(labels, IGNORE), labels + hole[:, 0].long()):
        loss = patch_coherence(features, torch.randn(2, 3, 9, 9), nothing, hole)
        assert loss == 0
        assert not torch.autograd.grad(loss, features)[0].any()


def test_layouts_are_one_hot_where_there_is_a_label():
    labels = torch.tensor([[[0, 2], [IGNORE, 1]]])
    expected = torch.tensor([[[[1.0, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 1], [0, 0]]]])
    assert torch.equal(one_hot(labels, 3, torch.float32), expected)
    logits = (torch.randn(1, 3, 2, 2) + 5 * (1 - 2 * expected)).requires_grad_()
    predicted = straight_through_one_hot(logits, labels)
    valid = (labels != IGNORE)[:, None]
    assert torch.equal(predicted, F.one_hot(logits.argmax(1), 3).movedim(3, 1) * valid)
    weight = torch.randn(1, 3, 2, 2)
    (predicted * weight).sum().backward()
    soft = logits.detach().requires_grad_()
    (soft.softmax(dim=1) * weight * valid).sum().backward()
    torch.testing.assert_close(logits.grad, soft.grad)


def coherence_outputs(**changes):
    recipe = build(dataclasses.replace(Config.tiny(), **changes))
    for network in recipe.networks.values():
        network.eval()  # no power iteration between two evaluations
    batch, phase = make_batch((64, 64), ("semantics",)), recipe.phases[1]
    return recipe.networks, batch, phase, phase.forward(recipe.networks, batch)


def test_terms_are_those_of_the_card():
    networks, batch, phase, outputs = coherence_outputs(structure_weight=0.5, patch_weight=3.0, num_classes=5)
    completed = torch.where(batch.mask == 1, outputs["image0"], batch.image)
    real = torch.cat((batch.image, one_hot(batch.semantics, 5, torch.float32)), dim=1)
    fake = torch.cat((completed, outputs["layout"]), dim=1)
    d_terms = phase.updates[0].terms(networks, batch, outputs)
    assert not outputs["layout"].detach()[:, :, :8].any()  # the made-up labels of these rows are unknown
    for name in ("texture_d", "structure_d"):
        torch.testing.assert_close(d_terms[f"{name}_real"], (1 - networks[name](real)).clamp_min(0).mean())
        torch.testing.assert_close(d_terms[f"{name}_fake"], (1 + networks[name](fake)).clamp_min(0).mean())
    terms = phase.updates[1].terms(networks, batch, outputs)
    scores = networks["texture_d"](fake).mean() + networks["structure_d"](fake).mean()
    torch.testing.assert_close(terms["structure"], -0.5 * scores)
    assert 0 < terms["patch"] < 6
    supervised = build(Config.tiny()).phases[0].updates[0].terms(networks, batch, outputs)
    assert {name: terms[name] for name in supervised} == supervised


def test_each_discriminator_teaches_one_side():
    networks, batch, phase, outputs = coherence_outputs()
    heads = networks["generator"].heads[0]
    for name, taught, spared in (
        ("texture_d", heads.image, heads.segmentation),
        ("structure_d", heads.segmentation, heads.image),
    ):
        deaf = {**networks, **{other: Deaf() for other in {"texture_d", "structure_d"} - {name}}}
        terms = phase.updates[1].terms(deaf, batch, outputs)
        gradients = torch.autograd.grad(
            terms["structure"], [taught[0].weight, spared[0].weight], retain_graph=True, allow_unused=True
        )
        assert gradients[0].any()
        assert gradients[1] is None or not gradients[1].any()


class Deaf(torch.nn.Module):
    def forward(self, image):
        return image.new_zeros(1)


def test_no_vgg_is_built_for_a_weight_of_zero():
    with pytest.raises(WeightsError):
        build(dataclasses.replace(Config.tiny(), patch_weight=0.1, features="missing.pth"))
    build(dataclasses.replace(Config.tiny(), patch_weight=0.0, features="missing.pth"))


def test_a_batch_without_labels_trains_without_nan():
    recipe = build(dataclasses.replace(Config.tiny(), patch_weight=0.1))
    batch = make_batch((64, 64), ("semantics",))
    batch = dataclasses.replace(batch, semantics=torch.full_like(batch.semantics, IGNORE))
    phase = recipe.phases[1]
    start_phase(recipe, phase)
    terms = run_step(recipe, phase, batch)
    assert terms["segmentation"] == terms["patch"] == 0
    assert all(p.isfinite().all() for network in recipe.networks.values() for p in network.parameters())


def test_the_phases_follow_each_other_and_rates_halve_over_both():
    with torch.device("meta"):
        phases = build(Config(features="random")).phases
    assert [(phase.name, phase.steps) for phase in phases] == [("supervised", 10_000), ("coherence", 290_000)]
    assert phases[0].trained == ("generator",)
    for name in ("generator", "texture_d", "structure_d"):
        rate = phases[1].learning_rates[name]
        assert [rate(step) for step in (0, 139_999, 140_000, 215_000)] == [2e-4, 2e-4, 1e-4, 5e-5]


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="num_classes"):
        Config(num_classes=0)
    with pytest.raises(ValueError, match="even"):
        Config(width=3)
