"""Normalisations against PyTorch's own; the statistics of two processes are compared in the generators' contract."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from jobs.layers.normalization import SPADE, BatchNorm2d, InstanceNorm2d


def test_batch_norm_of_one_process_is_pytorchs():
    ours, theirs = BatchNorm2d(5), nn.BatchNorm2d(5)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for _ in range(3):
        features = 3 * torch.randn(2, 5, 4, 6) + 1
        assert torch.equal(ours(features), theirs(features))
    assert torch.equal(ours.eval()(features), theirs.eval()(features))
    assert torch.equal(ours.running_var, theirs.running_var)


def test_one_value_per_channel_is_refused_in_training_alone():
    norm = BatchNorm2d(5)
    with pytest.raises(ValueError, match=r"one value per channel, got \(1, 5, 1, 1\); raise batch_size to 2"):
        norm(torch.ones(1, 5, 1, 1))
    assert norm.eval()(torch.ones(1, 5, 1, 1)).isfinite().all()
    assert norm.train()(torch.ones(2, 5, 1, 1)).isfinite().all()


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_instance_norm_and_its_gradients_are_pytorchs(affine, layout):
    ours, theirs = InstanceNorm2d(6, affine=affine), nn.InstanceNorm2d(6, affine=affine)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        nn.init.normal_(parameter)
        other.data.copy_(parameter)
    features = (3 * torch.randn(2, 6, 5, 7, dtype=torch.float64) + 1).contiguous(memory_format=layout).requires_grad_()
    found = [norm.double()(features) for norm in (ours, theirs)]
    torch.testing.assert_close(*found)
    weights = torch.randn_like(features)
    gradients = [
        torch.autograd.grad((output * weights).sum(), (features, *norm.parameters()))
        for output, norm in zip(found, (ours, theirs), strict=True)
    ]
    torch.testing.assert_close(*gradients)


def test_instance_norm_keeps_half_precision_and_refuses_single_values():
    norm = InstanceNorm2d(6, affine=True)
    features = 100 + torch.randn(2, 6, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        halved = norm(features.bfloat16())
    assert halved.dtype == torch.bfloat16
    torch.testing.assert_close(halved.float(), F.instance_norm(features.bfloat16().float()), atol=0.02, rtol=0.01)
    with pytest.raises(ValueError, match=r"more than one value per channel, got \(2, 6, 1, 1\)"):
        norm(features[..., :1, :1])


def test_spade_counts_and_reduces_to_instance_norm():
    assert sum(p.numel() for p in SPADE(256, 256).parameters()) == 885_376
    spade = SPADE(6, 3, hidden=4)
    features, layout = torch.randn(2, 6, 8, 10), torch.rand(2, 3, 8, 10)
    nn.init.zeros_(spade.gamma.weight), nn.init.zeros_(spade.gamma.bias)
    nn.init.zeros_(spade.beta.weight), nn.init.zeros_(spade.beta.bias)
    normed = nn.functional.instance_norm(features)
    torch.testing.assert_close(spade(features, layout), normed)
    nn.init.constant_(spade.gamma.bias, 2.0)
    nn.init.constant_(spade.beta.bias, -1.0)
    torch.testing.assert_close(spade(features, layout), 3 * normed - 1)


def test_spade_varies_with_the_map_place_by_place():
    torch.manual_seed(0)
    spade = SPADE(6, 3, hidden=4)
    features, layout = torch.randn(1, 6, 8, 10), torch.rand(1, 3, 8, 10)
    other = layout.clone()
    other[..., 7, 9] += 5
    changed = (spade(features, layout) != spade(features, other)).any(1)[0]
    assert changed[5:, 7:].any()
    assert not changed[:5].any()  # two 3x3 convolutions reach two cells
    assert not changed[:, :7].any()
