"""Batch norm over GPUs as one of two equal processes, with its kernels written out: PyTorch has them for GPUs alone."""

import pytest
import torch
from torch.nn import functional as F

from jobs.layers import gpu_batch_norm
from jobs.layers.gpu_batch_norm import NormaliseOnGpu

EPS, MOMENTUM = 1e-5, 0.1


def over_places(values):
    return values.sum((0, 2, 3))


def stats(x, eps):
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    return mean, torch.rsqrt(variance + eps)


def gather(x, means, inverses, running_mean, running_var, momentum, eps, counts):
    share = counts[:, None] / counts.sum()
    mean = (share * means).sum(0)
    variance = (share * (inverses**-2 - eps + means.square())).sum(0) - mean.square()
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(variance * counts.sum() / (counts.sum() - 1), momentum)
    return mean, torch.rsqrt(variance + eps)


def normalise(x, weight, bias, mean, inverse, eps):
    return (x - mean[:, None, None]) * (inverse * weight)[:, None, None] + bias[:, None, None]


def reduce(gradient, x, mean, inverse, weight, *wanted):
    total, product = over_places(gradient), over_places(gradient * (x - mean[:, None, None]))
    return total, product, product * inverse if wanted[1] else None, total.clone() if wanted[2] else None


def backward(gradient, x, mean, inverse, weight, total, product, counts):
    number = counts.sum()
    centred = (x - mean[:, None, None]) * (product * inverse.square() / number)[:, None, None]
    return (gradient - (total / number)[:, None, None] - centred) * (inverse * weight)[:, None, None]


@pytest.fixture
def two_equal_processes(monkeypatch):
    """Both have the same samples, so that sums double and the statistics are those of one."""
    for name, kernel in {
        "batch_norm_stats": stats,
        "batch_norm_gather_stats_with_counts": gather,
        "batch_norm_elemt": normalise,
        "batch_norm_backward_reduce": reduce,
        "batch_norm_backward_elemt": backward,
    }.items():
        monkeypatch.setattr(torch, name, kernel)
    monkeypatch.setattr(gpu_batch_norm, "num_processes", lambda: 2)
    monkeypatch.setattr(
        gpu_batch_norm.distributed, "all_gather_into_tensor", lambda out, own: out.copy_(own.expand(2, -1))
    )
    monkeypatch.setattr(gpu_batch_norm.distributed, "all_reduce", lambda sums: sums.mul_(2))


@pytest.mark.parametrize("is_weight_trained", [True, False])
def test_it_is_plain_batch_norm_of_all_samples(two_equal_processes, is_weight_trained):
    torch.manual_seed(0)
    x, direction = torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    found = []
    for is_ours in (True, False):
        torch.manual_seed(1)
        features = x.clone().requires_grad_()
        weight, bias = (torch.randn(3, dtype=torch.float64).requires_grad_(is_weight_trained) for _ in range(2))
        running = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        if is_ours:
            output = NormaliseOnGpu.apply(features, weight, bias, *running, MOMENTUM, EPS)
        else:  # all samples of both
            both = torch.cat((features, features))
            output = F.batch_norm(both, *running, weight, bias, training=True, momentum=MOMENTUM, eps=EPS)[:2]
        (output * direction).sum().backward()
        found.append([output.detach(), features.grad, weight.grad, bias.grad, *running])
    ours, plain = found
    for index in (0, 2, 3, 4, 5):
        torch.testing.assert_close(ours[index], plain[index])
    # Each of the two computes the loss of its own half: of the other half it gets the same gradient once more.
    halves = torch.cat((x, x)).requires_grad_()
    weight, bias = found_parameters()
    output = F.batch_norm(halves, None, None, weight, bias, training=True, eps=EPS)
    (output * torch.cat((direction, direction))).sum().backward()
    torch.testing.assert_close(ours[1], halves.grad[:2])


def found_parameters():
    torch.manual_seed(1)
    return (torch.randn(3, dtype=torch.float64) for _ in range(2))
