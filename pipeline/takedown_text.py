"""The texts of a takedown: what was removed, what follows from it, and what remains to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

from datasets.shards.manifest import read_manifest
from pipeline.aftermath import NOT_DONE, Aftermath
from pipeline.layout import TOMBSTONES, column_folder, columns_of, stage_of
from pipeline.progress import printable
from pipeline.removal import Outcome

_SHOWN = 20  # names of removed records
_COMMIT = "the shards are those that these stages would write now, if dvc status reported no change before"
_KMEANS = """;
      except for labels by k-means: they keep their clusters, which may have been fitted on the images;
      leave semantics out of the command to compute all labels again"""
_IN_STORE = (
    "  the old objects are removed from the store; if it keeps versions, remove those with its own tools;",
    "  other machines that read from it have fetched shards in store.cache: empty that folder there",
)
_STEPS = 8  # shown of each use


def render(outcome: Outcome) -> str:
    """Return what was removed, or is to be removed."""
    if not outcome.removed:
        return f"nothing to do: the shards of {outcome.dataset} hold no record that {TOMBSTONES} names"
    names = [
        f"{record.split}: {printable(record.key)} ({record.status}, from {printable(record.source)})"
        for record in outcome.removed
    ]
    shards = ", ".join(f"{folder} {count}" for folder, count in (outcome.folders or {}).items())
    lines = [
        f"{len(names)} of {outcome.dataset} removed, and kept out by {TOMBSTONES}:"
        if outcome.folders is not None
        else f"{len(names)} of {outcome.dataset} would be removed, and kept out by {TOMBSTONES}:",
        *(f"  {name}" for name in names[:_SHOWN]),
        *([f"  and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []),
        *([f"shards rewritten: {shards}"] if shards else []),
    ]
    return "\n".join(lines)


def render_next(outcome: Outcome) -> str:
    """Return the commands that remain after records were removed."""
    stages = dict.fromkeys(map(stage_of, columns_of("")))
    lines = [
        "what to do now:",
        f"  dvc commit -f {' '.join(stages)}",
        f"      ({_COMMIT}{_KMEANS if _has_clusters() and 'train' in outcome.images else ''})",
        f"  git add {TOMBSTONES} dvc.lock && git commit",
        "  dvc repro",
        "      (trains and evaluates again what used the images)",
        *(_IN_STORE if outcome.store else ()),
    ]
    return "\n".join(lines)


def _has_clusters() -> bool:
    """Return whether the labels of train are clusters by k-means."""
    folder = column_folder("semantics", "train")
    return folder.is_dir() and read_manifest(folder).parameters.get("source") == "kmeans"


def render_all(outcome: Outcome, aftermath: Aftermath, price: dict[str, str] | None, *, as_json: bool) -> str:
    """Return the removal and all that follows from it, done or to be done, as text or as JSON.

    price: of each generator to train again, see `price_retraining`.
    """
    if as_json:
        aftermath_tree = asdict(aftermath) | {"price": price, "not_done": NOT_DONE}
        return json.dumps(asdict(outcome) | {"aftermath": aftermath_tree}, indent=2)
    if not outcome.removed and not (aftermath.objects or aftermath.versions or aftermath.trainings):
        return render(outcome)
    lines = [render(outcome)] if outcome.removed else []
    lines += ["", *_render_uses(aftermath, price), "", *_render_cleared(aftermath)]
    if outcome.folders is not None:
        lines += ["", render_next(outcome)]
    return "\n".join([*lines, "", "what a takedown does not reach:", *(f"  {text}" for text in NOT_DONE)]).strip()


def _render_uses(aftermath: Aftermath, price: dict[str, str] | None) -> Iterator[str]:
    exposure = aftermath.exposure
    yield "what the images reached:" if exposure.uses else "no training, checkpoint or version had the images"
    for use in exposure.uses[:_SHOWN]:
        steps = ", ".join(map(str, use.steps[:_STEPS])) + (
            f" and {len(use.steps) - _STEPS} more" * (len(use.steps) > _STEPS)
        )
        read = f"read at steps {steps}" if use.steps else "in its data set, not read"
        yield f"  {use.kind} {printable(use.title)}: {printable(use.key)} {read}"
    if len(exposure.uses) > _SHOWN:
        yield f"  and {len(exposure.uses) - _SHOWN} more; --json lists all"
    if exposure.generators:
        yield "to train again without them:"
        named = ",".join(exposure.generators)
        for generator in exposure.generators:
            yield f"  {generator}" + (f": {price[generator]}" if price else "")
        if not price:
            yield f"  (for the price: python -m pipeline plan --probe --generators {named})"


def _render_cleared(aftermath: Aftermath) -> Iterator[str]:
    is_done = aftermath.evidence is not None
    places: dict[str, list[int]] = {}
    for each in aftermath.objects:
        places.setdefault(f"objects of DVC's {each.place} with a {each.what}", []).append(each.bytes)
    yield "removed from caches, and marked:" if is_done else "to be removed from caches, and marked:"
    for place, sizes in places.items():
        yield f"  {len(sizes)} {place}, {sum(sizes):,} bytes"
    for name in aftermath.trainings:
        yield f"  unfinished training {name}, with its checkpoints"
    for version in aftermath.versions:
        yield f"  version {version}: tag takedown"
    for version in aftermath.unmarked:
        yield f"  version {version}: NOT marked, the tracking server does not answer; run: python -m pipeline takedown"
    if is_done:
        yield f"evidence: {aftermath.evidence}; python -m pipeline verify all reads it"
