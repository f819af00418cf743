"""Weights and mask shards -> figures per image and in all, for one generator or for the baselines."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datasets.shards.column import Column
from datasets.shards.manifest import Manifest, write_manifest
from datasets.shards.records import write_records
from datasets.writing.tars import NewRecord, write_shard
from files.durable import write_durably
from jobs.cluster.launch import map_tasks
from jobs.evaluation.loop import EvaluationJob, Score, evaluate_shard, summarise
from jobs.evaluation.suite import suite_id, untrained
from pipeline.layout import (
    BASELINES_ROW,
    GALLERY_NAME,
    SCORES_NAME,
    SUMMARY_NAME,
    column_folder,
    metrics_file,
    model_folder,
    results_folder,
)
from pipeline.params import Params, check_listed
from pipeline.progress import track


def run(params: Params, row: str) -> None:
    """Write results/<row>: every pair's figures, their summary, a gallery; and metrics/<row>.json.

    Raises ParamsError for a row that is neither "baselines" nor a generator that params.yaml lists.
    """
    if row != BASELINES_ROW:
        check_listed(params, row)
    images = Column(column_folder("image", params.suite.split), store=params.store, remedy="dvc repro ingest")
    masks = Column(column_folder("mask", params.suite.split), store=params.store, remedy="dvc repro masks")
    images.verify()
    masks.verify()
    job = EvaluationJob(
        name=row,
        images=str(images.folder.resolve()),
        masks=str(masks.folder.resolve()),
        model=None if row == BASELINES_ROW else str(model_folder(row).resolve()),
        config=params.evaluate,
        store=params.store,
    )
    shards = range(len(images.manifest.shards))
    work = map_tasks(partial(evaluate_shard, job), shards, num_workers=params.cluster.num_workers)
    results = sorted(track(work, f"evaluate {row}", len(shards), "shards"), key=lambda result: result.shard)
    folder = results_folder(row)
    shutil.rmtree(folder, ignore_errors=True)
    _write_scores(folder, [score for result in results for score in result.scores])
    _write_gallery(folder / GALLERY_NAME, images, [sample for result in results for sample in result.gallery])
    summary = {
        "suite": suite_id(images, masks),
        "images": images.manifest.records,
        "rows": summarise(results, params.evaluate),
    }
    write_durably(folder / SUMMARY_NAME, _json(summary))
    names = {row: "trained", untrained(row): "untrained"}  # one column for all generators in `dvc metrics show`
    overall = {
        names.get(name, name): {metric: v["mean"] for metric, v in groups["overall"].items() if isinstance(v, dict)}
        for name, groups in summary["rows"].items()
    }
    write_durably(metrics_file(row), _json(overall))


def _write_scores(folder: Path, scores: list[Score]) -> None:
    rows = [
        {"row": s.row, "key": s.key, "bin": s.bin, "hole_ratio": s.hole_ratio, **s.values}
        for s in sorted(scores, key=lambda s: (s.row, s.key, s.bin))
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink, compression="zstd")
    write_durably(folder / SCORES_NAME, sink.getvalue().to_pybytes())


def _write_gallery(folder: Path, images: Column, samples: list[NewRecord]) -> None:
    """The composites that are kept, as a column like any other."""
    folder.mkdir(parents=True)
    shard, fields = write_shard(folder, GALLERY_NAME, 0, samples)
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


def _json(tree: object) -> bytes:
    return (json.dumps(tree, indent=2, sort_keys=True) + "\n").encode()


VERB = {
    "help": "stage: score one generator, or the baselines",
    "example": "evaluate edge_connect",
    "arguments": {"row": {"help": 'a generator that params.yaml lists, or "baselines"'}},
}


def main(params: Params, arguments: Namespace) -> int:
    """Run the stage for one row of the results."""
    run(params, arguments.row)
    return 0
