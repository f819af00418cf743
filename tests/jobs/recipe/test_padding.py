import numpy as np
import pytest
import torch

from jobs.recipe.padding import crop, pad_to_multiple


def test_padding_mirrors_below_and_on_the_right():
    image = torch.randn(2, 3, 13, 22)
    padded = pad_to_multiple(image, 8)
    expected = np.pad(image.numpy(), ((0, 0), (0, 0), (0, 3), (0, 2)), mode="reflect")
    assert np.array_equal(padded.numpy(), expected)


def test_crop_undoes_padding():
    image = torch.randn(1, 3, 13, 22)
    assert torch.equal(crop(pad_to_multiple(image, 8), 13, 22), image)


def test_a_fitting_tensor_is_returned_as_it_is():
    image = torch.randn(1, 3, 16, 24)
    assert pad_to_multiple(image, 8) is image


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 9), (9, 3), (4, 8), (5, 8)])
def test_tiny_images_are_padded_by_repetition_where_they_cannot_be_mirrored(height, width):
    image = torch.randn(1, 3, height, width)
    padded = pad_to_multiple(image, 8)
    assert padded.shape[-2] % 8 == padded.shape[-1] % 8 == 0
    assert torch.equal(crop(padded, height, width), image)
    if (height, width) == (4, 8):  # four rows to add, only three can be mirrored
        assert torch.equal(padded[..., 4:, :], image[..., 3:, :].expand(-1, -1, 4, -1))
    if (height, width) == (5, 8):
        assert torch.equal(padded[..., 5:, :], image[..., 1:4, :].flip(-2))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        pad_to_multiple(torch.zeros(3, 8, 8), 8)
    with pytest.raises(ValueError, match="at least 1"):
        pad_to_multiple(torch.zeros(1, 3, 8, 8), 0)
