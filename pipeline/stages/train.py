"""Shards -> weights of one generator, its curves, its tracked run and its registered version."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib.metadata
import json
import logging
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets.shards.column import Column
from datasets.stream.plan import sharing_problem
from files.checkout import FOLDERS, ROOT
from files.durable import file_digest
from files.objects import StoreConfig, StoreError
from jobs.checks.fitness import mismatch
from jobs.checks.footprint import Footprint, footprint
from jobs.cluster.launch import GroupWork, train_workers
from jobs.layers.weights import WeightsError
from jobs.runs.checkpoint_store import CheckpointStore
from jobs.runs.checkpoints import CheckpointError, newest_whole_checkpoint, read_progress
from jobs.runs.events import Event, losses_by_step, not_repeatable, read_events
from jobs.runs.experiment import Experiment, StoppedError, claimed, discard, stoppable
from jobs.runs.receipt import WEIGHTS_NAME, Receipt, read_receipt, write_receipt
from jobs.runs.stopping import stop_mark
from jobs.tracking.delivery import TrackingSync, describe_run, park, stage_model
from jobs.tracking.mlflow_runs import TrackedDataset
from jobs.training.loop import PeerError, TrainJob, train
from jobs.training.step import TrainingError
from pipeline.code import stage_code
from pipeline.layout import column_folder, curves_folder, model_folder, undelivered_folder
from pipeline.params import Params, ParamsError, check_listed
from pipeline.progress import Bar, printable

log = logging.getLogger(__name__)

_SHIPPED = tuple(folder for folder in FOLDERS if folder != "pipeline")  # with a registered model
_REQUIREMENTS = ("mlflow", "numpy", "opencv-python-headless", "pillow", "pyarrow", "safetensors", "scikit-image",
                 "torch", "torchvision", "webdataset")  # fmt: skip


def run(params: Params, generator: str) -> None:
    """Write models/<generator> and curves/<generator>; take up an interrupted training of the same experiment.

    While another process is training this very experiment, its progress is shown, and its result is taken.
    Raises ParamsError for a generator that params.yaml does not list, or that has fewer classes than the labels, for
    images of unequal sizes, and for a batch that the processes cannot share; ExperimentError when another experiment
    waits unfinished; StoppedError when the training was asked to stop.
    """
    check_listed(params, generator)
    parent = os.getppid()
    shape = footprint(generator, params.generators[generator])  # its weights are made where it is trained
    fewest, most = params.cluster.worker_range
    world_size = max(most, 1) if fewest == most else 1  # of a range, a size that can share the batch is taken later
    if problem := sharing_problem(shape.batch_size, world_size, params.train.accumulate):
        raise ParamsError(
            f"{problem}; change generators.{generator}.batch_size, train.accumulate or cluster.train_workers"
        )
    sources = {"edge": params.train.edges}  # several columns of edges may lie side by side
    columns = {
        name: Column(column_folder(sources.get(name, name), "train"), store=params.store)
        for name in ("image", *shape.columns)
    }
    for column in columns.values():
        column.verify()
    for name, column in columns.items():
        crop, config = params.train.samples.crop, params.generators[generator]
        if problem := mismatch(name, column, generator=generator, config=config, crop=crop):
            raise ParamsError(problem)
    experiment = Experiment(generator, _parts(params, generator, columns), params.cluster.storage_folder)
    experiment.check(start_anew=params.cluster.start_anew)
    storage, copies = experiment.storage, _copies(params, experiment)
    with (
        claimed(storage, lambda holder: _watching(storage, holder, generator, shape.steps)) as waited,
        stoppable(storage),
    ):
        if waited and _is_done(generator, experiment):
            _remove_copies(copies)
            discard(storage)
            return
        if copies:
            CheckpointStore(copies).check()
            CheckpointStore(copies).fetch_records(storage)
        experiment.describe()
        job = TrainJob(
            generator=generator,
            config=params.generators[generator],
            train=params.train,
            seed=params.seed,
            folders={name: str(column.folder.resolve()) for name, column in columns.items()},
            storage=str(storage),
            threads=params.cluster.threads,
            loader_workers=params.cluster.loader_workers,
            prefetch_batches=params.cluster.prefetch_batches,
            collective_seconds=params.cluster.collective_seconds,
            store=params.store,
            checkpoints=copies,
        )
        undelivered = undelivered_folder(params.cluster.storage_folder)
        _describe_run(params, columns, experiment)
        with (
            Bar(f"train {generator}", shape.steps, "steps") as bar,
            TrackingSync(
                storage,
                undelivered,
                on_event=lambda event: bar.at(event.step, _note(event)),
                # Workers have no terminal; in this process they are heard already.
                on_warning=lambda text: most and log.warning("train %s: %s", generator, printable(text)),
                resumable=(StoppedError, KeyboardInterrupt, SystemExit),
            ) as courier,
        ):
            work = GroupWork(
                function=train,
                arguments={"job": job},
                batch_shares=shape.batch_size // params.train.accumulate,
                is_finished=lambda: (storage / WEIGHTS_NAME).is_file() or stop_mark(storage).is_file(),
                fatal_errors=(TrainingError, WeightsError),
                consequential_errors=(PeerError,),
            )
            train_workers(work, params.cluster, name=f"{generator}-{experiment.identity[:16]}")
            _check_finished(generator, storage, parent, copies)
            receipt = _write_outputs(params, experiment, shape, columns)
            _hand_in(receipt, columns, experiment)
        _remove_copies(copies)
        if courier.delivered:
            discard(storage)  # a finished training leaves nothing to resume from
        else:
            log.warning(
                "train %s: done, but the tracking server was not told all (%s); its run and model wait in %s; deliver "
                "them with: python -m pipeline deliver",
                generator,
                courier.problem,
                park(storage, undelivered),
            )


def _copies(params: Params, experiment: Experiment) -> StoreConfig | None:
    """Where this training's checkpoints are copied to, if they are."""
    if params.cluster.checkpoints is None:
        return None
    url = f"{params.cluster.checkpoints.rstrip('/')}/{experiment.generator}/{experiment.identity[:16]}"
    return dataclasses.replace(params.store, url=url)


