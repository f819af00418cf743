"""ADE20K."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from datasets.sources.source import Card, Source, SourceImage, source_key, with_labels


class ADE20K(Source):
    """ADE20K as in the scene parsing benchmark, with 150 classes."""

    card = Card(
        name="ade20k",
        splits=("train", "val"),
        counts={"train": 20_210, "val": 2_000},
        labels="maps: 150 classes",
        layout=(
            "ADEChallengeData2016.zip or its tree: images/{training,validation}/<name>.jpg and "
            "annotations/{training,validation}/<name>.png"
        ),
        licence="annotations BSD-3; pictures for non-commercial research",
        redistributable=False,
        defects=(
            "four pictures are grey: ADE_train_00001701, 00003020, 00008455 and 00013508",
            'label 0 of the files is "other", no class: it is read as not known',
        ),
    )
    classes = tuple(f"class {number}" for number in range(1, 151))
    _PATTERN = re.compile(r"(?:.*/)?images/(?P<key>(?P<split>training|validation)/\w+)\.jpg")
    _LABELS = re.compile(r"(?:.*/)?annotations/(?P<key>(?:training|validation)/\w+)\.png")

    def _find(self) -> Iterator[SourceImage]:
        entries = self._entries()
        pictures = list(with_labels(entries, self._PATTERN, self._LABELS))
        if not pictures:
            raise self._nothing_found()
        for name, match, labels in pictures:
            split = "train" if match["split"] == "training" else "val"
            yield SourceImage(name, source_key(match["key"] + ".jpg"), split, entries[name], labels=labels)

    @staticmethod
    def label_map(files: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
        (numbers,) = files.values()
        return numbers - np.uint8(1)  # 0 becomes IGNORE
