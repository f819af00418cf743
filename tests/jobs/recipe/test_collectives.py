"""Outside a process group nothing is communicated; the contract test covers two processes for every paper."""

import pytest
import torch

from jobs.recipe.collectives import all_sum, global_mean, num_processes, ratio


def test_one_process_computes_the_plain_thing():
    value = torch.randn(3, 4, requires_grad=True)
    assert num_processes() == 1
    assert all_sum(value) is value
    assert torch.equal(global_mean(value), value.mean())


def test_a_ratio_has_a_floor_and_no_gradient_below():
    top, bottom = torch.tensor(6.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    quotient = ratio(top, bottom, at_least=1)
    quotient.backward()
    assert quotient.item() == 2
    assert top.grad.item() == pytest.approx(1 / 3)
    assert bottom.grad is None
    assert ratio(top, torch.tensor(0.0), at_least=0.5).item() == 12
