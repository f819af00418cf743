"""Outdoor Scenes: OutdoorSeg and OST300."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from datasets.sources.source import Card, Source, SourceImage, is_image, source_key
from files.pictures import IGNORE


class OutdoorScenes(Source):
    """OutdoorSeg and OutdoorSceneTest300: the "Outdoor Scenes" of papers that train with labels."""

    card = Card(
        name="outdoor_scenes",
        splits=("train", "test"),
        counts={"train": 9_900, "test": 300},
        labels="maps: background and 7 classes",
        layout=(
            "OutdoorSeg_img.zip, OutdoorSeg_anno.zip, OST300_img.zip and OST300_anno.zip, or their trees: each picture "
            "<...img...>/<name> has its labels as <...anno...>/<name>.png"
        ),
        licence="follows ADE20K, Flickr and COCO; research",
        redistributable=False,
        defects=(
            "OutdoorSceneTrain is another set of the same authors, without label maps: it is not read",
            "overlaps ADE20K's training pictures",
            "some label files write void as 8; it is read as not known",
        ),
    )
    classes = ("background", "sky", "water", "grass", "mountain", "building", "plant", "animal")

    def _find(self) -> Iterator[SourceImage]:
        entries = self._entries()
        labels = {
            _pair(name, "anno"): locator
            for name, locator in entries.items()
            if name.lower().endswith(".png") and "anno" in name.lower()
        }
        pictures = [name for name in entries if is_image(name) and "anno" not in name.lower()]
        if not pictures or not labels:
            raise self._nothing_found()
        for name in pictures:
            split = "test" if "300" in name.rpartition("/")[0] else "train"
            own = labels.get(_pair(name, "img"))
            yield SourceImage(name, source_key(name), split, entries[name], labels=(own,) if own else ())

    @staticmethod
    def label_map(files: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
        (labels,) = files.values()
        return np.where(labels < 8, labels, IGNORE).astype(np.uint8)


def _pair(name: str, mark: str) -> tuple[str, ...]:
    """Return the parts of a path that a picture and its label map share: all but the suffix and the mark."""
    path = PurePosixPath(name).with_suffix("")
    return tuple(part for word in path.parts if (part := re.sub(rf"[_-]?{mark}[_-]?", "", word, flags=re.IGNORECASE)))
