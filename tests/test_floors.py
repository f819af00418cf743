"""Imports point down only, and each large library has one door."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {
    "files": set(),
    "datasets": {"files"},
    "masks": {"files"},
    "jobs": {"files", "datasets", "masks"},
    "pipeline": {"files", "jobs", "datasets", "masks"},
}
DOORS = {
    "ray": {"jobs/launch.py"},
    "mlflow": {"jobs/tracking.py"},
    "webdataset": {"datasets/shards.py"},
    "accelerate": {"jobs/training_loop.py"},
    "albumentations": {"datasets/augment.py"},
    "fsspec": {"datasets/stores.py"},
}
FILES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down_and_through_the_doors(path):
    name = path.relative_to(ROOT).as_posix()
    floor = name.split("/")[0]
    roots = {module.split(".")[0] for module in imports(path)}
    upward = roots & set(FLOORS) - FLOORS[floor] - {floor}
    assert not upward, f"{name} imports {upward}"
    for library, doors in DOORS.items():
        assert library not in roots or name in doors, f"{name} is a second door to {library}"


def test_every_door_is_used():
    for library, doors in DOORS.items():
        for door in doors:
            assert library in {module.split(".")[0] for module in imports(ROOT / door)}


def test_no_stage_imports_another():
    stages = {"ingest", "edges", "masks", "semantics", "train", "evaluate", "report"}
    for stage in stages:
        others = {f"pipeline.{other}" for other in stages - {stage}}
        assert not imports(ROOT / "pipeline" / f"{stage}.py") & others, stage


def test_package_files_are_empty_but_for_cards_and_lists():
    for floor in (*FLOORS, "tests"):
        for path in (ROOT / floor).rglob("__init__.py"):
            is_list = path.is_relative_to(ROOT / "jobs" / "generators") or path.parent == ROOT / "datasets" / "sources"
            assert is_list or not path.read_text().strip(), path
    for folder in (path for path in (ROOT / "tests").rglob("*") if path.is_dir() and path.name != "__pycache__"):
        assert (folder / "__init__.py").is_file(), folder
