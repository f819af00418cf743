import signal
from pathlib import Path

import mlflow
import pytest

from jobs.tracking import mlflow_runs as tracking
from tests.faults import in_child

RUN = {
    "parameters": {"seed": 1, "train": {"precision": "no", "masks": {"kind": "free_form"}}},
    "tags": {"generator": "toy"},
    "datasets": [
        tracking.TrackedDataset(name="photos-train", digest="a" * 64, source="/x", records=7, context="training")
    ],
    "files": {"params.json": "{}"},
}


@pytest.fixture
def client(database):
    return mlflow.MlflowClient(f"sqlite:///{database}")


def test_a_run_has_parameters_datasets_and_files(client):
    run = client.get_run(tracking.open_run("toy", **RUN))
    assert run.data.params == {"seed": "1", "train.precision": "no", "train.masks.kind": "free_form"}
    entry = run.inputs.dataset_inputs[0]
    assert (entry.dataset.name, entry.dataset.digest) == ("photos-train", "a" * 36)
    assert {tag.key: tag.value for tag in entry.tags}["manifest_sha256"] == "a" * 64
    assert [entry.path for entry in client.list_artifacts(run.info.run_id)] == ["params.json"]


def test_a_training_has_one_run_whatever_was_lost(client):
    """Also after an answer was lost, so that a second run was made: the one with figures stays."""
    run_id = tracking.open_run("toy", **RUN, training="t1")
    other = tracking.open_run("toy", **RUN, training="t2")
    assert other != run_id
    tracking.log_metrics(other, {"l1": 1.0})
    client.set_tag(other, "training", "t1")
    tracking.close_run(other, "FAILED")
    assert tracking.open_run("toy", **RUN, training="t1") == other
    assert client.get_run(other).info.status == "RUNNING"
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    tracking.close_run(other)
    assert client.get_run(other).info.status == "FINISHED"
    assert len(client.get_run(other).inputs.dataset_inputs) == 1


def test_files_that_are_there_are_not_sent_again(client, tmp_path):
    run_id = tracking.open_run("toy", **RUN)
    whole, half = tmp_path / "step-1.png", tmp_path / "step-2.png"
    whole.write_bytes(b"whole")
    half.write_bytes(b"ha")
    tracking.log_files(run_id, [whole, half], "samples")
    half.write_bytes(b"half")
    there = Path(client.get_run(run_id).info.artifact_uri) / "samples"
    assert {path.name for path in there.iterdir()} == {"step-1.png", "step-2.png"}
    (there / "step-1.png").write_bytes(b"there")  # of the same size: it stays
    tracking.log_files(run_id, [whole, half], "samples")
    assert (there / "step-1.png").read_bytes() == b"there"
    assert (there / "step-2.png").read_bytes() == b"half"


def test_an_error_is_one_line_without_a_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")  # nothing listens there
    with pytest.raises(mlflow.MlflowException) as error:
        tracking.check_server()
    assert tracking.reason(error.value) == "http://127.0.0.1:9 does not answer"
    assert tracking.reason(ValueError("https://user:secret@host is odd\nmore")) == "ValueError: https://host is odd"


def test_a_model_that_is_not_registered_is_named(client):
    with pytest.raises(tracking.ModelError, match=r"inpaint-nothing candidate cannot be loaded: .*not found"):
        tracking.load_model("inpaint-nothing", "candidate")


def test_a_kill_while_the_database_is_made_leaves_none_or_a_whole_one(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")

    def make_and_be_killed(seconds):
        signal.setitimer(signal.ITIMER_REAL, seconds)  # SIGALRM ends a process that does not handle it
        tracking.check_server()

    for seconds in (0.15, 0.4, 0.8):
        code, said = in_child(lambda seconds=seconds: make_and_be_killed(seconds))
        assert code == -signal.SIGALRM, said
        assert not (tmp_path / "mlflow.db").exists()
    tracking.check_server()
    assert (tmp_path / "mlflow.db").is_file()
