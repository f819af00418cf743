"""Everything that `python -m pipeline status` shows: stages, trainings, undelivered results and the next commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.cluster.settings import ClusterConfig
from jobs.tracking.queue import describe_waiting
from pipeline.layout import undelivered_folder
from pipeline.status.stages import StageState, read_stage_states
from pipeline.status.trainings import Training, list_trainings


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command that may be typed next, and what it does."""

    command: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The state of a checkout and of its storage.

    storage: absolute folder of live trainings.
    undelivered: what waits for the tracking server, in one line; None if nothing does.
    next: commands that may be typed next, the most likely one first.
    """

    storage: Path
    stages: Sequence[StageState]
    trainings: Sequence[Training]
    undelivered: str | None
    next: Sequence[Step]


def read_overview(tree: Mapping[str, Any]) -> Overview:
    """Read the state of everything. Nothing is changed.

    tree: the content of params.yaml.
    """
    cluster = tree.get("cluster") or {}
    storage = ClusterConfig(storage=cluster.get("storage", ClusterConfig.storage)).storage_folder
    trainings = list_trainings(storage, tree)
    stages = [_with_training(stage, trainings) for stage in read_stage_states(tree)]
    undelivered = describe_waiting(undelivered_folder(storage))
    return Overview(
        storage=storage,
        stages=stages,
        trainings=trainings,
        undelivered=undelivered,
        next=list(_next_steps(stages, trainings, undelivered)),
    )


def _with_training(stage: StageState, trainings: Sequence[Training]) -> StageState:
    """Return the state of a stage, of a training that another machine or an earlier process runs as the storage has it.

    The note of a stage is in the checkout that runs it; the storage may be shared.
    """
    name, _, generator = stage.name.partition("@")
    if name != "train" or stage.state not in ("waits", "stopped"):
        return stage
    for training in trainings:
        state = training.state
        if state.generator != generator or training.differences:
            continue
        if state.holder:
            return StageState(name=stage.name, state="running", holder=state.holder)
        return replace(
            stage,
            state="failed" if state.state == "failed" else "stopped",
            why=state.error or f"its training is {state.state} at step {state.step:,}",
        )
    return stage


def _next_steps(stages: Sequence[StageState], trainings: Sequence[Training], undelivered: str | None) -> Iterator[Step]:
    states = {stage.state for stage in stages}
    is_running = "running" in states or any(training.state.holder for training in trainings)
    if any(training.state.state in ("starting", "running") for training in trainings):
        yield Step(command="python -m pipeline stop", what="save and stop what is training; nothing is lost")
    if states == {"finished"}:
        yield Step(command="python -m pipeline report --open", what="look at the results")
    elif not is_running:
        yield Step(command="dvc repro", what="go on with all that is stopped, failed or waits")
    if states != {"finished"} and (trainings or _has_results(stages)):
        yield Step(command="python -m pipeline report --partial --open", what="look at what there is so far")
    if undelivered:
        yield Step(command="python -m pipeline deliver", what="send finished trainings to the tracking server")


def _has_results(stages: Sequence[StageState]) -> bool:
    return any(stage.state == "finished" and stage.name.startswith(("evaluate@", "baselines")) for stage in stages)
