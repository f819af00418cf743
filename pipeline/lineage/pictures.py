"""The index of pictures: every record that images in shards/ ever had, found by key or by digest, also after removal.

A shard of images is identified by its SHA-256. The rows of a shard are added to the index once, with the first manifest
that lists the shard. So a takedown, which rewrites a few shards, adds the rows of these few. Per addition, these
files are in the folder `pictures` of the history:

<manifest>.pictures.parquet  a row per record, sorted by key. Its metadata list the shards.
<manifest>.digests.parquet   the first 8 bytes of the digests of source and stored bytes, sorted, each with its row in
                             the other table.
<manifest>.sha256            SHA-256 of both, as sha256sum writes it.

A search reads the row groups whose statistics contain the value, so it takes milliseconds for millions of records.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datasets.shards.manifest import MANIFEST_NAME, RECORDS_NAME, Manifest, read_manifest
from datasets.shards.records import shard_number
from files.durable import durable_file, file_digest, write_durably
from jobs.runs.history import history_folder
from pipeline.layout import column_folder, image_splits

_COLUMNS = ("key", "source", "source_sha256", "sha256", "dhash")
_GROUP_ROWS = 2**15
_SHARDS = b"shards"
_PREFIX_BYTES = 8
_MAX_COUNTED = 100_000


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One record of images.

    source: name of the picture that it was made from.
    source_sha256, sha256: of the source's bytes and of the stored bytes, in hex.
    dhash: difference hash of the picture.
    shard: SHA-256 of its shard, the first 16 digits.
    place: number in the shard, from 0.
    """

    key: str
    source: str
    source_sha256: str
    sha256: str
    dhash: int
    shard: str
    place: int


def index_images() -> None:
    """Add the records of all complete splits of shards/image to the index, unless it has them."""
    for split in image_splits():
        folder = column_folder("image", split)
        digest = json.loads((folder / MANIFEST_NAME).read_bytes())["digest"]
        if not _table_of(digest).is_file():  # of indexed images the table is not compared with its digest
            add_images(folder, read_manifest(folder))


def add_images(folder: Path, manifest: Manifest) -> None:
    """Add the records of one split of images to the index, unless it has them.

    folder: of the manifest and of `records.parquet`.
    """
    target = _table_of(manifest.digest)
    if target.is_file():
        return
    known = {shard for path in _tables() for shard in _shards_of(path)}
    numbers = {shard_number(shard.name): shard.sha256[:16] for shard in manifest.shards}
    new = {number: shard for number, shard in numbers.items() if shard not in known}
    rows = _read_rows(folder / RECORDS_NAME, new)
    rows = rows.take(pc.sort_indices(rows["key"])).combine_chunks()
    digests = _sorted_digests(rows)
    other = _digests_of(target)
    _write(other, digests, [])
    _write(target, rows, sorted(new.values()))  # after the other: its presence means that both are complete
    sums = "".join(f"{file_digest(path)}  {path.name}\n" for path in (other, target))
    write_durably(target.with_name(target.name.replace(".pictures.parquet", ".sha256")), sums.encode())


def find_by_key(key: str) -> list[Picture]:
    """Return the records of a key, one for each content that it had."""
    return [picture for path in _tables() for picture in _matches(path, "key", key)]


def find_by_digest(sha256: str) -> list[Picture]:
    """Return the records whose source or stored bytes have a digest.

    sha256: in hex.
    """
    prefix = int(sha256[: 2 * _PREFIX_BYTES], 16)
    found = []
    for path in _tables():
        with _open(_digests_of(path)) as digests:
            places = [int(place) for _, rows in _select(digests, "prefix", prefix) for place in rows["row"].to_pylist()]
        with _open(path) as pictures:
            candidates = [_read_row(pictures, place) for place in sorted(set(places))]
        found += [picture for picture in candidates if sha256 in (picture.source_sha256, picture.sha256)]
    return found


def find_near(dhash: int, distance: int, limit: int) -> list[tuple[int, Picture]]:
    """Return the records whose difference hash differs in few bits, with that number, nearest first. Reads all hashes.

    distance: bits of 64 that may differ.
    limit: the most records that are returned.
    """
    near = []
    for path in _tables():
        with _open(path) as file:
            has_hashes = "dhash" in file.schema_arrow.names  # a very old table has none
            for group in range(file.num_row_groups if has_hashes else 0):
                hashes = _as_numbers(file.read_row_group(group, columns=["dhash"])["dhash"])
                distances = np.bitwise_count(hashes ^ np.uint64(dhash))
                places = np.flatnonzero(distances <= distance)
                near += [(int(distances[place]), path, group * _GROUP_ROWS + int(place)) for place in places]
    found = []
    for bits, path, row in sorted(near)[:limit]:
        with _open(path) as file:
            found.append((bits, _read_row(file, row)))
    return found


