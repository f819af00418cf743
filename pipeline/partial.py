"""What the page of an unfinished run can show: which rows have results, and how far the trainings of the others are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from datasets.shards.column import Column
from datasets.shards.manifest import ManifestError
from datasets.shards.records import ShardError
from files.errors import UserError
from jobs.evaluation.results import read_summary
from jobs.report.curves import Phases, make_curves
from jobs.report.data import Curves
from jobs.runs.events import losses_by_step
from jobs.runs.folder import list_run_folders
from jobs.runs.state import TrainingState, is_training, read_state
from pipeline.columns import open_column
from pipeline.layout import GROUP_ROWS, SUMMARY_NAME, model_folder, results_folder
from pipeline.params import Params
from pipeline.progress import span
from pipeline.status.recorded import Record
from pipeline.trained import open_receipt


def describe_time() -> str:
    """Return date and time of now, such as "2026-05-01 12:30 UTC"."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def open_masks(params: Params, images: Column) -> Column | None:
    """Open the masks of the suite; None if they have not been made yet, or not for these images."""
    try:
        return open_column(params, "mask", params.suite.split, images=images)
    except (ManifestError, ShardError):
        return None


def find_live_trainings(params: Params) -> dict[str, TrainingState]:
    """Return the unfinished training of each generator that has one: the one that runs, or else the last that ran."""
    states = [
        read_state(folder)
        for name in params.generators
        for folder in filter(is_training, list_run_folders(params.cluster.storage_folder, name))
    ]
    ordered = sorted(states, key=lambda state: (state.holder is not None, state.updated or 0.0))
    return {state.generator: state for state in ordered}


def find_missing(
    params: Params, groups: Sequence[str], suite: str, trainings: Mapping[str, TrainingState]
) -> dict[str, str]:
    """Return the generators and groups of rows whose results cannot be shown, each with the reason.

    groups: "baselines", and "others" if there are such rows.
    suite: id of the suite in shards/; "" if it has no masks.
    trainings: see `find_live_trainings`.
    """
    return dict(_find_missing(params, groups, suite, trainings))


def _find_missing(
    params: Params, groups: Sequence[str], suite: str, trainings: Mapping[str, TrainingState]
) -> Iterator[tuple[str, str]]:
    record = Record.read()
    images = None
    for name in params.generators:
        problem = _find_problem(name, suite, record)
        if problem is None:
            receipt = open_receipt(name)
            images = images or receipt.images
            problem = None if receipt.images == images else "trained on other images than the rows of this page"
        if problem:
            yield name, describe_training(trainings[name]) if name in trainings else problem
    for group in groups:
        if problem := _find_problem(group, suite, record):
            yield group, problem


def _find_problem(row: str, suite: str, record: Record) -> str | None:
    """Return why a row has no results that belong to its weights and to the suite; None if it has."""
    summary = results_folder(row) / SUMMARY_NAME
    if row not in GROUP_ROWS:
        if not model_folder(row).is_dir():
            return "not trained yet"
        try:
            open_receipt(row)
        except UserError as error:
            return str(error)
        if record.has_changed(f"evaluate@{row}", str(model_folder(row))):
            return "trained, not evaluated since"
    if not summary.is_file():
        return "not evaluated yet" if row in GROUP_ROWS else "trained, not evaluated yet"
    read = read_summary(summary)
    if read.suite != suite:
        return "evaluated on another suite"
    return None if row in GROUP_ROWS or row in read.rows else f"{summary} has another row"


def live_curves(state: TrainingState) -> Iterator[Curves]:
    """Yield the curves of a training that is not finished, from its log. The titles say how far it is."""
    phases: Phases = {}
    for step, losses in losses_by_step(state.folder.events).items():
        for name, loss in losses.items():
            phase, _, term = name.partition("/")
            phases.setdefault(phase, {}).setdefault(term, {})[step] = loss
    yield from make_curves(f"{state.generator}, {state.state}", phases)


def describe_training(state: TrainingState) -> str:
    """Return how far a training is, such as: running, step 640 of 1,400, about 4 min left."""
    words = [state.state, f"step {state.step:,}" + (f" of {state.steps:,}" if state.steps else "")]
    if state.seconds_left is not None:
        words.append(f"about {span(state.seconds_left)} left")
    if state.error:
        words.append(state.error)
    return ", ".join(words)
