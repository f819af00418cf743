"""Metrics against numbers worked out by hand, scikit-image, scipy and torchvision."""

import hashlib
import io
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from skimage import data
from skimage.metrics import structural_similarity
from torch import nn

from jobs.evaluation.metrics import (
    NotComputed,
    Value,
    Weights,
    WeightsError,
    bootstrap_interval,
    composite_uint8,
    fid,
    fid_of_sums,
    fid_sums,
    inception,
    lpips,
    lpips_network,
    paired_difference,
    pairwise,
    ssim,
    to_uint8,
    tv_percent,
)


def grey(level, height=16, width=16):
    return np.full((height, width, 3), level, np.uint8)


def half_hole(height=16, width=16):
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 1
    return mask


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# 8 bits


def test_levels_are_rounded_half_up_and_clipped():
    outputs = np.array([-1, 0.5 / 127.5 - 1, 0.4999 / 127.5 - 1, 0, 1, 1.5, -np.inf, np.inf])
    assert to_uint8(outputs).tolist() == [0, 1, 0, 128, 255, 255, 0, 255]


def test_every_level_survives_the_way_to_float32_and_back():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(levels.astype(np.float32) / np.float32(127.5) - np.float32(1)), levels)


def test_tensors_become_pictures_with_channels_last():
    output = torch.zeros(2, 3, 4, 5, requires_grad=True, dtype=torch.bfloat16)
    assert to_uint8(output).shape == (2, 4, 5, 3)
    assert to_uint8(output[0]).shape == (4, 5, 3)
    with pytest.raises(ValueError, match="N, 3, H, W"):
        to_uint8(torch.zeros(2, 4, 5, 3))


def test_nan_is_no_grey_level():
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(np.array([0.0, np.nan]))


def test_composite_keeps_valid_pixels_and_takes_the_output_in_the_hole():
    image, output, mask = noise(2, 16, 16, 3), noise(2, 16, 16, 3, seed=1), half_hole()
    composite = composite_uint8(output, image, mask)
    assert composite.dtype == np.uint8
    np.testing.assert_array_equal(composite[:, :, 8:], image[:, :, 8:])
    np.testing.assert_array_equal(composite[:, :, :8], output[:, :, :8])
    np.testing.assert_array_equal(composite_uint8(output, image, np.stack([mask, mask])), composite)
    np.testing.assert_array_equal(composite_uint8(output[0], image[0], mask), composite[0])


def test_masks_of_another_shape_or_range_are_refused():
    image = grey(0)
    for mask in (np.ones((16, 8), np.uint8), half_hole() * 255, half_hole()[None]):
        with pytest.raises(ValueError, match="mask must be"):
            composite_uint8(image, image, mask)


def test_pictures_of_another_type_or_shape_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        pairwise(grey(0).astype(np.float32), grey(0), half_hole())
    with pytest.raises(ValueError, match="one shape"):
        pairwise(grey(0), grey(0, 16, 17), half_hole())
    with pytest.raises(ValueError, match="one picture"):
        pairwise(noise(2, 16, 16, 3), noise(2, 16, 16, 3), half_hole())


# Pairwise


def test_difference_of_one_level_gives_48_13_db():
    assert pairwise(grey(100), grey(101), half_hole())["psnr"] == pytest.approx(48.1308, abs=5e-5)


def test_difference_of_16_on_a_quarter_gives_30_07_db():
    mask = np.zeros((16, 16), np.uint8)
    mask[:8, :8] = 1
    scores = pairwise(grey(100), composite_uint8(grey(116), grey(100), mask), mask)
    assert scores["psnr"] == pytest.approx(30.0690, abs=5e-5)
    assert scores["psnr_hole"] == pytest.approx(scores["psnr"] - 6.0206, abs=5e-5)


def test_difference_of_51_on_half_gives_10_percent_l1_and_2_percent_l2():
    mask = half_hole()
    scores = pairwise(grey(200), composite_uint8(grey(149), grey(200), mask), mask)
    assert scores["l1_percent"] == pytest.approx(10, abs=1e-12)
    assert scores["l1_hole_percent"] == pytest.approx(20, abs=1e-12)
    assert scores["l2_percent"] == pytest.approx(2, abs=1e-12)
    assert scores["l2_hole_percent"] == pytest.approx(4, abs=1e-12)


def test_whole_l1_of_a_composite_is_hole_ratio_times_hole_l1():
    mask, image = (noise(16, 16) > 170).astype(np.uint8), noise(16, 16, 3)
    scores = pairwise(image, composite_uint8(noise(16, 16, 3, seed=2), image, mask), mask)
    assert scores["l1_percent"] == pytest.approx(mask.mean() * scores["l1_hole_percent"], rel=1e-12)


