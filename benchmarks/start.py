"""Measure what a new user waits for: every stage of the demo, and the verbs that answer at once.

    python -m benchmarks.start [--stages]          seconds beside their limits, and JSON into benchmarks/results

The commands run one after another in a clone of this checkout's commit, in processes of their own. Without --stages the
clone gets copies of the outputs of this checkout, and only the verbs are measured.

stages: seconds of `dvc repro` from the line "Running stage" to the next one. It includes DVC's own work.
first step: seconds from the command to the first logged step of a training, in this process and with two processes.

Exits with 1 if a limit is not kept.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from files.checkout import ROOT

RESULTS = Path(__file__).parent / "results"
PYTHON = sys.executable
AT_MOST = {
    "demo": 480.0,
    "demo again": 3.0,
    "audit": 3.0,
    "inpaint": 6.0,
    "first step": 8.0,
    "first step, two processes": 15.0,
}
_GENERATOR = "unet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", action="store_true", help="run the whole demo as well")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "checkout")
        subprocess.run(
            ["git", "-c", "advice.detachedHead=false", "clone", "--quiet", str(ROOT), str(clone)], check=True
        )
        (clone / ".venv").symlink_to(ROOT / ".venv")
        found = _run_demo(clone) if arguments.stages else _take_outputs(clone)
        found |= _verbs(clone)
    for name, seconds in found.items():
        limit = AT_MOST.get(name)
        print(f"{name:32}{seconds:8.1f} s" + (f"   limit {limit:g}: {_word(seconds <= limit)}" if limit else ""))
    machine = {"date": datetime.date.today().isoformat(), "device": f"{platform.machine()} CPU, {os.cpu_count()} cores"}
    out = arguments.out or RESULTS / f"{machine['date'].replace('-', '')}-start.json"
    out.write_text(json.dumps({"machine": machine, "limits": AT_MOST, "found": found}, indent=1) + "\n")
    print(out)
    sys.exit(0 if all(found[name] <= limit for name, limit in AT_MOST.items() if name in found) else 1)


def _word(is_kept: bool) -> str:
    return "kept" if is_kept else "NOT KEPT"


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(PYTHON).parent}{os.pathsep}{os.environ['PATH']}"}


def _seconds(*words: str, clone: Path) -> float:
    began = time.perf_counter()
    subprocess.run(words, cwd=clone, env=_environment(), check=True, capture_output=True)
    return time.perf_counter() - began


def _run_demo(clone: Path) -> dict[str, float]:
    """Run `dvc repro` and return the seconds of each stage, and of the whole."""
    found: dict[str, float] = {}
    began = last = time.perf_counter()
    stage = None
    command = ["dvc", "repro"]
    with subprocess.Popen(command, cwd=clone, env=_environment(), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if match := re.match(r"Running stage '(.*)'", line):
                now = time.perf_counter()
                if stage:
                    found[f"stage {stage}"] = now - last
                stage, last = match[1], now
    if process.returncode:
        raise SystemExit(f"dvc repro failed with exit code {process.returncode}")
    found[f"stage {stage}"] = time.perf_counter() - last
    return found | {"demo": time.perf_counter() - began, "demo again": _seconds("dvc", "repro", clone=clone)}


def _take_outputs(clone: Path) -> dict[str, float]:
    """Copy this checkout's outputs into the clone."""
    for name in ("shards", "models", "mlflow.db", "mlartifacts", "provenance", "lineage"):
        subprocess.run(["cp", "-a", str(ROOT / name), str(clone / name)], check=True)
    return {}


def _verbs(clone: Path) -> dict[str, float]:
    verb = (PYTHON, "-m", "pipeline")
    _write_pictures(clone)
    found = {
        "audit": _seconds(*verb, "audit", clone=clone),
        "inpaint": _seconds(
            *verb, "inpaint", "--model", _GENERATOR, "photo.png", "hole.png", "-o", "filled.png", clone=clone
        ),
    }
    for name, processes in (("first step", 0), ("first step, two processes", 2)):
        steps = f"generators.{_GENERATOR}.steps={30 + processes}"
        words = ("configure", f"cluster.train_workers={processes}", steps, "train.log_steps=1")
        _seconds(*verb, *words, clone=clone)
        found[name] = _first_step(clone)
    return found


def _first_step(clone: Path) -> float:
    """Return the seconds from the command to the first event in the log of the training."""
    began = time.time()
    with subprocess.Popen(
        [PYTHON, "-m", "pipeline", "train", _GENERATOR],
        cwd=clone, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        first = None
        while process.poll() is None and first is None:
            for log in (clone / "runs").glob(f"{_GENERATOR}*/**/events.jsonl"):
                steps = [line for line in log.read_text().splitlines() if '"losses"' in line]
                first = first or (json.loads(steps[0])["time"] if steps else None)
            time.sleep(0.02)
    if first is None:
        raise SystemExit(f"the training ended with exit code {process.returncode} before its first step")
    return first - began


def _write_pictures(clone: Path) -> None:
    import numpy as np

    from files.pictures import encode_png

    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    hole = np.zeros((64, 64, 3), np.uint8)
    hole[20:40, 20:40] = 255
    for name, pixels in (("photo.png", image), ("hole.png", hole)):
        (clone / name).write_bytes(encode_png(pixels))


if __name__ == "__main__":
    main()
