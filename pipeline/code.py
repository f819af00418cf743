"""Read what dvc.yaml declares about a stage: code, data and parameters. dvc.yaml is the only list.

DVC reruns a stage when one of these changes. For the same reason, once the code has changed, a shard of an interrupted
run is not reused and an interrupted training is not continued.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ruamel.yaml import YAML

from files.checkout import FOLDERS, ROOT
from files.durable import file_digest

LOCK = "requirements.lock"
"""The lock of packages, relative to the checkout."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """The inputs of a stage by name.

    code: files and folders of code, and the lock of packages, relative to the checkout.
    data: files and folders of other stages and of the user. The data set itself, `dataset.watch`, is not among them.
    params: dotted keys of params.yaml.
    command: the command line.
    outs: files and folders that it writes, its record included.
    """

    code: tuple[str, ...]
    data: tuple[str, ...]
    params: tuple[str, ...]
    command: str
    outs: tuple[str, ...]


def read_stages() -> dict[str, Any]:
    """Return the stages of dvc.yaml as it declares them, by name."""
    return _parse((ROOT / "dvc.yaml").read_text(encoding="utf-8"))


def read_declaration(stage: str, key: str = "") -> Declaration:
    """Read the inputs that a stage declares.

    stage: a name in dvc.yaml, such as "masks".
    key: the generator or the suite, for a stage that has one variant for each.
    """
    stages = read_stages()
    declared = stages[stage].get("do", stages[stage])
    deps, params = ([_fill(name, key) for name in declared[part]] for part in ("deps", "params"))
    outs = (out for part in ("outs", "metrics", "plots") for out in declared.get(part, ()))
    paths = (next(iter(out)) if isinstance(out, dict) else out for out in outs)
    code = tuple(dep for dep in deps if dep == LOCK or dep.split("/")[0] in FOLDERS)
    data = tuple(dep for dep in deps if dep not in code and not dep.startswith("$"))
    return Declaration(
        code=code,
        data=data,
        params=tuple(params),
        command=_fill(declared["cmd"], key),
        outs=tuple(_fill(path, key) for path in paths),
    )


def _fill(text: str, key: str) -> str:
    """Put a key in its place: ${key} of a mapping, ${item} of a list."""
    return text.replace("${key}", key).replace("${item}", key)


def relevant_changes(stage: str, key: str, changes: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return those of some changed files that a stage depends on, or a stage whose outputs it reads.

    changes: paths relative to the checkout; None if they are not known.
    Of the files beside the code, all stages depend on dvc.yaml, params.yaml and the lock of packages.
    """
    if changes is None:
        return None
    used = {"dvc.yaml", "params.yaml", *(dep for each in _with_upstream(stage, key) for dep in each.code + each.data)}
    return tuple(name for name in changes if any(PurePath(name).is_relative_to(dep) for dep in used))


def _with_upstream(stage: str, key: str) -> list[Declaration]:
    """Return the declarations of a stage and of all stages before it."""
    declared = read_declaration(stage, key)
    found = [declared]
    for name in list_stages():
        outs = read_declaration(name, key).outs
        if name != stage and any(_overlap(dep, out) for dep in declared.data for out in outs):
            found += _with_upstream(name, key)
    return found


def _overlap(one: str, other: str) -> bool:
    return PurePath(one).is_relative_to(other) or PurePath(other).is_relative_to(one)


def list_stages() -> list[str]:
    """Return the names of all stages, in the order of dvc.yaml."""
    return list(_parse((ROOT / "dvc.yaml").read_text(encoding="utf-8")))


def list_outs() -> list[str]:
    """Return the outputs of all stages, as dvc.yaml names them."""
    return [out for stage in list_stages() for out in read_declaration(stage, "${key}").outs]


def stage_code(stage: str, key: str = "") -> dict[str, str]:
    """Return the files of code that a stage declares, and the lock of packages, each with its SHA-256.

    stage, key: see `read_declaration`.
    Returns path relative to the checkout -> digest, sorted by path.
    """
    declared = [ROOT / dep for dep in read_declaration(stage, key).code]
    files = {file for path in declared for file in ([path] if path.is_file() else path.rglob("*.py"))}
    return {file.relative_to(ROOT).as_posix(): file_digest(file) for file in sorted(files)}


def find_stage(words: list[str]) -> tuple[str, str] | None:
    """Find the stage whose command is `python -m pipeline <words>`. Returns its name and key, or None.

    A name in place of ${key} is not compared with params.yaml. An option is none.
    """

    def fits(command: list[str]) -> bool:
        return len(command) == len(words) and all(
            part == word or (part == "${key}" and not word.startswith("-"))
            for part, word in zip(command, words, strict=True)
        )

    commands = {name: read_declaration(name, "${key}").command.split()[3:] for name in list_stages()}
    for name, command in sorted(commands.items(), key=lambda item: "${key}" in item[1]):
        if fits(command):
            return name, words[command.index("${key}")] if "${key}" in command else ""
    return None


@functools.cache
def _parse(text: str) -> dict[str, Any]:
    """Return the stages in the text of dvc.yaml."""
    return YAML(typ="safe", pure=True).load(text)["stages"]
