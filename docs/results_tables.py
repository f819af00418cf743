"""The tables of docs/results.md, from the runs that `python -m benchmarks.quality` kept in docs/results/.

The page marks the place of a table by two comments: `<!-- table: TRACK -->` for the runs of docs/results/TRACK.json and
`<!-- bins: TRACK -->` for their hole-ratio bins; `<!-- end -->` closes both. The text around them is written by hand.
"""

from __future__ import annotations

import json
import re
from typing import Any

from files.checkout import ROOT
from masks.hole_ratio import BINS

PAGE = ROOT / "docs/results.md"
_PLACE = re.compile(r"<!-- (table|bins): (\S+) -->\n.*?<!-- end -->", re.DOTALL)


def page() -> str:
    """Return docs/results.md with its tables renewed."""
    return _PLACE.sub(_fill, PAGE.read_text())


def _fill(place: re.Match) -> str:
    kind, track = place.groups()
    tree = json.loads((ROOT / f"docs/results/{track}.json").read_text())
    table = _runs(tree) if kind == "table" else _bins(tree)
    return f"<!-- {kind}: {track} -->\n\n{table}\n\n<!-- end -->"


def _runs(tree: dict[str, Any]) -> str:
    header = (
        *("Row", "What is special", "Images seen", "CPU minutes", "Hole L1 before training, %", "Hole L1, %"),
        *("minus Navier-Stokes", "PSNR, dB"),
    )
    rows = [_run(run) for run in _ordered(tree)]
    rows += [
        (name, "classical", "-", "-", "-", _interval(row["l1_hole_percent"]), "-", _interval(row["psnr"]))
        for name, row in _classical(tree)
    ]
    return _table(header, rows)


def _run(run: dict[str, Any]) -> tuple[str, ...]:
    cost = (f"{run['images_seen']:,}", f"{run['cpu_minutes']:.1f}")
    difference = _interval(run["minus_rival"], sign="+")
    before, after = f"{run['untrained'][0]:.2f}", _interval(run["l1_hole_percent"])
    return (_name(run), run["what"], *cost, before, after, difference, _interval(run["psnr"]))


def _bins(tree: dict[str, Any]) -> str:
    names = [name for name, _, _ in BINS]
    found = [(_name(run), run) for run in _ordered(tree)] + _classical(tree)
    rows = [(row, *(f"{figures['bins'][name][0]:.2f}" for name in names)) for row, figures in found]
    return _table(("Row", *names), rows)


def _name(run: dict[str, Any]) -> str:
    return f"{run['generator']} `{run['experiment'][:8]}`"


def _classical(tree: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(tree["classical"]["rows"].items(), key=lambda item: item[1]["l1_hole_percent"])


def _ordered(tree: dict[str, Any]) -> list[dict[str, Any]]:
    return sorted(tree["runs"], key=lambda run: run["l1_hole_percent"])


def _interval(value: list[float], sign: str = "") -> str:
    mean, low, high = (f"{number:{sign}.2f}" for number in value)
    return f"{mean} ({low} to {high})"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, tuple("---" for _ in header), *rows))
