"""CelebA-HQ and CelebAMask-HQ: the same 30,000 faces, with label maps in the latter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from datasets.sources.celeba import IDENTITY, PARTITION, SPLITS, column
from datasets.sources.source import Card, Source, SourceConfig, SourceError, SourceImage, is_image, source_key
from files.archives import Locator

_MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"


@dataclass(frozen=True, kw_only=True)
class CelebAHQConfig(SourceConfig):
    """The config of CelebA-HQ.

    split_list: which of the circulating divisions into splits; see the card.
    """

    split_list: Literal["celeba", "lama", "first28000"] = "celeba"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split_list not in ("celeba", "lama", "first28000"):
            raise ValueError(f'split_list must be "celeba", "lama" or "first28000", got {self.split_list!r}')


class CelebAHQ(Source):
    """CelebA-HQ as CelebAMask-HQ, as the PNGs of the deltas tool or as the 256x256 folder.

    Karras et al., "Progressive Growing of GANs", ICLR 2018; Lee et al., "MaskGAN", CVPR 2020.
    """

    card = Card(
        name="celeba_hq",
        splits=("train", "val", "test"),
        counts={"train": 24_183, "val": 2_993, "test": 2_824},
        labels="maps: 19 parts (CelebAMask-HQ)",
        layout=(
            "CelebAMask-HQ.zip or its tree (CelebA-HQ-img/<i>.jpg), or data256x256/00001.jpg, or imgHQ00000.png; "
            "beside it CelebA-HQ-to-CelebA-mapping.txt (of CelebAMask-HQ) and list_eval_partition.txt (of CelebA)"
        ),
        licence="non-commercial research and education; pictures of persons, no publication",
        redistributable=False,
        consent="not asked: pictures of celebrities, collected from the web",
        defects=(
            "the three forms count differently: data256x256 from 1, the others from 0",
            "pictures extracted from the tfrecords (img00000000.png) are in another order: they are not read",
            "counts are those of the CelebAMask-HQ script, which compares 0-based numbers with 1-based limits; "
            "the join by file name used here can differ by a picture or two",
            "whether left and right parts are the person's or the viewer's: look at one picture before relying on it",
            "other orders of the 19 parts circulate: the manifest of the label shards holds the one used here",
        ),
        options={
            "split_list": (
                "celeba: the partition of the original CelebA, joined by file name, the only one made to "
                "keep each person in one split; "
                "lama: the published lists train_shuffled.flist and val_shuffled.flist (28,000 and 2,000), and "
                "visual_test_shuffled.flist if it is there, which you put beside the pictures; "
                "first28000: numbers below 28,000 are train, the last 2,000 val"
            )
        },
    )
    Config = CelebAHQConfig
    # In the order in which the facial regions are painted, later ones over earlier ones. Other orders circulate.
    classes = ("background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth",
               "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth")  # fmt: skip
    mirrored = ((4, 5), (6, 7), (8, 9))
    _PATTERN = re.compile(r"(?:.*/)?(?P<file>(?P<form>CelebA-HQ-img/|data256x256/|imgHQ)(?P<number>\d+)\.\w+)")
    _REGION = re.compile(r"(?:.*/)?CelebAMask-HQ-mask-anno/\d+/(?P<index>\d{5})_(?P<region>\w+)\.png")
    # Number in the file name minus index in the mapping, by form
    _FORMS: ClassVar[dict[str, int]] = {"CelebA-HQ-img/": 0, "data256x256/": 1, "imgHQ": 0}
    _LAMA: ClassVar[dict[str, str]] = {
        "train": "train_shuffled.flist",
        "val": "val_shuffled.flist",
        "test": "visual_test_shuffled.flist",
    }
    _LAMA_LINE = re.compile(r"(?:.*/)?(\d+)\.jpg")

    def _find(self) -> Iterator[SourceImage]:
        entries = self._entries()
        pictures = {name: match for name in entries if is_image(name) and (match := self._PATTERN.fullmatch(name))}
        if not pictures:
            raise self._nothing_found()
        if len(forms := {match["form"].rstrip("/") for match in pictures.values()}) > 1:
            raise SourceError(f"{self._root()} holds {' and '.join(sorted(forms))}, the same pictures; move one away")
        originals = self._originals(entries)
        splits = self._splits(entries, originals)
        identity = column(self._list(entries, IDENTITY), 1, IDENTITY)
        regions: dict[int, list[Locator]] = {}
        for name, locator in entries.items():
            if region := self._REGION.fullmatch(name):
                regions.setdefault(int(region["index"]), []).append(locator)
        for name, match in pictures.items():
            index = int(match["number"]) - self._FORMS[match["form"]]
            if index not in splits:
                where = self._where_missing(index, originals)
                raise SourceError(f"celeba_hq: {name} has no entry in {where}; is that the list of this data set?")
            yield SourceImage(
                name,
                source_key(PurePosixPath(match["file"]).name),
                splits[index],
                entries[name],
                group=identity.get(originals.get(index, "")),
                labels=tuple(regions.get(index, ())),
            )

    def _published(self) -> Mapping[str, int]:
        lists = {"celeba": self.card.counts, "lama": {"val": 2_000}, "first28000": {"train": 28_000, "val": 2_000}}
        return lists[self.config.split_list]

    def _originals(self, entries: Mapping[str, Locator]) -> dict[int, str]:
        """Return index -> file name in CelebA, from the columns idx, orig_idx, orig_file.

        The file is optional unless the splits depend on it.
        """
        read = self._needed_list if self.config.split_list == "celeba" else self._list
        files = column(read(entries, _MAPPING), 2, _MAPPING)
        return {int(index): file for index, file in files.items() if index.isdecimal()}

    def _splits(self, entries: Mapping[str, Locator], originals: Mapping[int, str]) -> dict[int, str]:
        """Return index -> split."""
        if self.config.split_list == "first28000":
            return {index: "train" if index < 28_000 else "val" for index in range(30_000)}
        if self.config.split_list == "lama":
            return self._published_splits(entries)
        # Joined by file name. orig_idx counts from 0 and the partition from 1; comparing these, as some ports do, puts
        # one picture at each limit into the wrong split.
        partition = column(self._needed_list(entries, PARTITION), 1, PARTITION)
        return {index: SPLITS[partition[file]] for index, file in originals.items() if partition.get(file) in SPLITS}

    def _published_splits(self, entries: Mapping[str, Locator]) -> dict[int, str]:
        """Return index -> split from LaMa's lists, which number the pictures of data256x256 from 0."""
        splits: dict[int, str] = {}
        for split, file in self._LAMA.items():
            for row in (self._list if split == "test" else self._needed_list)(entries, file) or ():
                if not (match := self._LAMA_LINE.fullmatch(" ".join(row))):
                    raise SourceError(f"celeba_hq: {file} has the line {' '.join(row)!r}; expected such as 12345.jpg")
                if splits.setdefault(int(match[1]), split) != split:
                    other = self._LAMA[splits[int(match[1])]]
                    raise SourceError(f"celeba_hq: {row[0]} is in {other} and in {file}; are they of one division?")
        return splits

    def _where_missing(self, index: int, originals: Mapping[int, str]) -> str:
        if self.config.split_list == "first28000":
            return "0..29999"
        if self.config.split_list == "lama":
            return f"{', '.join(self._LAMA.values())} (as {index}.jpg)"
        return f"{PARTITION} (as {originals[index]})" if index in originals else _MAPPING

    @staticmethod
    def label_map(files: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
        painted = np.zeros(next(iter(files.values())).shape, np.uint8)
        regions = {CelebAHQ._REGION.fullmatch(name)["region"]: drawn for name, drawn in files.items()}
        if unknown := regions.keys() - set(CelebAHQ.classes):
            raise SourceError(f"celeba_hq: {min(unknown)} is no facial region of CelebAMask-HQ")
        for label, region in enumerate(CelebAHQ.classes):
            if region in regions:
                painted[regions[region] > 127] = label
        return painted
