"""Work in processes of this machine: results, errors, lost processes, and none that outlives its parent."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import distributed

from datasets.shards.manifest import ManifestError
from jobs.cluster import launch
from jobs.cluster.launch import map_tasks, train_workers
from jobs.cluster.processes import Pool, preload, run_group
from jobs.cluster.settings import ClusterConfig
from jobs.cluster.work import GroupError, GroupWork, WorkerError

preload([__name__])
ROOT = Path(__file__).resolve().parents[3]


class TwoWords(Exception):
    """An error that pickle writes and cannot read."""

    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


class GoneError(Exception):
    """Another process has gone."""


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def square(number):
    return number * number


def process_of(number):
    time.sleep(0.05)  # or one process may take all
    return os.getpid(), os.environ["OMP_NUM_THREADS"], torch.get_num_threads()


def fail(number):
    if number == 3:
        raise ManifestError("shard 3 is missing; run: dvc repro")
    if number == 4:
        raise TwoWords("unlike", "others")
    return number


def die(folder, number, times=1):
    """End this process while `number` is 2, as often as `times` says."""
    mark = Path(folder, f"{number}-{len(list(Path(folder).iterdir()))}")
    if number == 2 and len(list(Path(folder).iterdir())) < times:
        mark.touch()
        print("no room for 8 images", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def note_rank(arguments):
    total = torch.ones(1)
    distributed.all_reduce(total)
    os.kill(os.getpid(), signal.SIGTERM)  # as a batch system sends it to all processes of a job
    rank = distributed.get_rank()
    words = [os.getpid(), int(total), os.environ["CUDA_VISIBLE_DEVICES"] or "no GPU", os.environ["GLOO_SOCKET_IFNAME"]]
    Path(arguments["folder"], f"rank-{rank}").write_text(" ".join(map(str, words)))


def lose_rank_one(arguments):
    distributed.barrier()  # or rank 0 might still be connecting
    if distributed.get_rank() == 1:
        print("one\ntwo\nthe watchdog gives up\nabout to end", flush=True)
        os._exit(7)
    try:
        distributed.all_reduce(torch.ones(1))
    except RuntimeError as error:
        raise GoneError("rank 0 lost another process") from error


def abort_as_nccl_does(arguments):
    """End by what PyTorch's watchdog of NCCL prints, and a dump of all threads after it."""
    text = (
        "  what():  [Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5, OpType=ALLREDUCE)",
        "Exception raised from checkTimeout at ProcessGroupNCCL.cpp:629 (most recent call first):",
        "frame #0: c10::Error::Error(c10::SourceLocation, std::string)",
        "frame #1: c10d::ProcessGroupNCCL::WorkNCCL::checkTimeout()",
    )
    print("\n".join(text), flush=True)
    os.abort()


def give_up_while_stuck(arguments):
    """Wait in C without end, as for a GPU, while another thread gives up."""
    assert distributed.get_world_size() == 2
    threading.Timer(0.2, arguments["give_up"], [GoneError("rank 1 is stuck")]).start()
    Path(arguments["folder"], f"rank-{distributed.get_rank()}").touch()
    ctypes.CDLL(None).sleep(600)


def sleep_and_tell(folder):
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)  # longer than the test waits


