"""Measure the plan at the size of Places2 Challenge: 8 million records in 1,600 shards, read by 512 workers.

    python -m benchmarks.plan                     the figures beside their limits, and JSON into benchmarks/results
    python -m benchmarks.plan --records 100000 --shards 20

Writes a synthetic `records.parquet` and manifest for two columns into a temporary folder, without images. Its digests
and names do not compress better than real ones. Then a fresh process opens both columns, checks their digests and that
all keys agree, and asks for some steps, each in windows that were not asked for before. The time for imports is not
counted, and torch is not loaded. CPU time is printed as well, for machines that do other work.

Exits with 1 if a limit is not kept.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datasets.shards.column import Column, check_alignment
from datasets.shards.manifest import RECORDS_NAME, Manifest, Shard, write_manifest
from datasets.shards.records import shard_name, write_tables
from datasets.stream.plan import Plan, positions
from datasets.writing.tars import even_sizes
from files.objects import StoreConfig

RESULTS = Path(__file__).parent / "results"
WORKERS, BATCH = 512, 8192
LIMITS = {"startup_s": 2.0, "step_ms": 50.0, "peak_mb": 500.0}
STEPS = (0, 123, 7 * 977 + 412, 55_000)  # with 8 million records an epoch has 977 steps; the third is in epoch 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=8_000_000)
    parser.add_argument("--shards", type=int, default=1600)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--measure", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), arguments.records, arguments.shards)
        command = [sys.executable, "-m", "benchmarks.plan", "--measure", folder]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    kept = {name: found[name] <= limit for name, limit in LIMITS.items()}
    for name, value in found.items():
        limit = f"   limit {LIMITS[name]:g}: {'kept' if kept[name] else 'NOT KEPT'}" if name in LIMITS else ""
        print(f"{name:24}{value:12,.1f}{limit}")
    machine = {
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "records": arguments.records,
        "shards": arguments.shards,
        "workers": WORKERS,
        "batch": BATCH,
    }
    out = arguments.out or RESULTS / f"{machine['date'].replace('-', '')}-plan.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "limits": LIMITS, "found": found}, indent=1) + "\n")
    print(out)
    sys.exit(0 if all(kept.values()) else 1)


def measure(folder: Path) -> dict[str, float]:
    """Measure start-up, steps and memory of a process that trains on the columns of `folder`."""
    start, cpu = time.perf_counter(), time.process_time()
    store = StoreConfig(url="s3://nowhere/shards")  # never asked: there are no tars
    images, edges = (Column(folder / name, store=store, keep_shards=32) for name in ("image", "edge"))
    opened = time.perf_counter()
    check_alignment(images, edges)
    plan = Plan(tuple(images.shard_sizes), 1)
    ready, cpu = time.perf_counter(), time.process_time() - cpu
    taken, cpu_taken, keyed = [], [], []
    for step in STEPS:
        before, cpu_before = time.perf_counter(), time.process_time()
        ranks = [
            [plan.locate(position) for position in positions(step, BATCH, rank=rank, world_size=WORKERS)]
            for rank in range(WORKERS)
        ]
        taken.append(time.perf_counter() - before)
        cpu_taken.append(time.process_time() - cpu_before)
        assert len({place for rank in ranks for place in rank}) == BATCH
        before = time.perf_counter()
        keys = {images.key(record) for _, record in ranks[0]}
        keyed.append(time.perf_counter() - before)
        assert len(keys) == BATCH // WORKERS
    return {
        "records_mb": sum((folder / name / RECORDS_NAME).stat().st_size for name in ("image", "edge")) / 1e6,
        "open_s": opened - start,
        "startup_s": ready - start,
        "startup_cpu_s": cpu,
        "step_ms": 1e3 * max(taken),
        "step_cpu_ms": 1e3 * max(cpu_taken),
        "keys_of_a_rank_ms": 1e3 * max(keyed),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
    }


def write(folder: Path, records: int, shards: int) -> None:
    """Write the columns image and edge, without tars.

    records, shards: number of records and of shards in each column.
    """
    made_from = ""
    for column in ("image", "edge"):
        made_from = _write_column(folder / column, column, even_sizes(records, -(-records // shards)), made_from)


def _write_column(folder: Path, column: str, sizes: list[int], made_from: str) -> str:
    folder.mkdir()
    rng = np.random.default_rng(0)
    entries = [
        Shard(name=shard_name(column, index), records=size, bytes=25_000 * size, sha256=f"{index:064x}")
        for index, size in enumerate(sizes)
    ]
    starts = [0, *accumulate(sizes)]
    tables = (_rows(rng, column, index, starts[index], size) for index, size in enumerate(sizes))
    digest = write_tables(folder, _rows(rng, column, 0, 0, 1).schema, tables)
    manifest = Manifest(
        dataset="made",
        split="train",
        column=column,
        licence="made in code",
        shards=tuple(entries),
        records_sha256=digest,
        made_from=made_from,
    )
    write_manifest(folder, manifest)
    return manifest.digest


def _rows(rng: np.random.Generator, column: str, shard: int, start: int, size: int) -> pa.Table:
    names = [image_key(number) for number in range(start, start + size)]
    lengths = rng.integers(9_000, 20_000, size)
    rows: dict[str, Any] = {
        "key": names,
        "field": ["jpg" if column == "image" else "png"] * size,
        "shard": np.full(size, shard),
        "offset": np.cumsum(lengths + 1536) - lengths,
        "length": lengths,
        "sha256": _digests(rng, size),
    }
    if column == "image":
        rows |= {
            "source": [f"{name}.jpg" for name in names],
            "source_sha256": _digests(rng, size),
            "width": np.full(size, 256),
            "height": np.full(size, 256),
            "label": rng.integers(0, 434, size),
        }
    return pa.table(rows)


def image_rows(rng: np.random.Generator, shard: int, start: int, size: int) -> pa.Table:
    """Return rows of `records.parquet` of made images.

    shard: its number.
    start, size: number of its first record, and of its records.
    """
    return _rows(rng, "image", shard, start, size)


def image_key(number: int) -> str:
    """Return the key of a made record."""
    return f"{number * 2_654_435_761 % 2**32:08x}/Places365_{number:08d}"


def _digests(rng: np.random.Generator, count: int) -> pa.Array:
    content = pa.py_buffer(rng.bytes(32 * count))
    return pa.Array.from_buffers(pa.binary(32), count, [None, content]).cast(pa.binary())


if __name__ == "__main__":
    main()
