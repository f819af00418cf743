"""Curves of a training: its losses over steps, as `dvc plots` reads them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from jobs.runs.events import losses_by_step


def write_curves(folder: Path, events: Path) -> None:
    """Write one table of (step, loss) per phase and term, `<phase>/<term>.tsv`.

    folder: it is replaced.
    events: event log of the training.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    for step, losses in losses_by_step(events).items():
        for name, value in losses.items():
            curves.setdefault(name, []).append((step, value))
    shutil.rmtree(folder, ignore_errors=True)
    for name, points in curves.items():
        path = folder / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter="\t", lineterminator="\n").writerows([("step", "loss"), *points])
