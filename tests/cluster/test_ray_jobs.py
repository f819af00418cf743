"""`ray job submit`: our commands as jobs of a running cluster, by its token alone."""

import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
WORK = (
    "from jobs.cluster.launch import map_tasks; "
    "print('tasks gave', sorted(map_tasks(abs, [-3, -1, -2], num_workers=2)))"
)


@pytest.fixture
def cluster(monkeypatch):
    """Environment of a client of a Ray on loopback, with token and dashboard."""
    ports = [free_port() for _ in range(2)]
    for name, value in {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_raylet_start_wait_time_s": "200",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{ports[1]}",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    command = [RAY, "start", "--block", "--head", "--node-ip-address=127.0.0.1", f"--port={ports[0]}", "--num-cpus=2"]
    command += [f"--dashboard-port={ports[1]}", "--object-store-memory=100000000"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as head:
        yield
        head.terminate()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ray(*words, **environment):
    return subprocess.run(
        [RAY, *words], env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
def test_a_job_runs_in_the_checkout_and_on_the_cluster(cluster):
    for _ in range(100):
        if ray("job", "list").returncode == 0:
            break
    refused = ray("job", "list", RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode
    assert "401" in refused.stderr or "uthenticat" in refused.stderr, refused.stderr
    done = ray("job", "submit", "--", "sh", "-c", f'cd {ROOT} && {sys.executable} -c "{WORK}"')
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tasks gave [1, 2, 3]" in done.stdout
