"""Each shared loss against a number worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from files.pictures import IGNORE
from jobs.recipe import losses


def test_bce_by_hand():
    logits = torch.tensor([0.0, math.log(3)])  # D = 1/2 and 3/4
    assert losses.bce_real(logits).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2, rel=1e-6)
    assert losses.bce_fake(logits).item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-6)
    assert losses.bce_real(torch.tensor([-200.0])).item() == pytest.approx(200)


def test_bce_equals_pytorchs_on_logits():
    bce, logits = torch.nn.functional.binary_cross_entropy_with_logits, torch.randn(4, 1, 5, 5)
    torch.testing.assert_close(losses.bce_real(logits), bce(logits, torch.ones_like(logits)))
    torch.testing.assert_close(losses.bce_fake(logits), bce(logits, torch.zeros_like(logits)))


def test_hinge_by_hand():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.5])
    assert (losses.hinge_real(real) + losses.hinge_fake(fake)).item() == pytest.approx(0.5 / 2 + 1.5 / 2)
    assert losses.hinge_generator(fake).item() == pytest.approx(1.25)


def test_perceptual_sums_means_over_layers():
    features = [torch.zeros(2, 1, 2, 2), torch.zeros(2, 3, 1, 1)]
    targets = [torch.full((2, 1, 2, 2), -2.0), torch.tensor([0.0, 0.0, 3.0]).view(1, 3, 1, 1).expand(2, 3, 1, 1)]
    assert losses.perceptual(features, targets).item() == pytest.approx(2 + 1)


def test_layers_of_another_number_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        losses.perceptual([torch.zeros(1, 1, 1, 1)] * 2, [torch.zeros(1, 1, 1, 1)])


def test_feature_matching_sends_no_gradient_to_the_real_side():
    fake = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2).requires_grad_()
    real = torch.tensor([2.0, 0.0]).view(1, 1, 1, 2).requires_grad_()
    loss = losses.feature_matching([fake], [real])
    assert loss.item() == pytest.approx(2)
    loss.backward()
    assert fake.grad.flatten().tolist() == [-0.5, 0.5]
    assert real.grad is None


def test_gram_by_hand():
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 2, 1, 2)  # channels (1, 2) and (3, 4); C H W = 4
    assert (4 * losses.gram(features)).tolist() == [[[5.0, 11.0], [11.0, 25.0]]]


def test_gram_keeps_float32_under_autocast():
    features = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = losses.gram(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(losses.gram(features), expected)


def test_style_by_hand():
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 2, 1, 2)
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    # |Gram difference| * 4: (5 - 1), (11 - 0) twice, (25 - 1); mean of four
    assert losses.style([features], [targets]).item() == pytest.approx((4 + 11 + 11 + 24) / 4 / 4)
    assert losses.style([features] * 2, [targets] * 2).item() == pytest.approx(2 * 12.5 / 4)


def test_style_ignores_where_things_are():
    features = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert losses.style([features], [features.flip(3)]).item() == pytest.approx(0, abs=1e-7)


def test_cross_entropy_is_a_mean_over_labelled_pixels():
    logits = torch.zeros(2, 4, 1, 2)
    logits[0, 1, 0, 0] = math.log(5)  # p = 5/8 there, 1/4 elsewhere
    labels = torch.tensor([[[1, 0]], [[IGNORE, IGNORE]]])
    assert losses.cross_entropy(logits, labels).item() == pytest.approx((math.log(8 / 5) + math.log(4)) / 2, rel=1e-6)
    logits.requires_grad_()
    nothing = losses.cross_entropy(logits, torch.full_like(labels, IGNORE))
    assert nothing.item() == 0
    nothing.backward()
    assert not logits.grad.any()
