"""How far a composite is from the truth: L1, L2, PSNR, SSIM, TV per image; FID and LPIPS over sets; intervals of means.

Pictures are uint8 RGB arrays, (H, W, 3) or (N, H, W, 3), masks are (H, W) or (N, H, W), 1 = hole. Pairwise metrics are
float64, one image at a time, to be averaged by the caller over all (image, mask) pairs. Feature networks are passed in
and their weights are files on disk: nothing here downloads, and without the file there is a reason instead of a number.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.ndimage import correlate1d

from files.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

logger = logging.getLogger(__name__)

PSNR_EXACT = 100.0
"""PSNR in dB of two equal pictures, by definition: an infinite one could not be averaged."""

FID_MIN_IMAGES = 2048
"""Below as many images as features the covariance is singular, and FID is no longer reported."""


class WeightsError(UserError):
    """A file of feature weights is not the file that was asked for, or does not fit the network."""


@dataclass(frozen=True)
class Weights:
    """A file of feature weights.

    path: of the file.
    sha256: the digest that it must have, in hex.
    """

    path: str | Path
    sha256: str


@dataclass(frozen=True)
class NotComputed:
    """Stands where a number would, with what is missing for it."""

    needs: str

    def __str__(self) -> str:
        return f"not computed: needs {self.needs}"


@dataclass(frozen=True)
class Value:
    """A mean and, where known, its 95 % interval."""

    mean: float
    low: float | None = None
    high: float | None = None


def to_uint8(output: np.ndarray | Tensor) -> np.ndarray:
    """Turn a network's output in [-1, 1] into a picture: floor(clip((y + 1) * 127.5, 0, 255) + 0.5), in float64.

    output: a tensor, (N, 3, H, W) or (3, H, W), becomes (N, H, W, 3) or (H, W, 3); a float array keeps its layout.
    Values outside the range are clipped. Raises ValueError for NaN, which is no grey level, and for a tensor of
    another shape.
    """
    if not isinstance(output, np.ndarray):
        if output.ndim not in (3, 4) or output.shape[-3] != 3:
            raise ValueError(
                f"output must be (N, 3, H, W) or (3, H, W), got {tuple(output.shape)}; pass a tensor as is"
            )
        output = np.moveaxis(output.detach().double().cpu().numpy(), -3, -1)
    if np.isnan(output).any():
        raise UserError("output holds NaN; the generator diverged, nothing can be scored")
    # Half up: numpy's and torch's round go half to even, and truncation would bias by half a grey level. Multiplied
    # out, as y + 1 would lose the last bits of y and with them the ties.
    level = np.clip(output.astype(np.float64) * 127.5 + 127.5, 0, 255)
    return np.floor(level + 0.5).astype(np.uint8)


def composite_uint8(output8: np.ndarray, image8: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The output in the hole and the image elsewhere, bit for bit.

    output8, image8: uint8 (H, W, 3) or (N, H, W, 3); mask: (H, W) or (N, H, W), 0 or 1, one mask for all N is fine.
    """
    _check_pictures(output8, image8)
    return np.where(_is_hole(mask, image8.shape)[..., None], output8, image8)


def _check_pictures(*pictures: np.ndarray) -> None:
    for picture in pictures:
        if picture.dtype != np.uint8 or picture.ndim not in (3, 4) or picture.shape[-1] != 3:
            raise ValueError(
                f"pictures must be uint8 (H, W, 3) or (N, H, W, 3), got {picture.dtype} {picture.shape}; use to_uint8"
            )
        if picture.shape != pictures[0].shape:
            raise ValueError(f"pictures must have one shape, got {pictures[0].shape} and {picture.shape}")


