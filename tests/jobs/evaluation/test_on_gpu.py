"""The path of an evaluation on a GPU, with tensors of shapes and devices but no numbers: nothing stays on the CPU.

An operation that mixes tensors of CPU and GPU, or types that do not fit, is an error there as on a real GPU.
"""

import contextlib

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from datasets.maps.edges import EdgeConfig
from jobs.evaluation.evaluator import Evaluator
from jobs.evaluation.inference import device_of, fill_on_device, hide
from jobs.evaluation.settings import EvaluateConfig
from jobs.generators import card, names
from jobs.generators.build import build_filler
from tests.faults import in_own_process
from tests.jobs.evaluation.metrics.pictures import noise
from tests.jobs.evaluation.metrics.weight_files import random_alexnet_state, random_inception_state, save

aten = torch.ops.aten
NEEDS_NUMBERS = {"neural_patch_synthesis": "minimises an energy, whose gradients ask CUDA for a context"}

QUICK = ("deepfill_v2", "lama", "partial_conv", "unet")


class Answers(TorchDispatchMode):
    """Answers what depends on numbers, and counts how often the host waits for one."""

    def __init__(self):
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is aten._local_scalar_dense.default:
            self.waits += 1
            return False if args[0].dtype == torch.bool else 0
        if func is aten.nonzero.default:
            self.waits += 1
            return torch.zeros(max(1, args[0].numel() // 4), args[0].ndim, dtype=torch.int64, device=args[0].device)
        if func is aten.index.Tensor:
            args = (args[0], [part for index in args[1] for part in self._numbers(index)], *args[2:])
        return func(*args, **(kwargs or {}))

    def _numbers(self, index):
        if index is None or index.dtype != torch.bool:
            return [index]
        self.waits += 1
        count = max(1, index.numel() // 4)
        return [torch.zeros(count, dtype=torch.int64, device=index.device) for _ in range(index.ndim)]


def moved(module, *arguments, **settings):
    """`Module.to`, which would swap fake parameters in place."""
    device = torch.device(arguments[0])
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = torch.nn.Parameter(parameter.detach().to(device), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to(device)
    return module


@contextlib.contextmanager
def fake_gpu(monkeypatch):
    """Let PyTorch compute on a GPU without numbers. Yields what counts the waits."""
    torch._C._ensureCUDADeviceGuardSet()
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *arguments, **settings: True)
    monkeypatch.setattr(torch.nn.Module, "to", moved)
    monkeypatch.setattr(torch.nn.utils, "skip_init", lambda kind, *arguments, **settings: kind(*arguments, **settings))
    with FakeTensorMode(allow_non_fake_inputs=True), Answers() as answers:
        yield answers


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in names()
        if name not in NEEDS_NUMBERS
    ],
)
@in_own_process
def test_generators_fill_holes_on_the_device(name, monkeypatch):
    with fake_gpu(monkeypatch):
        check_generator(name)


def check_generator(name):
    config = card(name).Config.tiny()
    side = getattr(config, "image_size", 64)
    masks = np.zeros((6, side, side), np.uint8)
    masks[:, side // 4 : -side // 4, side // 4 : -side // 4] = 1
    recipe = build_filler(name, config)
    for network in recipe.networks.values():
        network.to("cuda:0")
    assert device_of(recipe).type == "cuda"
    visible = hide(noise(6, side, side, 3), masks, columns=recipe.columns, edges=EdgeConfig())
    pictures = fill_on_device(recipe, [visible, visible], "bf16")
    assert pictures["output"].shape == (12, side, side, 3)
    for picture in pictures.values():
        assert picture.dtype == torch.uint8
        assert picture.device.type == "cuda"


@pytest.fixture
def evaluator(tmp_path):
    alexnet = save(random_alexnet_state(), tmp_path / "alexnet.pth")
    inception = save(random_inception_state(), tmp_path / "inception.pth")
    return Evaluator(EvaluateConfig(alexnet=alexnet, inception=inception))


@in_own_process
def test_networks_of_metrics_compute_on_the_device(evaluator, monkeypatch):
    with fake_gpu(monkeypatch):
        check_metrics(evaluator, monkeypatch)


def check_metrics(evaluator, monkeypatch):
    devices = []

    def no_numbers(tensor):
        return np.zeros(tensor.shape, np.float32)

    def to_host(tensor):
        devices.append(tensor.device.type)
        return torch.empty(tensor.shape)

    for network in (evaluator._inception, evaluator._lpips["lpips_alex"]):
        moved(network, "cuda:0")
    monkeypatch.setattr(torch.Tensor, "cpu", to_host)
    monkeypatch.setattr(torch.Tensor, "numpy", no_numbers)
    composites = noise(2, 64, 64, 3)
    assert len(evaluator.score_features(composites[0], composites)) == 2
    assert evaluator.features(composites).shape == (2, 2048)
    assert devices == ["cuda", "cuda"]


@in_own_process
def test_a_tensor_of_the_other_device_is_noticed(monkeypatch):
    with fake_gpu(monkeypatch), pytest.raises(RuntimeError, match="device"):
        torch.zeros(3, device="cuda") + torch.zeros(3)
