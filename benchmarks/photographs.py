"""Make arrays like photographs in code, and write them as shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.maps.edges import EdgeConfig, canny_edges
from datasets.shards.column import Column
from datasets.shards.manifest import Manifest, write_manifest
from datasets.shards.records import write_records
from datasets.writing.tars import NewRecord, even_sizes, write_shard
from files.pictures import encode_grey_png, encode_png


def photograph(seed: int, size: int = 64) -> np.ndarray:
    """Make a picture of smooth colours with a few sharp borders: uint8 (size, size, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    image = np.stack([rng.uniform(60, 200) + 50 * np.sin(rng.uniform(2, 9) * x + rng.uniform(2, 9) * y)] * 3, axis=-1)
    for _ in range(3):
        top, left = rng.integers(0, size // 2, 2)
        image[top : top + size // 3, left : left + size // 3] = rng.uniform(0, 255, 3)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def samples(count: int = 20) -> list[NewRecord]:
    """Make records of two members, "png" of 16x16 pixels and "json"."""
    return [
        NewRecord(
            key=f"a/{n:03d}", members={"png": encode_png(photograph(n, 16)), "json": b"{}"}, about={"source": str(n)}
        )
        for n in range(count)
    ]


def write_column(
    folder: Path,
    column: str,
    samples: list[NewRecord],
    *,
    per_shard: int | list[int] = 8,
    made_from: str = "",
    parameters: dict | None = None,
) -> Column:
    """Write a complete folder of shards and open it.

    per_shard: most records of a shard, or the number of records of each shard.
    made_from: digest of the images' manifest, for a column that is made from images.
    parameters: entries of the manifest.
    """
    shards, fields, start = [], [], 0
    for index, size in enumerate(even_sizes(len(samples), per_shard) if isinstance(per_shard, int) else per_shard):
        shard, rows = write_shard(folder, column, index, samples[start : start + size])
        shards.append(shard)
        fields += rows
        start += size
    digest = write_records(folder, fields)
    write_manifest(
        folder,
        Manifest(
            dataset="made",
            split=folder.name,
            column=column,
            licence="made in code",
            shards=tuple(shards),
            records_sha256=digest,
            made_from=made_from,
            parameters=parameters or {},
        ),
    )
    return Column(folder)


def write_split(root: Path, count: int, *, size: int = 64, per_shard: int = 8) -> dict[str, Path]:
    """Write the columns image, edge and semantics, as ingest and precompute write them.

    count: number of records.
    size: side of the pictures, in pixels.
    per_shard: most records of a shard.
    Returns column -> folder. Labels are below 4.
    """
    pictures = {f"made/{number:04d}": photograph(number, size) for number in range(count)}
    folders = {column: root / column / "train" for column in ("image", "edge", "semantics")}
    images = write_column(
        folders["image"],
        "image",
        [
            NewRecord(
                key=key,
                members={"png": encode_png(p)},
                about={"source": f"{key}.png", "width": size, "height": size},
            )
            for key, p in pictures.items()
        ],
        per_shard=per_shard,
    )
    maps = {
        "edge": {key: 255 * canny_edges(p, EdgeConfig()) for key, p in pictures.items()},
        "semantics": {key: p[..., 0] // 64 for key, p in pictures.items()},
    }
    for column, arrays in maps.items():
        write_column(
            folders[column],
            column,
            [NewRecord(key=key, members={"png": encode_grey_png(array)}, about={}) for key, array in arrays.items()],
            per_shard=per_shard,
            made_from=images.manifest.digest,
            parameters={"mirrored": [[0, 1]]} if column == "semantics" else None,
        )
    return folders
