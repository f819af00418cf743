"""Tracking addresses are resolved against the checkout that stays, and printed with what a user does with them."""

from pathlib import Path

import pytest

from jobs.tracking.address import AddressError, artifact_folder, browse_hint, tracking_uri

HOME = "/checkout"


@pytest.mark.parametrize(
    ("given", "resolved", "files"),
    [
        (None, f"sqlite:///{HOME}/mlflow.db", f"{HOME}/mlartifacts"),
        ("  ", f"sqlite:///{HOME}/mlflow.db", f"{HOME}/mlartifacts"),
        ("sqlite:///mlflow.db", f"sqlite:///{HOME}/mlflow.db", f"{HOME}/mlartifacts"),
        ("sqlite:///a/../b.db?timeout=30", f"sqlite:///{HOME}/b.db?timeout=30", f"{HOME}/mlartifacts"),
        ("sqlite:////data/my%20work/x.db", "sqlite:////data/my work/x.db", "/data/my work/mlartifacts"),
        ("sqlite:////a%2525b/x.db", "sqlite+pysqlite:////a%2525b/x.db", "/a%25b/mlartifacts"),
        ("./mlruns", f"file://{HOME}/mlruns", None),
        ("mlruns", f"file://{HOME}/mlruns", None),
        ("/my runs", "file:///my%20runs", None),
        ("file:mlruns", f"file://{HOME}/mlruns", None),
        ("file:///my%20runs", "file:///my%20runs", None),
        ("postgresql://me:s3cret@db/mlflow", "postgresql://me:s3cret@db/mlflow", f"{HOME}/mlartifacts"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000", None),
    ],
)
def test_an_address_is_resolved_against_the_checkout_that_stays(monkeypatch, tmp_path, given, resolved, files):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", HOME)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given) if given else monkeypatch.delenv("MLFLOW_TRACKING_URI", False)
    assert tracking_uri() == resolved
    assert artifact_folder(resolved) == (files and Path(files))


@pytest.mark.parametrize("given", ["sqlite://", "sqlite:///:memory:", "me:s3cret@host:5000", "ftp://me:s3cret@host"])
def test_an_address_that_keeps_nothing_is_refused_without_its_password(monkeypatch, given):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    with pytest.raises(AddressError, match=r"MLFLOW_TRACKING_URI is .*; set it to") as error:
        tracking_uri()
    assert "s3cret" not in str(error.value)


def test_a_server_is_opened_and_a_database_served_by_a_command_for_a_shell():
    assert browse_hint("http://me:s3cret@127.0.0.1:5000") == "open http://127.0.0.1:5000"
    assert browse_hint("sqlite:////tmp/my work/mlflow.db") == (
        "mlflow ui --backend-store-uri 'sqlite:////tmp/my work/mlflow.db'"
    )
    assert browse_hint("postgresql://me:s3cret@db/mlflow") == 'mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI"'
