"""Compare an evaluation with bare forward passes, and measure two workers and the memory of small and large suites.

    python -m benchmarks.evaluation                  the figures beside their limits, and JSON into benchmarks/results

DeepFill v1 at the paper's width fills a square in the centre of photographs made in code, one mask per image. The
benchmark takes about 12 minutes on two cores.

cost: seconds of an evaluation on one core / seconds of forward passes with bare decoding of the same pictures, on one
    core in the same process. Both are measured for every eighth part of the suite, one after the other; the median of
    these parts counts.
two_workers_by_one: seconds of the whole suite on one core of this process, without its start / seconds in two
    processes of this machine, with their start.
memory: highest resident memory of an evaluation of the large suite / that of the small one, each in a fresh process,
    with its summary.

Exits with 1 if a limit is not kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.photographs import photograph, write_column
from datasets.shards.column import Column
from datasets.writing.tars import NewRecord
from files.pictures import decode_image, decode_map, encode_grey_png, encode_png
from jobs.checks.apart import Say, run_apart
from jobs.checks.probe import peak_bytes
from jobs.cluster.kept import map_kept
from jobs.cluster.settings import ClusterConfig
from jobs.evaluation.inference import fill_on_device, hide, load_trained
from jobs.evaluation.job import EvaluationJob
from jobs.evaluation.loop import Evaluation, divide_images
from jobs.evaluation.parts import Parts
from jobs.evaluation.settings import EvaluateConfig
from jobs.evaluation.summary import summarise
from jobs.generators import card
from jobs.generators.build import build_recipe
from jobs.runs.checkpoints import save_weights
from jobs.runs.folder import WEIGHTS_NAME
from jobs.runs.receipt import Receipt, write_receipt
from masks.config import MaskConfig
from masks.drawn import draw_mask
from masks.hole_ratio import member_of_bin

RESULTS = Path(__file__).parent / "results"
GENERATOR, SMALL_GENERATOR, MASK = "deepfill_v1", "unet", "centre"
_PHOTOGRAPHS = 32  # different pictures; a suite repeats them under other keys
_COMPARED = 8  # every eighth part is also computed bare
AT_MOST = {"cost": 1.15, "memory": 1.1}
AT_LEAST = {"two_workers_by_one": 1.6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="of 256x256 pixels (default: 1000)")
    parser.add_argument("--small", type=int, default=500, help="images of the small suite (default: 500)")
    parser.add_argument("--large", type=int, default=5000, help="images of the large suite (default: 5000)")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(Path(folder), GENERATOR, arguments.images, size=256, paper=True)
        cost, one = measure_one_core(job, arguments.images)
        kept = [is_kept("cost", cost)]
        two = seconds_of_two_workers(job, arguments.images)
        kept.append(is_kept("two_workers_by_one", one / two))
        suites = {count: Path(folder, str(count)) for count in (arguments.small, arguments.large)}
        small, large = (
            run_apart(peak_of_evaluation, make_job(place, SMALL_GENERATOR, count, size=32, paper=False))
            for count, place in suites.items()
        )
        kept.append(is_kept("memory", large / small))
    measured = {
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "generator": GENERATOR,
        "images": arguments.images,
        "seconds": {"one_core": one, "two_workers": two},
        "peak_bytes": [small, large],
        "cost": cost,
        "two_workers_by_one": one / two,
        "memory": large / small,
    }
    out = arguments.out or RESULTS / f"{datetime.date.today():%Y%m%d}-evaluation.json"
    out.write_text(json.dumps(measured, indent=1) + "\n")
    sys.exit(0 if all(kept) else 1)


def is_kept(name: str, value: float) -> bool:
    """Tell whether a figure keeps its limit, and print both."""
    limit = AT_MOST.get(name, AT_LEAST.get(name))
    kept = value <= limit if name in AT_MOST else value >= limit
    print(f"{name:22}{value:8.3f}   limit {limit:g}: {'ok' if kept else 'NOT KEPT'}", flush=True)
    return kept


def make_job(folder: Path, generator: str, count: int, *, size: int, paper: bool) -> EvaluationJob:
    """Write images, masks and initial weights, and return the evaluation of them."""
    pictures = [encode_png(photograph(number, size)) for number in range(min(count, _PHOTOGRAPHS))]
    mask = encode_grey_png(255 * draw_mask(MaskConfig(kind=MASK), size, size, 0))
    keys = [f"made/{number:05d}" for number in range(count)]
    records = [
        NewRecord(key=key, members={"png": pictures[number % _PHOTOGRAPHS]}, about={"source": f"{key}.png"})
        for number, key in enumerate(keys)
    ]
    images = write_column(folder / "image" / "val", "image", records, per_shard=500)
    masks = [NewRecord(key=key, members={member_of_bin("mask", MASK): mask}, about={}) for key in keys]
    write_column(folder / "mask" / "val", "mask", masks, per_shard=500, made_from=images.manifest.digest)
    config = card(generator).Config() if paper else card(generator).Config.tiny()
    recipe = build_recipe(generator, config, 0)
    model = folder / "model"
    model.mkdir()
    write_receipt(
        model,
        Receipt(
            generator=generator, config=dataclasses.asdict(config), edges=None, seed=0, steps=0, samples_seen=0,
            world_sizes=(1,), not_repeatable=(), images="", columns={}, train={}, parameters={}, experiment="",
            weights_sha256=save_weights(model / WEIGHTS_NAME, recipe.networks),
        ),
    )  # fmt: skip
    return EvaluationJob(
        name=generator,
        images=str(folder / "image" / "val"),
        masks=str(folder / "mask" / "val"),
        model=str(model),
        config=EvaluateConfig(gallery_images=8, bootstrap_samples=200),
        bins=(MASK,),
    )


def measure_one_core(job: EvaluationJob, count: int) -> tuple[float, float]:
    """Evaluate a suite part by part in this process, some parts after their bare forward passes.

    Returns the median over those parts of the seconds of the evaluation, divided by those of the forward passes with
    bare decoding; and the seconds of the whole evaluation.
    """
    torch.set_num_threads(1)
    recipe, _ = load_trained(Path(job.model))
    images, masks = Column(Path(job.images)), Column(Path(job.masks))
    evaluation = Evaluation(job)

    def fill(part: range) -> None:
        for number in part:
            image, mask = decode_image(images.read(number)), decode_map(masks.read(number)) // 255
            fill_on_device(recipe, [hide(image[None], mask[None], columns=(), edges=None)])

    fill(range(1))  # not measured: the first pass allocates
    evaluation(range(1))
    ratios, total = [], 0.0
    for number, part in enumerate(divide_images(count)):
        bare = seconds_of(partial(fill, part)) if number % _COMPARED == 0 else None
        seconds = seconds_of(partial(evaluation, part))
        total += seconds
        ratios += [seconds / bare] if bare else []
    return statistics.median(ratios), total


def seconds_of_two_workers(job: EvaluationJob, count: int) -> float:
    """Return the seconds of an evaluation in two processes."""
    results = map_kept(partial(Evaluation, job), divide_images(count), ClusterConfig(num_workers=2), use_gpu=False)
    return seconds_of(partial(deque, results, maxlen=0))


def seconds_of(function: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def peak_of_evaluation(job: EvaluationJob, say: Say) -> int:
    """Evaluate a suite in this process, summary included. Returns the highest resident memory."""
    torch.set_num_threads(1)
    count = Column(Path(job.images)).manifest.records
    parts = Parts(Path(job.model).with_name("parts"), "benchmark")
    for result in map_kept(partial(Evaluation, job), divide_images(count), ClusterConfig(num_workers=0), use_gpu=False):
        parts.add(result)
    summarise(parts, Path(job.model).with_name("scores.parquet"), job.config)
    return peak_bytes(torch.device("cpu"))


if __name__ == "__main__":
    main()
