"""A configuration for many workers, checked on one machine: everything that would stop the run, before it is paid."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch

from datasets.shards.column import Column, check_alignment
from datasets.shards.manifest import ManifestError
from datasets.shards.records import ShardError
from datasets.stream.plan import Plan, sharing_problem
from datasets.stream.proof import PlanError, prove
from files.objects import StoreError
from jobs.checks.apart import ProbeError, run_apart
from jobs.checks.footprint import Footprint, checkpoints_at_once
from jobs.checks.probe import probe
from jobs.runs.checkpoint_store import CheckpointStore
from pipeline.fitness import unfit
from pipeline.layout import column_folder, stage_of
from pipeline.params import Params, ParamsError
from pipeline.progress import track
from pipeline.verbs.plan import aligned, as_bytes, footprints
from pipeline.verbs.price import probe_job

Outcome = Literal["passed", "failed", "not checked"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """detail: what was found and, where it failed, what to do."""

    what: str
    outcome: Outcome
    detail: str


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """passed: whether nothing failed."""

    workers: int
    passed: bool
    checks: tuple[Check, ...]


def run(params: Params, workers: int | None = None) -> DryRun:
    """Check the generators of params.yaml for so many workers (default: cluster.train_workers).

    Steps are taken as the first and the last worker take them, with the records that the plan gives these, or with
    made-up ones where shards are missing. Raises ParamsError for a number of workers below 1.
    """
    workers = params.cluster.max_processes if workers is None else workers
    if workers < 1:
        raise ParamsError(f"--workers must be at least 1, got {workers}")
    taken = footprints(params)
    columns, checks = _columns(params, taken)
    checks += [_batch(each, workers, params.train.accumulate) for each in taken]
    if "image" in columns:
        plan = Plan(tuple(columns["image"].shard_sizes), params.seed, params.train.samples.plan)
        sizes = sorted({each.batch_size for each in taken if not sharing_problem(each.batch_size, workers)})
        checks += [_proof(plan, size, workers) for size in sizes]
    checks.append(_precision(params))
    checks += _storage(params, taken)
    checks += _checkpoint_store(params)
    steps = (_step(params, each, workers, columns) for each in taken)
    checks += track(steps, "dry run", len(taken), "generators")
    return DryRun(workers=workers, passed=all(check.outcome != "failed" for check in checks), checks=tuple(checks))


def _check(what: str, problem: str, found: str) -> Check:
    return Check(what=what, outcome="failed" if problem else "passed", detail=problem or found)


def _columns(params: Params, taken: list[Footprint]) -> tuple[dict[str, Column], list[Check]]:
    """The training columns that are whole and belong together, and what was found of each that is needed."""
    usable: dict[str, Column] = {}
    checks = []
    for name in dict.fromkeys(["image", *(column for each in taken for column in each.columns)]):
        stored = params.train.edges if name == "edge" else name
        try:
            folder = column_folder(stored, "train")
            column = Column(folder, store=params.store, remedy=f"dvc repro {stage_of(stored)}")
            if "image" in usable and name != "image":
                check_alignment(usable["image"], column)
            problem = next(filter(None, (unfit(params, each.generator, name, column) for each in taken)), "")
        except (ManifestError, ShardError, StoreError) as error:
            problem = str(error)
        if not problem:
            usable[name] = column
        found = "" if problem else f"{column.manifest.records:,} records in {len(column.shard_sizes):,} shards"
        made_from = ", made from these images" if name != "image" and "image" in usable and not problem else ""
        checks.append(_check(f"column {stored}", problem, found + made_from))
    return usable, checks


def _batch(taken: Footprint, workers: int, parts: int) -> Check:
    each = f", in {parts} parts" if parts > 1 else ""
    found = f"{taken.batch_size // workers} images per worker{each}"
    return _check(f"batch {taken.generator}", sharing_problem(taken.batch_size, workers, parts), found)


def _proof(plan: Plan, batch_size: int, workers: int) -> Check:
    try:
        proof = prove(plan, batch_size, sorted({w for w in (1, workers) if not sharing_problem(batch_size, w)}))
    except PlanError as error:
        return _check(f"plan, batch {batch_size}", str(error), "")
    found = f"each of {proof.records:,} records read once per epoch by {workers} workers, and across restarts"
    return _check(f"plan, batch {batch_size}", "", found)


def _precision(params: Params) -> Check:
    """What the training's own device must be able to do."""
    wanted, gpu = params.train.precision, torch.cuda.is_available()
    if wanted == "bf16" and params.cluster.use_gpu:
        if not gpu:
            detail = "bf16 needs GPUs of compute capability 8.0 or more; there is none here to ask"
            return Check(what="precision", outcome="not checked", detail=detail)
        able = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name()
        return _check("precision", "" if able else f"{name} has no bf16; set train.precision to fp16 or 'no'", "bf16")
    return _check("precision", "", "float32" if wanted == "no" else wanted)