def test_equal_pictures_are_perfect_but_never_infinite():
    scores = pairwise(noise(16, 16, 3), noise(16, 16, 3), half_hole())
    tv = scores.pop("tv_percent")
    assert scores.pop("tv_true_percent") == tv
    assert scores.pop("ssim") == pytest.approx(1, abs=1e-12)
    assert scores.pop("psnr") == scores.pop("psnr_hole") == 100.0
    assert set(scores.values()) == {0.0}


def test_without_a_hole_the_hole_is_perfect():
    scores = pairwise(grey(0), grey(9), np.zeros((16, 16), np.uint8))
    assert (scores["l1_hole_percent"], scores["l2_hole_percent"], scores["psnr_hole"]) == (0.0, 0.0, 100.0)
    assert scores["psnr"] < 40


def test_psnr_is_averaged_over_images_not_pooled():
    # Differences of 25.5 and 2.55 would give 20 and 40 dB; 51 on a quarter of the pixels has the MSE of 25.5.
    quarter = np.zeros((20, 20), np.uint8)
    quarter[:10, :10] = 1
    twenty = pairwise(grey(0, 20, 20), composite_uint8(grey(51, 20, 20), grey(0, 20, 20), quarter), quarter)["psnr"]
    one_percent = np.zeros((20, 20), np.uint8)
    one_percent.ravel()[:1] = 1  # 1 of 400 pixels by 51: MSE 6.5025
    forty = pairwise(grey(0, 20, 20), composite_uint8(grey(51, 20, 20), grey(0, 20, 20), one_percent), one_percent)
    assert twenty == pytest.approx(20, abs=1e-12)
    assert forty["psnr"] == pytest.approx(40, abs=1e-12)
    assert np.mean([twenty, forty["psnr"]]) == pytest.approx(30, abs=1e-12)


def test_total_variation_of_stripes():
    stripes = np.zeros((6, 5, 3), np.uint8)
    stripes[:, 1::2] = 51  # every step to the right is 51, no step down
    assert tv_percent(stripes) == pytest.approx(20, abs=1e-12)
    assert tv_percent(stripes.transpose(1, 0, 2)) == pytest.approx(20, abs=1e-12)
    assert tv_percent(grey(7)) == 0


@pytest.mark.parametrize(("height", "width"), [(11, 11), (11, 40), (64, 48)])
def test_ssim_equals_scikit_image_on_noise(height, width):
    x, y = noise(height, width, 3), noise(height, width, 3, seed=1)
    assert ssim(x, y) == pytest.approx(reference_ssim(x, y), abs=1e-7)


def test_ssim_equals_scikit_image_on_a_photograph_with_a_blurred_hole():
    photo = data.astronaut()[:256, 128:384]
    blurred = photo.copy()
    blurred[64:192, 64:192] = scipy.ndimage.gaussian_filter(photo[64:192, 64:192], (3, 3, 0))
    assert ssim(photo, blurred) == pytest.approx(reference_ssim(photo, blurred), abs=1e-7)
    assert 0.5 < ssim(photo, blurred) < 0.99


def reference_ssim(x, y):
    arguments = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return structural_similarity(x, y, data_range=255, channel_axis=-1, **arguments)


def test_ssim_of_constants_is_the_luminance_term():
    a, b, c1 = 100, 150, 6.5025
    assert ssim(grey(a), grey(b)) == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-12)


def test_ssim_refuses_what_the_window_does_not_fit_in():
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(grey(0, 10, 30), grey(0, 10, 30))


# FID and LPIPS


class MeanColour(nn.Module):
    """Three features: the mean of each channel, in levels."""

    num_features = 3

    def forward(self, pictures):
        assert pictures.dtype == torch.uint8
        return pictures.double().mean(dim=(2, 3))


def dots(colours):
    """Pictures of one colour each: (N, 3) -> (N, 4, 4, 3)."""
    return np.broadcast_to(np.asarray(colours, np.uint8)[:, None, None], (len(colours), 4, 4, 3))


def test_fid_of_a_set_with_itself_is_zero():
    pictures = noise(40, 4, 4, 3)
    assert abs(fid(pictures, list(pictures), MeanColour(), min_images=2)) < 1e-3


def test_fid_of_a_shift_is_its_square():
    colours = np.random.default_rng(0).integers(20, 200, (50, 3))
    assert fid(dots(colours), dots(colours + np.array([0, 7, 0])), MeanColour(), min_images=2) == pytest.approx(
        49, abs=1e-6
    )


