"""Paths of this checkout, its folders of code, and what git knows of them."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from files.errors import UserError

ROOT = Path(__file__).resolve().parent.parent

FOLDERS = ("datasets", "files", "jobs", "masks", "pipeline")
"""Folders of code, relative to ROOT."""

PYTHON_FOLDERS = (*FOLDERS, "benchmarks", "tests")
"""All folders of Python. A worker gets them all, since a test or a benchmark may send it a function of its own."""

DECLARATIONS = ("dvc.yaml", "requirements.lock")
"""Files beside the folders that say how the stages are run, and with which packages."""

_INPUTS = (*FOLDERS, *DECLARATIONS, "params.yaml", "tombstones.jsonl")  # written by people; they decide every output


@dataclass(frozen=True, kw_only=True)
class CodeList:
    """The files of code of a checkout, as sorted paths relative to it.

    files: all of them: those that git tracks, and the untracked modules of packages that git does not ignore. Without
        git, all modules of packages.
    untracked: those of `files` that git does not track.
    left_out: links out of the code, submodules, and modules that git ignores. They are no part of `files`.
    """

    files: tuple[str, ...]
    untracked: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


class CheckoutError(UserError):
    """Git does not answer about this checkout. The message says what to do."""


def permanent_checkout() -> Path:
    """Return the user's checkout. DVC runs a queued experiment in a temporary copy, which it removes afterwards."""
    return Path(os.environ.get("DVC_ROOT") or ROOT)


def list_code(root: Path = ROOT) -> CodeList:
    """List the files of code in PYTHON_FOLDERS and DECLARATIONS of a checkout.

    A link counts as the file that it leads to if that is one of the listed files. No other link is followed.
    """
    tracked = _ask_git(root, "ls-files", "-z", "--", *PYTHON_FOLDERS, *DECLARATIONS) if _is_tracked(root) else None
    if tracked is None:
        modules = [name for folder in PYTHON_FOLDERS for name in _modules_below(root, Path(folder))]
        return CodeList(files=tuple(sorted([*modules, *(name for name in DECLARATIONS if (root / name).is_file())])))
    present = {name for name in tracked if os.path.lexists(root / name)}  # a file may be deleted and not committed
    untracked = {name for name in _untracked(root, "--exclude-standard") if _is_plain(root, name, {name})}
    files = {name for name in present if _is_plain(root, name, present)} | untracked
    left_out = (present | set(_untracked(root))) - files
    return CodeList(files=tuple(sorted(files)), untracked=tuple(sorted(untracked)), left_out=tuple(sorted(left_out)))


def read_commit(root: Path = ROOT) -> str:
    """Return the SHA-1 of git's commit; "unknown" outside a git repository and before its first commit."""
    answer = _ask_git(root, "rev-parse", "--verify", "HEAD") if _is_tracked(root) else None
    return answer[0].strip() if answer else "unknown"


def list_changes(root: Path = ROOT) -> tuple[str, ...] | None:
    """Return the inputs of the stages that differ from git's commit, or are not in it, sorted.

    These are code, packages, parameters, stages and tombstones. Files that stages write, such as dvc.lock, are none.
    Returns None where git knows no commit of this checkout.
    """
    changed = _ask_git(root, "diff", "--name-only", "-z", "HEAD", "--", *_INPUTS) if _is_tracked(root) else None
    if changed is None:
        return None
    return tuple(sorted({*changed, *(name for name in _untracked(root) if name.split("/")[0] in FOLDERS)}))


def name_some(names: tuple[str, ...], limit: int = 5) -> str:
    """Return names as one text, the first `limit` of them and the number of the others."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest:,} more" if rest > 0 else "")


def _is_tracked(root: Path) -> bool:
    """Tell whether this checkout is git's, and not a copy of it inside another repository."""
    return bool(_ask_git(root, "ls-files", "-z", "--", "files/checkout.py"))


def _untracked(root: Path, *options: str) -> list[str]:
    """Return the modules of packages that git does not track; `--exclude-standard` leaves out those that it ignores."""
    names = _ask_git(root, "ls-files", "-z", "--others", *options, "--", *PYTHON_FOLDERS) or []
    return [name for name in names if _is_module(root, Path(name))]


def _modules_below(root: Path, folder: Path) -> list[str]:
    """Return the modules of a package and of the packages in it, without links."""
    if not _is_package(root, folder):
        return []
    found = []
    for path in sorted((root / folder).iterdir()):
        name = folder / path.name
        if path.is_dir() and not path.is_symlink():
            found += _modules_below(root, name)
        elif _is_module(root, name) and _is_plain(root, name.as_posix(), {name.as_posix()}):
            found.append(name.as_posix())
    return found


def _is_module(root: Path, name: Path) -> bool:
    """Tell whether a file can be imported as a part of packages, which the files of another environment cannot."""
    return name.suffix == ".py" and name.stem.isidentifier() and all(_is_package(root, f) for f in name.parents[:-1])


def _is_package(root: Path, folder: Path) -> bool:
    return folder.name.isidentifier() and (root / folder / "__init__.py").is_file()


def _is_plain(root: Path, name: str, listed: set[str]) -> bool:
    """Tell whether a path is a file, and no link to anything but a listed file."""
    path = (root / name).resolve()
    return path.is_file() and path.is_relative_to(root.resolve()) and str(path.relative_to(root.resolve())) in listed


def _ask_git(root: Path, *words: str) -> list[str] | None:
    """Return the parts of git's answer that a zero byte ends, or all of it; None if git cannot answer or is absent."""
    try:
        result = subprocess.run(["git", *words], cwd=root, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    if b"dubious ownership" in result.stderr:
        raise CheckoutError(
            f"git refuses {root}, which another user owns; own it, or run: "
            f"git config --global --add safe.directory {shlex.quote(str(root))}"
        )
    return [os.fsdecode(part) for part in result.stdout.split(b"\0") if part] if result.returncode == 0 else None
