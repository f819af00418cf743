"""The environment of a run: versions, processor and variables, and how two of them differ."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from jobs.training.portability import PINNED

_PACKAGES = (
    "accelerate", "albumentations", "numpy", "opencv-python-headless", "pillow", "safetensors", "scikit-image",
    "torch", "torchmetrics", "torchvision",
)  # fmt: skip
_FLAGS = ("sse4_2", "avx", "fma", "avx2", "avx_vnni", "avx512", "amx", "asimd", "sve")  # or their beginnings
_NOT_RECORDED = "not recorded"


def describe_environment() -> dict[str, str]:
    """Return everything outside the recorded inputs that can change weights on a CPU, as texts by name."""
    facts = _read_processor()
    flags = [flag for flag in facts.get("flags", facts.get("Features", "")).split() if flag.startswith(_FLAGS)]
    installed = {name: _version(name) for name in _PACKAGES}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "processor": facts.get("model name", platform.processor()),
        "instruction sets": " ".join(sorted(flags)),
        "cores": str(os.cpu_count()),
        **{f"package {name}": version for name, version in installed.items()},
        **{f"variable {name}": os.environ[name] for name in PINNED if name in os.environ},
    }


def describe_differences(recorded: Mapping[str, str], present: Mapping[str, str]) -> str:
    """Return the entries of a recorded environment that differ from a present one, as text; "" if all are equal."""
    return "; ".join(
        f"{name} was {recorded.get(name, _NOT_RECORDED)}, is {present.get(name, _NOT_RECORDED)}"
        for name in sorted({*recorded, *present})
        if recorded.get(name) != present.get(name)
    )


def _read_processor() -> dict[str, str]:
    """Return the entries of the first core in Linux's description of the processor; {} elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
