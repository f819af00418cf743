"""Measure where the processor time of a training step of params.yaml goes, and compare layers with plain PyTorch.

    python -m benchmarks.steps                          the tables, and JSON into benchmarks/results
    python -m benchmarks.steps --only edge_connect      one generator
    python -m benchmarks.steps --share 8                the share of a batch that one of two processes computes

One process with one thread does all work. Times are processor time, the least of several repeats, since any other
process on the machine only adds to it.

step: one step of a phase, with all its updates and optimizers; data is not in it.
convolutions, optimizers, norms, other: parts of the step, from the profiler. They are wall-clock time, the least of
    each call, so other processes must leave the core alone.
data: reading, decoding, augmenting and masking one batch in this process.
plain: the layer written by hand in plain PyTorch, forward and backward.

Exits with 1 if a layer is slower than its plain form.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.batches import make_batch
from benchmarks.photographs import write_split
from benchmarks.plain import contextual_attention
from jobs.generators.build import build_recipe
from jobs.layers.attention import ContextualAttention
from jobs.layers.convolution import NarrowConv2d
from jobs.layers.normalization import InstanceNorm2d
from jobs.training.determinism import deterministic
from jobs.training.samples import TrainingSamples
from jobs.training.step import TrainingStep
from pipeline.params import Params, read_params

RESULTS = Path(__file__).parent / "results"
PARTS = ("convolutions", "optimizers", "norms", "other")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=None, metavar="GENERATOR")
    parser.add_argument("--share", type=int, default=None, help="images per step (default: the whole batch)")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    params = read_params()
    steps = []
    with deterministic(params.train.deterministic):
        for name in arguments.only or params.generators:
            for row in _step_rows(params, name, arguments.share, arguments.repeats):
                steps.append(row)
                print(_line(row), flush=True)
        layers = _layer_rows(arguments.repeats)
    for row in layers:
        print(f"{row['what']:44}{row['ms']:9.1f} ms   plain {row['plain_ms']:9.1f} ms")
    machine = {
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "torch": torch.__version__,
    }
    out = arguments.out or RESULTS / f"{machine['date'].replace('-', '')}-steps.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "steps": steps, "layers": layers}, indent=1) + "\n")
    print(out)
    sys.exit(0 if all(row["ms"] <= row["plain_ms"] for row in layers) else 1)


def _line(row: dict[str, Any]) -> str:
    parts = "".join(f"{part} {row[part]:7.1f}   " for part in PARTS)
    return f"{row['what']:28}{row['images']:4} images   step {row['ms']:7.1f} ms = {parts}data {row['data_ms']:5.1f} ms"


def _step_rows(params: Params, name: str, share: int | None, repeats: int) -> Iterator[dict[str, Any]]:
    recipe = build_recipe(name, params.generators[name], params.seed)
    images, size = share or recipe.batch_size, params.ingest.size
    batch = make_batch((size, size), recipe.columns, images)
    if params.train.channels_last:
        batch = batch.channels_last()
        for network in recipe.networks.values():
            network.to(memory_format=torch.channels_last)
    take_step = TrainingStep(recipe, params.train, torch.device("cpu"))
    data_ms = _data_ms(params, recipe.columns, images, size, repeats)
    for phase in recipe.phases:
        if phase.steps:
            take_step.start(phase)
            phase.set_learning_rates(recipe.optimizers, 0)
            row = {
                "what": f"{name}/{phase.name}",
                "images": images,
                "ms": _least_ms(lambda: take_step(0, batch), repeats),
            }
            yield row | _parts(lambda: take_step(0, batch), repeats) | {"data_ms": data_ms}


def _data_ms(params: Params, columns: tuple[str, ...], images: int, size: int, repeats: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        folders = write_split(Path(folder), 64, size=size, per_shard=64)
        samples = TrainingSamples({name: folders[name] for name in ("image", *columns)}, params.train.samples, 1)
        loader = samples.loader(
            steps=range(repeats + 1), batch_size=images, rank=0, world_size=1, num_workers=params.cluster.loader_workers
        )
        batches = iter(loader)
        return _least_ms(lambda: next(batches).to("cpu"), repeats)


def _parts(function: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Return the milliseconds of each part: over all calls of operators, the least of each call over the repeats."""
    least: list[tuple[str, float]] = []
    for _ in range(repeats):
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            function()
        events = sorted(profiler.events(), key=lambda event: (event.time_range.start, -event.time_range.end))
        times = [(event.name, event.self_cpu_time_total / 1e3) for event in events]
        if not least:
            least = times
        elif [name for name, _ in least] == [name for name, _ in times]:
            least = [(name, min(one, other)) for (name, one), (_, other) in zip(least, times, strict=True)]
    totals = collections.Counter(dict.fromkeys(PARTS, 0.0))
    for name, milliseconds in least:
        totals[_part(name)] += milliseconds
    return dict(totals)


def _part(operator: str) -> str:
    name = operator.lower()
    if "conv" in name:
        return "convolutions"
    if "adam" in name:
        return "optimizers"
    return "norms" if "_norm" in name and "vector_norm" not in name else "other"


def _layer_rows(repeats: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 128, 64, 64, generator=generator)
    mask = torch.zeros(2, 1, 256, 256)
    mask[0, :, 64:192, 64:192] = 1
    mask[1, :, 16:128, 100:220] = 1
    attention = ContextualAttention()
    wide = torch.randn(2, 64, 134, 134, generator=generator)
    return [
        _layer_row(
            "contextual attention, 2x128x64x64", features, lambda x: attention(x, x, mask),
            lambda x: contextual_attention(x, mask), repeats,
        ),
        _layer_row("7x7 convolution to 3, 2x64x134x134", wide, NarrowConv2d(64, 3, 7), nn.Conv2d(64, 3, 7), repeats),
        _layer_row("instance norm, 2x64x134x134", wide, InstanceNorm2d(64), nn.InstanceNorm2d(64), repeats),
    ]  # fmt: skip


def _layer_row(
    what: str, features: Tensor, ours: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor], repeats: int
) -> dict[str, Any]:
    """Time both forms in turns, forward and backward."""
    features = features.clone().requires_grad_()
    weights = torch.randn_like(plain(features))
    least = [float("inf")] * 2
    for _ in range(repeats):
        for index, layer in enumerate((ours, plain)):
            taken = _cpu_ms(lambda layer=layer: (layer(features) * weights).sum().backward())
            least[index] = min(least[index], taken)
    return {"what": what, "ms": least[0], "plain_ms": least[1]}


def _least_ms(function: Callable[[], Any], repeats: int) -> float:
    return min(_cpu_ms(function) for _ in range(repeats))


def _cpu_ms(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return 1e3 * (time.process_time() - start)


if __name__ == "__main__":
    main()
