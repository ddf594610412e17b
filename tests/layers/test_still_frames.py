"""Videos of different lengths, padded to one length."""

import math

import pytest
import torch

from mmtrain.layers.still_frames import still_frames

MASK = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 0, 0]]).bool()


@pytest.mark.parametrize("num_frames", [3, 5])
def test_the_last_valid_frame_stands_still(num_frames: int) -> None:
    values = torch.arange(1.0, 13.0).reshape(4, 3, 1, 1)
    films = still_frames(values.masked_fill(~MASK[:, :, None, None], math.nan), MASK, num_frames)
    expected = [[1, 2, 3, 3, 3], [4, 5, 5, 5, 5], [8, 8, 8, 8, 8], [0, 0, 0, 0, 0]]
    assert films.shape == (4, num_frames, 1, 1)
    assert films.flatten(1).tolist() == [row[:num_frames] for row in expected]


def test_the_gradient_counts_how_often_a_frame_stands() -> None:
    values = torch.randn(4, 3, requires_grad=True)
    still_frames(values, MASK, 5).sum().backward()
    assert values.grad.tolist() == [[1, 1, 3], [1, 4, 0], [0, 5, 0], [0, 0, 0]]


def test_too_many_frames_are_refused_with_advice() -> None:
    message = "a video has 3 frames, but num_frames = 2; use 2 of them, or set num_frames to 3"
    with pytest.raises(ValueError, match=message):
        still_frames(torch.randn(4, 3), MASK, 2)
