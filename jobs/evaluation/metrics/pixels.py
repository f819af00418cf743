"""8-bit composites and the metrics of one pair of pictures: L1, L2, PSNR, TV, and those of structure.ssim.

Pictures are uint8 RGB arrays, (H, W, 3) or (N, H, W, 3). Masks are (H, W) or (N, H, W), exactly 0 or 1, 1 = hole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from files.colours import GREY_WEIGHTS
from files.errors import UserError
from jobs.evaluation.metrics.structure import TrueImage, similarities

if TYPE_CHECKING:
    from torch import Tensor

PSNR_EXACT = 100.0
"""PSNR in dB of two equal pictures, by definition: an infinite value could not be averaged."""


def to_uint8(output: np.ndarray | Tensor) -> np.ndarray | Tensor:
    """Convert a network's output in [-1, 1] to 8 bits: floor(clip((y + 1) * 127.5, 0, 255) + 0.5), in float64.

    output: a tensor, (N, 3, H, W) or (3, H, W), or a float array of any shape. Values outside the range are clipped.
    Returns uint8: a tensor (N, H, W, 3) or (H, W, 3) on the same device, or an array of the same shape.
    Raises UserError for NaN, ValueError for a tensor of another shape.
    """
    # Rounded half up: numpy and torch round half to even, and truncation would lower the mean by half a grey level.
    # The product is expanded because y + 1 would lose the last bits of y, and with them the ties.
    if isinstance(output, np.ndarray):
        _check_numbers(np.isnan(output).any())
        level = np.clip(output.astype(np.float64) * 127.5 + 127.5, 0, 255)
        return np.floor(level + 0.5).astype(np.uint8)
    if output.ndim not in (3, 4) or output.shape[-3] != 3:
        raise ValueError(
            f"output must be (N, 3, H, W) or (3, H, W), got {tuple(output.shape)}; pass the tensor unchanged"
        )
    output = output.detach().movedim(-3, -1).contiguous()
    _check_numbers(output.isnan().any())
    return (output.double() * 127.5 + 127.5).clamp(0, 255).add(0.5).floor().byte()


def _check_numbers(has_nan: np.bool_ | Tensor) -> None:
    if has_nan:
        raise UserError("output contains NaN: the generator has diverged and cannot be scored")


def composite_uint8(output8: np.ndarray, image8: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Take the output in the hole and the image elsewhere, bit for bit.

    output8, image8: uint8 (H, W, 3) or (N, H, W, 3).
    mask: (H, W) or (N, H, W), 0 or 1; one mask (H, W) may serve all N pictures.
    Returns uint8 in the shape of the pictures.
    """
    check_pictures(output8, image8)
    return np.where(_is_hole(mask, image8.shape)[..., None], output8, image8)


def check_pictures(*pictures: np.ndarray) -> None:
    """Raise ValueError unless all are uint8 (H, W, 3) or (N, H, W, 3) and of one shape."""
    for picture in pictures:
        if picture.dtype != np.uint8 or picture.ndim not in (3, 4) or picture.shape[-1] != 3:
            raise ValueError(
                f"pictures must be uint8 (H, W, 3) or (N, H, W, 3), got {picture.dtype} {picture.shape}; use to_uint8"
            )
        if picture.shape != pictures[0].shape:
            raise ValueError(f"pictures must have one shape, got {pictures[0].shape} and {picture.shape}")


def _is_hole(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the mask as bool after checking it against the shape of its pictures."""
    if mask.shape not in (shape[:-1], shape[-3:-1]):
        raise ValueError(f"mask must be {shape[:-1]} for pictures {shape}, got {mask.shape}; 1 = hole")
    hole = mask == 1
    if np.count_nonzero(hole) != np.count_nonzero(mask):
        raise ValueError(f"mask must be exactly 0 or 1 (1 = hole), got {mask.dtype} up to {mask.max()}")
    return hole


def score_pair(image8: np.ndarray | TrueImage, composite8: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Compute all metrics of one composite against the true image.

    image8, composite8: uint8 (H, W, 3). A `TrueImage` keeps what the masks of one image share.
    mask: (H, W), 1 = hole.
    Returns name -> float64:
    l1_percent, l2_percent: 100 * mean |x - y| / 255 and 100 * mean (x - y)^2 / 255^2 over all values of the picture.
    l1_hole_percent, l2_hole_percent: the same over the values in the hole; 0 without a hole.
    psnr, psnr_hole: 10 log10(255^2 / MSE) in dB; 100 for equal pictures and for a mask without a hole.
    psnr_exact: 1 for equal pictures, whose `psnr` is 100 by definition, else 0.
    ssim, ms_ssim: see `ssim` and `ms_ssim`; ms_ssim is left out for a picture that is too small for it.
    mae_ratio: see `mae_ratio`.
    tv_percent, tv_true_percent: total variation of the composite and of the image. Closer is better, lower is not.
    """
    truth = image8 if isinstance(image8, TrueImage) else TrueImage(image8)
    image8 = truth.image8
    if image8.ndim != 3:
        raise ValueError(f"score_pair takes one picture (H, W, 3), got {image8.shape}; call it once per image")
    check_pictures(image8, composite8)
    difference = image8.astype(np.float64) - composite8
    in_hole = difference[_is_hole(mask, image8.shape)]
    similarity, multi_scale = similarities(truth, composite8)
    return {
        "l1_percent": _l1_percent(difference),
        "l1_hole_percent": _l1_percent(in_hole),
        "l2_percent": _l2_percent(difference),
        "l2_hole_percent": _l2_percent(in_hole),
        "psnr": _psnr(difference),
        "psnr_hole": _psnr(in_hole),
        "psnr_exact": float(not difference.any()),
        "ssim": similarity,
        **({} if multi_scale is None else {"ms_ssim": multi_scale}),
        "mae_ratio": mae_ratio(image8, composite8),
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


def mae_ratio(image8: np.ndarray, composite8: np.ndarray) -> float:
    """Compute the "MAE" of EdgeConnect's evaluation script: sum |x - y| / sum (x + y) over two pictures in grey.

    The number is of use only beside published ones of that family.
    image8, composite8: uint8 (H, W, 3).
    Returns a number in [0, 1]; 0 for two black pictures.
    """
    x, y = (picture8 @ np.array(GREY_WEIGHTS) for picture8 in (image8, composite8))
    total = float((x + y).sum())
    return float(np.abs(x - y).sum()) / total if total else 0.0


def tv_percent(picture8: np.ndarray) -> float:
    """Compute the total variation of a picture (H, W, 3).

    Returns the mean absolute step to the right plus the mean absolute step down, in percent of 255.
    """
    x = picture8.astype(np.float64)
    return sum(100 * float(np.abs(np.diff(x, axis=axis)).mean()) / 255 for axis in (0, 1) if x.shape[axis] > 1)