def test_processes_give_what_this_process_gives(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # which the processes do not take over
    with Pool(2) as pool:
        assert sorted(pool.map(square, range(7))) == [square(n) for n in range(7)]
        assert sorted(pool.map(partial(pow, 2), range(7))) == [2**n for n in range(7)]
        seen = list(pool.map(process_of, range(8)))
    assert len({pid for pid, *_ in seen} - {os.getpid()}) == 2
    assert {(omp, threads) for _, omp, threads in seen} == {("1", 1)}


def test_an_error_comes_as_the_task_raised_it():
    with Pool(2) as pool, pytest.raises(ManifestError, match="shard 3 is missing"):
        list(pool.map(fail, range(4)))
    with Pool(1) as pool, pytest.raises(RuntimeError, match="TwoWords: unlike others"):
        list(pool.map(fail, [4]))


def test_a_task_whose_process_is_killed_is_done_by_another(tmp_path):
    with Pool(2) as pool:
        assert sorted(pool.map(partial(die, tmp_path), range(5))) == [0, 1, 2, 3, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["2-0"]


def test_a_task_that_always_loses_its_process_ends_the_work_with_the_reason(tmp_path):
    task = partial(die, tmp_path, times=9)
    with (
        Pool(2) as pool,
        pytest.raises(WorkerError, match=r"failed 3 times: .*SIGKILL.*out of memory; its last line: no room for 8"),
    ):
        list(pool.map(task, range(5)))
    assert len(list(tmp_path.iterdir())) == 3


def test_work_that_takes_long_goes_to_other_processes_and_short_work_does_not(monkeypatch):
    monkeypatch.setattr(launch, "count_cores", lambda: 2)
    assert {pid for pid, *_ in map_tasks(process_id, range(4), num_workers="auto")} == {os.getpid()}
    monkeypatch.setattr(launch, "_PAYS_SECONDS", 0)
    pids = [pid for pid, *_ in map_tasks(process_id, range(6), num_workers="auto")]
    assert pids[0] == os.getpid()
    assert os.getpid() not in pids[1:]  # with no time that is short, not even the first item's


def process_id(number):
    return os.getpid(), number


def test_every_rank_is_a_process_on_loopback_without_gpu_that_a_signal_does_not_end(tmp_path):
    config = ClusterConfig(train_workers=2, storage=str(tmp_path))
    work = GroupWork(function=note_rank, arguments={"folder": str(tmp_path)}, batch_shares=4)
    train_workers(work, config, name="ranks")
    words = [(tmp_path / f"rank-{rank}").read_text().split(" ", 1) for rank in range(2)]
    assert len({pid for pid, _ in words} - {str(os.getpid())}) == 2
    assert {rest for _, rest in words} == {"2 no GPU lo"}


def test_a_rank_that_ends_is_named_and_the_other_is_not_the_cause(tmp_path):
    work = GroupWork(function=lose_rank_one, arguments={}, batch_shares=2, consequential_errors=(GoneError,))
    with pytest.raises(GroupError) as caught:
        run_group(work, 2, use_gpu=False, collective_seconds=30)
    assert {rank: type(error).__name__ for rank, error in caught.value.failures.items()} == {
        0: "GoneError",
        1: "ProcessEndedError",
    }


@pytest.mark.parametrize(
    ("address", "end"),
    [("", "with exit code 7"), pytest.param("local", ".*exit.*", marks=pytest.mark.slow)],
)
def test_a_training_that_lost_a_process_tells_what_it_printed_last(tmp_path, monkeypatch, address, end):
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    work = GroupWork(function=lose_rank_one, arguments={}, batch_shares=2, consequential_errors=(GoneError,))
    config = ClusterConfig(train_workers=2, max_failures=0, storage=str(tmp_path))
    with pytest.raises(
        WorkerError,
        match=f"rank 1: its process ended:? {end}; its last lines: two \\| the watchdog gives up \\| about to end$",
    ):
        train_workers(work, config, name="lost")


def test_of_a_crash_the_reason_is_told_and_not_the_frames():
    work = GroupWork(function=abort_as_nccl_does, arguments={}, batch_shares=1)
    with pytest.raises(GroupError) as caught:
        run_group(work, 1, use_gpu=False, collective_seconds=30)
    assert re.search(
        r"ended by SIGABRT; its last lines: what\(\): .*timeout: WorkNCCL.* \| Fatal Python error: Aborted$",
        str(caught.value.failures[0]),
    )


@pytest.mark.parametrize("address", ["", pytest.param("local", marks=pytest.mark.slow)])
def test_a_process_that_is_stuck_fails_with_the_error_that_another_thread_gives(tmp_path, monkeypatch, address):
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    work = GroupWork(
        function=give_up_while_stuck,
        arguments={"folder": str(tmp_path)},
        batch_shares=2,
        consequential_errors=(GoneError,),
    )
    config = ClusterConfig(train_workers=2, max_failures=0, storage=str(tmp_path / "storage"))
    with pytest.raises(WorkerError, match=r"training stuck failed: rank [01]: .*rank 1 is stuck$"):
        train_workers(work, config, name="stuck")
    assert len(list(tmp_path.glob("rank-*"))) == 2


def test_no_process_outlives_its_parent(tmp_path):
    """Though the parent is killed, and can end nothing itself."""
    code = (
        "from jobs.cluster.processes import Pool; from tests.jobs.cluster.test_processes import sleep_and_tell\n"
        f"with Pool(2) as pool: list(pool.map(sleep_and_tell, [{str(tmp_path)!r}] * 2))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as parent:
        until(lambda: len(list(tmp_path.iterdir())) == 2)
        pids = [int(path.name) for path in tmp_path.iterdir()]
        assert all(is_running(pid) for pid in pids)
        parent.kill()
    until(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
