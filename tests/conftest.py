"""What several files of tests stand on: the order of files, an S3 server on loopback, and tracking databases."""

import logging
import shutil

import fsspec
import pytest

LONGEST = (
    "tests/jobs/runs/test_experiment.py",
    "tests/pipeline/test_stages.py",
    "tests/pipeline/verbs/test_takedown.py",
    "tests/test_docs.py",
)
"""Long files that come late in the order of names. One process runs a whole file, so they begin first."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(scope="session")
def s3_server():
    from moto.server import ThreadedMotoServer  # takes seconds, and few tests need it

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """A client of a fresh bucket; the store finds the server as every AWS tool does."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    client = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    if client.exists("bucket"):
        client.rm("bucket", recursive=True)
    client.mkdir("bucket")
    return client


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A tracking database without a run; making its tables takes seconds."""
    import mlflow

    path = tmp_path_factory.mktemp("tracking") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(empty_database, tmp_path, monkeypatch):
    """A fresh tracking database, which the code under test writes to, beside the working folder's artifacts."""
    monkeypatch.chdir(tmp_path)
    path = shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    return path
