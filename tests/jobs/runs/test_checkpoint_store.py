"""Machines without a lasting disk: checkpoints in a store, from which another machine continues."""

import contextlib
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
import s3fs
from torch import nn

from benchmarks.photographs import write_split
from files.objects import StoreConfig, StoreError
from jobs.runs import checkpoint_copier
from jobs.runs.checkpoint_copier import CheckpointCopier
from jobs.runs.checkpoint_store import CheckpointStore
from jobs.runs.checkpoints import NETWORKS, STATE, take_snapshot, write_checkpoint
from jobs.runs.folder import RunFolder
from jobs.training import loop as training_loop
from tests.faults import in_child
from tests.jobs.training.toy import build_toy
from tests.jobs.training.trainings import (
    Fault,
    batches_seen,
    checkpointed,
    make_job,
    run_group,
    watch_steps,
    weights_digest,
)

KILL = signal.SIGKILL
PLACE = "bucket/live/toy/0123"
QUICK = StoreConfig(url=f"s3://{PLACE}", attempts=2, wait_seconds=0.01)


class Cable:
    """A proxy between client and store that can be cut and blocked."""

    def __init__(self, server: str) -> None:
        self._server = server.removeprefix("http://").split(":")
        self._port, self._sockets = 0, []
        self.open = threading.Event()
        self.open.set()
        self.mend()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        for connection in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            self._sockets += client, server
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                self.open.wait()
                target.sendall(content)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def cable(s3, s3_server, monkeypatch):
    cable = Cable(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", cable.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # botocore's own attempts, beside those of s3fs
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    yield cable
    cable.open.set()
    cable.cut()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("s"), 24, size=32, per_shard=5)


@pytest.fixture(scope="module")
def undisturbed(folders, tmp_path_factory):
    """Number of processes -> digest of the weights of an undisturbed training."""
    digests = {}
    for size in (1, 2):
        job = make_job(folders, tmp_path_factory.mktemp(f"quiet-{size}"))
        assert run_group(job, size).codes == [0] * size
        digests[size] = weights_digest(job)
    return digests


def copied(s3):
    """Return the steps of the complete checkpoints in the store, sorted."""
    return sorted(int(name.split("/")[-2][5:]) for name in s3.find(PLACE) if name.endswith(STATE))


def lose(job):
    """Remove the run folder, as if the disk were lost, and create it again, as the stage does on the next machine."""
    assert checkpointed(job)
    shutil.rmtree(job.storage)
    Path(job.storage).mkdir()


def train_here(job, monkeypatch, before=None):
    """Train in this process. before: step -> function called just before it."""
    monkeypatch.setattr(training_loop, "build_recipe", build_toy)
    do_step = training_loop._Training._step

    def step(self, phase, number, batch):
        (before or {}).get(number + 1, lambda: None)()
        return do_step(self, phase, number, batch)

    monkeypatch.setattr(training_loop._Training, "_step", step)
    training_loop.train({"job": job})


def write(storage, step, **how):
    """Write a checkpoint whose weights are its step, and the files about the whole training."""
    network = nn.Linear(4, 4)
    nn.init.constant_(network.weight, step)
    storage.mkdir(exist_ok=True)
    with (storage / "events.jsonl").open("a") as log:
        log.write(f"{step}\n")
    (storage / "run.json").write_text("{}")
    return write_checkpoint(storage / "checkpoints", take_snapshot(step, {"generator": network}, {}), **how)


def until(happened, seconds=30):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_machine_without_the_storage_goes_on_from_the_store(
    s3, folders, undisturbed, tmp_path, monkeypatch, caplog, is_damaged
):
    job = make_job(folders, tmp_path / "job", checkpoints=QUICK)
    assert run_group(job, 1, [Fault(23, copied=20), Fault(38, copied=35, signal=KILL)]).codes == [-KILL]
    *_, before, newest = copied(s3)  # an older one may not be removed yet
    assert 20 <= before < newest == 35
    lose(job)
    if is_damaged:
        place = f"{PLACE}/step-{newest:08d}/{NETWORKS}"
        content = bytearray(s3.cat_file(place))
        content[-9] ^= 1
        s3.pipe_file(place, bytes(content))
    seen = tmp_path / "seen"
    seen.mkdir()
    monkeypatch.setattr(training_loop._Training, "_step", training_loop._Training._step)
    watch_steps([], seen)
    train_here(job, monkeypatch)
    assert batches_seen(seen)[0][0] == (before if is_damaged else newest) + 1
    assert (f"{QUICK.url}/step-{newest:08d} is damaged" in caplog.text) == is_damaged
    assert weights_digest(job) == undisturbed[1]
    assert copied(s3)[-1] == 40  # the damaged one has been written again or removed


