"""The calculated figures of a step, compared with those of a real one."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.batches import make_batch
from benchmarks.calculated import calculate
from benchmarks.feeding import calculated_rates
from benchmarks.generators import RESULTS
from benchmarks.layout import measure_layout
from jobs.generators import card, names
from jobs.training.settings import TrainConfig
from jobs.training.step import TrainingStep
from tests.jobs.generators.steps import build_tiny


def test_the_operations_of_a_calculated_step_are_those_of_a_real_one():
    config = card("unet").Config.tiny()
    (row,) = calculate("unet", config, 64)
    recipe = build_tiny("unet")
    step = TrainingStep(recipe, TrainConfig(), torch.device("cpu"))
    (phase,) = recipe.phases
    step.start(phase)
    batch = make_batch((64, 64), recipe.columns, num_samples=recipe.batch_size)
    step(0, batch)
    with FlopCounterMode(display=False) as counter:
        step(0, batch)
    assert row["tflop"] * 1e12 == counter.get_total_flops() > 0
    assert row["launches"] > 100
    parameters = sum(p.numel() for network in recipe.networks.values() for p in network.parameters())
    assert row["peak_gib"] * 2**30 > 4 * 4 * parameters  # weights, gradients and two moments
    assert row["gigabytes"] * 1e9 > 7 * 4 * parameters  # the optimizer alone reads four and writes three of each


def test_operations_that_do_not_keep_channels_innermost_are_found():
    """Padding by reflection has no such kernel; context_encoder pads with zeros alone."""
    kept, lost = (measure_layout(name, card(name).Config.tiny(), 64) for name in ("context_encoder", "aot_gan"))
    assert kept["gigabytes"] > 0
    assert sum(kept["lost"].values()) <= 0.01 * 1e9 * kept["gigabytes"]
    assert lost["lost"].most_common(1)[0][0] == "reflection_pad2d"


def test_the_stored_figures_have_a_step_of_every_generator():
    rates = calculated_rates(sorted(RESULTS.glob("*-calculated.json"))[-1])
    assert rates.keys() == set(names())
    assert all(rate > 0 for rate in rates.values())
