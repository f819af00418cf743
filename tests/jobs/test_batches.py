import numpy as np
import torch

from datasets.edges import EdgeConfig
from jobs.batches import visible_batch
from tests.photographs import photograph


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
