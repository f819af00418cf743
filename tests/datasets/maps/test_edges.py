"""Edge maps are scikit-image's, and with a hole they know nothing of what is hidden."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import ndimage
from skimage import data
from skimage.color import rgb2gray
from skimage.data import astronaut
from skimage.feature import canny

from datasets.maps.edges import EdgeConfig, canny_edges, grey


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


@pytest.mark.parametrize("name", ["camera", "chelsea", "coffee", "coins", "page", "rocket"])
@pytest.mark.parametrize("sigma", [0.6, 2.0, 3.0])
def test_edges_of_photographs_are_scikit_images_to_the_pixel(name, sigma):
    picture = getattr(data, name)()[:301, :300]
    picture = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
    valid = np.random.default_rng(0).random(picture.shape[:2]) > 0.005
    config = EdgeConfig(sigma=sigma, low_threshold=0.03, high_threshold=0.12)
    for mask in (None, valid):
        expected = canny(rgb2gray(picture), sigma=sigma, low_threshold=0.03, high_threshold=0.12, mask=mask)
        assert expected.any()
        assert np.array_equal(canny_edges(picture, config, mask), expected)


def test_edges_of_drawings_and_noise_are_scikit_images_to_the_pixel():
    # Straight lines, plateaus and equal neighbours: where another order of additions would choose another pixel.
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (40, 57, 3), dtype=np.uint8), np.zeros((9, 9, 3), np.uint8)]
    for side in (3, 4, 16, 33):
        pictures.append(np.full((side, side, 3), 255, np.uint8))
        pictures[-1][side // 3 : -side // 3, side // 4 :] = rng.integers(0, 256, 3)
    pictures.append(np.kron(rng.integers(0, 2, (12, 12, 1)) * 255, np.ones((8, 8, 3))).astype(np.uint8))
    pictures.append(np.repeat(np.tri(64, dtype=np.uint8)[..., None] * 200, 3, axis=2))
    for picture in pictures:
        for sigma in (0.5, 1.0, 2.0):
            for low, high in ((0.0, 0.0), (0.0, 0.2), (0.1, 0.1), (0.02, 0.3)):
                config = EdgeConfig(sigma=sigma, low_threshold=low, high_threshold=high)
                expected = canny(rgb2gray(picture), sigma=sigma, low_threshold=low, high_threshold=high)
                assert np.array_equal(canny_edges(picture, config), expected)


def test_edges_depend_on_no_other_image_in_no_thread():
    pictures = [data.astronaut()[top : top + 200, top : top + 260] for top in range(0, 240, 10)]
    expected = [canny(rgb2gray(picture), sigma=2) for picture in pictures]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            edges = list(threads.map(lambda picture: canny_edges(picture, EdgeConfig()), pictures))
            assert all(map(np.array_equal, edges, expected))


def test_an_edge_just_as_strong_as_the_threshold_counts():
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, 16:] = 255
    smoothed = ndimage.gaussian_filter(rgb2gray(picture), 2, mode="constant")
    smoothed /= ndimage.gaussian_filter(np.ones((32, 32)), 2, mode="constant") + np.finfo(float).eps
    strongest = float(np.hypot(ndimage.sobel(smoothed, axis=0), ndimage.sobel(smoothed, axis=1))[1:-1, 1:-1].max())
    for high, is_edge in ((strongest, True), (np.nextafter(strongest, 9), False)):
        expected = canny(rgb2gray(picture), sigma=2, low_threshold=0.1, high_threshold=high)
        assert expected.any() == is_edge
        config = EdgeConfig(sigma=2.0, low_threshold=0.1, high_threshold=high)
        assert np.array_equal(canny_edges(picture, config), expected)


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
