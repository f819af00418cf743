"""Pictures that lie in more than one split: a model that has seen them in training is not tested by them."""

from __future__ import annotations

import itertools
import json
from argparse import Namespace
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datasets.duplicates import near_pairs
from datasets.shards.manifest import RECORDS_NAME, read_manifest
from files.errors import UserError
from pipeline.columns import image_splits
from pipeline.layout import column_folder

_SHOWN = 20


class DuplicatesError(UserError):
    """The shards cannot be compared; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two records of different splits. distance: bits in which their hashes differ; same_source: equal source bytes."""

    split: str
    key: str
    other_split: str
    other_key: str
    distance: int
    same_source: bool


@dataclass(frozen=True)
class _Split:
    name: str
    keys: pa.ChunkedArray
    hashes: NDArray[np.uint64]
    sources: pa.ChunkedArray


def find_pairs(max_distance: int) -> list[Pair]:
    """All pairs of records in shards/image, of two splits, that are near by hash or come from equal source files."""
    names = image_splits()
    if len(names) < 2:
        there = f"only the split {names[0]}" if names else "no complete split"
        raise DuplicatesError(f"{column_folder('image', '')} has {there}: there are no two to compare; run: dvc repro")
    splits = [_read(name) for name in names]
    found = [
        pair
        for one, other in itertools.combinations(splits, 2)
        for pair in (*_near(one, other, max_distance), *_equal(one, other, max_distance))
    ]
    return sorted(found, key=lambda p: (p.split, p.other_split, p.distance, p.key, p.other_key))


def run(max_distance: int, *, as_json: bool) -> str:
    """What the verb prints: counts per pair of splits and the nearest pairs, or all of them as JSON."""
    pairs = find_pairs(max_distance)
    if as_json:
        return json.dumps([asdict(pair) for pair in pairs], indent=2)
    lines = []
    for one, other in itertools.combinations(image_splits(), 2):
        ours = [pair for pair in pairs if (pair.split, pair.other_split) == (one, other)]
        same = sum(pair.same_source for pair in ours)
        lines.append(
            f"{one} and {other}: {len(ours)} pairs within {max_distance} of 64 bits or of one source, "
            f"{same} of one source"
        )
        lines += [f"  {pair.distance:2d}  {pair.key}  {pair.other_key}" for pair in ours[:_SHOWN]]
        lines += [f"  and {len(ours) - _SHOWN} more; --json lists all"] if len(ours) > _SHOWN else []
    return "\n".join(lines)


def _read(name: str) -> _Split:
    folder = column_folder("image", name)
    read_manifest(folder, remedy="dvc repro ingest")
    path: Path = folder / RECORDS_NAME
    if "dhash" not in pq.read_schema(path).names:
        raise DuplicatesError(f"{path} has no hashes: it was written by an older version; run: dvc repro -f ingest")
    table = pq.read_table(path, columns=["key", "dhash", "source_sha256"])
    hashes = np.frombuffer(b"".join(table["dhash"].to_pylist()), ">u8").astype(np.uint64)
    return _Split(name, table["key"], hashes, table["source_sha256"])


def _pair(one: _Split, other: _Split, left: int, right: int) -> Pair:
    return Pair(
        split=one.name,
        key=one.keys[left].as_py(),
        other_split=other.name,
        other_key=other.keys[right].as_py(),
        distance=int(one.hashes[left] ^ other.hashes[right]).bit_count(),
        same_source=one.sources[left] == other.sources[right],
    )


def _near(one: _Split, other: _Split, max_distance: int) -> list[Pair]:
    return [
        _pair(one, other, int(left), int(right))
        for lefts, rights, _ in near_pairs(one.hashes, other.hashes, max_distance)
        for left, right in zip(lefts, rights, strict=True)
    ]


def _equal(one: _Split, other: _Split, max_distance: int) -> list[Pair]:
    """Records of equal source bytes whose hashes are not near, such as two squares cut from one picture."""
    places: dict[bytes, list[int]] = {}
    shared = pc.unique(other.sources.filter(pc.is_in(other.sources, value_set=pc.unique(one.sources))))
    for right in pc.indices_nonzero(pc.is_in(other.sources, value_set=shared)).to_pylist():
        places.setdefault(other.sources[right].as_py(), []).append(right)
    pairs = [
        _pair(one, other, left, right)
        for left in pc.indices_nonzero(pc.is_in(one.sources, value_set=shared)).to_pylist()
        for right in places[one.sources[left].as_py()]
    ]
    return [pair for pair in pairs if pair.distance > max_distance]


VERB = {
    "help": "list pictures that lie, equal or nearly so, in two splits",
    "example": "duplicates --distance 4",
    "arguments": {
        "--distance": {"type": "int", "default": 4, "help": "bits of 64 that may differ (default: 4)"},
        "--json": {"action": "store_true", "help": "print JSON"},
    },
    "reads_params": False,
}


def main(params: None, arguments: Namespace) -> int:
    """Print the pairs."""
    print(run(arguments.distance, as_json=arguments.json))
    return 0
