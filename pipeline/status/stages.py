"""The state of every stage of dvc.yaml: finished, running, failed, stopped, or waiting for something."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from files.checkout import name_some
from pipeline.code import read_stages
from pipeline.stage_notes import read_note
from pipeline.status.recorded import Record

State = Literal["finished", "running", "failed", "stopped", "waits"]

_SHOWN = 3  # changed inputs in a text


@dataclass(frozen=True, kw_only=True)
class StageState:
    """The state of one stage.

    name: as DVC has it, such as "train@edge_connect".
    state: "stopped" if its process was ended by a signal; "waits" if it has not run, or not with the present inputs.
    why: the error, or what it waits for; "" if there is nothing to tell.
    holder: the process that runs it, with its host.
    since: when that process began, as Unix time in seconds.
    """

    name: str
    state: State
    why: str = ""
    holder: str | None = None
    since: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """One stage of dvc.yaml with the values of params.yaml in it."""

    name: str
    key: str
    command: str
    deps: list[str]
    params: list[str]
    outs: list[str]

    @property
    def id(self) -> str:
        return f"{self.name}@{self.key}" if self.key else self.name


def read_stage_states(tree: Mapping[str, Any]) -> list[StageState]:
    """Return the state of every stage, in the order of dvc.yaml.

    tree: the content of params.yaml.
    """
    record = Record.read()
    stages = list(_list_stages(tree))
    unfinished: list[_Stage] = []
    states = []
    for stage in stages:
        state = _read_state(stage, record, unfinished, tree)
        states.append(state)
        if state.state != "finished":
            unfinished.append(stage)
    return states


def _list_stages(tree: Mapping[str, Any]) -> Iterator[_Stage]:
    """Yield the stages of dvc.yaml, those with `foreach` once per generator or suite."""
    for name, body in read_stages().items():
        one = body.get("do", body)
        for key in tree.get(body["foreach"].strip("${}")) or () if "foreach" in body else [""]:

            def fill(text: str, key: str = key) -> str:
                text = text.replace("${key}", key).replace("${item}", key)
                return re.sub(r"\$\{([\w.]+)\}", lambda found: str(_value_at(tree, found[1])), text)

            outs = [out for part in ("outs", "metrics", "plots") for out in one.get(part, ())]
            yield _Stage(
                name=name,
                key=key,
                command=fill(one["cmd"]),
                deps=[fill(dep) for dep in one["deps"]],
                params=[fill(param) for param in one["params"]],
                outs=[fill(out if isinstance(out, str) else next(iter(out))) for out in outs],
            )


def _read_state(stage: _Stage, record: Record, unfinished: Sequence[_Stage], tree: Mapping[str, Any]) -> StageState:
    """Return the state of one stage. unfinished: those before it."""
    note = read_note(stage.name, stage.key)
    if note and note.is_running:
        return StageState(name=stage.id, state="running", holder=note.holder, since=note.started)
    why = _why_unfinished(stage, record, unfinished, tree)
    if why is None:
        return StageState(name=stage.id, state="finished")
    if note:
        return StageState(name=stage.id, state="failed" if note.error else "stopped", why=note.error or "")
    return StageState(name=stage.id, state="waits", why=why)


def _why_unfinished(stage: _Stage, record: Record, unfinished: Sequence[_Stage], tree: Mapping[str, Any]) -> str | None:
    """Return what a stage waits for; None if it has run with the present inputs."""
    before = [other for other in unfinished if _feeds(other, stage)]
    nearest = [other.id for other in before if not any(_feeds(other, later) for later in before)]
    if nearest:
        return f"comes after {name_some(tuple(nearest), _SHOWN)}"
    if stage.id not in record.stages:
        return "has not run yet"
    params = {name: _value_at(tree, name) for name in stage.params}
    if changes := list(record.find_changes(stage.id, stage.command, stage.deps, params)):
        return f"changed since it ran: {name_some(tuple(changes), _SHOWN)}"
    if missing := record.find_missing(stage.id):
        return f"missing: {name_some(tuple(missing), _SHOWN)}"
    return None


def _feeds(stage: _Stage, other: _Stage) -> bool:
    """Tell whether an output of a stage is a dependency of another one, or a part of it, or has it as a part."""
    return any(
        out == dep or out.startswith(f"{dep}/") or dep.startswith(f"{out}/") for out in stage.outs for dep in other.deps
    )


def _value_at(tree: Mapping[str, Any], name: str) -> Any:
    value: Any = tree
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
