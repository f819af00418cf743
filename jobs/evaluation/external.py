"""Pictures that another program has filled, read as a row of the results."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from files.errors import UserError
from files.picture_formats import format_of
from files.pictures import RejectedImageError, decode
from jobs.evaluation.metrics.pixels import composite_uint8
from jobs.evaluation.settings import External
from masks.hole_ratio import BINS


class ExternalError(UserError):
    """A picture of an external row is missing or does not fit; the message names it."""


def external_path(row: External, key: str, bin_name: str) -> Path:
    """Return the path of one picture, such as <root>/val/0001-0.1-0.2.png."""
    return Path(row.root) / f"{key}-{bin_name}.png"


def describe_pictures(row: External) -> str:
    """Return the digest of the names, sizes and times of the pictures: it changes with any of them, in practice."""
    found = sorted((str(path), path.stat()) for path in Path(row.root).rglob("*.png"))
    text = "".join(f"{path} {stat.st_size} {stat.st_mtime_ns}\n" for path, stat in found)
    return hashlib.sha256(text.encode()).hexdigest()


def read_composites(row: External, key: str, images: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, str]:
    """Read the pictures of one image, and take from them only the holes.

    key: of the image.
    images: uint8 (N, H, W, 3), one per bin, in the order of BINS.
    masks: uint8 (N, H, W), 1 = hole.
    Returns uint8 (N, H, W, 3), and the SHA-256 over the digests of the files.
    Raises ExternalError for a picture that is missing, is no PNG, or has another size.
    """
    paths = [external_path(row, key, name) for name, _, _ in BINS]
    contents = [_read(row, path) for path in paths]
    outputs = [_decode(content, path, images.shape[1:3]) for content, path in zip(contents, paths, strict=True)]
    digests = b"".join(hashlib.sha256(content).digest() for content in contents)
    return composite_uint8(np.stack(outputs), images, masks), hashlib.sha256(digests).hexdigest()


def _read(row: External, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ExternalError(
            f"{path}: {error.strerror}; the external row {row.name} needs a picture <key>-<bin>.png of every image and "
            "bin of the suite"
        ) from error


def _decode(content: bytes, path: Path, size: tuple[int, int]) -> np.ndarray:
    if format_of(content) != "PNG":
        raise ExternalError(f"{path} is no PNG; write the results as PNG, since JPEG changes pixels")
    try:
        picture = decode(content)
    except RejectedImageError as error:
        raise ExternalError(f"{path}: {error}") from error
    if picture.shape[:2] != size:
        height, width = picture.shape[:2]
        raise ExternalError(
            f"{path} is {width}x{height}, the image is {size[1]}x{size[0]}; write it at the image's size"
        )
    return picture
