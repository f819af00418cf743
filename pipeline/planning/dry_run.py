"""Check a configuration for many workers on one machine, so that nothing stops the run once it is paid for."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from datasets.shards.column import Column
from datasets.shards.manifest import ManifestError
from datasets.shards.records import ShardError
from datasets.stream.plan import Plan, sharing_problem
from datasets.stream.proof import PlanError, prove
from files.objects import StoreError
from jobs.checks.apart import ProbeError, run_apart
from jobs.checks.fitness import mismatch
from jobs.checks.footprint import Footprint, checkpoints_at_once, footprints
from jobs.checks.probe import Probe, probe
from jobs.checks.units import format_bytes
from jobs.runs.checkpoint_store import CheckpointStore
from pipeline.columns import open_column
from pipeline.params import Params, ParamsError
from pipeline.planning.probing import probe_job
from pipeline.planning.workers import workers_of
from pipeline.progress import track
from pipeline.tables import align_right

Outcome = Literal["passed", "failed", "not checked"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    what: a few words that name it.
    detail: the facts, and after a failure what to do.
    """

    what: str
    outcome: Outcome
    detail: str


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """All checks. workers: the most of a generator. passed: whether none failed."""

    workers: int
    passed: bool
    checks: tuple[Check, ...]


def run(params: Params, workers: int | None = None) -> DryRun:
    """Check the generators of params.yaml for a number of workers.

    Steps are taken as the first and the last worker would take them, with the records that the plan gives these two,
    or with made-up images if shards are missing.
    workers: number of training processes; None takes those that would train each generator.
    Raises ParamsError for a number of workers below 1.
    """
    if workers is not None and workers < 1:
        raise ParamsError(f"--workers must be at least 1, got {workers}")
    counted = footprints(params.generators, params.train)
    numbers = {footprint.generator: workers_of(params, footprint, workers) for footprint in counted}
    columns, checks = _check_columns(params, counted)
    checks += [_check_batch(footprint, numbers, params.train.accumulate) for footprint in counted]
    if "image" in columns:
        checks += _check_plan(params, columns["image"], counted, numbers)
    checks.append(_check_precision(params))
    checks += _check_storage(params, counted)
    checks += _check_checkpoint_store(params)
    steps = (_check_step(params, footprint, numbers[footprint.generator], columns) for footprint in counted)
    checks += track(steps, "dry run", len(counted), "generators")
    passed = all(check.outcome != "failed" for check in checks)
    return DryRun(workers=max(numbers.values()), passed=passed, checks=tuple(checks))


def _passed(what: str, detail: str) -> Check:
    return Check(what=what, outcome="passed", detail=detail)


def _failed(what: str, detail: str) -> Check:
    return Check(what=what, outcome="failed", detail=detail)


def _not_checked(what: str, detail: str) -> Check:
    return Check(what=what, outcome="not checked", detail=detail)


def _check_columns(params: Params, counted: Sequence[Footprint]) -> tuple[dict[str, Column], list[Check]]:
    """Check the columns that training needs. Returns those that passed, by the name that recipes give them."""
    usable: dict[str, Column] = {}
    checks = []
    for name in dict.fromkeys(["image", *(column for footprint in counted for column in footprint.columns)]):
        stored = params.train.edges if name == "edge" else name
        what = f"column {stored}"
        try:
            column = open_column(params, stored, "train", images=usable.get("image"))
        except (ManifestError, ShardError, StoreError) as error:
            checks.append(_failed(what, str(error)))
            continue
        if problem := _first_mismatch(params, counted, name, column):
            checks.append(_failed(what, problem))
            continue
        made_from = ", made from these images" if name != "image" and "image" in usable else ""
        usable[name] = column
        size = f"{column.manifest.records:,} records in {len(column.shard_sizes):,} shards"
        checks.append(_passed(what, size + made_from))
    return usable, checks


def _first_mismatch(params: Params, counted: Sequence[Footprint], name: str, column: Column) -> str:
    crop = params.train.samples.crop
    names = [footprint.generator for footprint in counted]
    problems = (mismatch(name, column, generator=n, config=params.generators[n], crop=crop) for n in names)
    return next(filter(None, problems), "")


def _check_batch(footprint: Footprint, numbers: Mapping[str, int], accumulate: int) -> Check:
    what, workers = f"batch {footprint.generator}", numbers[footprint.generator]
    if problem := sharing_problem(footprint.batch_size, workers, accumulate):
        return _failed(what, problem)
    micro_batches = f", in {accumulate} micro-batches" if accumulate > 1 else ""
    processes = "" if len(set(numbers.values())) == 1 else f" of {workers}"
    return _passed(what, f"{footprint.batch_size // workers} images per worker{processes}{micro_batches}")


def _check_plan(
    params: Params, images: Column, counted: Sequence[Footprint], numbers: Mapping[str, int]
) -> Iterator[Check]:
    """Prove the order of reading for each batch size that the workers can share."""
    plan = Plan(tuple(images.shard_sizes), params.seed, params.train.samples.plan)
    shared = {(footprint.batch_size, numbers[footprint.generator]) for footprint in counted}
    for size, workers in sorted(pair for pair in shared if not sharing_problem(*pair)):
        what = f"plan, batch {size}"
        try:
            proof = prove(plan, size, sorted({1, workers}))
        except PlanError as error:
            yield _failed(what, str(error))
        else:
            detail = f"each of {proof.records:,} records read once per epoch by {workers} workers, and across restarts"
            yield _passed(what, detail)


