"""GPUs that a machine has, has not, or claims to have."""

import ctypes
import os
import subprocess
import sys
import time

import pytest

from jobs.cluster import gpus
from jobs.cluster.gpus import check_driver, hide_gpus
from jobs.cluster.settings import ClusterConfig
from jobs.cluster.work import WorkerError

ON_GPU = ClusterConfig(use_gpu=True, train_workers=1)


def with_driver(monkeypatch, version):
    """Give this machine a driver's library; None takes it away."""

    class Driver:
        def __init__(self, name):
            assert name == "libcuda.so.1"
            if version is None:
                raise OSError("cannot open shared object file")

        def cuDriverGetVersion(self, found):
            found._obj.value = version

    monkeypatch.setattr(ctypes, "CDLL", Driver)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (None, "this machine has no NVIDIA driver"),
        (12080, r"the NVIDIA driver is for CUDA 12.8, and PyTorch needs one for 13.0 or newer; install a driver"),
    ],
)
def test_a_driver_that_is_missing_or_too_old_is_named(monkeypatch, version, message):
    monkeypatch.setattr(gpus, "_cuda_of_torch", lambda: (13, 2))
    with_driver(monkeypatch, version)
    with pytest.raises(WorkerError, match=message):
        check_driver(ON_GPU)
    check_driver(ClusterConfig(use_gpu=False))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    check_driver(ON_GPU)  # the cluster's machines have drivers of their own


def test_a_driver_of_the_same_major_version_serves(monkeypatch):
    with_driver(monkeypatch, 1000 * gpus._cuda_of_torch()[0])
    check_driver(ON_GPU)


def test_the_driver_is_looked_at_before_pytorch_is_imported():
    code = (
        "import sys; from jobs.cluster.gpus import check_driver; from jobs.cluster.settings import ClusterConfig\n"
        "try: check_driver(ClusterConfig(use_gpu=True, train_workers=1))\n"
        "except Exception as error: print(error)\n"
        "assert 'torch' not in sys.modules"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert time.monotonic() - began < 10, done.stdout


def test_processes_see_no_gpu_unless_training_uses_them(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    hide_gpus(ON_GPU)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"
    hide_gpus(ClusterConfig())
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
