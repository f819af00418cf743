import pytest
import torch

from jobs.layers.feature_mask import shrink_by_vote


def square(first: int, last: int, size: int = 256) -> torch.Tensor:
    mask = torch.zeros(1, 1, size, size)
    mask[..., first : last + 1, first : last + 1] = 1
    return mask


def test_the_papers_centre_hole_has_252_cells():
    cells = shrink_by_vote(square(68, 187))
    assert cells.sum() == 252
    assert cells[0, 0].any(dim=1).nonzero().flatten().tolist() == list(range(8, 24))
    assert not cells[0, 0, 8, 8]  # 256 less the four corners


def test_an_aligned_hole_keeps_its_cells():
    expected = torch.zeros(1, 1, 32, 32)
    expected[..., 8:24, 8:24] = 1
    assert torch.equal(shrink_by_vote(square(64, 191)), expected)


def test_a_stroke_of_three_pixels_vanishes():
    mask = torch.zeros(1, 1, 256, 256)
    mask[..., 100:103, :] = 1
    assert not shrink_by_vote(mask).any()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks_stay_so(value):
    assert (shrink_by_vote(torch.full((2, 1, 64, 96), value)) == value).all()


@pytest.mark.parametrize(("height", "width"), [(32, 48), (40, 16)])
def test_cells_are_those_of_the_written_out_averages(height, width):
    density = torch.tensor((0.4, 0.6)).view(2, 1, 1, 1)
    mask = (torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(0)) < density).float()
    votes = mask[:, 0].tolist()
    for _ in range(3):
        votes = [
            [
                [
                    sum(rows[y][x] for y in range(2 * i - 1, 2 * i + 3) for x in range(2 * j - 1, 2 * j + 3)
                        if 0 <= y < len(rows) and 0 <= x < len(rows[0])) / 16
                    for j in range(len(rows[0]) // 2)
                ]
                for i in range(len(rows) // 2)
            ]
            for rows in votes
        ]  # fmt: skip
    expected = (torch.tensor(votes)[:, None] > 5 / 16).float()
    assert 0 < expected.mean() < 1
    assert torch.equal(shrink_by_vote(mask), expected)


def test_a_cell_at_the_threshold_is_known():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 3, 3:7] = mask[..., 4, 3] = 1  # five pixels of the 4x4 around cell (2, 2)
    assert shrink_by_vote(mask, times=1)[0, 0, 2, 2] == 0
    assert shrink_by_vote(mask, times=1, threshold=4.9 / 16)[0, 0, 2, 2] == 1