def _check_precision(params: Params) -> Check:
    """Check that a GPU of this machine has the number format of train.precision."""
    precision = params.train.precision
    if precision != "bf16" or not params.cluster.use_gpu:
        return _passed("precision", params.train.describe_precision())
    if not torch.cuda.is_available():
        detail = "bf16 needs GPUs of compute capability 8.0 or more; there is none here to ask"
        return _not_checked("precision", detail)
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        return _failed("precision", f"{name} has no bf16; set train.precision to fp16 or 'no'")
    return _passed("precision", "bf16")


def _check_storage(params: Params, counted: Sequence[Footprint]) -> Iterator[Check]:
    """Check that live checkpoints can be written and have room."""
    storage, folder = params.cluster.storage, params.cluster.storage_folder
    if "://" in storage:
        detail = f"cluster.storage is {storage}, but live checkpoints need a folder; name one that every node sees"
        yield _failed("storage", detail)
        return
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        _write_a_file(existing)
    except OSError as error:
        detail = f"nothing can be written to {existing} ({error.strerror}); change cluster.storage or its permissions"
        yield _failed("storage", detail)
        return
    seen_by = "the machine of the command and that of rank 0" if params.cluster.checkpoints else "every node"
    yield _passed("storage", f"{folder} can be written; {seen_by} must see it under this path")
    yield _check_room(params, counted, existing)


def _write_a_file(folder: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(b"dry run")
        file.flush()
        os.fsync(file.fileno())


def _check_room(params: Params, counted: Sequence[Footprint], folder: Path) -> Check:
    largest = max(counted, key=lambda footprint: footprint.checkpoint_bytes)
    number = checkpoints_at_once(are_copied=params.cluster.checkpoints is not None)
    needed, free = number * largest.checkpoint_bytes, shutil.disk_usage(folder).free
    share = f"{number} checkpoints of {largest.generator} take {format_bytes(needed)} of {format_bytes(free)} free"
    if needed > free:
        return _failed("checkpoints", f"{share}; make room or change cluster.storage")
    return _passed("checkpoints", share)


def _check_checkpoint_store(params: Params) -> Iterator[Check]:
    """Check that checkpoints can be copied to cluster.checkpoints, if that is set."""
    url = params.cluster.checkpoints
    if url is None:
        return
    try:
        CheckpointStore(replace(params.store, url=url)).check()
    except StoreError as error:
        yield _failed("checkpoint store", str(error))
    else:
        yield _passed("checkpoint store", f"{url} can be written and cleared; every worker must reach it")


def _check_step(params: Params, footprint: Footprint, workers: int, columns: Mapping[str, Column]) -> Check:
    """Take one step of every kind of every phase, as the first and as the last worker."""
    what = f"step {footprint.generator}"
    if sharing_problem(footprint.batch_size, workers, params.train.accumulate):
        return _not_checked(what, "its batch cannot be shared equally")
    is_complete = all(column in columns for column in ("image", *footprint.columns))
    ranks = (0, workers - 1) if is_complete and workers > 1 else (0,)
    job = probe_job(params, footprint, workers, use_shards=is_complete, seconds=None, ranks=ranks)
    try:
        result = run_apart(probe, job)
    except ProbeError as error:
        return _failed(what, f"{error}; change generators.{footprint.generator} or train in params.yaml")
    return _passed(what, _render_step(result, ranks, is_made_up=not is_complete))


def _render_step(result: Probe, ranks: Sequence[int], *, is_made_up: bool) -> str:
    phases = ", ".join(phase.name for phase in result.phases)
    workers = f"workers {' and '.join(map(str, ranks))}" if len(ranks) > 1 else f"worker {ranks[0]}"
    images = f"{result.batch_size} made-up images" if is_made_up else f"their {result.batch_size} records"
    repeats = f"; not to be repeated to the bit: {', '.join(result.not_repeatable)}" if result.not_repeatable else ""
    return (
        f"{phases}: done by {workers} with {images} of {result.width}x{result.height}; "
        f"{format_bytes(result.peak_bytes)} at most on {result.device}{repeats}"
    )


def render(dry_run: DryRun, *, as_json: bool) -> str:
    """Return the checks as text or as JSON."""
    if as_json:
        return json.dumps(asdict(dry_run), indent=2)
    signs = {"passed": "ok", "failed": "FAILED", "not checked": "-"}
    rows = align_right([(check.what, signs[check.outcome]) for check in dry_run.checks])
    table = [f"{row}  {check.detail}" for row, check in zip(rows, dry_run.checks, strict=True)]
    failed = sum(check.outcome == "failed" for check in dry_run.checks)
    verdict = f"{failed} of {len(dry_run.checks)} checks failed" if failed else "no check failed"
    return "\n".join([*table, "", f"{dry_run.workers} workers: {verdict}"])
