import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from benchmarks.photographs import photograph
from datasets.duplicates import MAX_DISTANCE, near_pairs
from files.pictures import decode, difference_hash, fit


def found(ours, theirs, distance):
    return [
        tuple(int(part) for part in pair)
        for block in near_pairs(ours, theirs, distance)
        for pair in zip(*block, strict=True)
    ]


@pytest.mark.parametrize("distance", range(MAX_DISTANCE + 1))
def test_near_pairs_are_those_of_a_comparison_of_all_with_all(distance):
    """Random hashes, copies with a few bits turned, and many equal ones on both sides."""
    rng = np.random.default_rng(distance)
    ours = rng.integers(0, 2**64, 300, dtype=np.uint64)
    theirs = rng.choice(ours, 200)
    for bit in range(200):
        for turned in rng.choice(64, rng.integers(0, 2 * distance + 2), replace=False):
            theirs[bit] ^= np.uint64(1) << np.uint64(turned)
    ours[:40] = theirs[:20] = 0
    all_pairs = {
        (i, j, (int(a) ^ int(b)).bit_count())
        for i, a in enumerate(ours)
        for j, b in enumerate(theirs)
        if (int(a) ^ int(b)).bit_count() <= distance
    }
    pairs = found(ours, theirs, distance)
    assert set(pairs) == all_pairs
    assert len(pairs) == len(all_pairs) >= 800
    assert max(distance for *_, distance in pairs) == distance


def test_large_blocks_are_cut_and_nothing_is_lost(monkeypatch):
    monkeypatch.setattr("datasets.duplicates._BLOCK", 10)
    assert len(found(np.zeros(30, np.uint64), np.zeros(7, np.uint64), 3)) == 210


def test_distances_out_of_range_and_empty_sides():
    with pytest.raises(ValueError, match=r"distance must be in 0\.\.15, got 16"):
        found(np.zeros(1, np.uint64), np.zeros(1, np.uint64), 16)
    assert found(np.zeros(0, np.uint64), np.zeros(3, np.uint64), 4) == []


def test_the_hash_is_the_sign_of_differences_of_grey_means():
    image = photograph(3, 72)
    grey = np.asarray(Image.fromarray(image).convert("L"), float)
    means = grey.reshape(8, 9, 9, 8).mean(axis=(1, 3))
    bits = np.unpackbits(np.frombuffer(difference_hash(image), np.uint8)).reshape(8, 8).astype(bool)
    clear = np.abs(np.diff(means, axis=1)) > 1  # else rounding decides
    assert clear.sum() > 30
    assert np.array_equal(bits[clear], (np.diff(means, axis=1) > 0)[clear])


def test_copies_are_near_and_other_pictures_are_not():
    """Over forty pictures: compressed hard, made smaller, brightened; against all other pictures."""

    def bits(image):
        return int.from_bytes(difference_hash(fit(image, 64, "crop")))

    pictures = [photograph(seed, 128) for seed in range(40)]
    hashes = [bits(picture) for picture in pictures]
    for picture, known in zip(pictures, hashes, strict=True):
        image = Image.fromarray(picture)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=30)
        copies = [decode(buffer.getvalue()), np.array(image.resize((80, 80), Image.Resampling.BICUBIC)),
                  np.array(ImageEnhance.Brightness(image).enhance(0.9))]  # fmt: skip
        assert all((bits(copy) ^ known).bit_count() <= 6 for copy in copies)
    apart = [(a ^ b).bit_count() for n, a in enumerate(hashes) for b in hashes[:n]]
    assert np.median(apart) > 16
