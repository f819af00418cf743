"""Shards -> weights of one generator, its curves, its tracked run and its registered version."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from datasets.maps.edges import EdgeConfig
from datasets.shards.column import Column
from files.code_archive import process_code
from files.durable import file_digest
from files.objects import StoreConfig, StoreError
from jobs.checks.fitness import mismatch
from jobs.checks.footprint import Footprint, footprint
from jobs.cluster.gpus import check_gpus
from jobs.cluster.launch import prepare_training, train_workers
from jobs.cluster.settings import ClusterConfig
from jobs.cluster.work import GroupWork
from jobs.layers.weights import WeightsError
from jobs.runs.checkpoint_store import CheckpointStore
from jobs.runs.checkpoints import newest_whole_checkpoint, read_progress
from jobs.runs.claim import claim_folder
from jobs.runs.curves import write_curves
from jobs.runs.events import Event, device_hours, read_events, read_not_repeatable, read_segments
from jobs.runs.experiment import Experiment, discard
from jobs.runs.folder import WEIGHTS_NAME, CheckpointError, RunFolder
from jobs.runs.note import leave_note
from jobs.runs.receipt import Receipt, read_receipt, write_receipt
from jobs.runs.stopping import StoppedError, request_stop_on_signals
from jobs.tracking.queue import describe_waiting, park
from jobs.tracking.staging import TrackedDataset
from jobs.tracking.sync import TrackingSync
from jobs.tracking.training_run import describe_training, stage_trained_model
from jobs.training.loop import PeerError, TrainJob, train
from jobs.training.step import TrainingError
from pipeline.code import LOCK, relevant_changes
from pipeline.columns import check_derived, open_column
from pipeline.inputs import InputsChangedError, StageInputs
from pipeline.layout import curves_folder, model_folder, undelivered_folder
from pipeline.lineage.card import describe_data, make_card
from pipeline.lineage.records import write_record
from pipeline.params import Params, ParamsError, check_listed
from pipeline.progress import Bar, printable
from pipeline.verbosity import say
from pipeline.workers import choose_workers

log = logging.getLogger(__name__)
_LATE_MODULES = ("albumentations", "torch._dynamo")  # the first batch and the first optimizer import them


@dataclass(frozen=True, kw_only=True)
class _Training:
    """A training that has passed all checks.

    footprint: steps, batch and columns of its recipe.
    inputs: of the stage, at its start.
    cluster: settings of its workers, whose number divides the batch.
    columns: verified columns that it reads, by name.
    checkpoints: where its checkpoints are copied to; None copies nothing.
    """

    params: Params
    inputs: StageInputs
    footprint: Footprint
    cluster: ClusterConfig
    columns: dict[str, Column]
    experiment: Experiment
    checkpoints: StoreConfig | None

    @property
    def generator(self) -> str:
        return self.experiment.generator

    @property
    def folder(self) -> RunFolder:
        return self.experiment.folder


def run(params: Params, generator: str) -> None:
    """Write models/<generator> and curves/<generator>, and track the training.

    An interrupted training of the same experiment is continued. While another process trains it, this one shows its
    progress and then takes its result.
    Raises ParamsError for a generator that params.yaml does not list or that has fewer classes than the labels, for
    images of unequal sizes, and for a batch that the processes cannot share; WorkerError for GPUs that this machine has
    not; ExperimentError if another experiment is unfinished; StoppedError if the training was asked to stop;
    InputsChangedError if its inputs were edited meanwhile.
    """
    parent = os.getppid()
    prepare_training(params.cluster, [train.__module__, f"jobs.generators.{generator}.recipe", *_LATE_MODULES])
    if waiting := describe_waiting(undelivered_folder(params.cluster.storage_folder)):
        log.warning("%s", waiting)
    training = _check(params, generator)
    folder = training.folder
    with (
        claim_folder(folder, lambda holder: _watch(training, holder)) as has_waited,
        request_stop_on_signals(folder.stop_request),
        leave_note(folder.note, steps=training.footprint.steps, resumable=(StoppedError,)),
    ):
        if has_waited and _has_outputs(training):
            _remove_copies(training)
            discard(folder)
            return
        _prepare(training)
        with (
            Bar(f"train {generator}", training.footprint.steps, "steps") as bar,
            _sync_tracking(training, bar) as tracking,
        ):
            _train(training)
            _check_finished(training, parent)
            _write_outputs(training)
        _remove_copies(training)
        _clean_up(training, tracking)
    say(f"trained {generator}: {model_folder(generator)}, {curves_folder(generator)}")


def _check(params: Params, generator: str) -> _Training:
    """Check parameters and data, and that no other experiment is left unfinished."""
    check_listed(params, generator)
    inputs = StageInputs.read("train", generator)
    counts = footprint(generator, params.generators[generator], params.train)
    cluster = choose_workers(params, counts)
    check_gpus(cluster)
    columns = _verify_columns(params, generator, ("image", *counts.columns))
    described = _experiment_inputs(params, generator, columns, inputs.code)
    experiment = Experiment(generator, described, params.cluster.storage_folder)
    experiment.check(start_anew=params.cluster.start_anew)
    copies = None
    if params.cluster.checkpoints is not None:
        url = f"{params.cluster.checkpoints.rstrip('/')}/{generator}/{experiment.name}"
        copies = dataclasses.replace(params.store, url=url)
    return _Training(
        params=params,
        inputs=inputs,
        footprint=counts,
        cluster=cluster,
        columns=columns,
        experiment=experiment,
        checkpoints=copies,
    )


def _verify_columns(params: Params, generator: str, names: tuple[str, ...]) -> dict[str, Column]:
    """Open the training split of some columns, and check every byte and that the generator can be trained with them.

    names: as recipes name them, "image" first.
    """
    columns = {"image": open_column(params, "image", "train")}
    for name in names[1:]:
        stored = params.train.edges if name == "edge" else name  # there may be several columns of edges
        columns[name] = open_column(params, stored, "train", images=columns["image"])
    check_derived(columns["image"])
    for column in columns.values():
        column.verify()
    for name, column in columns.items():
        crop, config = params.train.samples.crop, params.generators[generator]
        if problem := mismatch(name, column, generator=generator, config=config, crop=crop):
            raise ParamsError(problem)
    return columns


def _experiment_inputs(
    params: Params, generator: str, columns: dict[str, Column], code: Mapping[str, str]
) -> dict[str, Any]:
    """Return everything that the weights depend on: parameters, data, code and packages."""
    return {
        "config": asdict(params.generators[generator]),
        "train": params.train.describe(),
        "seed": params.seed,
        "data": {name: column.manifest.digest for name, column in columns.items()},
        "code": code,
    }


@contextlib.contextmanager
def _watch(training: _Training, holder: str) -> Iterator[Callable[[], None]]:
    """Show the progress of a training that another process runs. Yields a function that looks for new events."""
    generator, offset = training.generator, 0
    log.warning("train %s: %s is training this; watching", generator, holder)
    with Bar(f"train {generator}", training.footprint.steps, "steps") as bar:

        def look() -> None:
            nonlocal offset
            for event, end in read_events(training.folder.events, offset=offset):
                offset = end
                bar.at(event.step, _render(event))

        yield look


def _has_outputs(training: _Training) -> bool:
    """Return whether the outputs of this experiment are in place: the process that was watched has written them."""
    folder = model_folder(training.generator)
    with contextlib.suppress(CheckpointError):
        receipt = read_receipt(folder)
        is_same = receipt.experiment == training.experiment.identity
        return is_same and file_digest(folder / WEIGHTS_NAME) == receipt.weights_sha256
    return False


def _prepare(training: _Training) -> None:
    """Fill the run folder with everything that a training starts from, except checkpoints, and describe it."""
    if training.checkpoints:
        store = CheckpointStore(training.checkpoints)
        store.check()
        store.fetch_records(training.folder)
    training.experiment.describe()
    params, generator = training.params, training.generator
    dataset = training.columns["image"].manifest.dataset
    describe_training(
        training.folder,
        generator=generator,
        identity=training.experiment.identity,
        parameters={"seed": params.seed, "train": asdict(params.train), **asdict(params.generators[generator])},
        datasets=[
            TrackedDataset(
                name=f"{dataset}-train-{name}",
                digest=column.manifest.digest,
                source=str(column.folder),
                records=column.manifest.records,
                context="training",
            )
            for name, column in training.columns.items()
        ],
        params_json=json.dumps(params.to_dict(), indent=2, sort_keys=True),
        packages_lock=training.inputs.code[LOCK],
        changes=relevant_changes("train", generator, process_code().changes),
    )


def _sync_tracking(training: _Training, bar: Bar) -> TrackingSync:
    """Return the context in which the training is tracked, and its events and warnings are shown."""
    is_here = training.cluster.worker_range[1] == 0

    def show_warning(text: str) -> None:
        if not is_here:  # workers have no terminal; in this process the warning has been shown already
            log.warning("train %s: %s", training.generator, printable(text))

    return TrackingSync(
        training.folder.path,
        undelivered_folder(training.params.cluster.storage_folder),
        on_event=lambda event: bar.at(event.step, _render(event)),
        on_warning=show_warning,
        resumable=(StoppedError, InputsChangedError, KeyboardInterrupt, SystemExit),
    )


def _train(training: _Training) -> None:
    """Train on the workers until the weights are complete or a stop is requested."""
    params, folder = training.params, training.folder
    job = TrainJob(
        generator=training.generator,
        config=params.generators[training.generator],
        train=params.train,
        seed=params.seed,
        folders={name: str(column.folder.resolve()) for name, column in training.columns.items()},
        storage=str(folder.path),
        threads=params.cluster.threads,
        use_gpu=params.cluster.use_gpu,
        loader_workers=params.cluster.loader_workers,
        prefetch_batches=params.cluster.prefetch_batches,
        collective_seconds=params.cluster.collective_seconds,
        store=params.store,
        checkpoints=training.checkpoints,
        digests={name: column.manifest.digest for name, column in training.columns.items()},
    )
    work = GroupWork(
        function=train,
        arguments={"job": job},
        batch_shares=training.footprint.batch_size // params.train.accumulate,
        is_finished=lambda: folder.weights.is_file() or folder.stop_request.is_file(),
        fatal_errors=(TrainingError, WeightsError),
        consequential_errors=(PeerError,),
    )
    train_workers(work, training.cluster, name=f"{training.generator}-{training.experiment.name}")


def _check_finished(training: _Training, parent: int) -> None:
    """Check that the training is complete, and that its outputs may be written.

    Raises StoppedError if it is not complete or the process that started this one has ended, and InputsChangedError if
    the inputs of the stage are no longer those of its start.
    """
    generator, folder = training.generator, training.folder
    if not folder.weights.is_file():
        copied = f"; {_describe_newest_copy(training.checkpoints)}" if training.checkpoints else ""
        raise StoppedError(
            f"{generator} is stopped, with everything saved in {folder.path}{copied}; the same command goes on"
        )
    if os.getppid() != parent:  # DVC would not see the outputs, and would remove them at its next start
        raise StoppedError(
            f"{generator} is trained, but the process that asked for it has ended; the same command takes the result "
            f"from {folder.path}"
        )
    training.inputs.check_unchanged(
        f"its finished weights stay in {folder.path}: put these inputs back, and the same command takes the result"
    )


def _describe_newest_copy(checkpoints: StoreConfig) -> str:
    """Return the name of the newest checkpoint in the store, as text, or the store's problem."""
    try:
        names = CheckpointStore(checkpoints).with_attempts(1).names()
    except StoreError as error:
        return str(error)
    return f"{checkpoints.url} has {names[0] if names else 'no checkpoint'}"


