"""The parts that SGE-Net and coherence priors share: sizes, the labels they take, losses of all scales by hand."""

from __future__ import annotations

import math

import pytest
import torch

from files.pictures import IGNORE
from jobs.layers.semantic import (
    SemanticEncoder,
    check_labels,
    class_probabilities,
    cross_entropy_of_all_scales,
    heads_of_all_scales,
    hole_cells,
    l1_of_all_scales,
)


def test_parameter_counts_are_those_of_the_tables():
    with torch.device("meta"):
        encoder, heads = SemanticEncoder(64), heads_of_all_scales(64, 20)
    assert sum(p.numel() for p in encoder.parameters()) == 25_844_288
    counts = [sum(p.numel() for p in head.parameters()) for head in heads]
    assert counts == [76_887, 150_615, 596_119, 2_371_863, 2_371_863]


def test_the_encoder_halves_four_times_and_does_not_read_the_hole():
    encoder = SemanticEncoder(2)
    image, mask = torch.rand(2, 3, 32, 48, requires_grad=True), torch.zeros(2, 1, 32, 48)
    mask[0, :, 5:20, 7:30] = 1
    features, skips = encoder(image, mask)
    assert [tuple(skip.shape[1:]) for skip in skips] == [(2, 32, 48), (4, 16, 24), (8, 8, 12), (16, 4, 6)]
    assert features.shape == (2, 16, 2, 3)
    (features.square().sum() + sum(skip.square().sum() for skip in skips)).backward()
    assert not (image.grad * mask).any()
    assert (image.grad * (1 - mask)).any()


@pytest.mark.parametrize("size", [(64, 60), (16, 16)])
def test_sizes_the_encoder_cannot_take_are_refused(size):
    with pytest.raises(ValueError, match="multiples of 16"):
        SemanticEncoder(2)(torch.zeros(1, 3, *size), torch.zeros(1, 1, *size))


def test_one_hole_pixel_makes_a_hole_cell():
    mask = torch.zeros(2, 1, 8, 16)
    mask[1, 0, 3, 15] = 1
    expected = torch.zeros(2, 1, 2, 4)
    expected[1, 0, 0, 3] = 1
    assert torch.equal(hole_cells(mask, 2), expected)
    assert torch.equal(hole_cells(mask, 0), mask)


def test_labels_beyond_the_classes_are_refused_and_ignored_ones_pass():
    labels = torch.tensor([[[0, 3], [IGNORE, 1]]])
    assert check_labels(labels, 4) is labels
    with pytest.raises(ValueError, match="label 3 is not below num_classes = 3"):
        check_labels(labels, 3)
    with pytest.raises(ValueError, match="label -1"):
        check_labels(labels - 1, 4)
    with pytest.raises(ValueError, match=r"batch\.semantics"):
        check_labels(None, 4)


def test_l1_is_the_sum_over_scales_at_full_size():
    predictions = {f"image{scale}": torch.full((1, 3, 32 >> scale, 32 >> scale), 0.1 * scale) for scale in range(5)}
    loss = l1_of_all_scales(predictions, torch.zeros(1, 3, 32, 32))
    torch.testing.assert_close(loss, torch.tensor(0.1 + 0.2 + 0.3 + 0.4))


def test_coarse_images_are_enlarged_bilinearly():
    predictions = {f"image{scale}": torch.zeros(1, 3, 2 * (16 >> scale), 16 >> scale) for scale in range(5)}
    predictions["image4"][:, :, 1] = 1  # rows 0 and 1 of two: centres at 8 and 24 of 32
    truth = torch.zeros(1, 3, 32, 16)
    truth[:] = ((torch.arange(32) + 0.5 - 8) / 16).clamp(0, 1).view(1, 1, 32, 1)
    fitting = {**predictions, **{f"image{scale}": torch.zeros(1, 3, 32, 16) for scale in range(4)}}
    torch.testing.assert_close(l1_of_all_scales(fitting, truth), 4 * truth.mean())


def test_cross_entropy_is_the_sum_over_scales_of_the_mean_over_labelled_pixels():
    labels = torch.full((2, 16, 32), IGNORE)
    labels[0, 0, :3] = 1
    logits = {f"logits{scale}": torch.zeros(2, 2, 16 >> scale, 32 >> scale, requires_grad=True) for scale in range(5)}
    shifted = {key: value + torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1) for key, value in logits.items()}
    loss = cross_entropy_of_all_scales(shifted, labels)
    assert loss.item() == pytest.approx(5 * -math.log(3 / 4))
    nothing = cross_entropy_of_all_scales(shifted, torch.full_like(labels, IGNORE))
    assert nothing == 0
    nothing.backward()
    assert all(not value.grad.any() for value in logits.values())


def test_probabilities_stay_in_float32_under_half_precision():
    logits = torch.randn(1, 4, 3, 3, dtype=torch.bfloat16)
    assert class_probabilities(logits).dtype == torch.float32
    assert class_probabilities(logits.double()).dtype == torch.float64
