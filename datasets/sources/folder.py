"""Any folder or archive of JPEG and PNG pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from datasets.sources.hash_split import HashSplitConfig, split_by_hash
from datasets.sources.source import Card, Source, SourceError, SourceImage, is_picture, source_key


class Folder(Source):
    """Any folder or archive of JPEG and PNG pictures."""

    card = Card(
        name="folder",
        splits=("train", "val", "test"),
        counts={},
        labels="class: the folder's name",
        layout="any tree of JPEG or PNG files, with or without train/ and val/ (or valid/, validation/, test/) on top",
        licence="yours to know",
        redistributable=False,
        consent="yours to know",
        defects=(
            "without split folders the split goes by the name's hash: near duplicates may land on both sides",
            "if test/ is the only split beside train/, it is used as val",
            "if images/ and masks/ are in one folder, only images/ is read",
        ),
        options={"val_share": "share of pictures held out for validation where there are no split folders"},
    )
    Config = HashSplitConfig
    _VAL = frozenset({"val", "valid", "validation"})
    _OUTSIDE = "outside images/, which has masks/ beside it"

    def _find(self) -> Iterator[SourceImage]:
        entries = self._entries()
        names = [name for name, file in entries.items() if is_picture(file)]
        top, names = _photographs(_common_folder(names), names)
        if len(names) < 2:
            raise SourceError(
                f"{self._root()} holds {len(names)} pictures; folder needs 2, for training and validation"
                f"{self._left_out_by_name()}"
            )
        splits = self._split_folders(top, names)
        placed = self._by_folder(top, names, splits) if splits else self._by_hash(top, names)
        for name, split, below in placed:
            label = sys.intern(name.removeprefix(below).rpartition("/")[0])
            yield SourceImage(name, source_key(name), split, entries[name], label=label or None)

    def _split_folders(self, top: str, names: list[str]) -> dict[str, str]:
        """Return folder name -> split, such as {"train": "train", "valid": "val"}; empty without split folders."""
        folders = {name.removeprefix(top).split("/")[0] for name in names if "/" in name.removeprefix(top)}
        train = [folder for folder in folders if folder.lower() == "train"]
        val = [folder for folder in folders if folder.lower() in self._VAL]
        test = [folder for folder in folders if folder.lower() == "test"]
        if not train or not (val or test):
            return {}
        if max(len(train), len(val), len(test)) > 1:
            raise SourceError(
                f"{self._root()}: {', '.join(sorted(train + val + test))} name one split twice; rename one"
            )
        test_split = "test" if val else "val"
        return dict.fromkeys(train, "train") | dict.fromkeys(val, "val") | dict.fromkeys(test, test_split)

    def _by_folder(self, top: str, names: list[str], splits: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
        """Yield name, split, and the folder below which labels start."""
        for folder, split in splits.items():
            inside = [name for name in names if name.startswith(f"{top}{folder}/")]
            below, inside = _photographs(f"{top}{folder}/", inside)
            yield from ((name, split, below) for name in inside)
        for name in names:
            if name.removeprefix(top).split("/")[0] not in splits:
                raise SourceError(f"{name} is in none of {', '.join(splits)}; move it into one, or away")

    def _by_hash(self, top: str, names: list[str]) -> Iterator[tuple[str, str, str]]:
        """Yield the same as `_by_folder`, with the split by the hash of the key."""
        splits = split_by_hash(map(source_key, names), self.config.val_share)
        yield from ((name, splits[source_key(name)], top) for name in names)


def _common_folder(names: list[str]) -> str:
    """Return the folders that enclose all names, such as the folder around a zipped tree: "", "a/" or "a/b/"."""
    common: list[str] = []
    for parts in zip(*(name.split("/")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1 or parts[0].lower() == "train":
            break
        common.append(parts[0])
    return "".join(f"{part}/" for part in common)


def _photographs(top: str, names: list[str]) -> tuple[str, list[str]]:
    """Return the folder of the photographs and their names: images/ if masks/ is beside it, else `top`."""
    if not all(any(name.startswith(top + side) for name in names) for side in ("images/", "masks/")):
        return top, names
    return f"{top}images/", [name for name in names if name.startswith(f"{top}images/")]
