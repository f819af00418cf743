"""Steps that are undone on the device."""

import pytest
import torch

from jobs.training.buffers import step_unless


@pytest.mark.parametrize("failed", [0.0, 1.0])
def test_a_step_of_an_optimizer_is_undone_where_it_has_failed(failed):
    parameters = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(4))]
    optimizer = torch.optim.Adadelta(parameters)

    def set_gradients(value):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, value)

    set_gradients(0.5)
    optimizer.step()
    before = [parameter.detach().clone() for parameter in parameters]
    averages = [optimizer.state[parameter]["square_avg"].clone() for parameter in parameters]
    set_gradients(float("nan") if failed else 0.5)
    step_unless(optimizer, torch.tensor(failed))
    for parameter, old, average in zip(parameters, before, averages, strict=True):
        assert torch.equal(parameter, old) == bool(failed)
        assert torch.equal(optimizer.state[parameter]["square_avg"], average) == bool(failed)
        assert parameter.isfinite().all()
