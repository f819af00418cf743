"""Measure how fast records of 256x256 pixels are read, and compare with bare decoding and with other libraries.

    python -m benchmarks.reading                   the table with its limits, and JSON into benchmarks/results

The records are JPEGs, quality 95, of photographs that scikit-image ships. Shards and a folder hold the same bytes.

bare: decodes bytes that are in memory. With "2 at once", two processes do; they have the bytes in memory before the
    clock starts.
ours: the training stream: plan, read, compare with the digest, decode, batch.
folder: a plain DataLoader over the files, shuffled. It decodes by Pillow, as torchvision's ImageFolder does.
webdataset: that library's plain pipeline over the same shards.
folder same decoder, webdataset same decoder: the two with our decoder in place of theirs, to show its share.

Rows with 2 loader workers are compared with bare decoding in two processes. Crop, augmentation, masks and digests have
rows of their own. All rows take turns for several rounds, and the best round counts, since other work on the machine
can only slow a row. CPU time is printed as well, for machines that always have other work.

Exits with 1 if a limit is not kept.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import default_loader
from torchvision.transforms.functional import pil_to_tensor

from benchmarks.photographs import write_column
from datasets.writing.tars import NewRecord, library
from files.pictures import decode_image, encode_jpeg
from jobs.training.byte_batches import ByteBatch
from jobs.training.samples import TrainingSamples
from jobs.training.settings import SampleConfig
from masks.drawn import draw_mask

RESULTS = Path(__file__).parent / "results"
SIZE, BATCH, PER_SHARD = 256, 16, 64
SHARE_OF_BARE = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rates, cpu = _Reading(Path(folder), arguments.records).figures(arguments.rounds)
    limits = {
        f"ours, {workers} workers": {
            f"{SHARE_OF_BARE:.0%} of bare": SHARE_OF_BARE * rates[f"bare, {max(workers, 1)} at once"],
            "folder": rates[f"folder, {workers} workers"],
            "webdataset": rates[f"webdataset, {workers} workers"],
        }
        for workers in (0, 2)
    }
    # Comparing the digest takes at most a twentieth of the time that one process takes for a record.
    limits["digest alone"] = {"ours, 20 times": 20 * rates["ours, 0 workers"]}
    for name, rate in rates.items():
        print(f"{name:36}{rate:10,.0f} records/s {cpu[name]:10,.0f} us of CPU time a record")
    broken = []
    for name, bounds in limits.items():
        for what, bound in bounds.items():
            print(f"{name} against {what}: {rates[name] / bound:.2f}")
            broken += [f"{name} is slower than {what}"] * (rates[name] < bound)
    machine = {
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "records": arguments.records,
        "batch": BATCH,
    }
    out = arguments.out or RESULTS / f"{machine['date'].replace('-', '')}-reading.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps(
            {"machine": machine, "records_per_second": rates, "cpu_us_per_record": cpu, "limits": limits}, indent=1
        )
        + "\n"
    )
    print(out, *broken, sep="\n")
    sys.exit(1 if broken else 0)


class _Decoded(TrainingSamples):
    """The training stream without crop, augmentation and masks: it decodes records and stacks them."""

    def __getitems__(self, positions: Sequence[int]) -> ByteBatch:
        images, records = self.decode(positions)
        return ByteBatch(image=images, mask=images[:0], maps={}, seed=None, key=tuple(key for key, _ in records))


class _Files(Dataset):
    """A folder of pictures."""

    def __init__(self, paths: list[Path], decode: Callable[[Path], torch.Tensor]) -> None:
        self.paths, self.decode = paths, decode

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        return self.decode(self.paths[index]), self.paths[index].stem


def _by_pillow(path: Path) -> torch.Tensor:
    return pil_to_tensor(default_loader(str(path)))


def _by_us(path: Path) -> torch.Tensor:
    return torch.from_numpy(decode_image(path.read_bytes()))


def _member_by_us(content: bytes) -> np.ndarray:
    return decode_image(content)


def _decode_all(contents: list[bytes]) -> None:
    for content in contents:
        decode_image(content)


_given: list[bytes] = []


def _give(contents: list[bytes]) -> None:
    """Keep the contents in a forked process, which inherits them: nothing is sent."""
    _given[:] = contents


def _decode_given(part: slice) -> None:
    _decode_all(_given[part])


class _Reading:
    """Hold the same records in every form, and measure each way to read them."""

    def __init__(self, folder: Path, count: int) -> None:
        self.count = count
        rng = np.random.default_rng(0)
        pictures = [getattr(skimage.data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")]
        self.contents = []
        for number in range(count):
            picture = pictures[number % len(pictures)]
            top, left = rng.integers((picture.shape[0] - SIZE + 1, picture.shape[1] - SIZE + 1))
            self.contents.append(encode_jpeg(picture[top : top + SIZE, left : left + SIZE], 95))
        members = [NewRecord(key=f"{n:06d}", members={"jpg": c}, about={}) for n, c in enumerate(self.contents)]
        write_column(folder / "image", "image", members, per_shard=PER_SHARD)
        self.urls = [str(path) for path in sorted((folder / "image").glob("*.tar"))]
        self.samples, self.decoded = (
            kind({"image": folder / "image"}, SampleConfig(), 1) for kind in (TrainingSamples, _Decoded)
        )
        self.paths = [folder / "files" / f"{n:06d}.jpg" for n in range(count)]
        self.paths[0].parent.mkdir()
        for path, content in zip(self.paths, self.contents, strict=True):
            path.write_bytes(content)

    def figures(self, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
        """Return the best of all rounds for every row.

        Returns row -> records per second, and row -> microseconds of CPU time per record, which include the workers and
        their start.
        """
        rates: dict[str, float] = {}
        cpu: dict[str, float] = {}
        for _ in range(rounds):
            for name, measure in self._rows().items():
                before = os.times()
                rates[name] = max(rates.get(name, 0.0), measure())
                spent = sum(os.times()[:4]) - sum(before[:4])
                cpu[name] = min(cpu.get(name, float("inf")), 1e6 * spent / self.count)
        return rates, cpu

    def _rows(self) -> dict[str, Callable[[], float]]:
        rows: dict[str, Callable[[], float]] = {
            "bare, 1 at once": lambda: self._timed(lambda: _decode_all(self.contents)),
            "bare, 2 at once": self._bare_twice,
        }
        for workers in (0, 2):
            rows |= {
                f"{name}, {workers} workers": lambda make=make, workers=workers: self._rate(make(workers))
                for name, make in {
                    "ours": lambda workers: self._loader(self.decoded, workers),
                    "folder": lambda workers: self._folder(workers, _by_pillow),
                    "webdataset": lambda workers: self._webdataset(workers, "rgb8"),
                    "folder same decoder": lambda workers: self._folder(workers, _by_us),
                    "webdataset same decoder": lambda workers: self._webdataset(workers, None),
                }.items()
            }
        rows["ours with crop, augmentation, mask"] = lambda: self._rate(self._loader(self.samples, 0))
        rows["mask alone"] = self._masks
        rows["digest alone"] = lambda: self._timed(lambda: [sha256(content).digest() for content in self.contents])
        return rows

    def _loader(self, samples: TrainingSamples, workers: int) -> Iterable:
        return samples.loader(
            steps=range(self.count // BATCH), batch_size=BATCH, rank=0, world_size=1, num_workers=workers
        )

    def _folder(self, workers: int, decode: Callable[[Path], torch.Tensor]) -> Iterable:
        return DataLoader(_Files(self.paths, decode), batch_size=BATCH, shuffle=True, num_workers=workers)

    def _webdataset(self, workers: int, decoder: str | None) -> Iterable:
        webdataset = library()

        stream = webdataset.WebDataset(self.urls, shardshuffle=100, seed=0).shuffle(1000)
        stream = stream.decode(decoder) if decoder else stream.map_dict(jpg=_member_by_us)
        stream = stream.to_tuple("jpg", "__key__").batched(BATCH)
        return webdataset.WebLoader(stream, batch_size=None, num_workers=workers)

    def _rate(self, loader: Iterable) -> float:
        """Return records per second.

        With loader workers the clock starts when the first batch has arrived, so that their start is not counted.
        """
        batches = iter(loader)
        ready = getattr(loader, "num_workers", 0) or getattr(getattr(loader, "pipeline", [None])[0], "num_workers", 0)
        seen = 0
        if ready:
            next(batches)
        start = time.perf_counter()
        for batch in batches:
            seen += len(batch.key if hasattr(batch, "key") else batch[1])
        return seen / (time.perf_counter() - start)

    def _timed(self, work: Callable[[], Any]) -> float:
        start = time.perf_counter()
        work()
        return self.count / (time.perf_counter() - start)

    def _bare_twice(self) -> float:
        with multiprocessing.get_context("fork").Pool(2, _give, (self.contents,)) as pool:
            pool.map(_decode_given, [slice(0, 1)] * 2)
            return self._timed(lambda: pool.map(_decode_given, [slice(0, None, 2), slice(1, None, 2)]))

    def _masks(self) -> float:
        config = self.samples.config.masks
        return self._timed(lambda: [draw_mask(config, SIZE, SIZE, seed) for seed in range(self.count)])


if __name__ == "__main__":
    main()
