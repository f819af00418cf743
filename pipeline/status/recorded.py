"""What dvc.lock records of each stage, and whether the files and values of now are those.

No data is read: DVC's cache has a list of the files of each folder that a stage has written, with their digests.
`dvc status` reads all data and is exact; this answers at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from files.checkout import FOLDERS

_FOLDER = ".dir"  # ends the digest of a folder


@dataclass(frozen=True)
class Record:
    """The stages of dvc.lock.

    stages: name -> entry.
    cache: folder of DVC's cache.
    """

    stages: Mapping[str, Any]
    cache: Path
    _present: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path = Path()) -> Record:
        """Read the record of a checkout; an empty one if nothing has run yet."""
        path = root / "dvc.lock"
        tree = yaml.load(path.read_bytes(), Loader=_Loader) if path.is_file() else {}
        return cls(tree.get("stages") or {}, root / ".dvc" / "cache" / "files" / "md5")

    def find_changes(self, name: str, command: str, deps: list[str], params: Mapping[str, Any]) -> Iterator[str]:
        """Yield what is not as it was when a stage ran last: its command, code, parameters, data of other stages.

        name: of the stage in dvc.lock.
        deps: paths that it reads.
        params: dotted key of params.yaml -> value.
        """
        entry = self.stages[name]
        if entry["cmd"] != command:
            yield "its command"
        values = entry.get("params", {}).get("params.yaml", {})
        yield from (key for key in params if key not in values or values[key] != params[key])
        digests = {dep["path"]: dep.get("md5") for dep in entry.get("deps", ())}
        yield from (dep for dep in deps if dep not in digests or self._differs(dep, digests[dep]))

    def has_changed(self, name: str, dep: str) -> bool:
        """Tell whether data that a stage reads were written again since it ran. name: of the stage in dvc.lock."""
        digests = {each["path"]: each.get("md5") for each in self.stages.get(name, {}).get("deps", ())}
        return dep in digests and self._differs(dep, digests[dep])

    def find_missing(self, name: str) -> list[str]:
        """Return the outputs of a stage that are not there."""
        return [out["path"] for out in self.stages[name].get("outs", ()) if not Path(out["path"]).exists()]

    def _differs(self, path: str, digest: str) -> bool:
        now = self._present_digest(path) if _is_small(path) else self._written_digest(path)
        return now is not None and now != digest

    def _present_digest(self, path: str) -> str | None:
        if path not in self._present:
            self._present[path] = _digest_of(Path(path))
        return self._present[path]

    def _written_digest(self, path: str) -> str | None:
        """Return the digest that DVC gives to a path of data written by stages; None if that cannot be told."""
        files = self._written
        if files is None or not files:
            return None
        if path in files:
            return files[path]
        below = {name.removeprefix(f"{path}/"): md5 for name, md5 in files.items() if name.startswith(f"{path}/")}
        return _digest_folder(below) if below else None

    @cached_property
    def _written(self) -> dict[str, str] | None:
        """Path of each file that a stage has written -> its digest; None if DVC's cache lacks a list."""
        files: dict[str, str] = {}
        for entry in self.stages.values():
            for out in entry.get("outs", ()):
                digest = out.get("md5", "")
                if not digest.endswith(_FOLDER):
                    files[out["path"]] = digest
                    continue
                listed = self.cache / digest[:2] / digest[2:]
                if not listed.is_file():
                    return None
                for file in json.loads(listed.read_bytes()):
                    files[f"{out['path']}/{file['relpath']}"] = file["md5"]
        return files


def _is_small(path: str) -> bool:
    """Tell whether a path is one of code or of this checkout's own files, not data."""
    return path.split("/")[0] in FOLDERS or ("/" not in path and Path(path).is_file())


def _digest_of(path: Path) -> str | None:
    """Return the digest that DVC gives to a file or folder; None if it is missing."""
    if path.is_file():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if not path.is_dir():
        return None
    files = [file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    return _digest_folder({file.relative_to(path).as_posix(): _digest_of(file) for file in files})


def _digest_folder(files: Mapping[str, str]) -> str:
    """Return DVC's digest of a folder. files: path in it -> digest."""
    listed = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + _FOLDER


class _Loader(yaml.CSafeLoader):
    """Reads YAML 1.2 as DVC does, for which "no" is a text and 1e-4 a number, in a tenth of the time."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 - the class attribute is PyYAML's way to choose a schema


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