def _storage(params: Params, taken: list[Footprint]) -> Iterator[Check]:
    """Whether live checkpoints can be written, and have room."""
    given = params.cluster.storage
    if "://" in given:
        problem = f"cluster.storage is {given}, but live checkpoints need a folder; name one that every node sees"
        yield _check("storage", problem, "")
        return
    folder = params.cluster.storage_folder
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there) as file:
            file.write(b"dry run")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        problem = f"nothing can be written to {there} ({error.strerror}); change cluster.storage or its permissions"
        yield _check("storage", problem, "")
        return
    seen_by = "the machine of the command and that of rank 0" if params.cluster.checkpoints else "every node"
    yield _check("storage", "", f"{folder} can be written; {seen_by} must see it under this path")
    largest = max(taken, key=lambda each: each.checkpoint_bytes)
    number = checkpoints_at_once(are_copied=params.cluster.checkpoints is not None)
    needed, free = number * largest.checkpoint_bytes, shutil.disk_usage(there).free
    what = f"{number} checkpoints of {largest.generator} take {as_bytes(needed)} of {as_bytes(free)} free"
    yield _check("checkpoints", f"{what}; make room or change cluster.storage" if needed > free else "", what)


def _checkpoint_store(params: Params) -> Iterator[Check]:
    """Whether checkpoints can be copied to a store, where they are."""
    url = params.cluster.checkpoints
    if url is None:
        return
    try:
        CheckpointStore(replace(params.store, url=url)).check()
    except StoreError as error:
        yield _check("checkpoint store", str(error), "")
        return
    yield _check("checkpoint store", "", f"{url} can be written and cleared; every worker must reach it")


def _step(params: Params, taken: Footprint, workers: int, columns: dict[str, Column]) -> Check:
    """One step of every kind of every phase, as the first and as the last worker take it."""
    what = f"step {taken.generator}"
    if sharing_problem(taken.batch_size, workers, params.train.accumulate):
        return Check(what=what, outcome="not checked", detail="its batch cannot be shared equally")
    usable = all(column in columns for column in ("image", *taken.columns))
    ranks = (0, workers - 1) if usable and workers > 1 else (0,)
    job = probe_job(params, taken, workers, use_shards=usable, seconds=None, ranks=ranks)
    try:
        probed = run_apart(probe, job)
    except ProbeError as error:
        return _check(what, f"{error}; change generators.{taken.generator} or train in params.yaml", "")
    repeats = f"; not to be repeated to the bit: {', '.join(probed.not_repeatable)}" if probed.not_repeatable else ""
    batches = f"their {probed.batch_size} records" if usable else f"{probed.batch_size} made-up images"
    return _check(
        what,
        "",
        f"{', '.join(phase.name for phase in probed.phases)}: done by worker{'s' * (len(ranks) > 1)} "
        f"{' and '.join(map(str, ranks))} with {batches} of {probed.width}x{probed.height}; "
        f"{as_bytes(probed.peak_bytes)} at most on {probed.device}{repeats}",
    )


def render(found: DryRun, *, as_json: bool) -> str:
    """The checks, for people or as JSON."""
    if as_json:
        return json.dumps(asdict(found), indent=2)
    signs = {"passed": "ok", "failed": "FAILED", "not checked": "-"}
    rows = [(check.what, signs[check.outcome]) for check in found.checks]
    table = [f"{row}  {check.detail}" for row, check in zip(aligned(rows), found.checks, strict=True)]
    failed = sum(check.outcome == "failed" for check in found.checks)
    verdict = f"{failed} of {len(found.checks)} checks failed" if failed else "nothing stands in the way"
    return "\n".join([*table, "", f"{found.workers} workers: {verdict}"])
