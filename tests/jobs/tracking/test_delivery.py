import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import sys
import threading
import time
from functools import partial
from pathlib import Path

import mlflow
import pytest

from jobs.runs.events import EventLog
from jobs.tracking.delivery import deliver_waiting
from jobs.tracking.queue import describe_waiting, park
from jobs.tracking.staging import TrackedDataset, describe_run, stage_model
from jobs.tracking.sync import TrackingSync
from tests.faults import in_child

SILENT_SECONDS = 1


@pytest.fixture
def live(database):
    return mlflow.MlflowClient(f"sqlite:///{database}")


@pytest.fixture
def silent(monkeypatch):
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SILENT_SECONDS))
        yield
    for thread in threading.enumerate():
        if thread.name == "tracking-sync":  # left behind on purpose
            thread.join()


def describe(folder, name):
    describe_run(
        folder,
        name,
        parameters={"seed": 1, "widths": (1, 2)},
        tags={"generator": name},
        datasets=[TrackedDataset(name="made", digest="a" * 64, source="/x", records=7, context="training")],
        files={"params.json": "{}"},
    )


def storage(tmp_path, name="toy", *, steps=(1, 2, 3), model=True):
    """What a training of that many steps leaves."""
    folder = tmp_path / "runs" / name / "0123456789abcdef"
    describe(folder, name)
    log = EventLog(folder / "events.jsonl")
    log.segment(from_step=0, world_size=1, nodes=["here"], devices=["cpu"])
    for step in steps:
        log.log(step, {"a/l1": float(step)}, images_per_second=1.0)
    log.close()
    (folder / "samples").mkdir()
    (folder / "samples" / "step-00000002.png").write_bytes(b"picture")
    (folder / "checkpoints").mkdir()
    if model:
        weights = tmp_path / "models" / name
        weights.mkdir(parents=True, exist_ok=True)
        (weights / "weights.safetensors").write_text("weights")
        stage_model(
            folder,
            f"inpaint-{name}",
            files={"model": weights},
            code={"inpaint_0/__init__.py": b""},
            tags={"kind": name},
            requirements=["numpy"],
        )
    return folder


def runs(client):
    experiment = client.get_experiment_by_name("inpaint-foundry")
    return client.search_runs([experiment.experiment_id]) if experiment else []


def steps(client, run, key):
    return [metric.step for metric in client.get_metric_history(run.info.run_id, key)]


def sync(folder, **options):
    return TrackingSync(folder, folder.parent.parent / "undelivered", **options)


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_training_is_one_run_through_kills_signals_and_errors(live, tmp_path):
    folder = storage(tmp_path, steps=(1, 2), model=False)
    killed = sync(folder)
    killed.__enter__()
    until(lambda: runs(live) and steps(live, runs(live)[0], "a/l1") == [1, 2])
    killed._finish = lambda: None  # from here on it does nothing, as after a kill
    killed.__exit__(None)
    assert runs(live)[0].info.status == "RUNNING"
    log = EventLog(folder / "events.jsonl")
    told = []
    for error, status, step in ((KeyboardInterrupt, "SCHEDULED", 3), (ValueError, "FAILED", 4), (None, "FINISHED", 5)):
        log.segment(from_step=1, world_size=1, nodes=["here"], devices=["cpu"])
        with contextlib.suppress(BaseException), sync(folder, on_warning=told.append) as last:
            log.warning(f"on the way to step {step}")
            log.log(2, {"a/l1": 2.0})  # again
            log.log(step, {"a/l1": float(step)})
            if error:
                raise error
        run, *others = runs(live)
        assert not others, last.problem
        assert run.info.status == status
    assert last.delivered
    assert told == ["on the way to step 3", "on the way to step 4", "on the way to step 5"]  # each once
    for key in ("a/l1", "system/cpu_percent", "system/resident_bytes"):
        assert steps(live, run, key) == [1, 2, 3, 4, 5]
    assert steps(live, run, "speed/images_per_second") == [1, 2]
    assert run.data.params["widths"] == "(1, 2)"
    assert run.data.metrics["restarts"] == 3
    assert run.data.metrics["useful_step_ratio"] == 5 / (2 + 2 + 3 + 4)
    said = live.download_artifacts(run.info.run_id, "segments.json", str(tmp_path))
    assert [segment["from_step"] for segment in json.loads(Path(said).read_text())] == [0, 1, 1, 1]
    assert [entry.path for entry in live.list_artifacts(run.info.run_id, "samples")] == ["samples/step-00000002.png"]


