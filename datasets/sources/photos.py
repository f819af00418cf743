"""The demo's photographs, which are files of installed packages."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from datasets.sources.source import Card, Source, SourceError, SourceImage, source_key
from files.archives import FileLocator, locate_file, read
from files.pictures import decode


class Photos(Source):
    """Nine colour photographs that come with scikit-image and scikit-learn, each cut into 7x7 overlapping squares."""

    card = Card(
        name="photos",
        splits=("train", "val"),
        counts={"train": 343, "val": 98},
        labels="none",
        layout="nothing to fetch: the photographs are in the installed packages scikit-image and scikit-learn",
        licence=(
            "astronaut, hubble_deep_field, rocket: public domain; chelsea, coffee: CC0; ihc: no known restrictions; "
            "china (danielbuechele), flower (vultilion): CC BY 2.0; motorcycle_left: Middlebury 2014, terms not stated"
        ),
        redistributable=False,
        consent="no person but the astronaut, in an official portrait",
        defects=(
            "neighbouring squares overlap by two thirds or more: many records, but nine scenes",
            "too small for a result: it shows that the pipeline works, not how good a generator is",
        ),
    )
    _PHOTOGRAPHS = (
        "skimage/data/astronaut.png",
        "skimage/data/chelsea.png",
        "skimage/data/coffee.png",
        "skimage/data/hubble_deep_field.jpg",
        "skimage/data/ihc.png",
        "skimage/data/motorcycle_left.png",
        "skimage/data/rocket.jpg",
        "sklearn/datasets/images/china.jpg",
        "sklearn/datasets/images/flower.jpg",
    )
    _VAL = frozenset({"chelsea", "flower"})
    _GRID = 7

    def _find(self) -> Iterator[SourceImage]:
        if self.config.root is not None:
            raise SourceError(f"photos takes no root, got {self.config.root}; did you mean name: folder?")
        for name in self._PHOTOGRAPHS:
            yield from self._squares(name)

    def _squares(self, name: str) -> Iterator[SourceImage]:
        """Yield the squares of one photograph: half its shorter side wide, at even steps from edge to edge."""
        locator = _packaged_file(name)
        height, width = decode(read(locator)).shape[:2]
        side = min(height, width) // 2
        photograph = source_key(PurePosixPath(name).name)
        for row in range(self._GRID):
            for column in range(self._GRID):
                left = column * (width - side) // (self._GRID - 1)
                top = row * (height - side) // (self._GRID - 1)
                yield SourceImage(
                    name=name,
                    key=f"{photograph}/r{row}c{column}",
                    split="val" if photograph in self._VAL else "train",
                    locator=locator,
                    group=photograph,
                    crop=(left, top, left + side, top + side),
                )


def _packaged_file(name: str) -> FileLocator:
    """Locate a file of an installed package without importing the package, which takes a second for scikit-learn."""
    package = name.split("/")[0]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(f"photos: the package {package} is not installed; install the locked requirements")
    folder = Path(spec.submodule_search_locations[0]).parent
    if not (folder / name).is_file():
        raise SourceError(f"photos: {package} comes without {name}; install the locked requirements")
    return locate_file(folder, name)
