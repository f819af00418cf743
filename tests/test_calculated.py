"""The calculated figures of a step, compared with those of a real one."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.batches import make_batch
from benchmarks.calculated import calculate
from jobs.generators import card
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
