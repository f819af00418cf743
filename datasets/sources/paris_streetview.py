"""Paris StreetView."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from datasets.sources.source import Card, Source, SourceImage, is_image, source_key, split_by_hash


class ParisStreetView(Source):
    """House fronts of Paris: the published training and evaluation pictures, and a validation split by place.

    Pathak et al., "Context Encoders", CVPR 2016, from Doersch et al., "What Makes Paris Look like Paris?", 2012.
    """

    card = Card(
        name="paris_streetview",
        splits=("train", "val", "test"),
        counts={"train": 14_900, "test": 100},
        labels="none; places as groups",
        layout=(
            "paris_train_original.zip and paris_eval_75876.zip, or their trees paris_train_original/*.JPG and "
            "paris_eval/paris_eval_gt/*.png"
        ),
        licence="on request from the authors of Context Encoders",
        redistributable=False,
        defects=(
            "names seem to be latitude_longitude_heading_pitch: places are told apart by the first two",
            "no validation split was published: a share of the training places is held out as val, so that views of "
            "one place never stand on both sides",
            "test, the published evaluation pictures, is 227x227: at a larger ingest.size leave it out of `splits`",
            "paris_eval_corrupted/ holds the same pictures without their centres: it is not read",
        ),
        options={"val_share": "share of the training places held out as val"},
    )
    _TRAIN = re.compile(r"(?:.*/)?(?P<key>paris_train_original/(?P<file>[^/]+))")
    _TEST = re.compile(r"(?:.*/)?(?P<key>paris_eval_gt/[^/]+)")

    def _find(self) -> Iterator[SourceImage]:
        entries = {name: locator for name, locator in self._entries().items() if is_image(name)}
        train = {name: match for name in entries if (match := self._TRAIN.fullmatch(name))}
        test = {name: match for name in entries if (match := self._TEST.fullmatch(name))}
        if not train and not test:
            raise self._nothing_found()
        places = {name: _place(match["file"]) for name, match in train.items()}
        splits = split_by_hash(places.values(), self.config.val_share)
        for name, place in places.items():
            yield SourceImage(name, source_key(train[name]["key"]), splits[place], entries[name], group=place)
        for name, match in test.items():
            yield SourceImage(name, source_key(match["key"]), "test", entries[name])

    def unlike_published(self, counts: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """As every source; val was published as part of train, so that only the two together can be compared."""
        both = counts.get("train", 0) + counts.get("val", 0) if {"train", "val"} <= set(self.config.splits) else 0
        return super().unlike_published({"train": both, "test": counts.get("test", 0)})


def _place(file: str) -> str:
    """Latitude and longitude, of which there are several views: 48.8_2.3 of 48.8_2.3_90_-004.JPG."""
    return "_".join(PurePosixPath(file).stem.split("_")[:2])
