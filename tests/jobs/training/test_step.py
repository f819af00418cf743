"""One training step: precision, micro-batches, clipping and averages, compared with plain PyTorch."""

import dataclasses

import pytest
import torch

from benchmarks.batches import make_batch
from jobs.generators import card
from jobs.training.settings import TrainConfig
from jobs.training.step import TrainingError, TrainingStep
from tests.jobs.generators.steps import build_tiny, run_step, start_phase
from tests.jobs.training.toy import Toy, build_toy

CPU = torch.device("cpu")


def build(name):
    return build_toy("toy", Toy(), 1) if name == "toy" else build_tiny(name)


def prepared(name="deepfill_v2", phase=0, **config):
    recipe = build(name)
    step = TrainingStep(recipe, TrainConfig(**config), CPU)
    step.start(recipe.phases[phase])
    return recipe, step


def batch_for(recipe, name, seed=1):
    side = 64 if name == "toy" else getattr(card(name).Config.tiny(), "image_size", 64)
    return make_batch((side, side), recipe.columns, num_samples=4, seed=seed)


def tensors(networks):
    return {f"{n}.{k}": v.clone() for n, network in networks.items() for k, v in network.state_dict().items()}


def differences(one, other):
    return {key for key in one if not torch.equal(one[key], other[key])}


@pytest.mark.parametrize("name", ["toy", "context_encoder", "deepfill_v1", "partial_conv", "edge_connect"])
def test_a_step_is_what_plain_pytorch_does_to_the_bit(name):
    recipe, step = prepared(name)
    plain = build(name)
    start_phase(plain, plain.phases[0])
    for number in range(2):
        batch = batch_for(recipe, name, seed=number)
        torch.manual_seed(7)
        terms = step(number, batch)
        torch.manual_seed(7)
        expected = run_step(plain, plain.phases[0], batch, step=number)
        assert {key: float(value) for key, value in terms.items()} == {k: float(v) for k, v in expected.items()}
    assert not differences(tensors(recipe.networks), tensors(plain.networks))


