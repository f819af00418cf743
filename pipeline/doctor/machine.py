"""Look at the processors, the memory, the GPUs and the disks of this machine."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from files.checkout import ROOT
from pipeline.doctor.findings import Finding

_GIGABYTE = 2**30
_ENOUGH, _LEAST = 10, 1  # gigabytes of free disk
_SHARED_LEAST = 0.25  # gigabytes for the batches of loader processes; Docker gives 0.06 unless it is told otherwise


def check_machine(use_gpu: bool, storage: Path) -> Iterator[Finding]:
    """Yield findings.

    use_gpu: `cluster.use_gpu`.
    storage: `cluster.storage`, the folder of live checkpoints.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory()
    detail = f"{cores} cores, {memory.total / _GIGABYTE:.1f} GB of memory, {memory.available / _GIGABYTE:.1f} GB free"
    yield Finding("machine", "fine", detail)
    yield _check_gpus(_list_gpus(), _cuda_of_torch(), use_gpu)
    places = {"checkout": ROOT, "cluster.storage": storage, "temporary files": Path(tempfile.gettempdir())}
    for place, folder in places.items():
        yield _check_disk(place, folder, _LEAST, _ENOUGH)
    if Path("/dev/shm").is_dir():
        yield _check_disk("shared memory", Path("/dev/shm"), 0, _SHARED_LEAST)


def _list_gpus() -> list[str] | None:
    """Return name and memory of each GPU as the driver states them; None without a driver of NVIDIA."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in done.stdout.splitlines() if line.strip()]


def _cuda_of_torch() -> str | None:
    """Return the release of CUDA that torch was built for, without importing torch; None for a build without CUDA."""
    found = importlib.util.find_spec("torch")
    path = Path(found.origin).with_name("version.py") if found and found.origin else None
    text = path.read_text(encoding="utf-8") if path and path.is_file() else ""
    match = re.search(r"^cuda\b[^=]*= '([\d.]+)'", text, re.MULTILINE)
    return match and match[1]


def _check_gpus(gpus: list[str] | None, cuda: str | None, use_gpu: bool) -> Finding:
    remedy = "set cluster.use_gpu=false, or use a machine with a GPU" if use_gpu else ""
    if not gpus:
        what = "no driver of NVIDIA" if gpus is None else "the driver of NVIDIA finds no GPU; look at nvidia-smi"
        return Finding("GPUs", "broken" if use_gpu else "missing", f"{what}; work runs on the CPU", remedy)
    if cuda is None:
        detail = f"{'; '.join(gpus)}, but torch is built without CUDA"
        return Finding("GPUs", "broken" if use_gpu else "missing", detail, "install a build of torch with CUDA")
    unused = "" if use_gpu else "set cluster.use_gpu=true to train on them"
    return Finding("GPUs", "fine", f"{'; '.join(gpus)}; torch is built for CUDA {cuda}", unused)


def _check_disk(place: str, folder: Path, least: float, enough: float) -> Finding:
    """least, enough: gigabytes below which the finding is "broken" and "missing"."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free / _GIGABYTE
    detail = f"{place}, {folder}: {free:.1f} GB free"
    if not os.access(existing, os.W_OK):
        return Finding("disk", "broken", f"{place}, {folder}: cannot be written to", f"chmod or chown {existing}")
    if free >= enough:
        return Finding("disk", "fine", detail)
    remedy = "make room" if place != "shared memory" else "give more, such as docker run --shm-size=1g"
    return Finding("disk", "broken" if free < least else "missing", detail, remedy)
