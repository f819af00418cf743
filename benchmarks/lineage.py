"""Measure how long `lineage` takes with 8 million records, 200 trainings and 20 takedowns.

    python -m benchmarks.lineage                  the figures beside their limits, and JSON into benchmarks/results
    python -m benchmarks.lineage --records 100000 --shards 20

Writes a synthetic history into a temporary folder: the index of the pictures, a manifest of images and one of edges for
each takedown, and for each training a receipt, a registered version and the records of training and evaluation. Every
training has another seed and goes through its images three times. Then each question is asked by a fresh process, after
the system was told to forget the cached pages of the history. Its start and its imports count.

Exits with 1 if a limit is not kept.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.plan import RESULTS, image_key, image_rows
from datasets.shards.manifest import Manifest, Shard
from datasets.shards.records import shard_name, write_tables
from datasets.writing.tars import even_sizes
from jobs.runs.history import MANIFESTS, RECEIPTS, STATEMENTS, Version, add_record, add_version
from jobs.training.settings import TrainConfig
from pipeline.lineage.pictures import add_images
from pipeline.lineage.statement import Resource, Run, Statement

LIMITS = {"seconds": 2.0, "peak_mb": 500.0}
TRAININGS, TAKEDOWNS, EPOCHS, BATCH = 200, 20, 3, 64
CODE_FILES = 100  # of a stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=8_000_000)
    parser.add_argument("--shards", type=int, default=1600)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    root = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        begun = time.perf_counter()
        with multiprocessing.get_context("spawn").Pool(
            1
        ) as pool:  # the memory of this process would count as its child's
            digest, source = pool.apply(write, (arguments.records, arguments.shards))
        print(f"the history was written in {time.perf_counter() - begun:.0f} s")
        middle = image_key(arguments.records // 2)
        asked = {
            "image, by key": ("image", middle),
            "image, by digest": ("image", source),
            "dataset": ("dataset", digest),
            "model": ("model", f"inpaint-made@{TRAININGS}"),
        }
        found = {name: ask(root, *words) for name, words in asked.items()}
        os.chdir(root)
    kept = all(figures[name] <= limit for figures in found.values() for name, limit in LIMITS.items())
    for name, figures in found.items():
        print(f"{name:18}" + "".join(f"{key} {value:8,.2f}   " for key, value in figures.items()))
    print(f"limits {LIMITS}: {'kept' if kept else 'NOT KEPT'}")
    machine = {
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        **{"records": arguments.records, "shards": arguments.shards, "trainings": TRAININGS, "takedowns": TAKEDOWNS},
    }
    out = arguments.out or RESULTS / f"{machine['date'].replace('-', '')}-lineage.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "limits": LIMITS, "found": found}, indent=1) + "\n")
    print(out)
    sys.exit(0 if kept else 1)


def ask(root: Path, what: str, name: str) -> dict[str, float]:
    """Ask one question in a fresh process. Returns wall time, processor time and peak memory."""
    for path in Path("lineage").rglob("*.*"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    command = [sys.executable, "-m", "pipeline", "lineage", what, name, "--json"]
    begun = time.perf_counter()
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE) as process:
        answer = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, answer[-2000:]
    assert len(json.loads(answer)["nodes"]) > 3
    return {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
    }


def write(records: int, shards: int) -> tuple[str, str]:
    """Write the history into the working folder. Returns the digest of the last images, and of one source."""
    made = list(_images(records, shards))
    digests = []
    for images, _ in made:
        edges = replace(images, column="edge", made_from=images.digest)
        for manifest in (images, edges):
            add_record(MANIFESTS, manifest.digest, manifest.to_json())
        digests.append((images, edges))
    for number in range(TRAININGS):
        _add_training(number, *digests[number % len(digests)])
    return digests[-1][0].digest, made[-1][1]


def _images(records: int, shards: int) -> Iterator[tuple[Manifest, str]]:
    """Yield the manifest of the images before the first takedown and after each, and the digest of one source.

    Of the table only rows of new shards are written: the index reads no other.
    """
    rng = np.random.default_rng(0)
    sizes = even_sizes(records, -(-records // shards))
    starts = [0, *np.cumsum(sizes).tolist()]
    source = ""

    def rows(index: int, size: int) -> pa.Table:
        nonlocal source
        table = image_rows(rng, index, starts[index], size)
        content = pa.py_buffer(rng.bytes(8 * size))
        hashes = pa.Array.from_buffers(pa.binary(8), size, [None, content]).cast(pa.binary())
        source = table["source_sha256"][0].as_py().hex()
        return table.append_column("dhash", hashes)

    entries = [
        Shard(name=shard_name("image", i), records=size, bytes=25_000 * size, sha256=_digest("shard", i))
        for i, size in enumerate(sizes)
    ]
    new = list(enumerate(sizes))
    for takedown in range(TAKEDOWNS + 1):
        with tempfile.TemporaryDirectory() as folder:
            tables = (rows(index, size) for index, size in new)
            sha256 = write_tables(Path(folder), rows(0, 1).schema, tables)
            manifest = Manifest(
                dataset="made", split="train", column="image", licence="made in code", shards=tuple(entries),
                records_sha256=sha256,
            )  # fmt: skip
            add_images(Path(folder), manifest)
        yield manifest, source
        changed = takedown * len(sizes) // TAKEDOWNS % len(sizes)
        size = entries[changed].records - 1
        entries[changed] = replace(entries[changed], records=size, sha256=_digest("taken", takedown))
        new = [(changed, size)]


def _add_training(number: int, images: Manifest, edges: Manifest) -> None:
    steps = EPOCHS * images.records // BATCH
    weights = _digest("weights", number)
    receipt = {
        "generator": "made", "config": {"batch_size": BATCH}, "edges": None, "seed": number, "steps": steps,
        "samples_seen": steps * BATCH, "world_sizes": [1], "not_repeatable": [], "images": images.digest,
        "columns": {"edge": edges.digest}, "train": asdict(TrainConfig()), "weights_sha256": weights,
        "experiment": _digest("experiment", number), "parameters": {"made": 1},
    }  # fmt: skip
    content = json.dumps(receipt, indent=2, sort_keys=True).encode()
    sha256 = hashlib.sha256(content).hexdigest()
    add_record(RECEIPTS, sha256, content)
    tags = {"weights_sha256": weights, "files_sha256": _digest("files", number), "provenance_sha256": "0" * 64}
    add_version(Version(name="inpaint-made", version=str(number + 1), run_id=f"{number:032x}", tags=tags))
    data = [
        Resource(name=f"shards/{m.column}/train/manifest.json", sha256=_digest(m.column, 0), manifest=m.digest)
        for m in (images, edges)
    ]
    code = [Resource(name=f"jobs/made_{file:03d}.py", sha256=_digest("code", file)) for file in range(CODE_FILES)]
    trained = Resource(name="models/made/receipt.json", sha256=sha256)
    scored = Resource(name="results/made/summary.json", sha256=_digest("summary", number))
    _add_statement(number, "train", [trained], [*data, *code])
    _add_statement(number, "evaluate", [scored], [*data, trained, *code])


def _add_statement(number: int, stage: str, subjects: list[Resource], dependencies: list[Resource]) -> None:
    run = Run(
        invocation=f"{number:032x}", finished="2026-01-01T00:00:00+00:00", commit="0" * 40, changes=(), environment={}
    )
    statement = Statement(
        stage=stage,
        key="made",
        command=f"python -m pipeline {stage} made",
        parameters={"seed": number, "suite.split": "train"},
        subjects=tuple(subjects),
        dependencies=tuple(dependencies),
        run=run,
    )
    content = statement.to_json()
    add_record(STATEMENTS, f"{stage}@made-{hashlib.sha256(content).hexdigest()}", content)


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


if __name__ == "__main__":
    main()