def test_a_silent_server_holds_up_nobody(silent, tmp_path, monkeypatch, caplog):
    folder = storage(tmp_path)
    connecting, seen = set(), []
    watched = True

    def watch(event, arguments):
        if watched and event == "socket.connect":
            connecting.add(threading.current_thread().name)

    sys.addaudithook(watch)
    start = time.monotonic()
    with sync(folder, on_event=seen.append) as finished:
        entered = time.monotonic() - start
        until(lambda: "tracking-sync" in connecting)
        left = time.monotonic()
    left = time.monotonic() - left
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    bounds = {KeyboardInterrupt: "STOP_SECONDS", None: "END_SECONDS"}
    for error, bound in bounds.items():
        monkeypatch.setattr("jobs.tracking.sync." + bound, 0.5)
        with contextlib.suppress(BaseException), sync(folder) as left_behind:
            stopping = time.monotonic()
            if error:
                raise error
        assert 0.5 <= time.monotonic() - stopping < 20
        assert "took more than" in left_behind.problem
    watched = False
    assert connecting == {"tracking-sync"}  # the thread that trains has nothing to wait for
    assert entered < 2
    assert left < 2 * SILENT_SECONDS + 5  # one request that was under way, and one that asks again
    assert not finished.delivered
    assert "does not answer" in finished.problem
    assert [event.step for event in seen] == [1, 2, 3]
    assert len([record for record in caplog.records if "training goes on" in record.message]) == 1


