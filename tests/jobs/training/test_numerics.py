"""The switches of PyTorch that a training sets, and what it says of them."""

import pytest
import torch

from jobs.training.numerics import FREE_CHOICE, numerics
from jobs.training.settings import TrainConfig


def switches():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize(("benchmark", "deterministic"), [(False, True), (False, False), (True, False)])
def test_every_switch_is_set_and_put_back(tf32, benchmark, deterministic):
    before = switches()
    assert before[1] is True  # PyTorch itself would use TF32 in convolutions, unasked
    with numerics(TrainConfig(tf32=tf32, benchmark=benchmark, deterministic=deterministic)) as reported:
        assert switches() == (tf32, tf32, benchmark, deterministic)
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
        assert reported == set()
    assert switches() == before


def test_a_gpu_whose_algorithms_are_free_is_named_as_not_repeatable(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with numerics(TrainConfig(deterministic=False)) as reported:
        assert reported == {FREE_CHOICE}
    with numerics(TrainConfig(deterministic=True)) as reported:
        assert reported == set()


def test_benchmark_and_deterministic_exclude_each_other():
    with pytest.raises(ValueError, match="benchmark lets every run choose other algorithms; set it to false, or "):
        TrainConfig(benchmark=True)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "float32, without TF32"),
        ({"tf32": True}, "float32, with TF32 in convolutions and matrix products on a GPU"),
        ({"precision": "bf16", "tf32": True}, "bf16 by autocast"),
    ],
)
def test_float32_says_whether_tf32_is_used(settings, text):
    assert TrainConfig(**settings).describe_precision() == text
