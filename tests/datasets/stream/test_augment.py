import numpy as np

from benchmarks.photographs import photograph
from datasets.stream.augment import Augment, AugmentConfig


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


def test_labels_flip_with_the_image_and_left_becomes_right():
    image = photograph(2, 32)
    labels = (image[..., 0] // 64).astype(np.uint8)
    augment = Augment(AugmentConfig(flip=0.5), [(1, 2)])
    seen = set()
    for seed in range(30):
        out = augment(seed, {"image": image, "semantics": labels})
        is_flipped = not np.array_equal(out["image"], image)
        expected = np.array([0, 2, 1, 3])[labels][:, ::-1] if is_flipped else labels
        assert np.array_equal(out["semantics"], expected)
        assert set(out) == {"image", "semantics"}
        seen.add(is_flipped)
    assert seen == {True, False}