def _newest_copy(copies: StoreConfig) -> str:
    """How far the store is, for whoever goes on elsewhere."""
    try:
        (newest, *_) = CheckpointStore(copies).with_attempts(1).names() or ["no checkpoint"]
    except StoreError as error:
        return str(error)
    return f"{copies.url} has {newest}"


def _remove_copies(copies: StoreConfig | None) -> None:
    """Leave nothing of a finished training in the store, as far as that answers."""
    if copies:
        try:
            CheckpointStore(copies).clear()
        except StoreError as error:
            log.warning("%s; the training is done: remove what is left of %s by other means", error, copies.url)


def _is_done(generator: str, experiment: Experiment) -> bool:
    """Whether the process that was watched has left what this one would."""
    with contextlib.suppress(CheckpointError):
        receipt, weights = read_receipt(model_folder(generator)), model_folder(generator) / WEIGHTS_NAME
        return receipt.experiment == experiment.identity and file_digest(weights) == receipt.weights_sha256
    return False


def _check_finished(generator: str, storage: Path, parent: int, copies: StoreConfig | None) -> None:
    if not (storage / WEIGHTS_NAME).is_file():
        copied = f"; {_newest_copy(copies)}" if copies else ""
        raise StoppedError(
            f"{generator} is stopped, with everything saved in {storage}{copied}; the same command goes on"
        )
    if os.getppid() != parent:  # whoever started this is gone, and would have no use for outputs
        raise StoppedError(f"{generator} is trained, but nobody waits for it; the same command takes it from {storage}")


@contextlib.contextmanager
def _watching(storage: Path, holder: str, generator: str, steps: int) -> Iterator[Callable[[], None]]:
    """Show the progress of a training that another process does."""
    print(f"train {generator}: {holder} is training this; watching", file=sys.stderr, flush=True)
    offset = 0
    with Bar(f"train {generator}", steps, "steps") as bar:

        def look() -> None:
            nonlocal offset
            for event, behind in read_events(storage / "events.jsonl", offset=offset):
                offset = behind
                bar.at(event.step, _note(event))

        yield look


def _note(event: Event) -> str:
    speed = event.speed.get("images_per_second")
    loss = "  ".join(f"{name} {value:.4g}" for name, value in list(event.losses.items())[:3])
    return f"{loss}  {speed:.1f} images/s" if speed else loss


def _parts(params: Params, generator: str, columns: dict[str, Column]) -> dict[str, Any]:
    """What makes two trainings the same experiment: parameters, data, code and packages."""
    return {
        "config": asdict(params.generators[generator]),
        "train": asdict(params.train),
        "seed": params.seed,
        "data": {name: column.manifest.digest for name, column in columns.items()},
        "code": stage_code("train", generator),
    }


