import gc
import os
import signal
import tempfile
from functools import partial
from pathlib import Path

import pytest
import ray
import torch

from datasets.shards.manifest import ManifestError
from jobs.cluster.launch import keep_workers, map_tasks, train_workers
from jobs.cluster.ray_cluster import _temporary_folder
from jobs.cluster.settings import ClusterConfig
from jobs.cluster.work import GroupWork, WorkerError, group_size
from jobs.tracking.address import tracking_uri


@pytest.fixture
def local_ray(monkeypatch):
    """Run work on a Ray of this machine alone."""
    monkeypatch.setenv("RAY_ADDRESS", "local")


def square(number):
    return number * number


def fail_on_three(number):
    if number == 3:
        raise ManifestError("shard 3 is missing; run: dvc repro")
    return number


def lose_process(number):
    os.kill(os.getpid(), signal.SIGKILL)


def note_rank(arguments):
    import torch.distributed as dist

    rank = dist.get_rank() if dist.is_initialized() else 0
    Path(arguments["folder"], f"rank-{rank}").write_text(str(os.getpid()))


def fail_once(arguments):
    """Out of memory at first, killed the second time, then well."""
    attempts = Path(arguments["folder"], "attempts")
    with attempts.open("a") as file:
        file.write("x")
    if attempts.read_text() == "x":
        raise MemoryError("no room for 8 images")
    if attempts.read_text() == "xx" and arguments["kill"]:
        os.kill(os.getpid(), signal.SIGKILL)


def give_up(arguments):
    with Path(arguments["folder"], "attempts").open("a") as file:
        file.write("x")
    raise ManifestError("no shards")


def fail_with_a_cause(arguments):
    with Path(arguments["folder"], "attempts").open("a") as file:
        file.write("x")
    raise ValueError("no such column: depth")


def train(function, folder, config, name="here", kill=True, **options):
    arguments = {"folder": str(folder), "kill": kill}
    train_workers(GroupWork(function=function, arguments=arguments, batch_shares=4, **options), config, name=name)


def test_gpus_that_this_machine_has_not_are_said_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(WorkerError, match=r"cluster\.use_gpu is true, but torch finds no GPU on this machine"):
        train(note_rank, tmp_path, ClusterConfig(use_gpu=True, train_workers=1, storage=str(tmp_path)))
    assert not ray.is_initialized()
    assert list(tmp_path.iterdir()) == []


def test_in_this_process_results_come_in_order_and_errors_as_they_are():
    assert list(map_tasks(square, range(5), num_workers=0)) == [0, 1, 4, 9, 16]
    with pytest.raises(ManifestError, match="shard 3 is missing"):
        list(map_tasks(fail_on_three, range(5), num_workers=0))


def test_without_workers_training_runs_here(tmp_path):
    train(note_rank, tmp_path, ClusterConfig(train_workers=0))
    assert (tmp_path / "rank-0").read_text() == str(os.getpid())


def test_in_this_process_a_failure_is_followed_by_another_start(tmp_path):
    train(fail_once, tmp_path, ClusterConfig(train_workers=0, max_failures=1), kill=False)
    assert (tmp_path / "attempts").read_text() == "xx"


def test_in_this_process_the_limit_ends_it_with_the_error_as_it_is(tmp_path):
    config = ClusterConfig(train_workers=0, max_failures=2)
    with pytest.raises(ValueError, match="no such column: depth"):
        train(fail_with_a_cause, tmp_path, config)
    assert (tmp_path / "attempts").read_text() == "xxx"


def test_a_fatal_error_is_not_tried_again(tmp_path):
    config = ClusterConfig(train_workers=0, max_failures=2)
    with pytest.raises(ManifestError, match="no shards"):
        train(give_up, tmp_path, config, fatal_errors=(ManifestError,))
    assert (tmp_path / "attempts").read_text() == "x"


def test_work_that_is_not_finished_is_started_again_without_counting(tmp_path):
    def is_finished():
        return (tmp_path / "rank-0").stat().st_size and next(calls) == 3

    calls = iter(range(9))
    config = ClusterConfig(train_workers=0, max_failures=0)
    train(note_rank, tmp_path, config, is_finished=is_finished)
    assert next(calls) == 4


@pytest.mark.parametrize(
    ("workers", "batch", "cpus", "size"),
    [
        (2, 16, 0, 2),
        (16, 6, 0, 6),
        ((5, 7), 16, 9, 4),
        ((1, 8), 16, 5, 4),
        ((1, 8), 6, 5, 3),
        ((2, 8), 16, 1, 2),
        ((3, 8), 16, 8, 8),
        ((1, 4), 7, 4, 1),
    ],
)
def test_a_group_is_as_large_as_there_is_room_and_the_batch_allows(workers, batch, cpus, size):
    config = ClusterConfig(train_workers=workers)
    assert group_size(config, batch, cpus) == size


