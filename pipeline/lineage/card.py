"""The card of a registered version: what it is, what it was made of, its figures and its limits, as Markdown.

A card is made from the tags, the receipt and the evaluations of the version, so that it can be made again from these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets.sources import SOURCES
from files.checkout import name_some
from jobs.evaluation.catalogue import BY_NAME, HEADLINE
from jobs.evaluation.metrics.value import Metric, Missing, Value
from jobs.evaluation.results import OVERALL, Group, Summary
from jobs.generators import card as card_of
from pipeline.budgets import planned_images

_USE = """\
It fills marked holes in photographs like those that it was trained on. It is a retraining of a paper, for study and
comparison. It invents what it paints: do not use its output as evidence of what was there, and do not use it to change
pictures of persons without their consent."""


def describe_data(dataset: str, licence: str) -> dict[str, str]:
    """Return the tags of a version about the rights in its data.

    dataset: name of the data set.
    licence: of its images, as their manifest states it.
    """
    source = SOURCES.get(dataset)
    return {
        "dataset": dataset,
        "licence": licence,
        "redistributable": str(source is not None and source.card.redistributable),
        "consent": source.card.consent if source else "not known",
    }


def make_card(
    receipt: Mapping[str, Any],
    tags: Mapping[str, str],
    summaries: Sequence[Summary] = (),
    hours: Mapping[str, float] | None = None,
) -> str:
    """Return the card of a version.

    receipt: entries of its receipt.
    tags: of the version.
    summaries: of its evaluations, one per suite.
    hours: device-hours of its training, see `jobs.runs.events.device_hours`; None if they are not known.
    """
    parts = [
        f"# inpaint-{receipt['generator']}",
        _first_line(receipt["generator"]),
        _table(("", ""), _facts(receipt, tags, hours or {})),
        "## Intended use",
        _USE,
        "## Figures",
        *(_figures(receipt["generator"], summaries) or ["This version is not evaluated yet."]),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(receipt, tags)),
    ]
    return "\n\n".join(parts) + "\n"


def _first_line(generator: str) -> str:
    return (card_of(generator).__doc__ or "").partition("\n")[0]


def _facts(
    receipt: Mapping[str, Any], tags: Mapping[str, str], hours: Mapping[str, float]
) -> Iterator[tuple[str, str]]:
    paper = card_of(receipt["generator"])
    spent = [f"{hours[name]:.3g} {name.replace('_', ' ')}" for name in sorted(hours) if hours[name]]
    is_dirty = tags.get("git_dirty") == "True"
    yield "Paper", f"{paper.PAPER}, {paper.YEAR}"
    yield "Weights", f"SHA-256 {receipt['weights_sha256']}"
    yield "Data", f"{tags.get('dataset', 'not known')}, manifest {receipt['images']}"
    yield "Licence of the data", tags.get("licence", "not known")
    yield "Redistribution of the data", "allowed" if tags.get("redistributable") == "True" else "not allowed"
    yield "Consent of the persons shown", tags.get("consent", "not known")
    yield "Training", f"{receipt['steps']:,} steps, {receipt['samples_seen']:,} samples, seed {receipt['seed']}"
    yield "Device-hours", ", ".join(spent) or "not known"
    yield "Commit", tags.get("git_commit", "unknown") + (f"; differed: {tags.get('git_changes')}" if is_dirty else "")
    yield "Provenance record", f"SHA-256 {tags.get('provenance_sha256', 'none')}"
    yield "Operations that did not repeat to the bit", ", ".join(receipt["not_repeatable"]) or "none"
    yield "Made again by", f"`{tags['rebuild']}`" if "rebuild" in tags else "not known"


def _figures(generator: str, summaries: Sequence[Summary]) -> Iterator[str]:
    """Yield a title and a table for each suite: means with 95 % intervals, over all pairs and by hole ratio."""
    for summary in summaries:
        groups = summary.rows.get(generator, {})
        overall = groups.get(OVERALL)
        if overall is None:
            continue
        names = [name for name in HEADLINE if any(isinstance(g.metrics.get(name), Value) for g in groups.values())]
        titles = [" ".join(filter(None, (BY_NAME[name].title, BY_NAME[name].unit))) for name in names]
        yield f"Suite {summary.suite}, {summary.images:,} images. Each figure is a mean with its 95 % interval."
        yield _table(("Hole ratio", "Pairs", *titles), (_row(name, group, names) for name, group in groups.items()))
        absent = [f"{name} ({m.reason})" for name, m in overall.metrics.items() if isinstance(m, Missing)]
        if absent:
            yield f"Without a value: {name_some(absent, 10)}."


def _row(name: str, group: Group, metrics: Sequence[str]) -> tuple[str, ...]:
    title = "all" if name == OVERALL else name
    return (title, f"{group.pairs:,}", *(_cell(metric, group.metrics.get(metric)) for metric in metrics))


def _cell(name: str, metric: Metric | None) -> str:
    if not isinstance(metric, Value):
        return "-"
    digits = BY_NAME[name].digits
    interval = "" if metric.low is None else f" ({metric.low:.{digits}f} to {metric.high:.{digits}f})"
    return f"{metric.mean:.{digits}f}{interval}"


def _limits(receipt: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[str]:
    planned = planned_images(card_of(receipt["generator"]).Config())
    share = receipt["samples_seen"] / planned
    yield f"It saw {receipt['samples_seen']:,} samples; the paper's settings would be {planned:,} ({share:.2%})."
    config = receipt["config"]
    weights = [value for name, value in config.items() if name.startswith(("perceptual", "style")) and "weight" in name]
    if config.get("features") == "random" and any(weights):
        yield "Its perceptual features are random: they are not those of the paper."
    if repeats := describe_gpu(receipt["generator"]):
        yield repeats
    source = SOURCES.get(tags.get("dataset", ""))
    yield from (f"Of its data: {defect}." for defect in (source.card.defects if source else ()))
    if "takedown" in tags:
        yield f"It was trained on pictures that were taken down since: {tags['takedown']}."


def describe_model(generator: str) -> str:
    """Return the description of a registered model: what its generator does, and the paper."""
    paper = card_of(generator)
    return f"{_first_line(generator)}\n\n{paper.PAPER}, {paper.YEAR}. Each version has a card of its own."


def describe_gpu(generator: str) -> str:
    """Return which operations of a generator may not repeat on a GPU, as its own card says; "" if it says nothing."""
    found = re.search(r"^On a GPU\b.*?(?=\n\n|\Z)", card_of(generator).__doc__ or "", re.DOTALL | re.MULTILINE)
    return " ".join(found[0].split()) if found else ""


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)


def shorten(text: str, most: int = 5000) -> str:
    """Return a card as the description of a version: without its title, and cut, since servers keep few characters.

    most: number of characters.
    """
    text = text.partition("\n\n")[2]
    note = "\n\n(The end is left out here: the file model_card.md of the run has all of it.)\n"
    return text if len(text) <= most else text[: most - len(note)].rpartition("\n")[0] + note
