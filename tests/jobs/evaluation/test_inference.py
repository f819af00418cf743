"""A batch to inpaint is the conversion of what is visible, and of nothing else."""

import warnings

import numpy as np
import torch

from benchmarks.photographs import photograph
from datasets.maps.edges import EdgeConfig, canny_edges
from jobs.evaluation.inference import visible_batch


def test_a_batch_is_the_conversion_of_the_visible_pixels():
    images = np.stack([photograph(number, 32) for number in range(3)])
    masks = np.zeros((3, 32, 32), np.uint8)
    masks[:, 8:20, 4:28] = 1
    batch = visible_batch(images, masks, ["a", "b", "c"], columns=["edge", "semantics"], edges=EdgeConfig())
    for number in range(3):
        visible = np.where(masks[number][..., None] == 1, np.uint8(0), images[number])
        expected = torch.from_numpy(visible).permute(2, 0, 1).float() / 127.5 - 1
        assert torch.equal(batch.image[number], expected)
        assert torch.equal(batch.mask[number, 0], torch.from_numpy(masks[number]).float())
        edges = canny_edges(visible, EdgeConfig(), valid=masks[number] == 0)
        assert torch.equal(batch.edge[number, 0], torch.from_numpy(edges).float())
    assert batch.edge.any()
    assert batch.key == ("a", "b", "c")
    assert batch.semantics is None
    assert batch.seed is None
    assert visible_batch(images, masks, ["a", "b", "c"], columns=[], edges=EdgeConfig()).edge is None


def test_arrays_may_be_read_only_and_broadcast():
    image, mask = photograph(1, 32), np.zeros((2, 32, 32), np.uint8)
    mask[1, :8] = 1
    mask.flags.writeable = False
    images = np.broadcast_to(image, (2, 32, 32, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = visible_batch(images, mask, ["a", "b"], columns=[], edges=EdgeConfig())
    copied = visible_batch(images.copy(), mask.copy(), ["a", "b"], columns=[], edges=EdgeConfig())
    assert torch.equal(batch.image, copied.image)
    assert batch.image.stride() == copied.image.stride()
