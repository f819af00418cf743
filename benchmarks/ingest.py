"""Compare the rate of ingest with that of its bare work: decode, resize and encode the same pictures.

    python -m benchmarks.ingest                     one and two processes, and JSON into benchmarks/results
    python -m benchmarks.ingest --images 500 --processes 1

The pictures are scikit-image's photographs, cut at random to 512x384 and saved as JPEG. They become 256x256. Both sides
call the same functions and read the same files, which are in the page cache. They alternate, so that other work on the
machine slows both. With several processes, the bare work is done by a pool that gets the pictures of one shard at a
time. Both sides keep their processes from run to run.

share: rate of ingest / rate of the bare work.
start s: seconds that the first run takes longer than the others: for Ray's start and for the imports of its workers.
    They do not depend on the number of pictures.

Exits with 1 if a share is below the limit.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.ingest import IngestConfig, IngestedShard, plan_shards
from datasets.sources import open_source, source_config
from datasets.tombstones import StayOut
from files.archives import read
from files.pictures import decode, encode_jpeg, encode_png, fit
from jobs.cluster.launch import keep_workers
from pipeline.params import Params, read_params
from pipeline.stages import ingest

RESULTS = Path(__file__).resolve().parent / "results"
LIMIT = 0.85
_SHARD = 128


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    params = read_params()
    out = (arguments.out or RESULTS / f"{datetime.date.today():%Y%m%d}-ingest.json").absolute()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        _make_pictures(Path("pictures"), arguments.images)
        params = dataclasses.replace(
            params,
            dataset=source_config(name="folder", root=str(Path("pictures").resolve())),
            ingest=IngestConfig(size=256, format="jpeg", records_per_shard=_SHARD),
        )
        print(f"{'processes':>9} {'bare images/s':>14} {'ingest images/s':>16} {'start s':>12} {'share':>6}")
        rows = [_compare(params, processes, arguments.repeats) for processes in arguments.processes]
    machine = {
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "images": arguments.images,
        "records_per_shard": _SHARD,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "limits": {"share": LIMIT}, "rows": rows}, indent=1) + "\n")
    print(out)
    if below := [row["share"] for row in rows if row["share"] < LIMIT]:
        print(f"ingest runs at {min(below):.0%} of the bare work, below the limit of {LIMIT:.0%}", file=sys.stderr)
    return bool(below)


def _compare(params: Params, processes: int, repeats: int) -> dict[str, float]:
    workers = 0 if processes == 1 else processes
    cluster = dataclasses.replace(params.cluster, num_workers=workers)
    params = dataclasses.replace(params, cluster=cluster)
    images = open_source(source_config(name="folder", root=params.dataset.root)).images()
    fillings = [f for split in ("train", "val") for f in plan_shards(images, split, params.ingest, StayOut({}, {}))]
    ingest.run(dataclasses.replace(params, cluster=dataclasses.replace(cluster, num_workers=0)))  # imports, page cache
    bare, whole = [], []
    with multiprocessing.Pool(processes) as pool:
        began = time.perf_counter()
        with keep_workers(workers):
            ingest.run(params)
            first = time.perf_counter() - began
            for _ in range(repeats):
                bare.append(_seconds(partial(_bare, fillings, pool if workers else None)))
                whole.append(_seconds(partial(ingest.run, params)))
    rates = [len(images) / statistics.median(seconds) for seconds in (bare, whole)]
    row = {
        "processes": processes,
        "bare_images_per_second": rates[0],
        "ingest_images_per_second": rates[1],
        "start_s": max(0.0, first - statistics.median(whole)),
        "share": rates[1] / rates[0],
    }
    print(f"{processes:9d} {rates[0]:14.1f} {rates[1]:16.1f} {row['start_s']:12.1f} {row['share']:6.0%}", flush=True)
    return row


def _seconds(work: partial) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _bare(fillings: Sequence[IngestedShard], pool: Pool | None) -> None:
    list(map(_bare_shard, fillings) if pool is None else pool.imap_unordered(_bare_shard, fillings))


def _bare_shard(filling: IngestedShard) -> int:
    """Encode the pictures of one shard, drop the bytes and return their number."""
    total = 0
    for source in filling.sources:
        image = fit(decode(read(source.locator)), filling.config.size, filling.config.rule)
        lossless = filling.split != "train"
        total += len(encode_png(image) if lossless else encode_jpeg(image, filling.config.jpeg_quality))
    return total


def _make_pictures(folder: Path, count: int) -> None:
    photographs = open_source(source_config("photos")).images()
    arrays = {image.name: decode(read(image.locator)) for image in photographs}
    names = sorted(name for name, array in arrays.items() if min(array.shape[:2]) >= 300)
    rng = np.random.default_rng(0)
    for number in range(count):
        array = arrays[names[number % len(names)]]
        height, width = array.shape[:2]
        high, wide = height * 3 // 4, width * 3 // 4
        top, left = rng.integers(0, height - high), rng.integers(0, width - wide)
        path = folder / ("val" if number % 16 == 0 else "train") / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cut = Image.fromarray(array[top : top + high, left : left + wide]).resize((512, 384))
        cut.save(path, quality=90)


if __name__ == "__main__":
    sys.exit(main())
