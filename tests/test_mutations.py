"""Thousands of files spoiled at random: readers raise the errors they declare, in bounded memory and time.

Each test spoils and reads in a process of its own: the limits are the kernel's, and a crash is one process's.
"""

import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil

from benchmarks.photographs import photograph, write_column
from datasets.shards.column import Column
from datasets.shards.manifest import MANIFEST_NAME, RECORDS_NAME, ManifestError, read_manifest
from datasets.shards.records import ShardError
from datasets.writing.tars import NewRecord
from files.durable import file_digest
from files.pictures import RejectedImageError, decode, decode_grey, decode_image, decode_map, encode_jpeg, encode_png
from jobs.checks.audit import AuditTask, ColumnShard, audit_shards

ROOT = Path(__file__).resolve().parent.parent
COUNT = 1000
MEGABYTES, SECONDS = 512, 2

_VALUES = (-1, 0, 2**31, 2**62, 2**80, 1e300, None, True, "", "../../x", "a\x00b", "pipe:touch canary", [], {}, [{}])


def spoil(content: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, a piece cut off, taken out, doubled, or overwritten."""
    spoiled = bytearray(content)
    kind = draw.randrange(6)
    start = draw.randrange(len(spoiled))
    end = min(len(spoiled), start + draw.choice((1, 8, 100, 512, 1024)))
    if kind <= 1:
        for _ in range(draw.randint(1, 8)):
            spoiled[draw.randrange(len(spoiled))] = draw.randrange(256)
    elif kind == 2:
        del spoiled[start:]
    elif kind == 3:
        del spoiled[start:end]
    elif kind == 4:
        spoiled[start:start] = spoiled[start:end]
    else:
        spoiled[start:end] = draw.choice((b"\0", b"\xff", b"7", b"/")) * (end - start)
    return bytes(spoiled)


def _limit() -> None:
    if sys.platform == "linux":  # the limit counts addresses, so what the imports took is added
        limit = psutil.Process().memory_info().vms + MEGABYTES * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def read_spoiled_shards() -> Counter:
    """Kinds of outcome over `COUNT` spoiled folders, every record read and every shard audited."""
    draw = random.Random(0)
    outcomes: Counter = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = [
            NewRecord(
                key=f"a/{n}",
                members={"png": encode_png(photograph(n, 16))},
                about={"source": f"{n}.png", "source_sha256": bytes(32), "width": 16, "height": 16},
            )
            for n in range(6)
        ]
        write_column(folder, "image", samples, per_shard=3)
        clean = {path: path.read_bytes() for path in folder.iterdir()}
        _read(folder)
        assert not _audit(folder)
        _limit()
        for number in range(COUNT):
            for path, content in clean.items():
                path.write_bytes(content)
            (_spoil_tar, _spoil_table, _spoil_manifest)[number % 3](folder, draw)
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)  # of this process's own time; kills it when over
            try:
                _read(folder)
                outcomes["read"] += 1
            except (ShardError, ManifestError, RejectedImageError) as error:
                outcomes[type(error).__name__] += 1
            try:
                outcomes["found" if _audit(folder) else "sound"] += 1
            except (ShardError, ManifestError):
                outcomes["found"] += 1
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return outcomes


def _read(folder: Path) -> None:
    column = Column(folder)
    for record in range(len(column.keys)):
        decode_image(column.read(record))


def _audit(folder: Path) -> bool:
    shards = [ColumnShard(folder=folder, column="image", shard=shard) for shard in read_manifest(folder).shards]
    return bool(sum(len(audit_shards(AuditTask(shards=(shard,))).findings) for shard in shards))


def _spoil_tar(folder: Path, draw: random.Random) -> None:
    """Every second time the manifest is made to list the spoiled tar, as a writer of the bucket would."""
    path = folder / f"image-{draw.randrange(2):06d}.tar"
    path.write_bytes(spoil(path.read_bytes(), draw))
    manifest = read_manifest(folder)
    if draw.random() < 0.5:
        signed = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        shards = tuple(replace(shard, **signed) if shard.name == path.name else shard for shard in manifest.shards)
        (folder / MANIFEST_NAME).write_bytes(replace(manifest, shards=shards).to_json())


def _spoil_table(folder: Path, draw: random.Random) -> None:
    path = folder / RECORDS_NAME
    manifest = read_manifest(folder)
    path.write_bytes(spoil(path.read_bytes(), draw))
    if draw.random() < 0.9:
        (folder / MANIFEST_NAME).write_bytes(replace(manifest, records_sha256=file_digest(path)).to_json())


def _spoil_manifest(folder: Path, draw: random.Random) -> None:
    path = folder / MANIFEST_NAME
    if draw.random() < 0.3:
        path.write_bytes(spoil(path.read_bytes(), draw))
        return
    tree = json.loads(path.read_text())
    place = draw.choice([tree, tree, draw.choice(tree["shards"])])
    place[draw.choice(sorted(place))] = draw.choice(_VALUES)
    path.write_text(json.dumps(tree, indent=2, sort_keys=True) + "\n")


def read_spoiled_images() -> Counter:
    """Kinds of outcome over `COUNT` spoiled JPEGs and PNGs, by each of the decoders."""
    draw = random.Random(1)
    outcomes: Counter = Counter()
    image = photograph(3, 48)
    clean = [encode_png(image), encode_jpeg(image, 90)]
    for decoder in (decode, decode_image):
        decoder(clean[0])
    _limit()
    warnings.simplefilter("ignore")
    for number in range(COUNT):
        content = spoil(clean[number % 2], draw)
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        for decoder in (decode, decode_grey, decode_image, decode_map):
            try:
                decoder(content)
                outcomes["decoded"] += 1
            except RejectedImageError:
                outcomes["RejectedImageError"] += 1
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return outcomes


def _in_child(function: str) -> Counter:
    code = f"import json; from tests.test_mutations import {function} as f; print(json.dumps(f()))"
    command = [sys.executable, "-X", "faulthandler", "-c", code]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-2000:]
    return Counter(json.loads(answer.stdout.splitlines()[-1]))


def test_spoiled_shards_raise_only_what_readers_declare():
    outcomes = _in_child("read_spoiled_shards")
    assert sum(outcomes[name] for name in ("read", "ShardError", "ManifestError", "RejectedImageError")) == COUNT
    assert outcomes["found"] + outcomes["sound"] == COUNT
    assert min(outcomes["ShardError"], outcomes["ManifestError"]) > COUNT / 10
    assert outcomes["found"] > COUNT * 0.8  # the others changed only what nobody reads, under a manifest that says so


def test_spoiled_images_raise_only_what_decoders_declare():
    outcomes = _in_child("read_spoiled_images")
    assert sum(outcomes.values()) == 4 * COUNT
    assert min(outcomes.values()) > COUNT / 4