def test_what_was_set_aside_is_delivered_before_the_next_training_ends(database, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nothing listens there
    undelivered = tmp_path / "runs" / "undelivered"
    names = ["toy", "toy", "other"]
    for index, name in enumerate(names):
        folder = storage(tmp_path, name, steps=range(1, 3 + index))
        with sync(folder) as went:
            pass
        assert not went.delivered
        left = park(folder, undelivered)
        assert not folder.exists()
        left_names = {"run.json", "code.zip", "events.jsonl", "samples", "model.json", "model"}
        assert {path.name for path in left.iterdir()} == left_names
    assert [delivery.problem is not None for delivery in deliver_waiting(undelivered)] == [True] * 3
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    client = mlflow.MlflowClient(f"sqlite:///{database}")
    own = storage(tmp_path, "toy", steps=range(1, 9))
    with sync(own) as went:
        pass
    assert went.delivered
    assert not list(undelivered.glob("*-*"))
    found = {run.info.run_id: run for run in runs(client)}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert all(run.info.end_time >= run.info.start_time for run in found.values())
    versions = sorted(client.search_model_versions("name = 'inpaint-toy'"), key=lambda each: int(each.version))
    assert [len(steps(client, found[each.run_id], "a/l1")) for each in versions] == [2, 3, 8]
    assert int(client.get_model_version_by_alias("inpaint-toy", "candidate").version) == 3
    assert len(client.search_model_versions("name = 'inpaint-other'")) == 1
    assert len(found) == 4
    assert deliver_waiting(undelivered) == []


def killed_deliveries(undelivered):
    """Kill a delivery before its 1st, 2nd, ... commit to the database, until one survives; returns how many died."""

    def work(kill_at):
        from sqlalchemy import Engine, event

        left = [kill_at]

        def commit(connection):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(Engine, "commit", commit)
        assert [delivery.problem for delivery in deliver_waiting(undelivered)] == [None]

    died = 0
    while True:
        code, said = in_child(partial(work, died + 1))
        if code == 0:
            return died
        assert code == -signal.SIGKILL, said
        died += 1


def test_a_picture_that_cannot_be_uploaded_stays_behind_alone(live, tmp_path):
    undelivered = tmp_path / "runs" / "undelivered"
    folders = [
        park(storage(tmp_path, name, steps=range(1, 3)), undelivered, "no server") for name in ("first", "second")
    ]
    assert describe_waiting(undelivered).startswith(
        f"2 finished trainings wait in {undelivered} for the tracking server"
    )
    assert "0001-first-0123456789abcdef: no server" in describe_waiting(undelivered)
    (folders[0] / "samples" / "step-00000003.png").mkdir()
    Path(os.fsdecode(os.fsencode(folders[0] / "samples") + b"/step-\xff.png")).write_bytes(b"picture")
    first, second = deliver_waiting(undelivered)
    assert first.version == "1"
    assert re.search(r"step-.*png stays behind, as do 1 more \(.*\); mend or remove it", first.problem)
    assert second.problem is None
    assert describe_waiting(undelivered).startswith("1 finished training waits in")
    assert first.problem in describe_waiting(undelivered)
    (folders[0] / "samples" / "step-00000003.png").rmdir()
    Path(os.fsdecode(os.fsencode(folders[0] / "samples") + b"/step-\xff.png")).unlink()
    assert [delivery.problem for delivery in deliver_waiting(undelivered)] == [None]
    assert describe_waiting(undelivered) is None
    assert len(live.search_model_versions("name = 'inpaint-first'")) == 1


def test_folders_that_are_no_trainings_are_named_and_hold_up_no_other(database, tmp_path):
    undelivered = tmp_path / "runs" / "undelivered"
    good = park(storage(tmp_path), undelivered)
    for name in (b"0002-empty", b"12x-odd", b"notes", b"0003-\xff"):
        Path(os.fsdecode(os.fsencode(undelivered) + b"/" + name)).mkdir()
    problems = {Path(delivery.folder).name: delivery.problem for delivery in deliver_waiting(undelivered)}
    assert problems.pop(good.name) is None
    assert "is no UTF-8; rename that folder" in problems.pop("0003-\\xff")
    assert list(problems) == ["0002-empty", "12x-odd", "notes"]
    assert all("run.json is missing; restore it, or remove its folder" in problem for problem in problems.values())
    json.dumps(problems)  # what --json prints


@pytest.mark.parametrize("content", [b"", b'{"name": ', b"[]", b"{}"])
def test_a_damaged_item_is_named_and_holds_up_no_other(database, tmp_path, content):
    undelivered = tmp_path / "runs" / "undelivered"
    folders = [park(storage(tmp_path, name, steps=range(1, 3)), undelivered) for name in ("first", "second", "third")]
    (folders[1] / "run.json").write_bytes(content)
    deliveries = deliver_waiting(undelivered)
    assert [delivery.problem is None for delivery in deliveries] == [True, False, True]
    assert deliveries[1].problem == (
        f"{folders[1] / 'run.json'} is damaged; remove its folder, whose run cannot be delivered"
    )
    assert [folder.exists() for folder in folders] == [False, True, False]


@pytest.mark.parametrize("model", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_delivery_that_is_killed_anywhere_is_completed_by_the_next(database, tmp_path, model):
    undelivered = tmp_path / "runs" / "undelivered"
    park(storage(tmp_path, steps=range(1, 6), model=model), undelivered)
    assert killed_deliveries(undelivered) > 8
    assert not list(undelivered.glob("[!.]*"))
    with contextlib.closing(sqlite3.connect(database)) as database:
        ask = lambda question: database.execute(question).fetchall()  # noqa: E731
        assert ask("select status, lifecycle_stage from runs") == [("FINISHED", "active")]
        assert ask("select step from metrics where key = 'a/l1' order by step") == [(step,) for step in range(1, 6)]
        assert ask("select key, step from metrics group by key, step having count(*) > 1") == []
        assert ask("select count(*) from metrics") == [(3 * 5 + 5 + 4,)]
        assert ask("select count(*) from params") == [(2,)]
        assert ask("select count(*) from inputs where source_type = 'DATASET'") == [(1,)]
        assert ask("select version from model_versions") == [(1,)] * model
        assert ask("select alias, version from registered_model_aliases") == [("candidate", 1)] * model
        assert ask("select count(*) from logged_models where lifecycle_stage = 'active'") == [(int(model),)]
