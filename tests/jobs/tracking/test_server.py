"""Training and delivery against tracking servers that come, go and lose their answers."""

import contextlib
import http.client
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest

from benchmarks.photographs import write_split
from files.checkout import ROOT
from files.durable import file_digest
from jobs.runs.events import EventLog, losses_by_step
from jobs.tracking.address import tracking_uri
from jobs.tracking.delivery import deliver_waiting
from jobs.tracking.queue import park
from jobs.tracking.sync import TrackingSync
from jobs.training import run_writer
from jobs.training.loop import train
from tests.jobs.tracking.test_delivery import describe, runs, steps, storage, until
from tests.jobs.training.test_loop import job

pytestmark = pytest.mark.slow


class Server:
    """`mlflow server` over a database, on one port of loopback."""

    def __init__(self, database: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}"]
        self.command += ["--artifacts-destination", str(database.parent / "artifacts"), "--workers", "1"]
        self.command += ["--host", "127.0.0.1", "--port", str(self.port)]
        self.process = None

    def start(self) -> None:
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(self.command, start_new_session=True, env=environment, **quiet)
        until(self.answers, 120)

    def answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        return False

    def kill(self) -> None:
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)  # a group of its own
            self.process.wait()
            self.process = None


@pytest.fixture
def server(database, monkeypatch):
    server = Server(Path(database))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.port}")
    yield server
    server.kill()


def client():
    return mlflow.MlflowClient(tracking_uri())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: str(path) for name, path in write_split(tmp_path_factory.mktemp("s"), 12, per_shard=4).items()}


def assert_told_once(events):
    """The server has one run, with every event of the training once and in order."""
    (run,) = runs(client())
    assert run.info.status == "FINISHED"
    losses = losses_by_step(events)
    for key in next(iter(losses.values())):
        history = client().get_metric_history(run.info.run_id, key)
        assert [(metric.step, metric.value) for metric in history] == [(step, of[key]) for step, of in losses.items()]
    for key in run.data.metrics:
        found = steps(client(), run, key)
        assert found == sorted(set(found))


def test_a_server_that_comes_and_goes_changes_nothing_in_a_training(server, folders, tmp_path, monkeypatch):
    """M01."""
    quiet, noisy = (job(folders, tmp_path / "runs" / "toy" / name, steps=40) for name in ("quiet", "noisy"))
    train({"job": quiet})
    faults = []

    class Disturbed(EventLog):
        """Between two steps of the training, the server comes and goes."""

        def log(self, step, losses, **speed):
            if step == 10:
                assert not server.answers()
                faults.append("absent")
                server.start()
                until(lambda: sent() == [2, 4, 6, 8], 120)
            elif step == 20:
                server.kill()
                self.killed = time.monotonic()
            elif step == 30:
                assert not server.answers()
                time.sleep(max(0.0, self.killed + 10 - time.monotonic()))
                faults.append("killed")
                server.start()
            super().log(step, losses, **speed)

    def sent():
        return [step for run in runs(client()) for step in steps(client(), run, "joint/reconstruction")]

    monkeypatch.setattr(run_writer, "EventLog", Disturbed)
    describe(Path(noisy.storage), "toy")
    with TrackingSync(Path(noisy.storage), tmp_path / "runs" / "undelivered") as sync:
        train({"job": noisy})
    assert faults == ["absent", "killed"]
    assert sync.delivered
    assert file_digest(Path(noisy.storage, "weights.safetensors")) == file_digest(
        Path(quiet.storage, "weights.safetensors")
    )
    assert losses_by_step(Path(noisy.storage, "events.jsonl")) == losses_by_step(Path(quiet.storage, "events.jsonl"))
    assert_told_once(Path(noisy.storage, "events.jsonl"))


_KILLED = """
import os, pickle, signal, sys, time
from pathlib import Path
import mlflow
import jobs.training.loop as loop
import jobs.training.run_writer as run_writer
from jobs.tracking.sync import TrackingSync
from jobs.tracking.address import tracking_uri
from tests.jobs.tracking.test_delivery import runs, steps, until
job = pickle.loads(sys.stdin.buffer.read())
class Dying(run_writer.EventLog):
    def log(self, step, losses, **speed):
        super().log(step, losses, **speed)
        if step == int(sys.argv[1]):
            client = mlflow.MlflowClient(tracking_uri())
            until(lambda: [s for run in runs(client) for s in steps(client, run, sys.argv[2])][-1:] == [step], 120)
            os.kill(os.getpid(), signal.SIGKILL)
run_writer.EventLog = Dying
with TrackingSync(Path(job.storage), Path(job.storage).parent.parent / "undelivered"):
    loop.train({"job": job})
"""


def test_a_training_whose_driver_is_killed_goes_on_in_its_run(server, folders, tmp_path):
    """M02."""
    server.start()
    killed = job(folders, tmp_path / "runs" / "toy" / "killed", steps=14)
    describe(Path(killed.storage), "toy")
    events = Path(killed.storage, "events.jsonl")
    for kill_at in (4, 8):  # checkpoints lie at multiples of three, so that steps are run and logged again
        result = subprocess.run(
            [sys.executable, "-c", _KILLED, str(kill_at), "joint/reconstruction"],
            input=pickle.dumps(killed),
            cwd=ROOT,
            check=False,
        )
        assert result.returncode == -signal.SIGKILL
        (run,) = runs(client())
        assert run.info.status == "RUNNING"  # stale
    with TrackingSync(Path(killed.storage), tmp_path / "runs" / "undelivered") as sync:
        train({"job": killed})
    assert sync.delivered
    assert len(events.read_text().splitlines()) > len(losses_by_step(events))  # some steps are there twice
    assert_told_once(events)


class _Lossy(BaseHTTPRequestHandler):
    """Hands every request on to a server; of the call numbered `lose`, files not counted, it hands no answer back."""

    port, count, lose, lost = 0, 0, 0, 0

    def _pass_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {key: value for key, value in self.headers.items() if key != "Transfer-Encoding"}  # of empty files
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        _Lossy.count += "/mlflow/" in self.path
        self.close_connection = True
        if _Lossy.count == self.lose:
            _Lossy.count += 1
            _Lossy.lost += 1
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _pass_on

    def log_message(self, *words):
        pass


def test_answers_that_are_lost_put_nothing_on_the_server_twice(server, tmp_path, monkeypatch):
    server.start()
    undelivered = tmp_path / "runs" / "undelivered"
    events = park(storage(tmp_path, steps=range(1, 30)), undelivered) / "events.jsonl"
    copy = tmp_path / "events.jsonl"
    copy.write_bytes(events.read_bytes())
    _Lossy.port = server.port
    with ThreadingHTTPServer(("127.0.0.1", 0), _Lossy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{proxy.server_address[1]}")
        _Lossy.lose = 1
        while any(delivery.problem for delivery in deliver_waiting(undelivered)):
            assert _Lossy.lost == _Lossy.lose
            _Lossy.count, _Lossy.lose = 0, _Lossy.lose + 1
        proxy.shutdown()
    assert _Lossy.lost > 20
    assert not list(undelivered.glob("*-*"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.port}")
    assert_told_once(copy)
    assert len(client().search_model_versions("name = 'inpaint-toy'")) == 1
    (run,) = runs(client())
    assert len(client().search_logged_models([run.info.experiment_id])) == 1
