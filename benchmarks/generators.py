"""Measure the cost of every generator at its paper's scale, and compare every special layer with a plain loop.

    python -m benchmarks.generators                        the table, and JSON into benchmarks/results
    python -m benchmarks.generators --only shift_net csa   some generators
    python -m benchmarks.generators --device cuda --precision bf16 --compile
    python -m benchmarks.generators --plain                each step beside the same step with PyTorch's own layers
    python -m benchmarks.generators --calculated           what a GPU would have to do, see benchmarks/calculated.py

A batch has two images of 256x256 pixels, or of the size that a paper fixes. Every generator is measured in a process of
its own, so that the peak memory is its own. benchmarks/README.md explains the rows further.

forward: inpainting of one batch.
rows of phases: one full training step, with all updates and their optimizers.
GMAC: multiply-adds of convolutions and matrix products in that step, in billions.
of bare: their rate / that of a plain 3x3 convolution in the same process. The rest to 1 is lost to all other work.
trained M: millions of parameters that the step's Adam reads and writes. With a batch of two, this can cost more than
    the convolutions.
other ms: of a special layer, the loop. With --plain, the same step with the layers of benchmarks/plain.py. The two
    steps take turns, and each has its least time.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import importlib
import json
import pkgutil
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import benchmarks.loops
from benchmarks.batches import make_batch, visible
from benchmarks.plain import use_plain_layers
from jobs.checks.apart import ProbeError, Say, run_apart
from jobs.checks.probe import device_name, peak_bytes, timed
from jobs.generators import card, load, names
from jobs.generators.build import inpaint
from jobs.recipe.batch import Batch
from jobs.recipe.contract import Recipe
from jobs.training.settings import TrainConfig
from jobs.training.step import TrainingStep

RESULTS = Path(__file__).parent / "results"
BATCH, SIZE = 2, 256


def paper_config(name: str) -> Any:
    """Return the paper's own configuration, with random feature networks instead of downloads. They cost the same."""
    config = card(name).Config()
    fields = {field.name for field in dataclasses.fields(config)}
    changes: dict[str, Any] = dict.fromkeys(fields & {"features", "teacher"}, "random")
    return dataclasses.replace(config, **changes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=None, metavar="GENERATOR")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--plain", action="store_true", help="time each step with PyTorch's own layers as well")
    parser.add_argument("--calculated", action="store_true", help="count operations, measure nothing")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.calculated:
        _calculate(arguments)
        return
    machine = _machine(arguments)
    chosen = arguments.only or [*names(), *(f"layer:{module}" for module in _loops())]
    rows = []
    print(f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}, {arguments.precision}")
    print(_line("what", "ms", "images/s", "peak MB", "GMAC", "of bare", "trained M", "other ms"))
    for name in chosen:
        for row in _in_own_process(name, arguments):
            rows.append(row)
            print(_line(*(row.get(key) for key in _COLUMNS)), flush=True)
    options = [word for word in ("compile", "plain") if getattr(arguments, word)]
    words = [machine["date"], machine["device"], arguments.precision, *options]
    out = arguments.out or RESULTS / ("-".join("".join(filter(str.isalnum, w)) for w in words).lower() + ".json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    print(out)


def _calculate(arguments: argparse.Namespace) -> None:
    """Print and write the calculated figures of each kind of step, in float32."""
    from benchmarks.calculated import COLUMNS, calculate

    rows = []
    print("calculated for one process, not measured")
    print(_line(*COLUMNS))
    for name in arguments.only or names():
        config = paper_config(name)
        for row in calculate(name, config, getattr(config, "image_size", SIZE)):
            rows.append(row)
            print(_line(*(row[key] for key in COLUMNS)), flush=True)
    today = datetime.date.today().isoformat()
    machine = {"date": today, "device": "none: calculated, not measured", "torch": torch.__version__}
    out = arguments.out or RESULTS / f"{today.replace('-', '')}-calculated.json"
    out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    print(out)


_COLUMNS = ("what", "ms", "images_per_second", "peak_mb", "gmac", "of_bare", "trained_m", "other_ms")


def _line(*cells: Any) -> str:
    words = ["" if c is None else f"{c:,.4g}" if isinstance(c, float) and c < 100 else f"{c:,.0f}"
             if isinstance(c, float) else str(c) for c in cells]  # fmt: skip
    return words[0].ljust(48) + "".join(word.rjust(11) for word in words[1:])


def _in_own_process(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    try:
        return run_apart(_measure, (name, arguments))
    except ProbeError as error:
        return [{"what": f"{name}: {error}"}]


def _measure(task: tuple[str, argparse.Namespace], say: Say) -> list[dict[str, Any]]:
    name, arguments = task
    if name.startswith("layer:"):
        return _measure_layers(name.removeprefix("layer:"))
    return _Generator(name, arguments).rows()


class _Generator:
    """Measure one generator on one device."""

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        self.name, self.device, self.repeats = name, torch.device(arguments.device), arguments.repeats
        self.bf16 = arguments.precision == "bf16"
        self.compile = arguments.compile
        self.recipe, self.take_step = self._built()
        side = getattr(paper_config(name), "image_size", SIZE)
        self.batch: Batch = make_batch((side, side), self.recipe.columns, BATCH).to(self.device)
        self.bare = _bare_rate(self.device, self.bf16)
        self.plain = self._with_plain_layers() if arguments.plain else None

    def _built(self) -> tuple[Recipe, TrainingStep]:
        torch.manual_seed(0)
        recipe: Recipe = load(self.name).build(paper_config(self.name))
        for network in recipe.networks.values():
            network.to(self.device)
            if self.compile:
                network.compile()
        precision = "bf16" if self.bf16 else "no"
        return recipe, TrainingStep(recipe, TrainConfig(precision=precision), self.device)

    def _with_plain_layers(self) -> tuple[Recipe, TrainingStep] | None:
        recipe, take_step = self._built()
        replaced = sum(use_plain_layers(network) for network in recipe.networks.values())
        return (recipe, take_step) if replaced else None

    def rows(self) -> list[dict[str, Any]]:
        found = [self._row("forward", self._forward)]
        for index, phase in enumerate(self.recipe.phases):
            if phase.steps:
                row = self._row(phase.name, self._stepper(self.recipe, self.take_step, index))
                trained = [p for name in phase.trained for p in self.recipe.networks[name].parameters()]
                row["trained_m"] = sum(p.numel() for p in trained) / 1e6
                if self.plain:
                    row |= self._turns(index)
                found.append(row)
        return found

    def _stepper(self, recipe: Recipe, take_step: TrainingStep, index: int) -> Callable[[], Any]:
        """Return a function that takes one step of a phase, with all of its updates, due or not."""
        phase = recipe.phases[index]
        updates = tuple(dataclasses.replace(update, every=1) for update in phase.updates)
        phase = dataclasses.replace(phase, updates=updates)
        take_step.start(phase)
        phase.set_learning_rates(recipe.optimizers, 0)
        return lambda: take_step(0, self.batch)

    def _turns(self, index: int) -> dict[str, float]:
        """Return the least milliseconds of a step, and of the step with plain layers, after one of each to warm up."""
        steps = [self._stepper(self.recipe, self.take_step, index), self._stepper(*self.plain, index)]
        times = [[timed(step, self.device) for step in steps] for _ in range(1 + self.repeats)]
        ms, plain_ms = (1e3 * min(column) for column in zip(*times[1:], strict=True))
        return {"ms": ms, "images_per_second": BATCH / ms * 1e3, "other_ms": plain_ms}

    def _forward(self) -> None:
        with self._autocast():
            inpaint(self.recipe, visible(self.batch))

    def _autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    def _row(self, what: str, function: Callable[[], Any]) -> dict[str, Any]:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with _Flops() as counter:  # also the warm-up
            function()
        seconds = _seconds(function, self.repeats, self.device)
        gmac = counter.total / 2e9
        return {
            "what": f"{self.name}/{what}",
            "pixels": self.batch.image.shape[-1],
            "ms": 1e3 * seconds,
            "images_per_second": BATCH / seconds,
            "peak_mb": peak_bytes(self.device) / 2**20,
            "gmac": gmac,
            "of_bare": gmac / seconds / self.bare,
        }


class _Flops(TorchDispatchMode):
    """Count floating-point operations as torch's FlopCounterMode does.

    That class hooks modules, and its hooks refuse the second derivatives of gradient penalties.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def _loops() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(benchmarks.loops.__path__))


def _measure_layers(module: str) -> list[dict[str, Any]]:
    rows = []
    for name, (fast, loop) in importlib.import_module(f"benchmarks.loops.{module}").bench().items():
        cpu = torch.device("cpu")
        with torch.no_grad():
            fast()
            seconds, slow = _seconds(fast, 5, cpu), _seconds(loop, 1, cpu)
        rows.append({"what": f"layer {module}: {name}", "ms": 1e3 * seconds, "other_ms": 1e3 * slow})
    return rows


def _bare_rate(device: torch.device, bf16: bool) -> float:
    """Return GMAC per second of a plain convolution: 256 channels, 3x3, 64x64, batch 2, without gradients."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    conv = torch.nn.Conv2d(256, 256, 3, padding=1, device=device, dtype=dtype)
    features = torch.randn(BATCH, 256, 64, 64, device=device, dtype=dtype)
    with torch.no_grad():
        conv(features)
        seconds = _seconds(lambda: conv(features), 5, device)
    return BATCH * 256 * 256 * 9 * 64 * 64 / 1e9 / seconds


def _seconds(function: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Return the median seconds of `repeats` runs, or of fewer if these have taken half a minute."""
    taken: list[float] = []
    while len(taken) < repeats and sum(taken) < 30:
        taken.append(timed(function, device))
    return statistics.median(taken)


def _machine(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        "device": device_name(torch.device(arguments.device)),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "batch": BATCH,
    }


if __name__ == "__main__":
    main()
