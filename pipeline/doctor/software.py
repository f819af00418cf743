"""Look for Python, the packages and git, without importing any package."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from files.checkout import ROOT
from pipeline.doctor.findings import Finding

_SETUP = "run: make setup"


def check_software() -> Iterator[Finding]:
    """Yield findings on Python, the packages of pyproject.toml, its extras, and git."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    yield _check_python(project["requires-python"])
    locked = read_lock(ROOT / "requirements.lock")
    yield _check_packages([_name(requirement) for requirement in project["dependencies"]], locked)
    for extra, requirements in project["optional-dependencies"].items():
        absent = [name for requirement in requirements if _version(name := _name(requirement)) is None]
        if absent:
            yield Finding("packages", "missing", f"extra {extra}", f"pip install {' '.join(absent)}")
        else:
            yield Finding("packages", "fine", f"extra {extra}")
    if shutil.which("git"):
        yield Finding("git", "fine", "found")
    else:
        yield Finding("git", "missing", "not found: results name no commit", "install git")


def read_lock(path: Path) -> dict[str, str]:
    """Return package -> version of a lock file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pinned = (re.match(r"([\w.-]+)(?:\[.*\])?==([^\s;]+)", line) for line in lines)
    return {found[1].lower(): found[2] for found in pinned if found}


def _check_python(wanted: str) -> Finding:
    """wanted: such as ">=3.11,<3.14"."""
    low, high = (tuple(map(int, bound.split("."))) for bound in re.findall(r"3\.\d+", wanted))
    version = ".".join(map(str, sys.version_info[:3]))
    if low <= sys.version_info[:2] < high:
        return Finding("Python", "fine", version)
    return Finding("Python", "broken", f"{version}, needed is {wanted}", "run: make clean setup PYTHON=python3.12")


def _check_packages(names: list[str], locked: dict[str, str]) -> Finding:
    found = {name: _version(name) for name in names}
    if absent := [name for name, version in found.items() if version is None]:
        return Finding("packages", "broken", f"not installed: {', '.join(absent)}", _SETUP)
    other = [
        f"{name} {version}, locked is {locked[name.lower()]}"
        for name, version in found.items()
        if name.lower() in locked and version.partition("+")[0] != locked[name.lower()].partition("+")[0]
    ]
    if other:
        return Finding("packages", "missing", "; ".join(other), f"{_SETUP}, for results that repeat")
    main = ", ".join(f"{name} {found[name]}" for name in ("torch", "ray", "mlflow", "dvc") if name in found)
    return Finding("packages", "fine", f"all {len(found)} of requirements.lock; {main}".removesuffix("; "))


def _name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
