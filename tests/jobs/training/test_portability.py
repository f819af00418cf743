"""A portable training gives equal weights whatever instruction sets a processor has."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from files.checkout import ROOT
from files.durable import file_digest
from jobs.training.portability import PINNED, PortabilityError, check_pinned
from pipeline.__main__ import main
from tests.pipeline.lineage.finished import GENERATOR, STAGES, prepare

PROCESSORS = (
    {"ATEN_CPU_CAPABILITY": "default"},
    {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    {"MKL_CBWR": "AVX2", "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA", "OPENBLAS_CORETYPE": "Nehalem"},
)
"""Variables that let the libraries compute as on another processor."""


def test_a_process_without_the_variables_or_on_another_processor_is_refused():
    with pytest.raises(PortabilityError, match="needs MKL_CBWR before Python starts"):
        check_pinned({**PINNED, "MKL_CBWR": "AVX2"})
    found = torch.backends.cpu.get_cpu_capability()
    with nullcontext() if found == "AVX2" else pytest.raises(PortabilityError, match=f"PyTorch finds {found}"):
        check_pinned(PINNED)


@pytest.fixture
def job(tmp_path, monkeypatch, empty_database):
    """The working folder: shards, and parameters of a tiny training in this process."""
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path, empty_database)
    for words in STAGES[:4]:
        assert main(words) == 0
    return tmp_path


def set_value(before, after):
    text = Path("params.yaml").read_text()
    assert before in text
    Path("params.yaml").write_text(text.replace(before, after))


def train(**environment):
    """Train in a process of its own. Returns the digest of the weights."""
    variables = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"} | environment
    command = [sys.executable, "-m", "pipeline", "train", GENERATOR]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return file_digest(Path("models", GENERATOR, "weights.safetensors"))


@pytest.mark.slow
def test_a_portable_training_gives_equal_weights_on_emulated_processors_in_workers_and_on_ray(job):
    assert len({train(), *(train(**processor) for processor in PROCESSORS[:2])}) == 3, "processors do differ"
    ordinary = json.loads(Path("models", GENERATOR, "receipt.json").read_text())
    set_value("portable: false", "portable: true")
    portable = {train(), *(train(**processor) for processor in PROCESSORS)}
    assert len(portable) == 1
    receipt = json.loads(Path("models", GENERATOR, "receipt.json").read_text())
    assert (ordinary["train"]["portable"], receipt["train"]["portable"]) == (False, True)
    assert ordinary["experiment"] != receipt["experiment"]
    set_value("train_workers: 0", "train_workers: 1")
    assert train(**PROCESSORS[0]) in portable
    assert train(**PROCESSORS[0], RAY_ADDRESS="local") in portable


def test_a_portable_job_needs_a_process_of_its_own(job, capsys):
    set_value("portable: false", "portable: true")
    assert main(["train", GENERATOR]) == 1
    assert "train: train.portable is true, so it needs a process of its own" in capsys.readouterr().err