def test_a_kill_at_every_change_of_the_store_leaves_a_whole_checkpoint_there(s3, tmp_path):
    """The third copy, which also removes the oldest checkpoint, is killed at each request, and then completed."""
    store, storage = CheckpointStore(QUICK), tmp_path / "storage"
    for step in (1, 2):
        store.put(write(storage, step))
    for number in range(1, 50):
        checkpoint = write(storage, number + 2)
        code, said = in_child(lambda checkpoint=checkpoint, number=number: copy_until(number, store, checkpoint))
        place = tmp_path / f"fetched-{number}"
        for name in store.names():  # each that has a state.json can be fetched
            store.fetch(name, tmp_path / "complete")
        assert store.newest(place).name in (f"step-{number + 1:08d}", checkpoint.name)
        if code == 0:
            break
        assert code == -KILL, said
        store.put(checkpoint)
        store.trim(checkpoint.name)
    assert 10 < number < 49
    assert copied(s3) == [number + 1, number + 2]
    assert len(s3.find(PLACE)) == 2 * 5  # nothing else is left
    store.fetch_records(RunFolder(tmp_path))
    assert [(tmp_path / name).read_text() for name in ("events.jsonl", "run.json")] == [
        (storage / name).read_text() for name in ("events.jsonl", "run.json")
    ]
    before, newest = sorted(name for name in s3.find(PLACE) if "/events-" in name)
    s3.pipe_file(newest, b"1\n")
    store.fetch_records(RunFolder(tmp_path / "again"))
    assert (tmp_path / "again" / "events.jsonl").read_bytes() == s3.cat_file(before)


def copy_until(number, store, checkpoint):
    """Copy a checkpoint; kill this process just before the n-th request that writes or removes an object."""
    call, calls = s3fs.S3FileSystem._call_s3, 0

    async def counting(self, method, *arguments, **options):
        nonlocal calls
        calls += method.startswith(("put", "delete"))
        if calls == number:
            signal.raise_signal(KILL)
        return await call(self, method, *arguments, **options)

    s3fs.S3FileSystem._call_s3 = counting
    store.put(checkpoint)
    store.trim(checkpoint.name)


def test_a_store_that_dies_amid_a_training_costs_a_warning_and_catches_up(
    cable, s3, folders, undisturbed, tmp_path, monkeypatch, caplog
):
    job = make_job(folders, tmp_path / "job", checkpoints=QUICK)
    monkeypatch.setattr(checkpoint_copier, "_RETRY_SECONDS", 0.2)

    def die():
        until(lambda: 10 in copied(s3))
        cable.cut()

    def said():
        until(lambda: "training goes on" in caplog.text)
        time.sleep(1)  # meanwhile it is tried again

    train_here(job, monkeypatch, {13: die, 28: said, 37: cable.mend})
    assert weights_digest(job) == undisturbed[1]
    (warning,) = [record.getMessage() for record in caplog.records if QUICK.url in record.getMessage()]
    assert "Could not connect" in warning
    assert copied(s3)[-1] == 40


def test_a_store_that_stays_dead_is_named_at_the_end(cable, s3, folders, undisturbed, tmp_path, monkeypatch, caplog):
    job = make_job(folders, tmp_path / "job", checkpoints=QUICK)
    monkeypatch.setattr(checkpoint_copier, "END_SECONDS", 0.5)
    train_here(job, monkeypatch, {13: cable.cut})
    assert weights_digest(job) == undisturbed[1]
    assert f"{QUICK.url} was not brought up to checkpoint {job.storage}/checkpoints/step-00000040" in caplog.text
    with pytest.raises(StoreError, match=rf"cannot be copied to {QUICK.url}: cannot write .* set cluster\.checkpoints"):
        CheckpointStore(QUICK).check()
    caplog.clear()
    assert CheckpointStore(QUICK).newest(Path(job.storage, "checkpoints")).name == "step-00000040"
    assert f"looking in {job.storage}/checkpoints alone" in caplog.text
    with pytest.raises(StoreError, match="cannot list"):  # it may have some
        CheckpointStore(QUICK).newest(tmp_path / "empty")


def test_a_checkpoint_that_is_overtaken_is_not_copied_and_one_under_way_is_kept(cable, s3, tmp_path):
    storage = tmp_path / "storage"
    with CheckpointCopier(CheckpointStore(QUICK)) as copier:
        for step in (5, 10, 15, 20):
            copier.copy(write(storage, step, is_held=copier.is_held))
            if step == 5:
                until(lambda: f"{PLACE}/step-00000005/{NETWORKS}" in s3.find(PLACE))
                cable.open.clear()
        here = sorted(path.name for path in (storage / "checkpoints").iterdir())
        if copied(s3):
            pytest.fail("the copy was not under way")
        assert here == ["step-00000005", "step-00000015", "step-00000020"]
        cable.open.set()
    assert copied(s3) == [5, 20]


def test_a_rank_that_does_not_see_the_storage_fetches_what_rank_0_has_chosen(s3, folders, undisturbed, tmp_path):
    """The second time the store has lost the checkpoint, and rank 0 copies it there first."""
    job = make_job(folders, tmp_path / "job", checkpoints=QUICK)
    for step in (13, 33):
        ended = run_group(job, 2, [Fault(step, copied=step - 3, signal=KILL)], apart=True)
        assert ended.codes[0] == -KILL, ended.said
    s3.rm(PLACE, recursive=True)
    ended = run_group(job, 2, apart=True)
    assert ended.codes == [0, 0], ended.said
    assert weights_digest(job) == undisturbed[2]
    assert [path.name for path in tmp_path.iterdir()] == ["job"]  # fetched checkpoints are removed
