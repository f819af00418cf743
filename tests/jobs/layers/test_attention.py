import pytest
import torch

from benchmarks import plain
from benchmarks.loops.contextual_attention import contextual_attention
from jobs.layers.attention import ContextualAttention


@pytest.mark.parametrize("pool", ["nearest", "max"])
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(("h", "w"), [(3, 5), (5, 2)])
def test_the_batched_layer_agrees_with_a_loop_over_its_equations(h, w, fuse, pool):
    generator = torch.Generator().manual_seed(3)
    features = 0.3 * torch.randn(3, 2, 2 * h, 2 * w, generator=generator, dtype=torch.float64)
    features.requires_grad_()
    mask = torch.zeros(3, 1, 8 * h, 8 * w, dtype=torch.float64)
    mask[0, :, :3, :5] = 1  # one corner cell
    mask[1, :, 8 * (h - 1) + 3 :, 8 * (w - 1) + 2 :] = 1  # a hole that "nearest" does not see
    # the third sample has no hole

    layer = ContextualAttention(fuse=fuse, softmax_scale=2.0, mask_pool=pool)
    fast = layer(features, features, mask)
    slow = contextual_attention(features, mask, fuse=fuse, scale=2.0, pool=pool)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)

    cotangent = torch.randn(fast.shape, generator=generator, dtype=torch.float64)
    (fast_gradient,) = torch.autograd.grad(fast, features, cotangent)
    (slow_gradient,) = torch.autograd.grad(slow, features, cotangent)
    torch.testing.assert_close(fast_gradient, slow_gradient, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("fuse", [True, False])
def test_without_a_hole_it_is_the_identity_away_from_the_border(fuse):
    features = torch.randn(2, 96, 12, 20, generator=torch.Generator().manual_seed(0))
    output = ContextualAttention(fuse=fuse)(features, features, torch.zeros(2, 1, 48, 80))
    factor = torch.ones(12, 20)
    factor[[0, -1], :] *= 0.5
    factor[:, [0, -1]] *= 0.5
    torch.testing.assert_close(output, features * factor, rtol=1e-4, atol=1e-4)


def test_masked_cells_get_no_weight_and_rows_sum_to_at_most_one():
    features = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, :, 16:40, 16:40] = 1  # cells 2 to 4; with their neighbours, 1 to 5
    weights = ContextualAttention().weights(features, features, mask).view(2, 64, 8, 8)
    assert not weights[0, :, 1:6, 1:6].any()
    assert weights[0, :, 0].sum() > 0
    assert weights[1].sum(dim=(1, 2)).allclose(torch.ones(64))
    assert (weights.sum(dim=(2, 3)) <= 1 + 1e-5).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks_give_finite_gradients(value):
    features = torch.randn(2, 4, 8, 8).requires_grad_()
    output = ContextualAttention()(features, features, torch.full((2, 1, 32, 32), value))
    if value == 1:
        assert not output.any()
    output.sum().backward()
    assert features.grad.isfinite().all()


def test_constant_zero_features_give_finite_gradients():
    features = torch.zeros(1, 4, 8, 8, requires_grad=True)
    ContextualAttention()(features, features, torch.zeros(1, 1, 32, 32)).sum().backward()
    assert features.grad.isfinite().all()


def test_max_keeps_a_stroke_that_nearest_loses():
    features = torch.randn(1, 4, 16, 16)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 25:31] = 1  # between the samples 24 and 32
    lost = ContextualAttention(mask_pool="nearest").weights(features, features, mask).view(64, 8, 8)
    kept = ContextualAttention(mask_pool="max").weights(features, features, mask).view(64, 8, 8)
    assert lost[:, :, 3].any()
    assert not kept[:, :, 2:5].any()


def test_a_sample_does_not_depend_on_the_masks_of_others():
    features = torch.randn(2, 4, 8, 8)
    mask = torch.zeros(2, 1, 32, 32)
    mask[1, :, 8:16, 8:16] = 1
    both = ContextualAttention()(features, features, mask)
    alone = ContextualAttention()(features[1:], features[1:], mask[1:])
    torch.testing.assert_close(both[1:], alone)


def test_scores_are_computed_in_single_precision_under_autocast():
    features = torch.randn(1, 32, 8, 8)
    mask = torch.zeros(1, 1, 32, 32)
    expected = ContextualAttention()(features, features, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(ContextualAttention()(features, features, mask), expected)


def test_sizes_that_do_not_fit_are_refused():
    layer = ContextualAttention()
    with pytest.raises(ValueError, match="even sides"):
        layer(torch.zeros(1, 2, 7, 8), torch.zeros(1, 2, 7, 8), torch.zeros(1, 1, 28, 32))
    with pytest.raises(ValueError, match="mask must be"):
        layer(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 32, 36))
    with pytest.raises(ValueError, match="mask_pool"):
        ContextualAttention(mask_pool="mean")


def test_it_agrees_with_convolutions_and_has_no_denormal_shares():
    """The plain form is what benchmarks.steps times; denormal shares slow products of matrices down tenfold."""
    features = torch.randn(2, 16, 24, 24, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 1, 96, 96)
    mask[:, :, 20:50, 30:80] = 1
    layer = ContextualAttention()
    torch.testing.assert_close(layer(features, features, mask), plain.contextual_attention(features, mask))

    shares = layer.weights(features, features, mask)
    assert shares[shares > 0].min() > 1e-21