def test_live_trainings_lie_where_they_stay(monkeypatch, tmp_path):
    """DVC runs queued experiments in copies of the checkout, and says where that is."""
    monkeypatch.chdir(tmp_path)
    assert ClusterConfig(storage="runs").storage_folder == tmp_path / "runs"
    monkeypatch.setenv("DVC_ROOT", "/somewhere/checkout")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert ClusterConfig(storage="runs").storage_folder == Path("/somewhere/checkout/runs")
    assert ClusterConfig(storage="/mnt/runs").storage_folder == Path("/mnt/runs")
    assert tracking_uri() == "sqlite:////somewhere/checkout/mlflow.db"


def test_a_range_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"a number or \[min, max\]"):
        ClusterConfig(train_workers=(3, 2))


@pytest.mark.slow
def test_ray_tasks_give_what_one_process_gives(local_ray):
    assert sorted(map_tasks(square, range(7), num_workers=2)) == [square(n) for n in range(7)]
    assert sorted(map_tasks(partial(pow, 2), range(7), num_workers=2)) == [2**n for n in range(7)]
    assert sorted(map_tasks(square, range(7), num_workers=-1)) == [square(n) for n in range(7)]
    with pytest.raises(ManifestError, match="shard 3 is missing"):
        list(map_tasks(fail_on_three, range(7), num_workers=2))


@pytest.mark.slow
def test_ray_train_runs_every_rank_in_a_process_of_its_own(tmp_path, local_ray):
    config = ClusterConfig(train_workers=2, storage=str(tmp_path / "storage"))
    train(note_rank, tmp_path, config, name="ranks")
    processes = {(tmp_path / f"rank-{rank}").read_text() for rank in range(2)}
    assert len(processes) == 2
    assert str(os.getpid()) not in processes


def visible_gpus(_):
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def note_gpus(arguments):
    Path(arguments["folder"], f"gpus-{os.getpid()}").write_text(str(visible_gpus(None)))


@pytest.mark.slow
def test_without_use_gpu_workers_of_ray_see_no_gpu_of_their_machine(tmp_path, monkeypatch, local_ray):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with keep_workers(2):
        assert set(map_tasks(visible_gpus, range(4), num_workers=2)) == {""}
        config = ClusterConfig(train_workers=2, storage=str(tmp_path / "storage"))
        train(note_gpus, tmp_path, config, name="gpus")
    assert [path.read_text() for path in tmp_path.glob("gpus-*")] == ["", ""]


@pytest.mark.slow
def test_on_ray_a_task_that_always_loses_its_process_is_a_named_error(local_ray):
    with pytest.raises(WorkerError, match="a task lost its process several times: The worker died"):
        list(map_tasks(lose_process, range(2), num_workers=1))


@pytest.mark.slow
def test_a_size_that_counted_on_a_lost_node_is_given_up_and_counted_anew(tmp_path, monkeypatch, local_ray):
    import ray

    counted = ray.available_resources
    answers = [{"CPU": 2.0}]  # Ray's, for a while after it has lost a node
    monkeypatch.setattr(ray, "available_resources", lambda: answers.pop() if answers else counted())
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "5")
    config = ClusterConfig(train_workers=(1, 2), storage=str(tmp_path / "storage"), max_failures=1)
    with keep_workers(1):
        train(note_rank, tmp_path, config, name="counts")
    assert not answers
    assert [path.name for path in tmp_path.glob("rank-*")] == ["rank-0"]


@pytest.mark.slow
def test_a_training_that_always_fails_stops_at_the_limit_with_the_first_cause(tmp_path, local_ray):
    config = ClusterConfig(train_workers=1, storage=str(tmp_path / "storage"), max_failures=1)
    with pytest.raises(WorkerError, match=r"rank 0: .*no such column: depth"):
        train(fail_with_a_cause, tmp_path, config, name="fails")
    assert (tmp_path / "attempts").read_text() == "xx"


@pytest.mark.slow
def test_a_group_that_lost_its_memory_once_and_a_process_once_finishes(tmp_path, monkeypatch, local_ray):
    """Though what a failed start has left is collected only amid the next, whose objects have the same numbers."""
    import ray

    put = ray.put

    def put_and_collect(*arguments, **options):
        reference = put(*arguments, **options)
        gc.collect()
        return reference

    monkeypatch.setattr(ray, "put", put_and_collect)
    config = ClusterConfig(train_workers=1, storage=str(tmp_path / "storage"), max_failures=2)
    gc.disable()
    try:
        train(fail_once, tmp_path, config, name="survives")
    finally:
        gc.enable()
    assert (tmp_path / "attempts").read_text() == "xxx"


def test_a_long_tmpdir_does_not_make_the_paths_of_sockets_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 90)))
    chosen = _temporary_folder()
    assert chosen is not None
    assert len(f"{chosen}/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.0") <= 107
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    assert _temporary_folder() is None
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 90)))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(WorkerError, match=r"too long for Ray's sockets.*; set TMPDIR to a path of at most"):
        _temporary_folder()