def _write_outputs(training: _Training) -> None:
    """Write weights, receipt and curves, and stage the model to be registered."""
    model = model_folder(training.generator)
    model.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(training.folder.weights, model / WEIGHTS_NAME)
    receipt = _make_receipt(training, file_digest(model / WEIGHTS_NAME))
    write_receipt(model, receipt)
    write_curves(curves_folder(training.generator), training.folder.events)
    images = training.columns["image"].manifest
    record = write_record(training.inputs).to_json()
    hours = device_hours(read_segments(training.folder.events))
    stage_trained_model(
        training.folder,
        model,
        receipt,
        data=describe_data(images.dataset, images.licence),
        record=record,
        describe=lambda tags: make_card(asdict(receipt), tags, hours=hours),
        example_side=training.params.train.samples.crop or training.params.ingest.size,
    )


def _make_receipt(training: _Training, weights_sha256: str) -> Receipt:
    params, counts = training.params, training.footprint
    digests = {name: column.manifest.digest for name, column in training.columns.items()}
    segments = read_progress(newest_whole_checkpoint(training.folder.checkpoints))["segments"]
    return Receipt(
        generator=training.generator,
        config=asdict(params.generators[training.generator]),
        edges=EdgeConfig(**training.columns["edge"].manifest.parameters) if "edge" in training.columns else None,
        seed=params.seed,
        steps=counts.steps,
        samples_seen=counts.steps * counts.batch_size,
        world_sizes=tuple(segment["world_size"] for segment in segments),
        not_repeatable=read_not_repeatable(training.folder.events),
        images=digests.pop("image"),
        columns=digests,
        train=asdict(params.train),
        weights_sha256=weights_sha256,
        experiment=training.experiment.identity,
        parameters=counts.parameters,
    )


