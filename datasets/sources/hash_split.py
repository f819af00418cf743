"""Split pictures into train and val by a hash of their names, for data sets without a published split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from datasets.sources.source import SourceConfig


@dataclass(frozen=True, kw_only=True)
class HashSplitConfig(SourceConfig):
    """The config of a data set that is split by hash.

    val_share: share held out for validation, in (0, 1).
    """

    val_share: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.val_share < 1:
            raise ValueError(f"val_share must be between 0 and 1, got {self.val_share}")


def split_by_hash(names: Iterable[str], val_share: float) -> dict[str, str]:
    """Return "train" or "val" for each name, from the name's hash. Adding or removing a name moves no other name.

    There is one exception, because with few names a split could be empty: the name with the smallest hash is always
    val, and, of two or more, the name with the largest hash is always train. These two may move when others change.
    """
    hashes = {name: int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48 for name in names}
    splits = {name: "val" if number < val_share else "train" for name, number in hashes.items()}
    if hashes:
        splits[max(hashes, key=hashes.__getitem__)] = "train"
        splits[min(hashes, key=hashes.__getitem__)] = "val"
    return splits
