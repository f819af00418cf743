"""`doctor` says what is there, what is missing and how to get it, in a moment, and fails only for what is needed."""

import http.server
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from hashlib import sha256

import pytest
import torch

from files.checkout import ROOT
from pipeline.doctor import machine, software
from pipeline.doctor import weights as of_weights
from pipeline.doctor.findings import Finding
from pipeline.doctor.services import check_ray, check_tracking
from pipeline.doctor.weights import check_features, check_weights
from pipeline.verbs import doctor


def test_the_command_imports_no_large_library_and_its_json_has_every_finding():
    program = (
        "import sys\nfrom pipeline.__main__ import main\ncode = main(['doctor', '--json'])\n"
        "large = {'torch', 'ray', 'mlflow', 'cv2', 'pandas', 'dvc'} & set(sys.modules)\n"
        "assert not large, large\nsys.exit(code)"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    tree = json.loads(done.stdout)
    assert (done.returncode == 0) == tree["is_healthy"], done.stderr
    topics = {finding["topic"] for finding in tree["findings"]}
    assert topics >= {"Python", "packages", "machine", "GPUs", "disk", "tracking", "Ray", "weights"}
    for finding in tree["findings"]:
        assert finding["state"] == "fine" or finding["remedy"] or finding["topic"] == "GPUs", finding


def test_what_is_broken_decides_the_exit_code_and_a_remedy_is_one_line(monkeypatch, capsys):
    findings = [
        Finding("a", "fine", "x"),
        Finding("b", "missing", "y", "fetch it"),
        Finding("c", "broken", "z", "mend it"),
    ]
    for known, code in ((findings, 1), (findings[:2], 0)):
        monkeypatch.setattr(doctor, "run", lambda known=known: known)
        assert doctor.main(None, type("Arguments", (), {"json": False})) == code
        lines = capsys.readouterr().out.splitlines()
        assert lines[:3] == ["ok  a  x", "--  b  y", "        fetch it"]
        assert ("!!  c  z" in lines) == bool(code)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file of weights where torch would keep it, and the block that names it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    return path, {"alexnet": {"path": str(path), "sha256": sha256(b"weights").hexdigest()}}


def test_weights_are_checked_by_digest_and_those_that_are_missing_have_an_address(weights):
    path, evaluate = weights
    inception, alexnet, vgg = check_weights(evaluate)
    assert alexnet == ("weights", "fine", f"evaluate.alexnet, for LPIPS with AlexNet: {path}", "")
    for finding, name in ((inception, "6726825d.pth to"), (vgg, "vgg16-397923af.pth to")):
        assert finding.state == "missing"
        assert finding.remedy.startswith("fetch https://")
        assert name in finding.remedy
    path.write_bytes(b"others")
    (_, changed, _) = check_weights(evaluate)
    assert changed.state == "broken"
    assert f"has SHA-256 {sha256(b'others').hexdigest()}, expected" in changed.detail
    path.unlink()
    assert [finding.state for finding in check_weights(evaluate)] == ["missing", "broken", "missing"]


def test_weights_that_torch_has_kept_are_named_with_the_command_that_sets_them(weights, monkeypatch):
    path, _ = weights
    (_, damaged, _) = check_weights({})
    assert "is damaged" in damaged.detail
    digest = "7be5be79" + 56 * "0"
    monkeypatch.setattr(of_weights, "file_digest", lambda path: digest)
    (_, found, _) = check_weights({})
    words = shlex.split(found.remedy)[4:]
    assert words == [f"evaluate.alexnet.path={path}", f"evaluate.alexnet.sha256={digest}"]


def test_features_of_losses_are_looked_for(weights):
    path, _ = weights
    configs = {"a": {"features": str(path)}, "b": {"features": "imagenet"}, "c": {"features": "random"}, "d": {}}
    assert [(found.state, found.detail.split()[0]) for found in check_features(configs)] == [
        ("fine", "generators.a.features"),
        ("fine", "generators.b.features"),
    ]
    path.unlink()
    assert next(check_features(configs)).state == "broken"


class Healthy(http.server.BaseHTTPRequestHandler):
    """Answers as a tracking server does."""

    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_server_is_asked(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{address}")
    assert check_tracking() == ("tracking", "fine", f"http://{address} answers", "")
    assert check_ray(f"ray://{address}").state == "fine"
    server.shutdown()
    server.server_close()
    assert check_tracking().state == "missing"
    gone = check_ray(address)
    assert gone == ("Ray", "broken", f"{address} does not answer", "start the cluster, or unset RAY_ADDRESS")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///:memory:")
    assert check_tracking().state == "broken"


def test_a_database_that_cannot_be_written_is_broken(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert check_tracking().detail.endswith("it is made by the first training")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert check_tracking().state == "broken"


@pytest.mark.parametrize(
    ("gpus", "cuda", "use_gpu", "state"),
    [
        (None, "12.8", False, "missing"),
        (None, "12.8", True, "broken"),
        ([], "12.8", True, "broken"),
        (["H200, 143771 MiB"], None, True, "broken"),
        (["H200, 143771 MiB"], "12.8", True, "fine"),
    ],
)
def test_gpus_are_needed_only_where_they_are_asked_for(gpus, cuda, use_gpu, state):
    assert machine._check_gpus(gpus, cuda, use_gpu).state == state


def test_a_full_disk_and_other_packages_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2**29}))
    full = machine._check_disk("checkout", tmp_path / "absent", 1, 10)
    assert (full.state, full.remedy) == ("broken", "make room")
    assert "0.5 GB free" in full.detail
    assert software._check_packages(["numpy", "no-such-package"], {}).state == "broken"
    other = software._check_packages(["numpy"], {"numpy": "0.1"})
    assert other.state == "missing"
    assert other.detail.endswith("locked is 0.1")
    assert software.read_lock(ROOT / "requirements.lock")["numpy"] == software._version("numpy")
    assert software._check_python(">=3.1,<3.5").state == "broken"


def test_the_build_of_torch_is_read_without_an_import():
    assert machine._cuda_of_torch() == torch.version.cuda
