"""Evaluate one job on workers, take up the parts that a killed command has finished, and write the results."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets.shards.column import Column
from datasets.shards.manifest import Manifest, write_manifest
from datasets.shards.records import write_records
from datasets.writing.tars import NewRecord, write_shard
from files.durable import write_durably
from jobs.cluster.kept import map_kept
from jobs.evaluation.catalogue import HEADLINE
from jobs.evaluation.costs import add_costs
from jobs.evaluation.external import describe_pictures
from jobs.evaluation.job import EvaluationJob
from jobs.evaluation.loop import Evaluation, divide_images
from jobs.evaluation.metrics.value import Value
from jobs.evaluation.parts import Parts
from jobs.evaluation.results import Group, Summary, write_summary
from jobs.evaluation.suite import describe_suite, select_records, suite_text
from jobs.evaluation.summary import describe_sources, late_pairs, summarise
from pipeline.inputs import StageInputs
from pipeline.layout import GALLERY_NAME, GROUP_ROWS, SCORES_NAME, SUITE_NAME, SUMMARY_NAME, model_folder
from pipeline.params import Params
from pipeline.progress import Bar

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one evaluation works, and for which stage.

    inputs: of its stage.
    staged: folder for its parts, and for its results until they are complete: the subfolder "results".
    about: row -> what it is.
    """

    inputs: StageInputs
    staged: Path
    about: Mapping[str, str] = field(default_factory=dict)


def make_job(params: Params, row: str, images: Column, masks: Column) -> EvaluationJob:
    """Return the evaluation of a generator or of the baselines on all images of a column."""
    job = EvaluationJob(
        name=row,
        images=str(images.folder.resolve()),
        masks=str(masks.folder.resolve()),
        images_digest=images.manifest.digest,
        masks_digest=masks.manifest.digest,
        model=None if row in GROUP_ROWS else str(model_folder(row).resolve()),
        config=params.evaluate,
        store=params.store,
    )
    return replace(job, device="cuda") if params.cluster.use_gpu and job.has_networks else job


def evaluate_job(
    params: Params, job: EvaluationJob, images: Column, masks: Column, place: Place
) -> tuple[Summary, dict[str, dict[str, Any]]]:
    """Evaluate a job and write its suite, scores, summary and gallery to the subfolder "results" of its place.

    Returns the summary, and row -> what it cost.
    """
    folder = place.staged / "results"
    shutil.rmtree(folder, ignore_errors=True)  # of a killed evaluation
    parts = Parts(place.staged / "parts", _identity(job, place))
    num_images = len(select_records(images, job.smallest_sha256)) if job.has_rows else 0
    _evaluate_parts(params, job, parts, num_images)
    notes = list(parts.notes())
    sources = describe_sources(notes)
    suite = suite_text(describe_suite(images, masks, params.evaluate, job.smallest_sha256))
    summary = Summary(
        hashlib.sha256(suite).hexdigest(),
        num_images or images.manifest.records,
        summarise(parts, folder / SCORES_NAME, params.evaluate),
        late_pairs(notes),
        {row: ", ".join(filter(None, (text, sources.get(row)))) for row, text in place.about.items()},
    )
    _write_gallery(folder / GALLERY_NAME, images, parts)
    write_durably(folder / SUITE_NAME, suite)
    write_summary(folder / SUMMARY_NAME, summary)
    return summary, {row: cost.to_json() for row, cost in add_costs(note.costs for note in notes).items()}


def means_of(group: Group) -> dict[str, float]:
    """Return the means of the metrics that have a value."""
    return {name: metric.mean for name, metric in group.metrics.items() if isinstance(metric, Value)}


def headline_of(group: Group) -> dict[str, float]:
    """Return the means of which `dvc metrics show` has a column."""
    means = means_of(group)
    return {name: means[name] for name in HEADLINE if name in means}


def _identity(job: EvaluationJob, place: Place) -> object:
    """Return what decides the results of a part: those of another identity are not taken up."""
    pictures = {row.name: describe_pictures(row) for row in job.external}
    inputs = place.inputs.values, place.inputs.code
    return [*inputs, job.images_digest, job.masks_digest, job.device, dict(place.about), pictures]


def _evaluate_parts(params: Params, job: EvaluationJob, parts: Parts, num_images: int) -> None:
    """Evaluate the parts of the suite that are not finished, here or on workers."""
    divided = divide_images(num_images, params.evaluate.batch_size)
    unfinished = parts.unfinished(divided)
    num_done = num_images - sum(map(len, unfinished))
    if num_done:
        log.warning("%s: %d of %d images were evaluated before", job.name, num_done, num_images)
    use_gpu = job.device != "cpu"
    with Bar(f"evaluate {job.name}", num_images, "images") as bar:
        for result in map_kept(partial(Evaluation, job), unfinished, params.cluster, use_gpu=use_gpu):
            parts.add(result)
            num_done += len(result.keys)
            bar.at(num_done)


def _write_gallery(folder: Path, images: Column, parts: Parts) -> None:
    """Write the pictures of the gallery as a column of one shard. Without rows the folder is empty."""
    records = [NewRecord(key=key, members=members, about={}) for key, members in parts.gallery()]
    folder.mkdir(parents=True)
    if not records:
        return
    shard, fields = write_shard(folder, GALLERY_NAME, 0, records)
    write_manifest(
        folder,
        Manifest(
            dataset=images.manifest.dataset,
            split=images.manifest.split,
            column=GALLERY_NAME,
            licence=images.manifest.licence,
            shards=(shard,),
            records_sha256=write_records(folder, fields),
            made_from=images.manifest.digest,
        ),
    )