def _is_hole(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The mask as bool, checked against the shape of the pictures it belongs to."""
    if mask.shape not in (shape[:-1], shape[-3:-1]):
        raise ValueError(f"mask must be {shape[:-1]} for pictures {shape}, got {mask.shape}; 1 = hole")
    hole = mask == 1
    if np.count_nonzero(hole) != np.count_nonzero(mask):
        raise ValueError(f"mask must be exactly 0 or 1 (1 = hole), got {mask.dtype} up to {mask.max()}")
    return hole


def pairwise(image8: np.ndarray, composite8: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """All metrics of one composite (H, W, 3) against the truth (H, W, 3), with the hole of mask (H, W).

    l1_percent, l2_percent: 100 * mean |x - y| / 255 and 100 * mean (x - y)^2 / 255^2 over all values of the picture;
    `_hole` are the same over the hole's values only. psnr, psnr_hole: 10 log10(255^2 / MSE) in dB. ssim: see `ssim`.
    tv_percent of the composite is to be read beside tv_true_percent of the truth: closer is better, lower is not.
    A mask without a hole leaves nothing to fill: the hole's l1 and l2 are 0, its PSNR 100.
    """
    if image8.ndim != 3:
        raise ValueError(f"pairwise scores one picture (H, W, 3), got {image8.shape}; call it once per image")
    _check_pictures(image8, composite8)
    difference = image8.astype(np.float64) - composite8
    in_hole = difference[_is_hole(mask, image8.shape)]
    return {
        "l1_percent": _l1_percent(difference),
        "l1_hole_percent": _l1_percent(in_hole),
        "l2_percent": _l2_percent(difference),
        "l2_hole_percent": _l2_percent(in_hole),
        "psnr": _psnr(difference),
        "psnr_hole": _psnr(in_hole),
        "ssim": ssim(image8, composite8),
        "tv_percent": tv_percent(composite8),
        "tv_true_percent": tv_percent(image8),
    }


def _l1_percent(difference: np.ndarray) -> float:
    return 100 * float(np.abs(difference).mean()) / 255 if difference.size else 0.0


def _l2_percent(difference: np.ndarray) -> float:
    return 100 * _mse(difference) / 255**2


def _psnr(difference: np.ndarray) -> float:
    mse = _mse(difference)
    return 10 * float(np.log10(255**2 / mse)) if mse else PSNR_EXACT


def _mse(difference: np.ndarray) -> float:
    return float(np.square(difference).mean()) if difference.size else 0.0


def tv_percent(picture8: np.ndarray) -> float:
    """Total variation of a picture (H, W, 3): the mean step to the right plus the mean step down, in % of 255."""
    x = picture8.astype(np.float64)
    return sum(100 * float(np.abs(np.diff(x, axis=axis)).mean()) / 255 for axis in (0, 1) if x.shape[axis] > 1)


_SSIM_RADIUS = 5
_SSIM_WINDOW = np.exp(-0.5 * (np.arange(-_SSIM_RADIUS, _SSIM_RADIUS + 1) / 1.5) ** 2)
_SSIM_WINDOW /= _SSIM_WINDOW.sum()


def ssim(image8: np.ndarray, composite8: np.ndarray) -> float:
    """Structural similarity of two pictures (H, W, 3), at most 1; float64, mean over the map and R, G, B.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, Eq. 13, as MATLAB
    computes it: Gaussian window 11 x 11, sigma 1.5, no padding, L = 255, K1 = 0.01, K2 = 0.03.
    Raises ValueError for a picture that the window does not fit in.
    """
    if min(image8.shape[:2]) < len(_SSIM_WINDOW):
        raise UserError(f"SSIM needs at least {len(_SSIM_WINDOW)} x {len(_SSIM_WINDOW)} pixels, got {image8.shape}")
    x, y = image8.astype(np.float64), composite8.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mu_x, mu_y, x_x, y_y, x_y = (_window_mean(z) for z in (x, y, x * x, y * y, x * y))
    variances = (x_x - mu_x**2) + (y_y - mu_y**2)
    covariance = x_y - mu_x * mu_y
    numerator = (2 * mu_x * mu_y + c1) * (2 * covariance + c2)
    return float((numerator / ((mu_x**2 + mu_y**2 + c1) * (variances + c2))).mean())


def _window_mean(x: np.ndarray) -> np.ndarray:
    """(H, W, C) -> (H - 10, W - 10, C): the window's weighted mean wherever it fits; separable, hence two passes."""
    inner = slice(_SSIM_RADIUS, -_SSIM_RADIUS)
    columns = correlate1d(x, _SSIM_WINDOW, axis=0)[inner]
    return correlate1d(columns, _SSIM_WINDOW, axis=1)[:, inner]


FidSums = dict[str, np.ndarray]
"""Sums over the features of true pictures and composites: those of two sets add up to those of their union."""


def fid(
    real8: Sequence[np.ndarray] | np.ndarray,
    fake8: Sequence[np.ndarray] | np.ndarray,
    network: nn.Module | NotComputed,
    *,
    min_images: int = FID_MIN_IMAGES,
    batch_size: int = 32,
) -> float | NotComputed:
    """Frechet distance between the features of the true pictures and of the composites of the same list; 0 = alike.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017: |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2),
    covariances with N - 1, float64. It is biased upward by about 1/N: compare at equal N and equal list only.
    real8, fake8: N uint8 pictures (H, W, 3) each, all of one size. network: `inception(weights)` on any device, or a
    module with an integer `num_features` that maps uint8 (N, 3, H, W) to float (N, num_features).
    """
    if isinstance(network, NotComputed):
        return network
    _check_equally_many(real8, fake8)
    if len(real8) < min_images:
        return _too_few(len(real8), min_images)
    return fid_of_sums([fid_sums(real8, fake8, network, batch_size=batch_size)], min_images=min_images)


def fid_sums(real8: Sequence, fake8: Sequence, network: nn.Module, *, batch_size: int = 32) -> FidSums:
    """What `fid_of_sums` needs of some of the pictures; arguments as of `fid`."""
    _check_equally_many(real8, fake8)
    device = _device_of(network)
    # Sums and covariances are float64 in any case. `set_dtype(float64)` would also turn the network to float64, which
    # those who published numbers did not.
    distance = _frechet(network).to(device)
    for real, fake in _batches(real8, fake8, batch_size):
        distance.update(real.to(device), real=True)
        distance.update(fake.to(device), real=False)
    return {name: value.cpu().numpy() for name, value in distance.metric_state.items()}


def fid_of_sums(parts: Sequence[FidSums], *, min_images: int = FID_MIN_IMAGES) -> float | NotComputed:
    """FID of all the pictures whose sums are given, in whatever parts they were counted."""
    import torch

    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    if total["real_features_num_samples"] < min_images:
        return _too_few(int(total["real_features_num_samples"]), min_images)
    features = torch.nn.Identity()
    features.num_features = len(total["real_features_sum"])
    distance = _frechet(features)
    for name, value in total.items():
        setattr(distance, name, torch.as_tensor(value))
    distance.orig_dtype = torch.float64
    distance._update_count = 1  # its states were set, which it would warn about
    return float(distance.compute())


def _frechet(network: nn.Module) -> Any:
    from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(feature=network)


def _too_few(count: int, min_images: int) -> NotComputed:
    return NotComputed(f"at least {min_images:,} images for FID, not {count:,}")


def lpips(
    real8: Sequence[np.ndarray] | np.ndarray,
    fake8: Sequence[np.ndarray] | np.ndarray,
    network: nn.Module | NotComputed,
    *,
    batch_size: int = 32,
) -> np.ndarray | NotComputed:
    """Learned perceptual distance of each of N pairs of uint8 pictures (H, W, 3), of one size: float64 (N,), 0 = alike.

    Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018, Eq. 1, version 0.1,
    native size. network: `lpips_network(weights, trunk)` on any device, or a module of two float (N, 3, H, W) in
    [-1, 1] with N values. Values of different trunks are not comparable.
    """
    if isinstance(network, NotComputed):
        return network
    import torch

    _check_equally_many(real8, fake8)
    device, distances = _device_of(network), [np.zeros(0)]
    with torch.no_grad():
        for pair in _batches(real8, fake8, batch_size):
            real, fake = (pictures.to(device).float() / 127.5 - 1 for pictures in pair)
            distances.append(network(real, fake).flatten().double().cpu().numpy())
    return np.concatenate(distances)


def inception(weights: Weights | None) -> nn.Module | NotComputed:
    """The network of FID: Inception-v3 of 2015-12-05, 2048 features, TF1's bilinear resize without antialiasing.

    weights: the file `weights-inception-2015-12-05-6726825d.pth` of torch-fidelity (pytorch-fid's `pt_inception-...`
    is the same network). Raises WeightsError for a wrong checksum or content.
    """
    state = _load_state(weights, "Inception-v3 weights (2015-12-05) for FID")
    if isinstance(state, NotComputed):
        return state
    import torch
    from torchmetrics.image.fid import NoTrainInceptionV3

    # torch-fidelity unpickles whatever it is given; it gets what was loaded as mere tensors, not the file.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    try:
        with torch.random.fork_rng(devices=[]):
            network = NoTrainInceptionV3("inception-v3-compat", ["2048"], buffer, antialias=False)
    except RuntimeError as error:
        raise WeightsError(f"{weights.path}: does not fit Inception-v3 of torch-fidelity: {error}") from error
    network.num_features = 2048
    return network


def lpips_network(weights: Weights | None, trunk: Literal["alex", "vgg"] = "alex") -> nn.Module | NotComputed:
    """The network of LPIPS 0.1: torchvision's AlexNet or VGG-16 from the file, linear heads as torchmetrics ships them.

    weights: torchvision's ImageNet file, `alexnet-owt-7be5be79.pth` or `vgg16-397923af.pth`. Raises WeightsError for a
    wrong checksum or content.
    """
    state = _load_state(weights, {"alex": "AlexNet", "vgg": "VGG-16"}[trunk] + " weights (ImageNet) for LPIPS")
    if isinstance(state, NotComputed):
        return state
    import torch

    # The public class has no way to take a file: it would download the trunk as it is constructed.
    from torchmetrics.functional.image.lpips import _NoTrainLpips

    with torch.random.fork_rng(devices=[]):
        network = _NoTrainLpips(net=trunk, pnet_rand=True)
    try:  # torchvision's features.3.bias is called slice2.3.bias here, with the number kept
        trunk_state = {name: state["features." + name.split(".", 1)[1]] for name in network.net.state_dict()}
        network.net.load_state_dict(trunk_state)
    except (KeyError, RuntimeError) as error:
        raise WeightsError(f"{weights.path}: does not fit the trunk {trunk!r} of torchvision: {error}") from error
    return network


def _load_state(weights: Weights | None, needs: str) -> dict[str, Any] | NotComputed:
    """The file's tensors by name, running no code in it; NotComputed if none is named, or, with a warning, if it is
    not there."""
    if weights is None:
        return NotComputed(needs)
    try:
        content = Path(weights.path).read_bytes()
    except FileNotFoundError:
        logger.warning("%s: no such file of %s; the metric is not computed", weights.path, needs)
        return NotComputed(needs)
    digest = hashlib.sha256(content).hexdigest()
    if digest != weights.sha256.lower():
        raise WeightsError(f"{weights.path}: SHA-256 is {digest}, expected {weights.sha256}; fetch {needs} again")
    import pickle

    import torch

    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsError(f"{weights.path}: not a file of tensors by name: {error}") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{weights.path}: not a file of tensors by name but of one {type(state).__name__}")
    return state


def _check_equally_many(real8: Sequence[np.ndarray], fake8: Sequence[np.ndarray]) -> None:
    if len(real8) != len(fake8):
        raise ValueError(f"truth and composites must be one list, got {len(real8)} and {len(fake8)} pictures")


def _batches(real8: Sequence, fake8: Sequence, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Both lists side by side as uint8 tensors (n, 3, H, W); the last batch is shorter, nothing is dropped."""
    import torch

    for start in range(0, len(real8), batch_size):
        real, fake = (np.stack(list(pictures[start : start + batch_size])) for pictures in (real8, fake8))
        _check_pictures(real, fake)
        yield tuple(torch.from_numpy(np.ascontiguousarray(np.moveaxis(p, -1, 1))) for p in (real, fake))


def _device_of(network: nn.Module) -> Any:
    return next((parameter.device for parameter in network.parameters()), "cpu")


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, images: Sequence[Hashable], *, seed: int, samples: int = 2000
) -> Value:
    """Mean of the values and its 95 % percentile interval over resampled images.

    values: one finite number per (image, mask) pair; images: the key of each pair's image. Whole images are drawn with
    replacement, all their masks together, since masks on one image are dependent. Equal images in equal order and an
    equal seed draw the same images, whatever the values. One image alone gives an interval without width: it says
    nothing about others. Raises ValueError for no values, other than finite ones, or lengths that differ.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) != len(images) or not len(values):
        raise ValueError(f"one image per value and at least one, got values {values.shape} and {len(images)} images")
    if not np.isfinite(values).all():
        raise ValueError("values must be finite; a metric returned NaN or infinity")
    ids = {image: number for number, image in enumerate(dict.fromkeys(images))}
    image_of = np.array([ids[image] for image in images])
    # Summed as distances from one of them: constant values then give exactly zero width.
    origin = values[0]
    sums = np.bincount(image_of, weights=values - origin)
    means = origin + _resampled_means(sums, np.bincount(image_of), np.random.default_rng(seed), samples)
    low, high = np.percentile(means, (2.5, 97.5))
    return Value(float(origin + (values - origin).mean()), float(low), float(high))


def _resampled_means(sums: np.ndarray, sizes: np.ndarray, rng: np.random.Generator, samples: int) -> np.ndarray:
    """(samples,) means over the pairs of N images drawn with replacement; sums and sizes (N,) are per image."""
    num_images, means = len(sums), []
    chunk = max(1, 2**20 // num_images)
    for start in range(0, samples, chunk):
        rows = min(chunk, samples - start)
        draws = rng.integers(num_images, size=(rows, num_images)) + num_images * np.arange(rows)[:, None]
        counts = np.bincount(draws.ravel(), minlength=rows * num_images).reshape(rows, num_images)  # multinomial
        means.append((counts @ sums) / (counts @ sizes))
    return np.concatenate(means)


def paired_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    images: Sequence[Hashable],
    *,
    seed: int,
    samples: int = 2000,
) -> Value:
    """Mean of first - second over the same (image, mask) pairs, and its 95 % interval as of `bootstrap_interval`.

    They differ significantly if 0 lies outside; much tighter than two separate intervals.
    """
    if len(first) != len(second):
        raise ValueError(f"both must score the same pairs, got {len(first)} and {len(second)} values")
    return bootstrap_interval(np.subtract(first, second, dtype=np.float64), images, seed=seed, samples=samples)
