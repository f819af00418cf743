import pytest
import torch

from benchmarks.loops.windows import around_hole, cut
from jobs.layers.windows import crop_windows, window_around_hole


def holes(height: int, width: int) -> torch.Tensor:
    """Random boxes, one over a corner, one larger than any window, one of a single pixel, none, and everything."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(12, 1, height, width)
    for sample in mask[:8]:
        top = int(torch.randint(height - 6, (), generator=generator))
        left = int(torch.randint(width - 6, (), generator=generator))
        sample[:, top : top + 5, left : left + 6] = 1
    mask[8, :, -3:, :2] = 1
    mask[9, :, 2:-1, 1:-2] = 1
    mask[10, :, 7, 4] = 1
    return torch.cat([mask, torch.ones(1, 1, height, width)])


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("height", "width"), [(15, 22), (20, 11)])
def test_windows_and_their_gradients_agree_with_a_loop_over_pixels(height, width, size):
    mask = holes(height, width)
    starts = window_around_hole(mask, size)
    assert starts.tolist() == around_hole(mask, size)
    image = torch.randn(len(mask), 3, height, width, dtype=torch.float64, requires_grad=True)
    fast, slow = crop_windows(image, starts, size), cut(image, starts.tolist(), size)
    assert torch.equal(fast, slow)
    cotangent = torch.randn_like(fast)
    gradients = [torch.autograd.grad(cropped, image, cotangent)[0] for cropped in (fast, slow)]
    assert torch.equal(*gradients)


def test_a_window_holds_every_box_that_fits_into_it():
    mask = holes(15, 22)[:9]
    inside = crop_windows(mask, window_around_hole(mask, 7), 7)
    assert torch.equal(inside.sum((1, 2, 3)), mask.sum((1, 2, 3)))


def test_a_window_is_centred_where_nothing_hinders_it():
    mask = torch.zeros(2, 1, 20, 30)
    mask[0, :, 9:12, 13:18] = 1  # centres: row 10, column 15
    starts = window_around_hole(mask, 7)
    assert starts[0].tolist() == [10 - 3, 15 - 3]
    assert starts[1].tolist() == [6, 11]  # no hole: the middle


def test_a_window_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        window_around_hole(torch.zeros(1, 1, 16, 9), 10)
    with pytest.raises(ValueError, match="does not fit"):
        crop_windows(torch.zeros(1, 1, 16, 9), torch.zeros(1, 2, dtype=torch.long), 10)
