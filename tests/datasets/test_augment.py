import numpy as np

from datasets.augment import Augment, AugmentConfig
from tests.photographs import photograph


def test_image_and_edge_flip_together_and_by_the_seed_alone():
    augment, other = Augment(AugmentConfig(flip=0.5)), Augment(AugmentConfig(flip=0.5))
    image = photograph(0, 32)
    edge = image[..., 0] // 128
    flipped = 0
    for seed in range(200):
        np.random.seed(seed % 3)
        out = augment(seed, {"image": image, "edge": edge})
        assert np.array_equal(out["image"][..., 0] // 128, out["edge"])
        assert np.array_equal(out["image"], other(seed, {"image": image})["image"])
        flipped += not np.array_equal(out["image"], image)
    assert 70 < flipped < 130


def test_no_flip_changes_nothing():
    image = photograph(1, 32)
    augment = Augment(AugmentConfig(flip=0.0))
    assert all(np.array_equal(augment(seed, {"image": image})["image"], image) for seed in range(20))
