"""Paris StreetView."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from datasets.sources.hash_split import HashSplitConfig, split_by_hash
from datasets.sources.source import Card, Source, SourceImage, is_image, source_key


class ParisStreetView(Source):
    """House fronts of Paris: the published training and evaluation pictures, with a validation split by place.

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
            "one place are never in both splits",
            "test, the published evaluation pictures, is 227x227: at a larger ingest.size leave it out of `splits`",
            "paris_eval_corrupted/ holds the same pictures without their centres: it is not read",
        ),
        options={"val_share": "share of the training places held out as val"},
    )
    Config = HashSplitConfig
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
        """See `Source`. Val was published as a share of train, so only their sum is compared."""
        both = counts.get("train", 0) + counts.get("val", 0) if {"train", "val"} <= set(self.config.splits) else 0
        return super().unlike_published({"train": both, "test": counts.get("test", 0)})


def _place(file: str) -> str:
    """Return latitude and longitude, which several views share: 48.8_2.3 for 48.8_2.3_90_-004.JPG."""
    return "_".join(PurePosixPath(file).stem.split("_")[:2])