def count_sources(shards: Collection[str], records: int) -> dict[tuple[str, str], int] | None:
    """Return (name, SHA-256 in hex) of every picture that some shards were made from -> number of its records.

    shards: first 16 digits of the SHA-256 of each.
    records: their number of records. Of more than 100,000 the pictures are not read, and None is returned.
    """
    if records > _MAX_COUNTED:
        return None
    numbers = pa.array([int(shard, 16) for shard in shards], pa.uint64())
    counts: Counter[tuple[str, str]] = Counter()
    for path in _tables():
        if not set(_shards_of(path)).isdisjoint(shards):
            table = pq.read_table(path, columns=["source", "source_sha256", "shard"])
            rows = table.filter(pc.is_in(table["shard"], numbers))
            sources = zip(rows["source"].to_pylist(), rows["source_sha256"].to_pylist(), strict=True)
            counts.update((source, digest.hex()) for source, digest in sources)
    return dict(sorted(counts.items()))


def read_sums() -> dict[Path, str]:
    """Return table -> SHA-256, as it was noted when the table was written."""
    lines = (line for path in sorted(_folder().glob("[!.]*.sha256")) for line in path.read_text().splitlines())
    return {_folder() / name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}


def _folder() -> Path:
    return history_folder() / "pictures"


def _tables() -> list[Path]:
    return sorted(_folder().glob("[!.]*.pictures.parquet"))


def _table_of(manifest: str) -> Path:
    """Return the table that was added with the manifest of a digest."""
    return _folder() / f"{manifest[:16]}.pictures.parquet"


def _digests_of(path: Path) -> Path:
    """Return the table of digests that belongs to a table of records."""
    return path.with_name(path.name.replace(".pictures.", ".digests."))


def _shards_of(path: Path) -> list[str]:
    return json.loads(pq.read_metadata(path).metadata[_SHARDS])


def _read_rows(path: Path, shards: dict[int, str]) -> pa.Table:
    """Read the rows of some shards. shards: number -> first digits of its SHA-256."""
    with pq.ParquetFile(path) as file:
        columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
        schema = pa.schema([file.schema_arrow.field(name) for name in columns])
        schema = schema.append(pa.field("shard", pa.uint64())).append(pa.field("place", pa.uint32()))
        tables = [schema.empty_table()]
        for group in range(file.num_row_groups):  # one per shard
            number = file.read_row_group(group, columns=["shard"])["shard"][0].as_py()
            if number in shards:
                rows = file.read_row_group(group, columns=columns)
                rows = rows.append_column("shard", pa.array(np.full(len(rows), int(shards[number], 16), np.uint64)))
                rows = rows.append_column("place", pa.array(np.arange(len(rows), dtype=np.uint32)))
                tables.append(rows.cast(schema))
    return pa.concat_tables(tables)


def _sorted_digests(rows: pa.Table) -> pa.Table:
    columns = [name for name in ("source_sha256", "sha256") if name in rows.column_names]
    prefixes = np.concatenate([_as_numbers(rows[name]) for name in columns])
    order = np.argsort(prefixes, kind="stable")
    places = np.tile(np.arange(len(rows), dtype=np.uint32), len(columns))
    return pa.table({"prefix": prefixes[order], "row": places[order]})


def _as_numbers(values: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return the first 8 bytes of binary values as numbers; 0 for a value that is missing."""
    first = pc.binary_slice(pc.fill_null(values, bytes(_PREFIX_BYTES)), 0, _PREFIX_BYTES)
    fixed = first.cast(pa.binary(_PREFIX_BYTES)).combine_chunks()
    numbers = np.frombuffer(fixed.buffers()[1], ">u8", count=fixed.offset + len(fixed)) if len(fixed) else np.empty(0)
    return numbers[fixed.offset :].astype(np.uint64)


def _write(path: Path, rows: pa.Table, shards: Sequence[str]) -> None:
    rows = rows.replace_schema_metadata({_SHARDS: json.dumps(shards)})
    with durable_file(path) as file:
        pq.write_table(rows, file, row_group_size=_GROUP_ROWS, compression="zstd", write_page_checksum=True)


def _open(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, page_checksum_verification=True)


def _matches(path: Path, column: str, value: Any) -> list[Picture]:
    with _open(path) as file:
        return [
            _read_row(file, first + place)
            for first, rows in _select(file, column, value)
            for place in rows["place_in_group"].to_pylist()
        ]


def _select(file: pq.ParquetFile, column: str, value: Any) -> Iterator[tuple[int, pa.Table]]:
    """Yield, for each row group that has a value, the number of its first row and the rows with the value.

    The rows have the other table columns that are small, and their place in the group as `place_in_group`.
    """
    number = file.schema_arrow.get_field_index(column)
    columns = [name for name in (column, "row") if name in file.schema_arrow.names]
    for group in range(file.num_row_groups):
        statistics = file.metadata.row_group(group).column(number).statistics
        if statistics is None or statistics.min <= value <= statistics.max:
            rows = file.read_row_group(group, columns=columns)
            rows = rows.append_column("place_in_group", pa.array(np.arange(len(rows), dtype=np.uint32)))
            yield group * _GROUP_ROWS, rows.filter(pc.equal(rows[column], pa.scalar(value, rows[column].type)))


def _read_row(file: pq.ParquetFile, row: int) -> Picture:
    group, place = divmod(row, _GROUP_ROWS)
    values = file.read_row_group(group).slice(place, 1).to_pylist()[0]
    return Picture(
        key=values["key"],
        source=values["source"],
        source_sha256=values["source_sha256"].hex(),
        sha256=values["sha256"].hex(),
        dhash=int.from_bytes(values.get("dhash") or bytes(8)),
        shard=f"{values['shard']:016x}",
        place=values["place"],
    )
