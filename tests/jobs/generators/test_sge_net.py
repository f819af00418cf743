"""Facts of SGE-Net: counts, which cells are refined and what that changes, guidance, losses by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks.batches import make_batch
from benchmarks.loops.sge_net import find_unreliable
from files.pictures import IGNORE
from jobs.generators.sge_net import PARAMETERS, Config
from jobs.generators.sge_net.networks import Generator, SemanticGuidedInference, unreliable_cells
from jobs.generators.sge_net.recipe import build
from jobs.layers.semantic import cross_entropy_of_all_scales
from tests.jobs.generators.steps import run_step, start_phase


def tiny_generator() -> Generator:
    torch.manual_seed(0)
    return build(Config.tiny()).networks["generator"]


@pytest.mark.parametrize(("num_classes", "generator", "finest"), [(8, 54_602_871, 692_352), (20, 54_778_035, 733_824)])
def test_parameter_counts_are_those_of_the_tables(num_classes, generator, finest):
    with torch.device("meta"):
        networks = build(Config(num_classes=num_classes)).networks
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    assert counts == PARAMETERS | {"generator": generator}
    assert sum(p.numel() for p in networks["generator"].inference[0].parameters()) == finest


def test_every_scale_is_predicted_from_image_and_mask_alone():
    generator, batch = tiny_generator(), make_batch((64, 80))
    predictions = generator(batch.image, batch.mask)
    for scale in range(5):
        size = (64 >> scale, 80 >> scale)
        assert predictions[f"logits{scale}"].shape == (3, 4, *size)
        assert predictions[f"image{scale}"].shape == (3, 3, *size)
        assert predictions[f"image{scale}"].abs().max() < 1
    alone = generator(batch.image, batch.mask, all_scales=False)
    assert list(alone) == ["image0"]
    assert torch.equal(alone["image0"], predictions["image0"])


@pytest.mark.parametrize(("cells", "marked"), [((8, 8), 16), ((3, 4), 3), ((1, 1), 1), ((0, 0), 0)])
def test_the_least_sure_quarter_of_the_hole_is_refined(cells, marked):
    torch.manual_seed(1)
    probabilities = torch.rand(2, 5, 12, 17).softmax(dim=1)
    hole = torch.zeros(2, 1, 12, 17)
    hole[0, :, 2 : 2 + cells[0], 3 : 3 + cells[1]] = 1
    unreliable = unreliable_cells(probabilities, hole, 0.25)
    assert unreliable.flatten(1).sum(dim=1).tolist() == [marked, 0]
    assert not (unreliable * (1 - hole)).any()
    if marked:
        confidence = probabilities.amax(dim=1, keepdim=True)
        inside = confidence[hole == 1].sort().values
        assert torch.equal(confidence[unreliable == 1].sort().values, inside[:marked])


@pytest.mark.parametrize("share", [0.0, 0.25, 0.3, 1.0])
def test_refined_cells_are_those_of_the_loop(share):
    torch.manual_seed(2)
    probabilities = torch.randn(4, 3, 7, 10).softmax(dim=1)
    probabilities[0, :, 2:5] = 1 / 3  # ties
    hole = (torch.rand(4, 1, 7, 10) < 0.4).float()
    hole[1], hole[2] = 0, 1
    assert torch.equal(unreliable_cells(probabilities, hole, share), find_unreliable(probabilities, hole, share))


def test_the_choice_of_cells_compiles_and_passes_no_gradient():
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    hole = (torch.rand(2, 1, 8, 8) < 0.5).float()
    unreliable = unreliable_cells(logits.softmax(dim=1), hole, 0.5)
    assert not unreliable.requires_grad
    compiled = torch.compile(unreliable_cells, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(logits.softmax(dim=1), hole, 0.5), unreliable)


def test_only_unreliable_cells_are_refined():
    torch.manual_seed(3)
    layer = SemanticGuidedInference(6, 4, num_classes=3, hidden=5)
    features, skip = torch.randn(2, 6, 5, 7), torch.randn(2, 4, 10, 14)
    probabilities, unreliable = torch.randn(2, 3, 5, 7).softmax(dim=1), torch.zeros(2, 1, 5, 7)
    seen = {}
    layer.fuse.register_forward_hook(lambda module, inputs, output: seen.update(fused=output))
    layer.guide.register_forward_hook(lambda module, inputs, output: seen.update(guide=output))
    guided = layer(features, skip, probabilities, unreliable)
    assert torch.equal(guided, seen["fused"] + seen["guide"])
    unreliable[1, 0, 2, 3] = 1
    changed = (layer(features, skip, probabilities, unreliable) != guided).any(dim=1)
    expected = torch.zeros(2, 10, 14, dtype=torch.bool)
    expected[1, 4:6, 6:8] = True
    assert torch.equal(changed, expected)


def test_the_segmentation_guides_the_next_scale():
    generator, batch = tiny_generator(), make_batch((64, 64))
    predictions = generator(batch.image, batch.mask)
    predictions["image3"].square().sum().backward()
    assert generator.heads[4].segmentation[0].weight.grad.any()  # through the map, which is not cut off


def test_no_prediction_reads_what_stands_under_the_hole():
    generator, batch = tiny_generator(), make_batch((64, 64))
    image = batch.image.requires_grad_()
    sum(prediction.square().sum() for prediction in generator(image, batch.mask).values()).backward()
    assert not (image.grad * batch.mask).any()
    assert (image.grad * (1 - batch.mask)).any()


def test_the_coarsest_segmentation_teaches_the_encoder():
    generator, batch = tiny_generator(), make_batch((64, 64), ("semantics",))
    predictions = generator(batch.image, batch.mask)
    others = {name: value.detach() for name, value in predictions.items() if name != "logits4"}
    cross_entropy_of_all_scales({**others, "logits4": predictions["logits4"]}, batch.semantics).backward()
    assert generator.encoder.stages[0][0].weight.grad.any()
    assert generator.inference[3].fuse[0].weight.grad is None


def test_terms_are_those_of_the_card():
    config = dataclasses.replace(Config.tiny(), l1_weight=2.0, segmentation_weight=3.0, adversarial_weight=0.5)
    recipe, batch = build(config), make_batch((64, 64), ("semantics",))
    phase = recipe.phases[0]
    for network in recipe.networks.values():
        network.eval()  # no power iteration between the two evaluations
    outputs = phase.forward(recipe.networks, batch)
    completed = torch.where(batch.mask == 1, outputs["image0"], batch.image)
    real, fake = recipe.networks["generator_d"](batch.image), recipe.networks["generator_d"](completed)
    d_terms = phase.updates[0].terms(recipe.networks, batch, outputs)
    torch.testing.assert_close(d_terms["d_real"], (1 - real).clamp_min(0).mean())
    torch.testing.assert_close(d_terms["d_fake"], (1 + fake).clamp_min(0).mean())
    terms = phase.updates[1].terms(recipe.networks, batch, outputs)
    torch.testing.assert_close(terms["adversarial"], -0.5 * fake.mean())
    enlarged = {
        name: torch.nn.functional.interpolate(value, (64, 64), mode="bilinear") for name, value in outputs.items()
    }
    l1 = sum((enlarged[f"image{scale}"] - batch.image).abs().mean() for scale in range(5))
    torch.testing.assert_close(terms["l1"], 2 * l1)
    known = batch.semantics != IGNORE
    entropy = sum(
        -enlarged[f"logits{scale}"].log_softmax(1).gather(1, (batch.semantics * known)[:, None])[:, 0][known].mean()
        for scale in range(5)
    )
    torch.testing.assert_close(terms["segmentation"], 3 * entropy)


def test_a_batch_without_labels_trains_the_image():
    recipe, batch = build(Config.tiny()), make_batch((64, 64), ("semantics",))
    batch = dataclasses.replace(batch, semantics=torch.full_like(batch.semantics, IGNORE))
    phase, heads = recipe.phases[0], recipe.networks["generator"].heads
    start_phase(recipe, phase)
    grads = {}

    def keep(update, terms):
        grads[update.networks[0]] = [head.image[0].weight.grad for head in heads]

    terms = run_step(recipe, phase, batch, keep)
    assert terms["segmentation"] == 0
    assert all(term.isfinite() for term in terms.values())
    assert all(gradient.any() and gradient.isfinite().all() for gradient in grads["generator"])


def test_labels_beyond_the_classes_are_refused():
    recipe, batch = build(Config.tiny()), make_batch((64, 64), ("semantics",))
    batch.semantics[0, -1, -1] = 4
    with pytest.raises(ValueError, match="label 4 is not below num_classes = 4"):
        recipe.phases[0].forward(recipe.networks, batch)


def test_half_precision_stays_finite_and_judges_in_float32():
    generator, batch = tiny_generator(), make_batch((64, 64))
    seen = []
    generator.inference[0].register_forward_hook(lambda module, inputs, output: seen.extend(inputs))
    with torch.autocast("cpu", torch.bfloat16):
        predictions = generator(batch.image, batch.mask)
    assert all(prediction.isfinite().all() for prediction in predictions.values())
    features, _, probabilities, _ = seen
    assert (features.dtype, probabilities.dtype) == (torch.bfloat16, torch.float32)


def test_learning_rates_halve_twice():
    with torch.device("meta"):
        recipe = build(Config())
    for name in ("generator", "generator_d"):
        rate = recipe.phases[0].learning_rates[name]
        assert [rate(step) for step in (0, 149_999, 150_000, 225_000)] == [2e-4, 2e-4, 1e-4, 5e-5]


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="num_classes"):
        Config(num_classes=256)
    with pytest.raises(ValueError, match="refined_shares"):
        Config(refined_shares=(0.5, 0.5, 0.5, 1.5))
