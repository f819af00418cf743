"""The demo's photographs."""

import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from datasets.sources import SOURCES, open_source, source_config
from files.archives import read
from files.pictures import decode, fit
from tests.datasets.sources.trees import images_of


def test_photos_are_nine_photographs_in_441_squares() -> None:
    images = images_of("photos", None)
    assert len(images) == 9 * 49
    assert Counter(image.split for image in images) == SOURCES["photos"].card.counts
    assert Counter(Counter(image.group for image in images).values()) == {49: 9}
    assert [image.key for image in images] == sorted({image.key for image in images})
    assert images[0].key == "astronaut/r0c0"
    assert open_source(source_config("photos")).parameters() == {}


def test_no_photograph_is_in_two_splits() -> None:
    splits: dict[str | None, set[str]] = {}
    for image in images_of("photos", None):
        splits.setdefault(image.group, set()).add(image.split)
    assert {group for group, found in splits.items() if found == {"val"}} == {"chelsea", "flower"}
    assert all(len(found) == 1 for found in splits.values())


def test_squares_span_the_photograph_and_overlap() -> None:
    images = [image for image in images_of("photos", None) if image.group == "chelsea"]
    photograph = decode(read(images[0].locator))
    assert photograph.shape == (300, 451, 3)
    assert images[0].crop == (0, 0, 150, 150)
    assert images[-1].crop == (301, 150, 451, 300)
    assert images[1].crop == (50, 0, 200, 150)
    assert len({image.crop for image in images}) == 49
    assert all(fit(photograph, 128, "crop", image.crop).shape == (128, 128, 3) for image in images)


def test_photos_are_colour_and_found_without_importing_their_packages() -> None:
    script = (
        "import sys; from datasets.sources import open_source, source_config;"
        "images = open_source(source_config('photos')).images();"
        "print(len(images), 'skimage' in sys.modules, 'sklearn' in sys.modules, 'torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["441", "False", "False", "False"]
    for locator in {image.locator for image in images_of("photos", None)}:
        photograph = decode(read(locator)).astype(int)
        assert np.abs(photograph[..., 0] - photograph[..., 2]).mean() > 2


def test_photos_refuse_a_root() -> None:
    with pytest.raises(ValueError, match=r"photos takes no root, got /x; did you mean name: folder\?"):
        images_of("photos", Path("/x"))


def test_source_images_are_picklable_and_small() -> None:
    images = images_of("photos", None)
    assert pickle.loads(pickle.dumps(images)) == images
    assert len(pickle.dumps(images)) < 100 * len(images)
