import errno
import os
import shutil
import signal
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
import pytest

from jobs.tracking import mlflow_runs as tracking
from jobs.tracking.address import AddressError, tracking_uri
from jobs.tracking.mlflow_registry import ModelError, load_model
from jobs.tracking.staging import TrackedDataset
from tests.faults import in_child

RUN = {
    "parameters": {"seed": 1, "train": {"precision": "no", "masks": {"kind": "free_form"}}},
    "tags": {"generator": "toy"},
    "datasets": [TrackedDataset(name="photos-train", digest="a" * 64, source="/x", records=7, context="training")],
    "files": {"params.json": "{}"},
}


@pytest.fixture
def client(database):
    return mlflow.MlflowClient(f"sqlite:///{database}")


def place(client, run_id):
    """The folder of a run's files."""
    return Path(unquote(urlsplit(client.get_run(run_id).info.artifact_uri).path))


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
    there = place(client, run_id) / "samples"
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
    with pytest.raises(ModelError, match=r"inpaint-nothing candidate cannot be loaded: .*not found"):
        load_model("inpaint-nothing", "candidate")


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


@pytest.mark.parametrize(
    ("checkout", "address"),
    [
        ("checkout", ""),
        ("checkout", "sqlite:///mlflow.db"),
        ("checkout", "sqlite:///new/deep/mlflow.db?timeout=30"),
        ("feature%2Fx", ""),
        ("what? #1 (wörk) a+b&c", ""),
        ("feature%2Fx", "sqlite:///{checkout}/mlflow.db"),
        ("feature%2Fx", "./mlruns"),
        ("checkout", "file:mlruns"),
    ],
)
def test_files_of_a_run_are_kept_when_the_temporary_copy_is_removed(
    empty_database, tmp_path, monkeypatch, checkout, address
):
    home = tmp_path / checkout
    copy = home / ".dvc" / "tmp" / "exps" / "tmpabc"
    copy.mkdir(parents=True)
    monkeypatch.setattr(tracking, "_fill_database", lambda path: shutil.copy(empty_database, path))  # saves seconds
    monkeypatch.setenv("DVC_ROOT", str(home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.format(checkout=home))
    monkeypatch.chdir(copy)
    run_id = tracking.open_run("toy", **RUN)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(copy)
    client = mlflow.MlflowClient(tracking_uri())
    assert [entry.path for entry in client.list_artifacts(run_id)] == ["params.json"]
    assert (place(client, run_id) / "params.json").read_text() == "{}"
    assert [path.name for path in tmp_path.iterdir()] == [checkout]  # nothing under an encoded name


def test_a_database_is_made_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EPERM, "Operation not permitted")  # as exFAT does

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    tracking.check_server()
    assert (tmp_path / "mlflow.db").is_file()


def test_a_database_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")
    with pytest.raises(AddressError, match=r"mlflow.db cannot be made \(.*\); set MLFLOW_TRACKING_URI"):
        tracking.check_server()


def test_no_secret_is_logged(client):
    secret = {"dataset": {"root": "https://me:s3cret@host/tree?token=s3cret"}}
    run_id = tracking.open_run("toy", **{**RUN, "parameters": secret})
    assert client.get_run(run_id).data.params == {"dataset.root": "https://host/tree"}


def test_an_experiment_that_was_deleted_is_named_with_the_command_that_brings_it_back(client):
    tracking.open_run("toy", **RUN)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    client.delete_experiment(experiment)
    with pytest.raises(tracking.ExperimentGoneError, match=f"mlflow experiments restore --experiment-id {experiment}"):
        tracking.open_run("toy", **RUN)


def test_an_experiment_whose_files_are_gone_is_not_continued_without_them(client, tmp_path):
    tracking.open_run("toy", **RUN)
    folder = tmp_path / "mlartifacts"
    shutil.rmtree(folder)
    with pytest.raises(tracking.ExperimentGoneError, match=f"{folder}, which is gone; .*mkdir -p {folder}"):
        tracking.open_run("toy", **RUN)
    assert not folder.exists()
    folder.mkdir()
    tracking.open_run("toy", **RUN)
