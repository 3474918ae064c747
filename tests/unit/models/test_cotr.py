"""Deformable attention starts as the original does: each head in its own direction, points one to four cells away."""

import math

import torch

from models.baselines.cotr import HEADS, POINTS, DeformableAttention, centres, directions


def test_directions_by_hand():
    """Angles of 60 degrees: the first is (1, 0, 0); the fourth its opposite; the second (1/2, sin/2, 3/4) over 3/4."""
    found = directions()
    assert found.shape == (HEADS, 3)
    torch.testing.assert_close(found[0], torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(found[3], torch.tensor([-1.0, 0.0, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1], torch.tensor([0.5, math.sqrt(3) / 4, 0.75]) / 0.75)


def test_a_new_head_reads_the_cells_of_its_direction_equally():
    """The first head looks along x: of a ramp along x it reads the mean of one to four cells ahead."""
    attention = DeformableAttention(HEADS, 1)
    with torch.no_grad():
        attention.value.weight.copy_(torch.eye(HEADS))
        attention.out.weight.copy_(torch.eye(HEADS))
        ramp_BNC = torch.arange(12.0).expand(2, 2, 12).reshape(1, -1, 1).expand(-1, -1, HEADS)
        grid = torch.Size((2, 2, 12))
        found_BNC = attention(torch.randn(1, 48, HEADS), ramp_BNC, centres(grid, torch.device("cpu")), [grid])
    first_ZYX = found_BNC[0, :, 0].view(2, 2, 12)
    expected = torch.arange(12.0) + sum(range(1, POINTS + 1)) / POINTS
    torch.testing.assert_close(first_ZYX[..., :8], expected[:8].expand(2, 2, -1), atol=1e-4, rtol=0)
    assert first_ZYX[0, 0, 11] == 11  # beyond the border the border is read