def _remove_copies(training: _Training) -> None:
    """Remove the checkpoints of a finished training from the store. A store that does not answer is logged."""
    if training.checkpoints:
        try:
            CheckpointStore(training.checkpoints).clear()
        except StoreError as error:
            log.warning("%s; the training is done: remove %s by other means", error, training.checkpoints.url)


def _clean_up(training: _Training, tracking: TrackingSync) -> None:
    """Remove the run folder, or keep the files that the tracking server has not received."""
    if tracking.delivered:
        discard(training.folder)
        return
    log.warning(
        "train %s: done, but the tracking server did not receive everything (%s); its run and model wait in %s; "
        "deliver them with: python -m pipeline deliver",
        training.generator,
        tracking.problem,
        park(training.folder.path, undelivered_folder(training.params.cluster.storage_folder), tracking.problem),
    )


def _render(event: Event) -> str:
    """Return an event's first losses and its speed, for a progress bar."""
    speed = event.speed.get("images_per_second")
    losses = "  ".join(f"{name} {value:.4g}" for name, value in list(event.losses.items())[:3])
    return f"{losses}  {speed:.1f} images/s" if speed else losses


VERB = {
    "help": "stage: train one generator",
    "example": "train edge_connect",
    "arguments": {"generator": {"help": "a name that params.yaml lists", "completes": "generators"}},
}


def main(params: Params, arguments: Namespace) -> int:
    """Run the stage for one generator."""
    run(params, arguments.generator)
    return 0
