"""The memory of the process that collects scores, and of the one that compares rows, does not grow with the suite."""

import numpy as np
import pytest
import torch

from jobs.checks.apart import run_apart
from jobs.checks.probe import peak_bytes
from jobs.evaluation.comparison import compare_rows
from jobs.evaluation.loop import PartResult
from jobs.evaluation.metrics.value import Missing
from jobs.evaluation.parts import Parts
from jobs.evaluation.results import Score
from jobs.evaluation.row_scores import rows_of
from jobs.evaluation.settings import EvaluateConfig
from jobs.evaluation.summary import summarise

BINS = tuple("abcdef")
ROWS = ("first", "second", "third")
METRICS = ("l1_hole_percent", "l1_percent", "psnr", "psnr_hole", "ssim", "mae_ratio")
IMAGES_PER_PART = 64


def collect(arguments, say):
    """Add made-up parts one after another, and summarise them. Returns the highest resident memory in bytes."""
    folder, num_images = arguments
    parts = Parts(folder / "parts", "identity")
    rng = np.random.default_rng(0)
    for first in range(0, num_images, IMAGES_PER_PART):
        keys = [f"val/{number:06d}" for number in range(first, min(first + IMAGES_PER_PART, num_images))]
        scores = [
            Score(row=row, key=key, bin=bin, hole_ratio=0.1, values=dict(zip(METRICS, rng.random(6), strict=True)))
            for key in keys
            for row in ROWS
            for bin in BINS
        ]
        parts.add(PartResult(first=first, keys=keys, scores=scores, missing={"fid": Missing("no weights")}))
    summarise(parts, folder / "scores.parquet", EvaluateConfig(bootstrap_samples=500))
    return peak_bytes(torch.device("cpu"))


def compare(arguments, say):
    """Compare all rows with each other. Returns the highest resident memory in bytes."""
    folder, _ = arguments
    found = compare_rows(rows_of(folder / "scores.parquet"), bins=BINS, samples=500)
    assert len(found) == len(METRICS) * 3 * (1 + len(BINS))
    return peak_bytes(torch.device("cpu"))


@pytest.mark.slow
def test_a_hundred_times_as_many_scores_cost_the_driver_and_the_report_few_bytes_each(tmp_path):
    peaks = {}
    for num_images in (84, 8400):  # 500 and 50,000 pairs
        folder = tmp_path / str(num_images)
        folder.mkdir()
        peaks[num_images] = [run_apart(work, (folder, num_images)) for work in (collect, compare)]
    for small, large in zip(*peaks.values(), strict=True):
        print(f"{small / 2**20:.0f} MB, {large / 2**20:.0f} MB")
        assert large < 1.2 * small