def test_fid_equals_the_formula_with_a_matrix_root():
    real, fake = (np.random.default_rng(seed).integers(0, 256, (60, 3)) for seed in (1, 2))
    fake[:, 1] = fake[:, 0] // 2
    s1, s2 = np.cov(real.T), np.cov(fake.T)
    expected = np.sum((real.mean(0) - fake.mean(0)) ** 2) + np.trace(s1 + s2 - 2 * scipy.linalg.sqrtm(s1 @ s2).real)
    for batch_size in (1, 7, 60):  # the last, shorter batch counts
        computed = fid(dots(real), dots(fake), MeanColour(), min_images=2, batch_size=batch_size)
        assert computed == pytest.approx(expected, rel=1e-6)


def test_fid_counted_in_parts_is_that_of_the_whole():
    rng = np.random.default_rng(8)
    real, fake = rng.integers(0, 256, (40, 3)), rng.integers(0, 200, (40, 3))
    parts = [fid_sums(dots(real[p]), dots(fake[p]), MeanColour()) for p in (slice(0, 7), slice(7, 30), slice(30, 40))]
    assert fid_of_sums(parts, min_images=40) == pytest.approx(
        fid(dots(real), dots(fake), MeanColour(), min_images=40), rel=1e-9
    )
    assert isinstance(fid_of_sums(parts, min_images=41), NotComputed)


def test_fid_of_few_images_is_not_reported():
    pictures = dots(np.zeros((2047, 3)))
    assert str(fid(pictures, pictures, MeanColour())) == "not computed: needs at least 2,048 images for FID, not 2,047"


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one list"):
        fid(dots(np.zeros((3, 3))), dots(np.zeros((2, 3))), MeanColour())
    with pytest.raises(ValueError, match="one list"):
        lpips(dots(np.zeros((3, 3))), dots(np.zeros((2, 3))), MeanColour())


def save(state, path):
    torch.save(state, path)
    return Weights(path, hashlib.sha256(path.read_bytes()).hexdigest())


def random_inception_state():
    from torchmetrics.image.fid import NoTrainInceptionV3

    class Unloaded(NoTrainInceptionV3):
        def load_state_dict(self, state):
            return None

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    torch.manual_seed(0)
    return Unloaded("inception-v3-compat", ["2048"], empty).state_dict()


