"""Cityscapes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from datasets.sources.source import Card, Source, SourceImage, source_key, with_labels


class Cityscapes(Source):
    """Cityscapes with fine labels: 19 training classes, and all other ids as the twentieth."""

    card = Card(
        name="cityscapes",
        splits=("train", "val", "test"),
        counts={"train": 2_975, "val": 500, "test": 1_525},
        labels="maps: 19 classes and void, none in test",
        layout=(
            "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, or their trees "
            "leftImg8bit/<split>/<city>/<name>_leftImg8bit.png and gtFine/<split>/<city>/<name>_gtFine_labelIds.png"
        ),
        licence="registration; non-commercial research",
        redistributable=False,
        defects=(
            "the test split's label files are dummies, so its labels are not known",
            "trainextra is not read; its troisdorf_000000_000073 is a corrupt picture",
            "leftImg8bit_blurred, the variant with blurred faces, is not read: the two are never mixed",
        ),
    )
    # The ids of the 19 classes in the label files, in the order of their training labels. "void" is the twentieth.
    _IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    classes = ("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
               "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
               "void")  # fmt: skip
    _PATTERN = re.compile(r"(?:.*/)?leftImg8bit/(?P<key>(?P<split>train|val|test)/(?P<city>\w+)/\w+)_leftImg8bit\.png")
    _LABELS = re.compile(r"(?:.*/)?gtFine/(?P<key>(?:train|val)/\w+/\w+)_gtFine_labelIds\.png")

    def _find(self) -> Iterator[SourceImage]:
        entries = self._entries()
        pictures = list(with_labels(entries, self._PATTERN, self._LABELS))
        if not pictures:
            raise self._nothing_found()
        for name, match, labels in pictures:
            key = source_key(match["key"] + ".png")
            yield SourceImage(name, key, match["split"], entries[name], group=match["city"], labels=labels)

    @staticmethod
    def label_map(files: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
        (ids,) = files.values()
        table = np.full(256, len(Cityscapes._IDS), np.uint8)
        table[list(Cityscapes._IDS)] = np.arange(len(Cityscapes._IDS))
        return table[ids]