def _describe_run(params: Params, columns: dict[str, Column], experiment: Experiment) -> None:
    """One tracked run per training: it is described in the storage, so that a restart goes on with it."""
    image = columns["image"]
    generator = experiment.generator
    describe_run(
        experiment.storage,
        generator,
        parameters={"seed": params.seed, "train": asdict(params.train), **asdict(params.generators[generator])},
        tags={"generator": generator, "identity": experiment.identity, **_code_version()},
        datasets=[
            TrackedDataset(
                name=f"{image.manifest.dataset}-train-{name}",
                digest=column.manifest.digest,
                source=str(column.folder),
                records=column.manifest.records,
                context="training",
            )
            for name, column in columns.items()
        ],
        files={"params.json": json.dumps(params.to_dict(), indent=2, sort_keys=True)},
    )


def _write_outputs(params: Params, experiment: Experiment, shape: Footprint, columns: dict[str, Column]) -> Receipt:
    generator, storage = experiment.generator, experiment.storage
    folder = model_folder(generator)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(storage / WEIGHTS_NAME, folder / WEIGHTS_NAME)
    receipt = Receipt(
        generator=generator,
        config=asdict(params.generators[generator]),
        edges=params.edges[params.train.edges],
        seed=params.seed,
        steps=shape.steps,
        samples_seen=shape.steps * shape.batch_size,
        world_sizes=tuple(part["world_size"] for part in _segments(storage)),
        not_repeatable=not_repeatable(storage / "events.jsonl"),
        images=columns["image"].manifest.digest,
        columns={name: column.manifest.digest for name, column in columns.items() if name != "image"},
        train=asdict(params.train),
        weights_sha256=file_digest(folder / WEIGHTS_NAME),
        experiment=experiment.identity,
        parameters=shape.parameters,
    )
    write_receipt(folder, receipt)
    _write_curves(curves_folder(generator), storage)
    return receipt


def _segments(storage: Path) -> list[dict[str, int]]:
    """Since which step how many processes trained, from the last checkpoint."""
    return read_progress(newest_whole_checkpoint(storage / "checkpoints"))["segments"]


def _write_curves(folder: Path, storage: Path) -> None:
    """A table per phase and term: the layout that `dvc plots` reads."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for step, losses in losses_by_step(storage / "events.jsonl").items():
        for name, value in losses.items():
            curves.setdefault(name, []).append((step, value))
    shutil.rmtree(folder, ignore_errors=True)
    for name, points in curves.items():
        path = folder / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter="\t", lineterminator="\n").writerows([("step", "loss"), *points])


def _hand_in(receipt: Receipt, columns: dict[str, Column], experiment: Experiment) -> None:
    """What is to be registered, for the courier."""
    generator = experiment.generator
    image = columns["image"].manifest
    stage_model(
        experiment.storage,
        f"inpaint-{generator}",
        files={"model": model_folder(generator)},
        tags={
            "weights_sha256": receipt.weights_sha256,
            "images_manifest": receipt.images,
            **{f"{name}_manifest": digest for name, digest in receipt.columns.items()},
            "identity": experiment.identity,
            **_code_version(),
            "packages_lock": file_digest(ROOT / "requirements.lock"),
            "steps": str(receipt.steps),
            "not_repeatable": ", ".join(receipt.not_repeatable) or "nothing",
            "dataset": image.dataset,
            "licence": image.licence,
            "rebuild": f"git checkout {_git('rev-parse', 'HEAD')} && make setup && dvc repro train@{generator}",
        },
        code=_SHIPPED,
        requirements=[f"{name}=={importlib.metadata.version(name)}" for name in _REQUIREMENTS],
    )


def _code_version() -> dict[str, str]:
    dirty = bool(_git("status", "--porcelain", "--untracked-files=no"))
    return {"git_commit": _git("rev-parse", "HEAD"), "git_dirty": str(dirty)}


def _git(*words: str) -> str:
    """What git says, or "unknown" outside a checkout."""
    result = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else "unknown"


VERB = {
    "help": "stage: train one generator",
    "example": "train edge_connect",
    "arguments": {"generator": {"help": "a name that params.yaml lists"}},
}


def main(params: Params, arguments: Namespace) -> int:
    """Run the stage for one generator."""
    run(params, arguments.generator)
    return 0
