import mlflow
import pytest

from jobs import tracking
from jobs.events import EventLog


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def open_run(**changes):
    values = {
        "parameters": {"seed": 1, "train": {"precision": "no", "masks": {"kind": "free_form"}}},
        "tags": {"generator": "toy"},
        "datasets": [
            tracking.TrackedDataset(name="photos-train", digest="a" * 64, source="/x", records=7, context="training")
        ],
        "files": {"params.json": "{}"},
    }
    return tracking.open_run("toy", **{**values, **changes})


def steps(run_id, key):
    return [metric.step for metric in mlflow.MlflowClient(tracking.tracking_uri()).get_metric_history(run_id, key)]


def test_a_run_has_parameters_datasets_and_files(store):
    run = mlflow.MlflowClient(tracking.tracking_uri()).get_run(open_run())
    assert run.data.params == {"seed": "1", "train.precision": "no", "train.masks.kind": "free_form"}
    entry = run.inputs.dataset_inputs[0]
    assert (entry.dataset.name, entry.dataset.digest) == ("photos-train", "a" * 36)
    assert {tag.key: tag.value for tag in entry.tags}["manifest_sha256"] == "a" * 64


def test_events_arrive_once_and_in_order_whatever_happens_to_the_courier(store, tmp_path):
    run_id = open_run()
    log = EventLog(tmp_path / "events.jsonl")
    for step in range(1, 6):
        log.log(step, {"a/l1": float(step)}, images_per_second=1.0)
    with tracking.Courier(run_id, tmp_path):
        pass
    log.log(5, {"a/l1": 5.0})  # run again after a restart from step 4
    log.log(6, {"a/l1": 6.0})
    with tracking.Courier(run_id, tmp_path):  # a second courier reads the log from its start
        pass
    assert steps(run_id, "a/l1") == [1, 2, 3, 4, 5, 6]
    assert steps(run_id, "speed/images_per_second") == [1, 2, 3, 4, 5]


def test_a_restart_takes_up_the_run_it_left(store):
    run_id = open_run()
    tracking.close_run(run_id, failed=True)
    assert open_run(resume=run_id) == run_id
    assert mlflow.MlflowClient(tracking.tracking_uri()).get_run(run_id).info.status == "RUNNING"
    tracking.close_run(run_id)
    assert mlflow.MlflowClient(tracking.tracking_uri()).get_run(run_id).info.status == "FINISHED"


def test_a_dead_server_stops_nobody_and_what_waits_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nothing listens there
    log = EventLog(tmp_path / "events.jsonl")
    log.log(1, {"a/l1": 1.0})
    seen = []
    with tracking.Courier("0" * 32, tmp_path, on_event=seen.append):
        pass
    assert [event.step for event in seen] == [1]
    assert "does not answer" in caplog.text
    assert "1 events of run" in caplog.text


def test_a_model_that_is_not_registered_is_named(store):
    with pytest.raises(tracking.ModelError, match=r"inpaint-nothing candidate cannot be loaded .*not found"):
        tracking.load_model("inpaint-nothing", "candidate")
