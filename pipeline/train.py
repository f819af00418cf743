"""Shards -> weights of one generator, its curves, its tracked run and its registered version."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import json
import logging
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets.columns import Column
from datasets.durable import file_digest
from jobs.delivery import Courier, describe_run, hand_in, set_aside
from jobs.events import Event, losses_by_step
from jobs.launch import ROOT, train_workers
from jobs.receipt import WEIGHTS_NAME, Receipt, write_receipt
from jobs.recipe import build_recipe
from jobs.tracking import TrackedDataset
from jobs.training_loop import TrainJob, train
from pipeline.layout import column_folder, curves_folder, model_folder, undelivered_folder
from pipeline.params import Params, ParamsError
from pipeline.progress import Bar

log = logging.getLogger(__name__)

_CODE = ("datasets", "jobs", "masks")
_REQUIREMENTS = ("mlflow", "numpy", "opencv-python-headless", "pillow", "pyarrow", "safetensors", "scikit-image",
                 "torch", "torchvision", "webdataset")  # fmt: skip


def run(params: Params, generator: str) -> None:
    """Write models/<generator> and curves/<generator>; take up an interrupted training of the same experiment.

    Raises ParamsError for a generator that params.yaml does not list, or that has fewer classes than the labels, and
    for images of unequal sizes.
    """
    if generator not in params.generators:
        raise ParamsError(f"params.yaml: generators has no {generator}; it lists {', '.join(params.generators)}")
    recipe = build_recipe(generator, params.generators[generator], params.seed)
    sources = {"edge": params.train.edges}  # several columns of edges may lie side by side
    columns = {
        name: Column(column_folder(sources.get(name, name), "train"), store=params.store)
        for name in ("image", *recipe.columns)
    }
    for column in columns.values():
        column.verify()
    _check_sizes(columns["image"])
    _check_classes(generator, params.generators[generator], columns.get("semantics"))
    identity = _identity(params, generator, columns)
    storage = Path(params.cluster.storage).resolve() / generator / identity[:16]
    storage.mkdir(parents=True, exist_ok=True)
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
        store=params.store,
    )
    undelivered = undelivered_folder(params.cluster.storage)
    _describe_run(params, generator, columns, storage, identity)
    with (
        Bar(f"train {generator}", recipe.steps, "steps") as bar,
        Courier(storage, undelivered, on_event=lambda event: bar.at(event.step, _note(event))) as courier,
    ):
        train_workers(train, {"job": job}, params.cluster, name=f"{generator}-{identity[:16]}")
        receipt = _write_outputs(params, generator, recipe, columns, storage)
        _hand_in(generator, storage, receipt, columns, identity)
    if courier.delivered:
        shutil.rmtree(storage)  # a finished training leaves nothing to resume from
    else:
        log.warning(
            "train %s: done, but the tracking server was not told all (%s); its run and model wait in %s; deliver "
            "them with: python -m pipeline deliver",
            generator,
            courier.problem,
            set_aside(storage, undelivered),
        )


def _check_sizes(images: Column) -> None:
    sizes = images.table.group_by(["width", "height"]).aggregate([]).to_pylist()
    if len(sizes) > 1:
        pixels = sorted((size["width"], size["height"]) for size in sizes)
        raise ParamsError(
            f"params.yaml: ingest.rule is {images.manifest.parameters['rule']}, which left images of {len(sizes)} "
            f"sizes in {images.folder} ({pixels[0][0]} x {pixels[0][1]} and others), but a batch needs one; "
            "set it to crop, cut or squash"
        )


def _check_classes(generator: str, config: Any, semantics: Column | None) -> None:
    if semantics is None:
        return
    classes = len(semantics.manifest.parameters["classes"])
    if classes > getattr(config, "num_classes", classes):
        raise ParamsError(
            f"params.yaml: generators.{generator}.num_classes is {config.num_classes}, but shards/semantics has "
            f"{classes} classes; set it to {classes}"
        )


def _note(event: Event) -> str:
    speed = event.speed.get("images_per_second")
    loss = "  ".join(f"{name} {value:.4g}" for name, value in list(event.losses.items())[:3])
    return f"{loss}  {speed:.1f} images/s" if speed else loss


def _identity(params: Params, generator: str, columns: dict[str, Column]) -> str:
    """What makes two trainings the same experiment: parameters, data, code."""
    parts = {
        "generator": generator,
        "config": asdict(params.generators[generator]),
        "train": asdict(params.train),
        "seed": params.seed,
        "world_size": max(params.cluster.train_workers, 1),
        "threads": params.cluster.threads,
        "data": {name: column.manifest.digest for name, column in columns.items()},
        "code": {str(path.relative_to(ROOT)): file_digest(path) for f in _CODE for path in (ROOT / f).rglob("*.py")},
        "packages": file_digest(ROOT / "requirements.lock"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _describe_run(params: Params, generator: str, columns: dict[str, Column], storage: Path, identity: str) -> None:
    """One tracked run per training: it is described in the storage, so that a restart goes on with it."""
    image = columns["image"]
    describe_run(
        storage,
        generator,
        parameters={"seed": params.seed, "train": asdict(params.train), **asdict(params.generators[generator])},
        tags={"generator": generator, "identity": identity, **_code_version()},
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


def _write_outputs(params: Params, generator: str, recipe: Any, columns: dict[str, Column], storage: Path) -> Receipt:
    folder = model_folder(generator)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(storage / WEIGHTS_NAME, folder / WEIGHTS_NAME)
    receipt = Receipt(
        generator=generator,
        config=asdict(params.generators[generator]),
        edges=params.edges[params.train.edges],
        seed=params.seed,
        steps=recipe.steps,
        samples_seen=recipe.steps * recipe.batch_size,
        world_size=max(params.cluster.train_workers, 1),
        images=columns["image"].manifest.digest,
        columns={name: column.manifest.digest for name, column in columns.items() if name != "image"},
        train=asdict(params.train),
        weights_sha256=file_digest(folder / WEIGHTS_NAME),
        parameters={name: sum(p.numel() for p in network.parameters()) for name, network in recipe.networks.items()},
    )
    write_receipt(folder, receipt)
    _write_curves(curves_folder(generator), storage)
    return receipt


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


def _hand_in(generator: str, storage: Path, receipt: Receipt, columns: dict[str, Column], identity: str) -> None:
    """What is to be registered, for the courier."""
    image = columns["image"].manifest
    hand_in(
        storage,
        f"inpaint-{generator}",
        files={"model": model_folder(generator)},
        tags={
            "weights_sha256": receipt.weights_sha256,
            "images_manifest": receipt.images,
            **{f"{name}_manifest": digest for name, digest in receipt.columns.items()},
            "identity": identity,
            **_code_version(),
            "packages_lock": file_digest(ROOT / "requirements.lock"),
            "steps": str(receipt.steps),
            "dataset": image.dataset,
            "licence": image.licence,
            "rebuild": f"git checkout {_git('rev-parse', 'HEAD')} && make setup && dvc repro train@{generator}",
        },
        code=_CODE,
        requirements=[f"{name}=={importlib.metadata.version(name)}" for name in _REQUIREMENTS],
    )


def _code_version() -> dict[str, str]:
    dirty = bool(_git("status", "--porcelain", "--untracked-files=no"))
    return {"git_commit": _git("rev-parse", "HEAD"), "git_dirty": str(dirty)}


def _git(*words: str) -> str:
    """What git says, or "unknown" outside a checkout."""
    result = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else "unknown"
