import dataclasses

import numpy as np
import pytest
import torch

from benchmarks.photographs import photograph
from datasets.maps.edges import EdgeConfig
from jobs.evaluation.inference import visible_batch
from jobs.recipe.batch import Batch


def test_nothing_under_the_hole_reaches_a_batch():
    image, mask = photograph(5, 32), np.zeros((32, 32), np.uint8)
    mask[8:20, 4:28] = 1
    changed = np.where(mask[..., None] == 1, photograph(6, 32), image)
    assert not np.array_equal(image, changed)
    one, other = (
        visible_batch(i[None], mask[None], ["a"], columns=["edge"], edges=EdgeConfig()) for i in (image, changed)
    )
    assert torch.equal(one.image, other.image)
    assert torch.equal(one.edge, other.edge)
    assert one.edge.any()


def test_draws_are_uniform_and_depend_on_seed_and_purpose_alone():
    seeds = torch.arange(20_000)
    batch = Batch(image=torch.zeros(20_000, 3, 1, 1), mask=torch.zeros(20_000, 1, 1, 1), seed=seeds)
    first, second = batch.uniform(0), batch.uniform(1)
    for draws in (first, second):
        assert 0 <= draws.min() < 1e-3
        assert 1 - 1e-3 < draws.max() < 1
        assert ((draws * 10).long().bincount(minlength=10) - 2000).abs().max() < 200  # 4.7 deviations
    assert abs(torch.corrcoef(torch.stack((first, second)))[0, 1]) < 0.04
    assert abs(torch.corrcoef(torch.stack((first[1:], first[:-1])))[0, 1]) < 0.04
    part = dataclasses.replace(batch, seed=seeds[7:9])
    assert torch.equal(part.uniform(1), second[7:9])
    with pytest.raises(ValueError, match="no seeds"):
        dataclasses.replace(batch, seed=None).uniform(0)
