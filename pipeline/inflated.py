"""The tars inside .tar.gz sources, kept beside the shards while these are made of them.

Shards mix a data set, so each asks for members from everywhere, and a gzip stream can only be read from its start: with
every shard inflating it again, a thousand shards would take a thousand passes.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from datasets.sources import SourceImage
from datasets.writing.parts import digest_of
from files.archives import ArchiveError, GzipTarLocator, Locator, inflate
from pipeline.layout import inflated_folder
from pipeline.progress import Bar


@contextlib.contextmanager
def inflated(column: str, images: Sequence[SourceImage]) -> Iterator[Sequence[SourceImage]]:
    """The same images and labels, those of a .tar.gz read from the tar that it is inflated to, once for all shards.

    The tars are removed at the end; after an error they stay, so that a rerun goes on with them, and what another run
    left is removed first. Raises ArchiveError where the disk has no room for them or an archive is damaged.
    """
    folder, sizes = inflated_folder(column).resolve(), _sizes(images)
    tars = {archive: folder / f"{digest_of(_state(archive))}.tar" for archive in sizes}
    for path in folder.glob("*"):  # also what killed writers left
        if path not in tars.values():
            path.unlink()
    for archive, size in sizes.items():
        if not tars[archive].exists():
            _inflate(archive, tars[archive], size)
    yield [_relocated(image, tars) for image in images] if tars else images
    shutil.rmtree(folder, ignore_errors=True)


def _state(archive: Path) -> tuple[str, int, int]:
    """What tells one content of an archive from another."""
    status = archive.stat()
    return str(archive), status.st_size, status.st_mtime_ns


def _locators(images: Iterable[SourceImage]) -> Iterator[Locator]:
    for image in images:
        yield image.locator
        yield from image.labels


def _sizes(images: Iterable[SourceImage]) -> dict[Path, int]:
    """Each .tar.gz -> how many bytes of what it inflates to are needed."""
    sizes: dict[str, int] = {}
    for locator in _locators(images):
        if isinstance(locator, GzipTarLocator):
            sizes[locator.container] = max(sizes.get(locator.container, 0), locator.offset + locator.size)
    return {Path(archive): size for archive, size in sorted(sizes.items())}


def _inflate(archive: Path, place: Path, size: int) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(place.parent).free) < size:
        raise ArchiveError(
            f"{archive} is read from the tar that it inflates to, of {size} bytes, and {place.parent} has {free} free; "
            "make room there, or unzip it elsewhere with gunzip: a plain tar is read where it lies"
        )
    with Bar(f"inflate {archive.name}", size, "bytes") as bar:
        for done in inflate(archive, place):
            bar.at(done)


def _relocated(image: SourceImage, tars: dict[Path, Path]) -> SourceImage:
    def relocated(locator: Locator) -> Locator:
        if not isinstance(locator, GzipTarLocator):
            return locator
        return locator.within(tars[Path(locator.container)])

    return replace(image, locator=relocated(image.locator), labels=tuple(map(relocated, image.labels)))
