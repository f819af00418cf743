"""DTD, the Describable Textures Dataset."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from datasets.sources.source import SPLITS, Card, Source, SourceConfig, SourceError, SourceImage, is_image, source_key


@dataclass(frozen=True, kw_only=True)
class DTDConfig(SourceConfig):
    """The config of DTD.

    split_number: which of the ten official divisions, 1 to 10.
    """

    split_number: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.split_number <= 10:
            raise ValueError(f"split_number must be in 1..10, got {self.split_number}")


class DTD(Source):
    """47 classes of textures, divided in ten official ways.

    Cimpoi et al., "Describing Textures in the Wild", CVPR 2014.
    """

    card = Card(
        name="dtd",
        splits=("train", "val", "test"),
        counts={"train": 1_880, "val": 1_880, "test": 1_880},
        labels="class: 47 textures",
        layout="dtd-r1.0.1.tar.gz or its tree: images/<class>/<class>_<number>.jpg and labels/{train,val,test}<n>.txt",
        licence="research only",
        redistributable=False,
        defects=("the archive is a plain tar in spite of its name; it is read as one",),
        options={"split_number": "1 to 10: which of the official divisions; papers use 1 unless they say otherwise"},
    )
    Config = DTDConfig
    _PATTERN = re.compile(r"(?:.*/)?images/(?P<file>(?P<label>[^/]+)/[^/]+)")

    def _find(self) -> Iterator[SourceImage]:
        entries = self._entries()
        pictures = {name: match for name in entries if is_image(name) and (match := self._PATTERN.fullmatch(name))}
        if not pictures:
            raise self._nothing_found()
        split_of: dict[str, str] = {}
        for split in SPLITS:
            list_name = f"labels/{split}{self.config.split_number}.txt"
            for file in (" ".join(words) for words in self._needed_list(entries, list_name)):
                if split_of.setdefault(file, split) != split:
                    raise SourceError(f"dtd: {file} is in the lists of {split_of[file]} and {split}; fetch them again")
        for name, match in pictures.items():
            if match["file"] not in split_of:
                raise SourceError(f"dtd: {name} is in none of labels/*{self.config.split_number}.txt; fetch them again")
            yield SourceImage(
                name, source_key(match["file"]), split_of[match["file"]], entries[name], label=match["label"]
            )
