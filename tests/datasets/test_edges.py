"""Edge maps are scikit-image's, and with a hole they know nothing of what is hidden."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2gray
from skimage.data import astronaut
from skimage.feature import canny

from datasets.edges import EdgeConfig, canny_edges, grey


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return astronaut()[:128, 100:260]


@pytest.fixture
def valid(image) -> np.ndarray:
    valid = np.ones(image.shape[:2], bool)
    valid[40:80, 50:110] = False
    valid[100:104] = False  # a stroke from border to border
    return valid


def test_grey_uses_the_weights_of_scikit_image(image):
    assert np.array_equal(grey(image), rgb2gray(image))
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert grey(primaries)[0] == pytest.approx([0.2125, 0.7154, 0.0721, 1])


def test_edges_are_scikit_images_at_its_own_thresholds(image):
    edges = canny_edges(image, EdgeConfig())
    assert edges.dtype == np.uint8
    assert set(np.unique(edges)) == {0, 1}
    assert np.array_equal(edges, canny(rgb2gray(image), sigma=2))


def test_every_setting_is_passed_on(image, valid):
    config = EdgeConfig(sigma=1.5, low_threshold=0.05, high_threshold=0.3)
    expected = canny(rgb2gray(image), sigma=1.5, low_threshold=0.05, high_threshold=0.3, mask=valid)
    assert np.array_equal(canny_edges(image, config, valid), expected)
    assert not np.array_equal(expected, canny(rgb2gray(image), sigma=2, mask=valid))


@pytest.mark.parametrize("sigma", [0.5, 2.0, 4.0])
def test_hidden_pixels_have_no_influence(image, valid, sigma):
    edges = canny_edges(image, EdgeConfig(sigma=sigma), valid)
    assert edges.any()
    for hidden in (0, 255, np.random.default_rng(0).integers(0, 256, image.shape)):
        changed = np.where(valid[..., None], image, hidden).astype(np.uint8)
        assert np.array_equal(canny_edges(changed, EdgeConfig(sigma=sigma), valid), edges)


def test_the_rim_of_the_hole_is_no_edge(valid):
    image = np.full((*valid.shape, 3), 200, np.uint8)
    image[~valid] = 0
    assert canny_edges(image, EdgeConfig()).any()
    assert not canny_edges(image, EdgeConfig(), valid).any()


def test_the_hole_has_no_edges(image, valid):
    assert not canny_edges(image, EdgeConfig(), valid)[~valid].any()
    assert not canny_edges(image, EdgeConfig(), np.zeros_like(valid)).any()


def test_the_border_of_the_image_is_no_edge(image):
    edges = canny_edges(image, EdgeConfig(sigma=0.5))
    assert not edges[[0, -1]].any()
    assert not edges[:, [0, -1]].any()


@pytest.mark.parametrize("settings", [{"sigma": 0.0}, {"sigma": -1.0}, {"low_threshold": 0.3}, {"low_threshold": -0.1}])
def test_settings_without_a_meaning_are_refused(settings):
    with pytest.raises(ValueError, match=r"must be"):
        EdgeConfig(**settings)


def test_arrays_of_the_wrong_kind_are_refused(image, valid):
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\)"):
        canny_edges(image / 255, EdgeConfig())
    with pytest.raises(ValueError, match=r"valid must be bool"):
        canny_edges(image, EdgeConfig(), valid.astype(np.uint8))
    with pytest.raises(ValueError, match=r"valid must be bool \(128, 160\)"):
        canny_edges(image, EdgeConfig(), valid.T)
