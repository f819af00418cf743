"""The metrics of a pair equal scikit-image's and plain NumPy on photographs, grey, flat and extreme pictures."""

from itertools import product

import numpy as np
import pytest
from skimage import data
from skimage.color import rgb2gray
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from jobs.evaluation.metrics.pixels import composite_uint8, score_pair

HEIGHT, WIDTH = 61, 48


def checkerboard():
    levels = 255 * (np.indices((HEIGHT, WIDTH)).sum(axis=0) % 2)
    return np.repeat(levels[..., None], 3, axis=2).astype(np.uint8)


def grey(photo):
    return np.repeat(np.rint(255 * rgb2gray(photo)).astype(np.uint8)[..., None], 3, axis=2)


PHOTOGRAPHS = [picture[40 : 40 + HEIGHT, 90 : 90 + WIDTH] for picture in (data.astronaut(), data.coffee(), data.cat())]
FLAT = [np.full((HEIGHT, WIDTH, 3), level, np.uint8) for level in (0, 128, 255)]
PICTURES = {"astronaut": PHOTOGRAPHS[0], "coffee": PHOTOGRAPHS[1], "cat": PHOTOGRAPHS[2], "grey": grey(PHOTOGRAPHS[0]),
            "black": FLAT[0], "mid": FLAT[1], "white": FLAT[2], "checkerboard": checkerboard()}  # fmt: skip
FILLS = {"other photograph": PHOTOGRAPHS[1], "black": FLAT[0], "white": FLAT[2], "itself": None}
MASKS = {"empty": np.zeros((HEIGHT, WIDTH), np.uint8), "full": np.ones((HEIGHT, WIDTH), np.uint8),
         "corner": np.pad(np.ones((30, 20), np.uint8), ((0, HEIGHT - 30), (0, WIDTH - 20)))}  # fmt: skip


def reference(x, y, mask):
    """The definitions, in NumPy and scikit-image."""
    difference = np.abs(x.astype(float) - y)
    hole = difference[mask == 1]
    grey_x, grey_y = rgb2gray(x), rgb2gray(y)
    arguments = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    down, right = (np.abs(np.diff(y.astype(float), axis=axis)).mean() for axis in (0, 1))
    is_equal, total = not difference.any(), (grey_x + grey_y).sum()
    return {
        "l1_percent": 100 * difference.sum() / (255 * 3 * HEIGHT * WIDTH),
        "l1_hole_percent": 100 * hole.sum() / (255 * 3 * max(mask.sum(), 1)),
        "l2_percent": 100 * mean_squared_error(x / 255, y / 255),
        "l2_hole_percent": 100 * ((hole / 255) ** 2).sum() / (3 * max(mask.sum(), 1)),
        "psnr": 100 if is_equal else peak_signal_noise_ratio(x, y, data_range=255),
        "psnr_hole": 10 * np.log10(255**2 / (hole**2).mean()) if hole.any() else 100,
        "psnr_exact": float(is_equal),
        "ssim": structural_similarity(x, y, data_range=255, channel_axis=-1, **arguments),
        "mae_ratio": np.abs(grey_x - grey_y).sum() / total if total else 0,
        "tv_percent": 100 * (down + right) / 255,
    }


@pytest.mark.parametrize("name", PICTURES)
def test_every_metric_is_its_definition_with_every_fill_and_mask(name):
    x = PICTURES[name]
    for fill, mask in product(FILLS.values(), MASKS.values()):
        y = composite_uint8(x if fill is None else fill, x, mask)
        found = score_pair(x, y, mask)
        assert found.pop("tv_true_percent") == score_pair(x, x, mask)["tv_percent"]
        assert found == pytest.approx(reference(x, y, mask), rel=1e-5, abs=1e-9)
