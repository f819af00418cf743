"""The overview as text or JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict

from jobs.runs.state import TrainingState
from pipeline.progress import printable, span
from pipeline.status.overview import Overview
from pipeline.status.stages import StageState
from pipeline.status.trainings import Training
from pipeline.tables import align_left, wrap_last

_ORDER = ("running", "failed", "stopped", "waits")
_LOSSES = 3  # in a line
_DIFFERENCES = 3


def render_json(overview: Overview) -> str:
    """Return the overview as JSON. A training has the entries of its state, and the folder as a path."""
    tree = asdict(overview)
    tree["storage"] = str(overview.storage)
    tree["trainings"] = [
        {
            **asdict(each.state),
            "folder": str(each.state.folder.path),
            "differences": each.differences,
            "next": each.next,
        }
        for each in overview.trainings
    ]
    return json.dumps(tree, indent=2)


def render_text(overview: Overview) -> str:
    """Return the overview as text for a terminal."""
    lines = ["stages", wrap_last([*_finished(overview), *_unfinished(overview)])]
    if overview.trainings:
        lines += ["", f"trainings in {printable(str(overview.storage))}"]
        lines += [wrap_last([row for each in overview.trainings for row in _training_rows(each)])]
    if overview.undelivered:
        lines += ["", printable(overview.undelivered)]
    lines += ["", "next", *align_left([(f"  {step.command}", step.what) for step in overview.next])]
    return "\n".join(lines)


def _finished(overview: Overview) -> Iterator[tuple[str, str]]:
    names = [stage.name for stage in overview.stages if stage.state == "finished"]
    if names:
        yield "  finished", ", ".join(names)


def _unfinished(overview: Overview) -> Iterator[tuple[str, str]]:
    """Yield a row per state and reason, with the names of all stages that share them."""
    names: dict[tuple[str, str], list[str]] = {}
    for stage in overview.stages:
        if stage.state != "finished":
            names.setdefault((stage.state, _describe_stage(stage)), []).append(stage.name)
    for (state, why), stages in sorted(names.items(), key=lambda item: _ORDER.index(item[0][0])):
        yield f"  {state}", ", ".join(stages) + (f": {why}" if why else "")


def _describe_stage(stage: StageState) -> str:
    """Return the process that runs a stage, or what it waits for."""
    text = stage.holder or stage.why
    return printable(text if stage.since is None else f"{text}, for {_span_since(stage.since)}")


def _training_rows(training: Training) -> Iterator[tuple[str, str, str]]:
    state = training.state
    texts = [_describe_figures(state)]
    if state.holder:
        texts.append(state.holder + (f", last figures {_span_since(state.updated)} ago" if state.updated else ""))
    if state.error:
        texts.append(state.error)
    if training.differences:
        some = ", ".join(training.differences[:_DIFFERENCES])
        rest = len(training.differences) - _DIFFERENCES
        texts.append(f"another experiment, not as these are now: {some}" + (f" and {rest} more" if rest > 0 else ""))
        texts.append(f"folder {state.folder.path}")
    if training.next:
        texts.append(f"{_verb(training)}: {training.next}")
    names = [(f"  {state.generator}", state.state), *[("", "")] * (len(texts) - 1)]
    for (name, kind), text in zip(names, texts, strict=True):
        yield name, kind, printable(text)


def _verb(training: Training) -> str:
    if training.state.holder:
        return "save and stop it"
    return "put its parameters and code back" if training.differences else "go on"


def _describe_figures(state: TrainingState) -> str:
    """Return step, pace, time left and losses, such as: step 40 of 80 (50 %), about 3 min left, 12.0 images/s."""
    total = f" of {state.steps:,} ({state.step / state.steps:.0%})" if state.steps else ""
    words = [f"step {state.step:,}{total}"]
    if state.logged_step > state.step:
        words = [f"goes on from {words[0]}", f"was at step {state.logged_step:,}"]
    if state.seconds_left is not None:
        words.append(f"about {span(state.seconds_left)} left")
    if state.images_per_second is not None:
        words.append(f"{state.images_per_second:,.1f} images/s")
    words += [f"{name} {value:.4g}" for name, value in list(state.losses.items())[:_LOSSES]]
    return ", ".join(words)


def _span_since(moment: float) -> str:
    return span(max(time.time() - moment, 0.0))  # the clock of another host may be ahead
