"""List pictures that are in two splits. A model that was trained on a picture is not tested by it."""

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
from datasets.shards.expectation import Expectation
from datasets.shards.manifest import RECORDS_NAME, read_manifest
from files.errors import UserError
from pipeline.columns import remedy_of
from pipeline.layout import column_folder, image_splits

_SHOWN = 20


class DuplicatesError(UserError):
    """The shards cannot be compared. The message says why and what to run."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two records of different splits.

    distance: number of bits of 64 in which their hashes differ.
    same_source: whether their source files have equal bytes.
    """

    split: str
    key: str
    other_split: str
    other_key: str
    distance: int
    same_source: bool


@dataclass(frozen=True)
class _Split:
    """The records of a split: keys, hashes (N,) and digests of the source files."""

    name: str
    keys: pa.ChunkedArray
    hashes: NDArray[np.uint64]
    sources: pa.ChunkedArray


def find_pairs(max_distance: int) -> list[Pair]:
    """Find all pairs of records of two splits in shards/image with near hashes or equal source bytes.

    max_distance: bits of 64 that may differ.
    Returns them sorted. Raises DuplicatesError if there are fewer than two splits, or if shards have no hashes.
    """
    names = image_splits()
    if len(names) < 2:
        splits = f"only the split {names[0]}" if names else "no complete split"
        raise DuplicatesError(f"{column_folder('image', '')} has {splits}, but two are needed; run: dvc repro")
    pairs: list[Pair] = []
    for one, other in itertools.combinations([_read(name) for name in names], 2):
        pairs += _near_by_hash(one, other, max_distance)
        pairs += _equal_sources(one, other, max_distance)
    return sorted(pairs, key=lambda p: (p.split, p.other_split, p.distance, p.key, p.other_key))


def run(max_distance: int, *, as_json: bool) -> str:
    """Return the verb's output: counts and the nearest pairs for every two splits, or all pairs as JSON."""
    pairs = find_pairs(max_distance)
    if as_json:
        return json.dumps([asdict(pair) for pair in pairs], indent=2)
    lines = []
    for one, other in itertools.combinations(image_splits(), 2):
        between = [pair for pair in pairs if (pair.split, pair.other_split) == (one, other)]
        same = sum(pair.same_source for pair in between)
        lines.append(
            f"{one} and {other}: {len(between)} pairs within {max_distance} of 64 bits or of one source, "
            f"{same} of one source"
        )
        lines += [f"  {pair.distance:2d}  {pair.key}  {pair.other_key}" for pair in between[:_SHOWN]]
        if len(between) > _SHOWN:
            lines.append(f"  and {len(between) - _SHOWN} more; --json lists all")
    return "\n".join(lines)


def _read(name: str) -> _Split:
    folder = column_folder("image", name)
    remedy = remedy_of("image")
    Expectation(split=name, column="image").check(read_manifest(folder, remedy=remedy), folder, remedy)
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


def _near_by_hash(one: _Split, other: _Split, max_distance: int) -> list[Pair]:
    return [
        _pair(one, other, int(left), int(right))
        for lefts, rights, _ in near_pairs(one.hashes, other.hashes, max_distance)
        for left, right in zip(lefts, rights, strict=True)
    ]


def _equal_sources(one: _Split, other: _Split, max_distance: int) -> list[Pair]:
    """Return the pairs with equal source bytes whose hashes are not near, such as two squares cut from one picture."""
    indices: dict[bytes, list[int]] = {}
    shared = pc.unique(other.sources.filter(pc.is_in(other.sources, value_set=pc.unique(one.sources))))
    for right in pc.indices_nonzero(pc.is_in(other.sources, value_set=shared)).to_pylist():
        indices.setdefault(other.sources[right].as_py(), []).append(right)
    pairs = [
        _pair(one, other, left, right)
        for left in pc.indices_nonzero(pc.is_in(one.sources, value_set=shared)).to_pylist()
        for right in indices[one.sources[left].as_py()]
    ]
    return [pair for pair in pairs if pair.distance > max_distance]


VERB = {
    "help": "list equal and nearly equal pictures of different splits",
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
