"""Inflate .tar.gz sources once, to plain tars that all shards of a column are made from.

Shards mix a data set, so each shard reads members from everywhere in an archive. A gzip stream can only be read from
its start: if every shard inflated it again, a thousand shards would take a thousand passes.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from datasets.sources import SourceImage
from datasets.writing.digests import digest_of
from datasets.writing.runner import OpenBar
from files.archives import ArchiveError, GzipTarLocator, Locator, inflate


@contextlib.contextmanager
def inflate_sources(folder: Path, images: Sequence[SourceImage], open_bar: OpenBar) -> Iterator[Sequence[SourceImage]]:
    """Yield the same images and labels, with members of a .tar.gz read from a plain tar instead.

    folder: absolute path of the folder for the tars. It is removed at the end. After an error it stays, and the next
        run reuses its tars, except those of archives that have changed.
    Raises ArchiveError if the disk has no room for the tars or an archive is damaged.
    """
    needed = _needed_bytes(images)
    tars = {archive: folder / f"{digest_of(archive)}.tar" for archive in needed}
    for path in folder.glob("*"):
        if path not in tars.values():  # of another run, or partial files of a killed one
            path.unlink()
    for (path, pin), size in needed.items():
        if not (tar := tars[path, pin]).exists():
            _inflate(Path(path), pin, tar, size, open_bar)
    yield [_relocate(image, tars) for image in images] if tars else images
    shutil.rmtree(folder, ignore_errors=True)


def _locators(images: Iterable[SourceImage]) -> Iterator[Locator]:
    for image in images:
        yield image.locator
        yield from image.labels


def _needed_bytes(images: Iterable[SourceImage]) -> dict[tuple[str, int], int]:
    """Return path and pin of each .tar.gz -> bytes of its tar up to the end of the last member that is needed."""
    needed: dict[tuple[str, int], int] = {}
    for locator in _locators(images):
        if isinstance(locator, GzipTarLocator):
            archive = locator.container, locator.pin
            needed[archive] = max(needed.get(archive, 0), locator.offset + locator.size)
    return dict(sorted(needed.items()))


def _inflate(archive: Path, pin: int, tar: Path, size: int, open_bar: OpenBar) -> None:
    tar.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(tar.parent).free) < size:
        raise ArchiveError(
            f"{archive} inflates to a tar of {size} bytes, from which it is read, and {tar.parent} has {free} free; "
            "make room there, or inflate the archive elsewhere with gunzip: a plain tar is read in its place"
        )
    with open_bar(f"inflate {archive.name}", size, "bytes") as bar:
        for done in inflate(archive, pin, tar):
            bar.at(done)


def _relocate(image: SourceImage, tars: dict[tuple[str, int], Path]) -> SourceImage:
    def relocate(locator: Locator) -> Locator:
        if not isinstance(locator, GzipTarLocator):
            return locator
        return locator.within(tars[locator.container, locator.pin])

    return replace(image, locator=relocate(image.locator), labels=tuple(map(relocate, image.labels)))
