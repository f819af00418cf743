"""Train and score a generator in this checkout, and keep its quality beside its cost for docs/results.md.

    python -m benchmarks.quality bsds500-64 classical
    python -m benchmarks.quality bsds500-64 partial_conv "batch of 4" generators.partial_conv.batch_size=4

The first word is the track: a file of docs/results/, whose runs share one suite. The shards and masks must be there
(`dvc repro edges masks`). `classical` scores the rows of `evaluate.baselines`. A generator is configured with the given
words, trained and scored by the commands of the pipeline, one after another; params.yaml stays as they leave it. A run
is named by the experiment of its receipt. A run of the same experiment is replaced.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from files.durable import write_durably
from jobs.evaluation.metrics.intervals import paired_difference
from jobs.evaluation.metrics.value import Value
from jobs.evaluation.results import OVERALL, Group, Score, read_scores, read_summary
from jobs.evaluation.settings import untrained_row
from jobs.runs.receipt import read_receipt

TRACKS = Path("docs/results")
METRICS = ("l1_hole_percent", "psnr")
RIVAL = "navier_stokes"
"""Classical row whose scores are subtracted pair by pair."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("track", help="name of a file in docs/results, without .json")
    parser.add_argument("generator", help="its name, or classical")
    parser.add_argument("what", nargs="?", default="", help="what is special about the run, for the table")
    parser.add_argument("words", nargs="*", help="words of `configure`")
    given = parser.parse_args()
    if given.generator == "classical":
        _run("evaluate", "baselines")
        keep(given.track, classical=classical_rows(Path()))
        return
    _run("configure", f"generators={given.generator}", *given.words)
    seconds = _run("train", given.generator)
    _run("evaluate", given.generator)
    keep(given.track, run=trained_row(Path(), given.generator) | {"what": given.what, "cpu_minutes": seconds / 60})


def classical_rows(root: Path) -> dict[str, Any]:
    """Return the suite and its classical rows, from the results of `evaluate baselines`."""
    summary = read_summary(root / "results/baselines/summary.json")
    rows = {name: _figures(groups) for name, groups in summary.rows.items()}
    return {"suite": summary.suite, "images": summary.images, "rows": rows}


def trained_row(root: Path, generator: str) -> dict[str, Any]:
    """Return the figures of a trained generator, from its receipt and the results of `evaluate`.

    `minus_rival` is the mean difference of hole L1 from `RIVAL` over the same pairs, with its interval. `untrained` is
    hole L1 before the first step.
    """
    receipt = read_receipt(root / "models" / generator)
    summary = read_summary(root / f"results/{generator}/summary.json")
    own, rival = (_hole_l1(root, folder, row) for folder, row in ((generator, generator), ("baselines", RIVAL)))
    pairs = sorted(own)
    difference = paired_difference(
        [own[p] for p in pairs], [rival[p] for p in pairs], [key for key, _ in pairs], seed=0
    )
    return {
        "suite": summary.suite,
        "experiment": receipt.experiment,
        "generator": generator,
        "images_seen": receipt.samples_seen,
        "steps": receipt.steps,
        "processes": max(receipt.world_sizes),
        "parameters": receipt.parameters,
        "minus_rival": _rounded(difference),
        "untrained": _figures(summary.rows[untrained_row(generator)])["l1_hole_percent"],
        **_figures(summary.rows[generator]),
    }


def keep(track: str, *, classical: Mapping[str, Any] | None = None, run: Mapping[str, Any] | None = None) -> None:
    """Write the classical rows or a run into a track. Exits if the run was scored on another suite."""
    path = TRACKS / f"{track}.json"
    tree = json.loads(path.read_text()) if path.exists() else {"classical": None, "runs": []}
    if classical:
        tree["classical"] = dict(classical)
    if run:
        if tree["classical"] and tree["classical"]["suite"] != run["suite"]:
            sys.exit(f"{path}: its classical rows were scored on another suite; score them first: classical")
        others = [other for other in tree["runs"] if other["experiment"] != run["experiment"]]
        tree["runs"] = [*others, dict(run)]
    write_durably(path, (json.dumps(tree, indent=1) + "\n").encode())


def _hole_l1(root: Path, folder: str, row: str) -> dict[tuple[str, str], float]:
    scores: Sequence[Score] = read_scores(root / "results" / folder / "per_image.parquet")
    return {(score.key, score.bin): score.values["l1_hole_percent"] for score in scores if score.row == row}


def _figures(groups: Mapping[str, Group]) -> dict[str, Any]:
    """Return each of `METRICS` over all pairs, and hole L1 of each bin: mean and ends of the 95 % interval."""
    overall = {metric: _rounded(groups[OVERALL].metrics[metric]) for metric in METRICS}
    bins = {name: _rounded(group.metrics["l1_hole_percent"]) for name, group in groups.items() if name != OVERALL}
    return overall | {"bins": bins}


def _rounded(value: Value) -> list[float]:
    return [round(number, 3) for number in (value.mean, value.low, value.high)]


def _run(*words: str) -> float:
    """Run a verb of the pipeline. Returns the seconds of processor time that it took, its child processes included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "pipeline", *words], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
