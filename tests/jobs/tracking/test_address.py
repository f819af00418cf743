"""Addresses are printed without secrets, and with what a user does with them."""

import pytest

from jobs.tracking.address import browse_hint, display_address


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:s3cret@127.0.0.1:5000/base?token=s3cret#s3cret", "http://127.0.0.1:5000/base"),
        ("https://tracking.example.org", "https://tracking.example.org"),
        ("sqlite:////tmp/my work (2)/mlflow.db", "sqlite:////tmp/my work (2)/mlflow.db"),
        ("sqlite:///runs/mlflow.db?timeout=30", "sqlite:///runs/mlflow.db"),
        ("s3://key:s3cret@bucket/prefix", "s3://bucket/prefix"),
        ("postgresql://me:p@ss@db/mlflow", "postgresql://db/mlflow"),
        ("/data/mlruns", "/data/mlruns"),
    ],
)
def test_an_address_is_printed_without_secrets(address, shown):
    assert display_address(address) == shown


def test_a_server_is_opened_and_a_database_served_by_a_command_for_a_shell():
    assert browse_hint("http://me:s3cret@127.0.0.1:5000") == "open http://127.0.0.1:5000"
    assert browse_hint("sqlite:////tmp/my work/mlflow.db") == (
        "mlflow ui --backend-store-uri 'sqlite:////tmp/my work/mlflow.db'"
    )