def test_micro_batches_give_the_terms_and_weights_of_the_whole():
    results = []
    for count in (1, 2, 4):
        recipe = build_toy("toy", Toy(norm=False), 1)
        for name, network in recipe.networks.items():  # SGD, whose steps show the scale of a gradient
            recipe.optimizers[name] = torch.optim.SGD(network.parameters(), lr=0.1)
        step = TrainingStep(recipe, TrainConfig(accumulate=count), CPU)
        step.start(recipe.phases[0])
        terms = step(0, make_batch((33, 40), num_samples=4))
        results.append((terms, tensors(recipe.networks)))
    for terms, weights in results[1:]:
        torch.testing.assert_close(terms, results[0][0], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(weights, results[0][1], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="4 samples cannot be split into 3 equal"):
        make_batch((33, 40), num_samples=4).micro_batches(3)


def test_gradients_are_clipped_over_all_networks_of_an_update():
    recipe, step = prepared(clip_norm=1e-3)
    rate = 0.5
    recipe.optimizers["generator"] = torch.optim.SGD(recipe.networks["generator"].parameters(), lr=rate)
    before = tensors({"generator": recipe.networks["generator"]})
    step(0, batch_for(recipe, "deepfill_v2"))
    after = tensors({"generator": recipe.networks["generator"]})
    moved = torch.cat([(after[key] - before[key]).flatten() for key in before])
    assert moved.norm() == pytest.approx(rate * 1e-3, rel=1e-3)


@pytest.mark.parametrize(("decay", "decays"), [(0.1, (0.1, 0.1)), (0.999, (1 / 10, 2 / 11))])
def test_the_average_is_that_of_the_weights_after_each_step_and_forgets_the_first_ones_sooner(decay, decays):
    recipe, step = prepared(ema_decay=decay)
    assert set(step.averages) == {"generator"}
    seen = []
    for number in range(3):
        step(number, batch_for(recipe, "deepfill_v2", seed=number))
        seen.append(tensors({"generator": recipe.networks["generator"]}))
    averaged = tensors({"generator": step.trained_networks["generator"]})
    second, third = decays
    for key, tensor in averaged.items():
        by_hand = third * (second * seen[0][key] + (1 - second) * seen[1][key]) + (1 - third) * seen[2][key]
        torch.testing.assert_close(tensor, by_hand, rtol=1e-5, atol=1e-7)
    assert step.trained_networks["generator_d"] is recipe.networks["generator_d"]


def test_running_statistics_are_averaged_like_the_weights_and_other_buffers_are_copied():
    recipe, step = prepared("toy", ema_decay=0.1)
    seen = []
    for number in range(2):
        step(number, batch_for(recipe, "toy", seed=number))
        seen.append(tensors({"generator": recipe.networks["generator"]}))
    averaged = tensors({"generator": step.trained_networks["generator"]})
    statistics = [key for key in averaged if "running" in key]
    assert len(statistics) == 2
    for key in statistics:
        torch.testing.assert_close(averaged[key], 0.1 * seen[0][key] + 0.9 * seen[1][key], rtol=1e-5, atol=1e-7)
    (count,) = (tensor for key, tensor in averaged.items() if "num_batches" in key)
    assert count == 2


def test_buffers_are_those_before_a_step_that_was_not_finite():
    recipe, step = prepared("context_encoder")
    batch = batch_for(recipe, "context_encoder")
    step(0, batch)
    before = tensors(recipe.networks)
    spoiled = dataclasses.replace(batch, image=batch.image * float("nan"))
    step(1, spoiled)
    assert step.skipped == 1
    assert not differences(before, tensors(recipe.networks))
    step(2, batch)
    assert step.skipped == 0
    assert differences(before, tensors(recipe.networks))


def test_too_many_steps_that_are_not_finite_end_the_training_with_the_term():
    recipe, step = prepared("context_encoder", max_skipped=2)
    batch = batch_for(recipe, "context_encoder")
    spoiled = dataclasses.replace(batch, image=batch.image * float("nan"))
    step(0, spoiled)
    with pytest.raises(TrainingError, match=r"is nan; 2 updates in a row were not applied"):
        step(1, spoiled)


def test_half_precision_halves_its_scale_when_gradients_overflow_and_goes_on():
    recipe, step = prepared(precision="fp16")
    batch = batch_for(recipe, "deepfill_v2")
    scale = step.state["loss_scale"]["scale"]
    before = tensors(recipe.networks)
    step.load_state({"skipped": 0, "loss_scale": {**step.state["loss_scale"], "scale": 2.0**60}})
    step(0, batch)
    assert step.skipped == 1
    assert not differences(before, tensors(recipe.networks))
    assert step.state["loss_scale"]["scale"] == 2.0**58  # both updates overflow at this scale
    step.load_state({"skipped": 0, "loss_scale": {**step.state["loss_scale"], "scale": scale}})
    step(1, batch)
    assert step.skipped == 0
    assert differences(before, tensors(recipe.networks))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_computes_nearly_the_same(precision):
    terms = []
    for chosen in ("no", precision):
        recipe, step = prepared(precision=chosen)
        terms.append(step(0, batch_for(recipe, "deepfill_v2")))
    for key, value in terms[0].items():
        assert terms[1][key] == pytest.approx(float(value), rel=0.05), key


def test_channels_innermost_compute_the_same():
    results = []
    for innermost in (False, True):
        recipe, step = prepared()
        batch = batch_for(recipe, "deepfill_v2")
        if innermost:
            recipe.networks["generator"].to(memory_format=torch.channels_last)
            batch = batch.channels_last()
        results.append(step(0, batch))
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_compiled_networks_compute_the_same():
    results = []
    for compiled in (False, True):
        recipe, step = prepared(compile=compiled)
        results.append(step(0, batch_for(recipe, "deepfill_v2")))
        assert (recipe.networks["generator"]._compiled_call_impl is not None) == compiled
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-3, atol=1e-5)