def test_inception_is_read_from_the_file(tmp_path):
    state = random_inception_state()
    before = torch.get_rng_state()
    network = inception(save(state, tmp_path / "inception.pth"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(
        network.state_dict()["Mixed_7c.branch_pool.conv.weight"], state["Mixed_7c.branch_pool.conv.weight"]
    )
    assert not network.training
    assert network.use_antialias is False
    pictures = noise(2, 32, 32, 3)
    assert network(torch.from_numpy(pictures).permute(0, 3, 1, 2)).shape == (2, 2048)
    assert abs(fid(pictures, pictures, network, min_images=2)) < 1e-3


@pytest.fixture(scope="module")
def alexnet_weights(tmp_path_factory):
    from torchvision.models import alexnet

    torch.manual_seed(0)
    features = alexnet().features.state_dict()
    state = {f"features.{name}": tensor for name, tensor in features.items()}
    return save(state, tmp_path_factory.mktemp("weights") / "alexnet.pth")


def test_lpips_is_zero_for_equal_pictures_and_does_not_depend_on_the_batch(alexnet_weights):
    before = torch.get_rng_state()
    network = lpips_network(alexnet_weights, "alex")
    assert torch.equal(torch.get_rng_state(), before)
    real, fake = noise(5, 64, 64, 3), noise(5, 64, 64, 3, seed=1)
    fake[2] = real[2]
    distances = lpips(real, fake, network)
    assert distances.shape == (5,)
    assert distances.dtype == np.float64
    assert distances[2] == 0
    assert (np.delete(distances, 2) > 0).all()
    np.testing.assert_allclose(lpips(list(real), list(fake), network, batch_size=2), distances, rtol=1e-4)


def test_lpips_is_the_formula_of_the_paper(alexnet_weights):
    import torchmetrics.functional.image.lpips as shipped
    from torchvision.models import alexnet

    network = lpips_network(alexnet_weights, "alex")
    heads = torch.load(Path(shipped.__file__).parent / "lpips_models" / "alex.pth", map_location="cpu")
    trunk = alexnet().eval()
    trunk.load_state_dict(torch.load(alexnet_weights.path), strict=False)
    real, fake = noise(1, 64, 64, 3), noise(1, 64, 64, 3, seed=1)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    features = [((torch.from_numpy(p).float() / 127.5 - 1 - shift) / scale).permute(0, 3, 1, 2) for p in (real, fake)]
    expected = 0.0
    trunk.requires_grad_(False)
    for number, layer in enumerate(trunk.features[:12]):
        features = [layer(feature.clone()) for feature in features]
        if number in (1, 4, 7, 9, 11):  # Eq. 1: unit length over the channels, weighted squares, mean over the map
            first, second = (f / f.square().sum(1, keepdim=True).add(1e-8).sqrt() for f in features)
            head = heads[f"lin{(1, 4, 7, 9, 11).index(number)}.model.1.weight"]
            expected += float(((first - second).square() * head).sum(1).mean())
    assert lpips(real, fake, network)[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("build", [inception, lpips_network])
@pytest.mark.parametrize("weights", [None, Weights("/nowhere/at/all.pth", "00")])
def test_without_weights_there_is_a_reason_and_a_warning_if_a_file_was_named(build, weights, caplog):
    with caplog.at_level(logging.WARNING):
        network = build(weights)
    assert isinstance(network, NotComputed)
    assert "weights" in network.needs
    assert len(caplog.records) == (weights is not None)
    pictures = noise(2, 16, 16, 3)
    assert fid(pictures, pictures, network) is network
    assert lpips(pictures, pictures, network) is network


@pytest.mark.parametrize("build", [inception, lpips_network])
def test_wrong_weights_are_an_error(build, tmp_path):
    weights = save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="does not fit"):
        build(weights)
    with pytest.raises(WeightsError, match="SHA-256"):
        build(Weights(weights.path, "0" * 64))
    with pytest.raises(WeightsError, match="not a file of tensors"):
        build(save(torch.zeros(1), tmp_path / "tensor.pth"))


def test_code_in_a_file_of_weights_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploded",)

    with pytest.raises(WeightsError, match="not a file of tensors"):
        inception(save({"bomb": Bomb()}, tmp_path / "bomb.pth"))
    assert not (tmp_path / "exploded").exists()


def test_importing_metrics_loads_no_torch():
    heavy = "{'torch', 'torchmetrics', 'matplotlib', 'cv2'}"
    code = f"import sys, jobs.evaluation.metrics; sys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parents[2])


# Intervals


def test_constant_values_have_an_interval_without_width():
    assert bootstrap_interval([0.1] * 9, list("aaabbbccc"), seed=1) == Value(0.1, 0.1, 0.1)


def test_the_seed_decides_and_nothing_else():
    values, images = np.random.default_rng(0).normal(size=300), [f"image {n // 3}" for n in range(300)]
    first = bootstrap_interval(values, images, seed=1)
    assert first == bootstrap_interval(values, images, seed=1)
    assert first != bootstrap_interval(values, images, seed=2)
    assert first.mean == pytest.approx(values.mean(), abs=1e-12)


def test_interval_of_a_mean_is_1_96_standard_errors():
    values = np.random.default_rng(0).normal(5, 2, size=2000)
    interval = bootstrap_interval(values, np.arange(2000), seed=1)
    half = 1.96 * values.std() / np.sqrt(2000)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_images_are_resampled_with_all_their_masks():
    # Nine equal masks on each image are worth one: nine times the pairs, the interval of the images alone.
    values = np.random.default_rng(0).normal(size=100)
    alone = bootstrap_interval(values, np.arange(100), seed=1)
    together = bootstrap_interval(values.repeat(9), np.arange(100).repeat(9), seed=1)
    assert together.low == pytest.approx(alone.low, abs=1e-12)
    assert together.high == pytest.approx(alone.high, abs=1e-12)


def test_interval_agrees_with_a_slow_loop_over_unequal_images():
    values, images = np.arange(12.0) ** 2, np.array(list("aabbbbcdddef"))
    rng, means = np.random.default_rng(5), []
    for _ in range(4000):
        chosen = rng.choice(list("abcdef"), size=6)
        means.append(np.concatenate([values[images == image] for image in chosen]).mean())
    interval = bootstrap_interval(values, images.tolist(), seed=1, samples=4000)
    assert (interval.low, interval.high) == pytest.approx(np.percentile(means, (2.5, 97.5)), rel=0.05)


def test_difference_of_a_method_with_itself_is_zero():
    values, images = np.random.default_rng(0).random(30), np.arange(30) // 3
    assert paired_difference(values, values, images, seed=1) == Value(0, 0, 0)


def test_paired_difference_is_tighter_than_two_intervals():
    rng = np.random.default_rng(0)
    difficulty, images = rng.normal(10, 5, size=200), np.arange(200)
    first, second = difficulty + rng.normal(0, 0.1, 200), difficulty + 0.2
    difference = paired_difference(first, second, images, seed=1)
    assert difference.high < 0
    assert bootstrap_interval(first, images, seed=1).high > bootstrap_interval(second, images, seed=1).low


def test_values_without_images_or_with_nan_are_refused():
    for values, images in (([], []), ([1.0], ["a", "b"])):
        with pytest.raises(ValueError, match="one image per value"):
            bootstrap_interval(values, images, seed=1)
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval([np.nan], ["a"], seed=1)
    with pytest.raises(ValueError, match="same pairs"):
        paired_difference([1.0], [1.0, 2.0], ["a", "b"], seed=1)
