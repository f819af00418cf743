"""Measure how many images a core prepares for each generator, and set it against the calculated step of a GPU.

    python -m benchmarks.feeding          the table, and JSON into benchmarks/results

Records of 256x256 pixels, or of the size that a paper fixes, pass through the training stream of `scale=paper`: read,
compared with the digest, decoded, flipped, with a free-form mask. They are JPEGs of quality 95 of photographs that
scikit-image ships. Each column that a generator reads beside the image, a PNG, is decoded as well. The time is that of
the processor, of one process, so that other work on the machine hardly counts; the least of several rounds.

side: of the images, in pixels.
ms: processor time for an image with its maps and its mask.
per core, 16 cores: images per second that one core and 16 cores prepare.
H100: images per second that the fastest step of the generator takes, calculated from the newest `*-calculated.json`:
    the longest of three times counts, as if the others were hidden.
      FLOPs at 200 TFLOP/s, 40 % of the H100's peak in TF32;
      bytes at 2.3 TB/s, 70 % of its peak;
      launches at 7 us each.
cores: how many keep such a GPU busy.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data

from benchmarks.generators import RESULTS, paper_config
from benchmarks.photographs import write_column
from datasets.maps.edges import EdgeConfig, canny_edges
from datasets.stream.augment import AugmentConfig
from datasets.writing.tars import NewRecord
from files.pictures import encode_grey_png, encode_jpeg
from jobs.generators import names
from jobs.generators.build import build_recipe
from jobs.training.samples import TrainingSamples
from jobs.training.settings import SampleConfig

SIZE, BATCH = 256, 16
FLOPS_PER_SECOND, BYTES_PER_SECOND, SECONDS_PER_LAUNCH = 200e12, 2.3e12, 7e-6
_PICTURES = ("astronaut", "coffee", "chelsea", "rocket")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    taken = calculated_rates(sorted(RESULTS.glob("*-calculated.json"))[-1])
    kinds = {name: _kind_of_samples(name) for name in names()}
    with tempfile.TemporaryDirectory() as folder:
        seconds = {
            kind: _seconds_per_image(Path(folder), kind, arguments.records // BATCH, arguments.rounds)
            for kind in sorted(set(kinds.values()))
        }
    rows = []
    print("generator               side  maps            ms  per core  16 cores      H100  cores")
    for name, (side, columns) in kinds.items():
        rate = 1 / seconds[side, columns]
        row = {"generator": name, "side": side, "maps": list(columns), "ms": 1e3 / rate, "per_core": rate}
        row |= {"of_16_cores": 16 * rate, "h100": taken[name], "cores": math.ceil(taken[name] / rate)}
        rows.append(row)
        print(
            f"{name:24}{side:4}  {', '.join(columns) or 'none':12}{row['ms']:6.2f}{rate:10,.0f}{16 * rate:10,.0f}"
            f"{taken[name]:10,.0f}{row['cores']:7}"
        )
    machine = {
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, one core; H100 calculated, not measured",
        "records": arguments.records,
    }
    out = arguments.out or RESULTS / f"{machine['date'].replace('-', '')}-feeding.json"
    out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    print(out)


def _kind_of_samples(name: str) -> tuple[int, tuple[str, ...]]:
    """Return side and columns of a generator's samples."""
    config = paper_config(name)
    return getattr(config, "image_size", SIZE), build_recipe(name, config, seed=0).columns


def calculated_rates(path: Path) -> dict[str, float]:
    """Return generator -> images per second of its fastest step on an H100, calculated.

    path: a result of `benchmarks.generators --calculated`.
    """
    rates: dict[str, float] = {}
    for row in json.loads(path.read_text())["rows"]:
        name = row["what"].partition("/")[0]
        rates[name] = max(rates.get(name, 0.0), row["batch"] / step_seconds(row))
    return rates


def step_seconds(row: dict[str, Any]) -> float:
    """Return the seconds of a step on an H100, calculated from a row of `benchmarks.calculated`."""
    return max(
        1e12 * row["tflop"] / FLOPS_PER_SECOND,
        1e9 * row["gigabytes"] / BYTES_PER_SECOND,
        row["launches"] * SECONDS_PER_LAUNCH,
    )


def _write_columns(folder: Path, count: int, side: int) -> None:
    """Write the columns image, edge and semantics, each to the folder of its name."""
    rng = np.random.default_rng(0)
    pictures = [getattr(skimage.data, name)() for name in _PICTURES]
    members: dict[str, list[dict[str, bytes]]] = {"image": [], "edge": [], "semantics": []}
    for number in range(count):
        picture = pictures[number % len(pictures)]
        top, left = rng.integers((picture.shape[0] - side + 1, picture.shape[1] - side + 1))
        crop = np.ascontiguousarray(picture[top : top + side, left : left + side])
        members["image"].append({"jpg": encode_jpeg(crop, 95)})
        members["edge"].append({"png": encode_grey_png(255 * canny_edges(crop, EdgeConfig()))})
        members["semantics"].append({"png": encode_grey_png(crop[..., 0] // 32)})
    digest = ""
    for column, contents in members.items():
        records = [NewRecord(key=f"{n:06d}", members=content, about={}) for n, content in enumerate(contents)]
        parameters = {"mirrored": []} if column == "semantics" else None
        written = write_column(folder / column, column, records, per_shard=64, made_from=digest, parameters=parameters)
        digest = digest or written.manifest.digest


def _seconds_per_image(folder: Path, kind: tuple[int, tuple[str, ...]], num_batches: int, rounds: int) -> float:
    """Return the processor time of an image of the training stream, read in this process: the least of the rounds.

    kind: see `_kind_of_samples`.
    """
    side, columns = kind
    folder = folder / str(side)
    if not folder.is_dir():
        _write_columns(folder, num_batches * BATCH, side)
    folders = {column: folder / column for column in ("image", *columns)}
    config = SampleConfig(augment=AugmentConfig(flip=0.5))
    loader = TrainingSamples(folders, config, seed=1).loader(
        steps=range(num_batches), batch_size=BATCH, rank=0, world_size=1, num_workers=0
    )
    spent = []
    for _ in range(rounds + 1):  # the first one imports and opens
        before = os.times()
        for _ in loader:
            pass
        after = os.times()
        spent.append(after.user + after.system - before.user - before.system)
    return min(spent[1:]) / (num_batches * BATCH)


if __name__ == "__main__":
    main()
