"""The metrics by name: their titles, units and which values are better."""

from __future__ import annotations

from typing import Literal, NamedTuple


class MetricInfo(NamedTuple):
    """One metric.

    digits: after the point.
    better: which of two values is better; "truth" is the one closer to that of the true images, None is neither.
    """

    name: str
    title: str
    unit: str = ""
    digits: int = 3
    better: Literal["lower", "higher", "truth"] | None = None


METRICS = (
    MetricInfo("l1_hole_percent", "L1 in hole", "%", 2, "lower"),
    MetricInfo("l1_percent", "L1", "%", 2, "lower"),
    MetricInfo("l2_hole_percent", "L2 in hole", "%", 2, "lower"),
    MetricInfo("l2_percent", "L2", "%", 2, "lower"),
    MetricInfo("psnr_hole", "PSNR in hole", "dB", 2, "higher"),
    MetricInfo("psnr", "PSNR", "dB", 2, "higher"),
    MetricInfo("ssim", "SSIM", "", 3, "higher"),
    MetricInfo("ms_ssim", "MS-SSIM", "", 3, "higher"),
    MetricInfo("mae_ratio", "MAE", "EdgeConnect's", 4, "lower"),
    MetricInfo("tv_percent", "TV", "%", 2, "truth"),
    MetricInfo("edge_precision", "Edge precision", "", 3, "higher"),
    MetricInfo("edge_recall", "Edge recall", "", 3, "higher"),
    MetricInfo("lpips_alex", "LPIPS", "AlexNet", 3, "lower"),
    MetricInfo("lpips_vgg", "LPIPS", "VGG-16", 3, "lower"),
    MetricInfo("fid", "FID", "", 2, "lower"),
    MetricInfo("kid", "KID", "", 5, "lower"),
    MetricInfo("p_ids_percent", "P-IDS", "%", 2, "higher"),
    MetricInfo("u_ids_percent", "U-IDS", "%", 2, "higher"),
)
"""In the order of tables."""

BY_NAME = {metric.name: metric for metric in METRICS}

SET_METRICS = ("fid", "kid", "p_ids_percent", "u_ids_percent")
"""Metrics that compare two sets of pictures by their features."""

HEADLINE = (
    "l1_hole_percent",
    "psnr",
    "ssim",
    "lpips_alex",
    "lpips_vgg",
    "fid",
    "kid",
    "p_ids_percent",
    "u_ids_percent",
)
"""Metrics for which `dvc metrics show` has a column."""
