"""Small data sets made in code, in every form in which they can lie on a disk."""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.sources import SourceConfig, SourceImage, open_source, source_config
from files.archives import read
from files.pictures import decode_grey


def jpeg(number: int) -> bytes:
    """A small picture that differs from every other number's."""
    array = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array).resize((20, 20)).save(buffer, "JPEG")
    return buffer.getvalue()


def pictures(*names: str) -> dict[str, bytes]:
    """A small picture by each name, which no other name has."""
    return {name: jpeg(zlib.crc32(name.encode())) for name in names}


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_gzip_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    return write_tar(path, files, "w:gz")


# The last one is a plain tar under a wrong name
FORMS: dict[str, Callable[[Path, Mapping[str, bytes]], Path]] = {
    "tree": write_folder,
    "a.zip": write_zip,
    "a.tar": write_tar,
    "a.tgz": write_gzip_tar,
    "plain.tar.gz": write_tar,
}


def images_of(name: str, root: Path | None, **config: object) -> list[SourceImage]:
    return open_source(source_config(name=name, root=None if root is None else str(root), **config)).images()


def splits_of(images: list[SourceImage]) -> dict[str, str]:
    return {image.key: image.split for image in images}


def labels_of(images: list[SourceImage]) -> dict[str, str | None]:
    return {image.key: image.label for image in images}


def described(images: list[SourceImage]) -> list[tuple[object, ...]]:
    """All of each picture but where it lies, and its bytes."""
    return [(i.name, i.key, i.split, i.label, i.group, i.crop, read(i.locator)) for i in images]


def under(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": content for name, content in files.items()}


def label_png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def label_map(config: SourceConfig, key: str) -> np.ndarray:
    source = open_source(config)
    (image,) = (image for image in source.images() if image.key == key)
    return source.label_map({locator.member: decode_grey(read(locator)) for locator in image.labels})
