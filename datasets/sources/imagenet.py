"""ImageNet: the classification pictures of ILSVRC2012."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import PurePosixPath

from datasets.sources.source import Card, Source, SourceError, SourceImage, source_key
from files.archives import Locator

_MAX_META_BYTES = 2**22  # of meta.mat; scipy inflates it whole


class ImageNet(Source):
    """ILSVRC2012. A picture's official name gives its split and, for train, its class, so any layout is accepted.

    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015.
    """

    card = Card(
        name="imagenet",
        splits=("train", "val", "test"),
        counts={"train": 1_281_167, "val": 50_000, "test": 100_000},
        labels="class: 1,000 WordNet ids, none in test",
        layout=(
            "ILSVRC2012_img_train.tar (a tar of tars, read in place) and ILSVRC2012_img_val.tar, or their trees "
            "train/<wnid>/ and val/, flat or by class, or ILSVRC/Data/CLS-LOC/ as on Kaggle; beside a flat val "
            "ILSVRC2012_devkit_t12.tar.gz gives its labels"
        ),
        licence="registration; non-commercial research and education",
        redistributable=False,
        defects=(
            "22 CMYK JPEGs and one PNG named .JPEG (n02105855_2933): all are converted to RGB",
            "many grey pictures, some broken EXIF blocks",
            "class numbers of the devkit are not in the order of the WordNet ids: labels here are the ids",
        ),
    )
    _NAME = re.compile(
        r"(?P<train>(?P<wnid>n\d{8})_\d+)|(?P<val>ILSVRC2012_val_(?P<number>\d{8}))|(?P<test>ILSVRC2012_test_\d{8})"
    )
    _INNER = re.compile(r"(?:.*/)?n\d{8}\.tar")
    _WNID = re.compile(r"n\d{8}")

    def _find(self) -> Iterator[SourceImage]:
        entries = self._entries(lambda archive: not self._INNER.fullmatch(archive))
        val_labels = self._devkit_labels(entries)
        inner = [entries[name] for name in entries if self._INNER.fullmatch(name)]
        for locator in chain(entries.values(), self._inner_entries(inner)):
            path = PurePosixPath(locator.member)
            match = self._NAME.fullmatch(path.stem) if path.suffix.lower() in (".jpeg", ".jpg") else None
            if match is None:
                continue
            if match["train"]:
                split, key, label = "train", f"{match['wnid']}/{match['train']}", match["wnid"]
            elif match["val"]:
                folder = path.parent.name
                own = folder if self._WNID.fullmatch(folder) else None
                split, key, label = "val", match["val"], own or val_labels.get(int(match["number"]))
            else:
                split, key, label = "test", match["test"], None
            yield SourceImage(locator.member, source_key(key), split, locator, label=label and sys.intern(label))

    def _devkit_labels(self, entries: Mapping[str, Locator]) -> dict[int, str]:
        """Return number of the validation picture -> WordNet id, from the devkit; empty if it is missing."""
        numbers = self._list(entries, "ILSVRC2012_validation_ground_truth.txt")
        meta = self._list_content(entries, "meta.mat", _MAX_META_BYTES)
        if numbers is None or meta is None:
            return {}
        from scipy.io import loadmat  # slow to import, rarely needed

        try:
            synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
            ids = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
            return {position: ids[int(number)] for position, (number,) in enumerate(numbers, start=1)}
        except Exception as error:  # scipy raises many kinds on damaged input
            raise SourceError(
                f"imagenet: meta.mat and the ground truth of the devkit do not match ({error})"
            ) from error
