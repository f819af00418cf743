"""Rooms: who may import whom, and which file is the door to each large library."""

import ast
import importlib.util
from pathlib import Path

import pytest

from jobs.generators import card, names

ROOT = Path(__file__).resolve().parent.parent

# A room -> the rooms below it that it may import. The longest prefix of a file's path is its room; `pipeline` may
# import every room, and a room always itself.
ROOMS = {
    "files": (),
    "masks": ("files",),
    "datasets/shards": ("files",),
    "datasets/sources": ("files",),
    "datasets/maps": ("files",),
    "datasets/stream": ("files",),
    "datasets/writing": ("files", "datasets/shards"),
    "datasets": ("files", "datasets/shards", "datasets/sources", "datasets/writing"),
    "jobs/recipe": ("files",),
    "jobs/layers": ("files", "jobs/recipe"),
    "jobs/generators": ("files", "jobs/recipe", "jobs/layers"),
    "jobs/runs": ("files", "datasets/maps", "jobs/recipe"),
    "jobs/tracking": ("files", "jobs/runs", "jobs/evaluation"),
    "jobs/cluster": ("files",),
    "jobs/training": (
        "files", "masks", "datasets/shards", "datasets/stream",
        "jobs/recipe", "jobs/layers", "jobs/generators", "jobs/runs",
    ),
    "jobs/evaluation": (
        "files", "masks", "datasets/maps", "datasets/shards", "jobs/recipe", "jobs/generators", "jobs/runs",
    ),
    "jobs/report": ("jobs/evaluation", "files"),
    "jobs/checks": (
        "files", "masks", "datasets", "datasets/shards", "jobs/recipe", "jobs/generators", "jobs/training",
    ),
    "pipeline": None,
    "benchmarks": None,
}  # fmt: skip
DOORS = {
    "ray": ("jobs/cluster/ray_cluster.py",),
    "mlflow": ("jobs/tracking/mlflow_runs.py", "jobs/tracking/mlflow_registry.py"),
    "webdataset": ("datasets/writing/tars.py",),
    "accelerate": ("jobs/training/loop.py",),
    "albumentations": ("datasets/stream/augment.py",),
    "fsspec": ("files/objects.py",),
}
FOLDERS = {room.split("/")[0] for room in ROOMS}
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if path.read_text(encoding="utf-8").strip()
)


def imports(name: str) -> set[str]:
    """Dotted names of all that a file imports; of `from a import b` both `a` and `a.b`."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room_of(path: str) -> str:
    return max((room for room in ROOMS if path == room or path.startswith(f"{room}/")), key=len)


def imported_files(name: str) -> set[str]:
    """The files of this repository that a file imports by name."""
    paths = {module.replace(".", "/") for module in imports(name) if module.split(".")[0] in (*FOLDERS, "tests")}
    modules = {f"{path}.py" for path in paths if (ROOT / f"{path}.py").is_file()}
    packages = {f"{path}/__init__.py" for path in paths if (ROOT / path / "__init__.py").is_file()}
    return modules | {name for name in packages if (ROOT / name).read_text(encoding="utf-8").strip()}


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_its_own_room_and_those_that_the_table_allows(name):
    room = room_of(name)
    allowed = ROOMS[room]
    for other in imported_files(name):
        assert not other.startswith("tests/"), f"{name} imports {other}"
        assert allowed is None or room_of(other) in (room, *allowed), f"{name} imports {other}"
        assert not other.startswith("benchmarks/") or room == "benchmarks", f"{name} imports {other}"


@pytest.mark.parametrize("name", FILES)
def test_every_name_that_is_imported_from_this_repository_exists(name):
    """No other test imports all scripts of benchmarks."""
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in FOLDERS:
            module = importlib.import_module(node.module)
            for alias in node.names:
                is_module = hasattr(module, "__path__") and importlib.util.find_spec(f"{node.module}.{alias.name}")
                assert hasattr(module, alias.name) or is_module, f"{node.module} has no {alias.name}"


@pytest.mark.parametrize("name", FILES)
def test_a_large_library_has_its_doors_alone(name):
    roots = {module.split(".")[0] for module in imports(name)}
    for library, doors in DOORS.items():
        assert library not in roots or name in doors, f"{name} is a further door to {library}"


def test_the_table_has_no_circle():
    seen: list[str] = []
    while len(seen) < len(ROOMS):
        ready = [room for room in ROOMS if room not in seen and set(ROOMS[room] or ()) <= set(seen)]
        assert ready, f"a circle among {set(ROOMS) - set(seen)}"
        seen += ready


def test_the_table_allows_no_more_than_is_needed():
    used: dict[str, set[str]] = {room: set() for room in ROOMS}
    for name in FILES:
        used[room_of(name)] |= {room_of(other) for other in imported_files(name) if not other.startswith("tests/")}
    for room, allowed in ROOMS.items():
        assert allowed is None or set(allowed) <= used[room], f"{room} does not import {set(allowed) - used[room]}"


def test_every_door_is_used():
    for library, doors in DOORS.items():
        for door in doors:
            assert library in {module.split(".")[0] for module in imports(door)}


def test_the_loop_knows_no_paper():
    for name in FILES:
        if name.startswith(("jobs/training/", "jobs/recipe/", "jobs/layers/")):
            papers = [other for other in imported_files(name) if other.startswith("jobs/generators/")]
            assert set(papers) <= {"jobs/generators/build.py", "jobs/generators/__init__.py"}, name


def test_a_paper_imports_another_only_where_its_card_says_so():
    for name in names():
        uses = {
            other.split("/")[2]
            for path in (ROOT / "jobs/generators" / name).glob("*.py")
            for other in imported_files(path.relative_to(ROOT).as_posix())
            if other.startswith("jobs/generators/") and other.count("/") == 3
        }
        assert uses - {name} == set(getattr(card(name), "USES", ())), name


def test_the_process_that_starts_a_training_builds_no_network():
    assert "jobs/generators/build.py" not in imported_files("pipeline/stages/train.py")


def test_no_stage_imports_another():
    for path in (ROOT / "pipeline" / "stages").glob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        others = {other for other in imported_files(name) if other.startswith("pipeline/stages/")}
        assert not others, f"{name} imports {others}"


def test_no_verb_imports_another():
    """Work that two verbs share is below them: in jobs/, or in pipeline/ beside the folder of verbs."""
    for path in (ROOT / "pipeline" / "verbs").glob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        others = {other for other in imported_files(name) if other.startswith("pipeline/verbs/")}
        assert not others, f"{name} imports {others}"


def test_package_files_are_empty_but_for_cards_and_lists():
    for path in (path for folder in (*FOLDERS, "tests") for path in (ROOT / folder).rglob("__init__.py")):
        is_list = path.is_relative_to(ROOT / "jobs" / "generators") or path.parent == ROOT / "datasets" / "sources"
        assert is_list or not path.read_text().strip(), path
    for folder in (path for path in (ROOT / "tests").rglob("*") if path.is_dir() and path.name != "__pycache__"):
        assert (folder / "__init__.py").is_file(), folder
