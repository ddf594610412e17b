"""Videos with a fixed number of frames from shorter videos: the last frame is repeated."""

import torch
from torch import Tensor


def still_frames(values: Tensor, mask: Tensor, num_frames: int) -> Tensor:
    """Pad videos to one length: the valid frames of each, then repetitions of the last valid frame.

    Args:
        values: (B, F, ...); values under a False mask are not used.
        mask: (B, F), bool, True where a frame is valid, at any position.
        num_frames: target number of frames.

    Returns:
        (B, num_frames, ...); zeros for a video without a valid frame.

    Raises:
        ValueError: if the batch has more frames than `num_frames`.
    """
    if values.shape[1] > num_frames:
        raise ValueError(
            f"a video has {values.shape[1]} frames, but num_frames = {num_frames};"
            f" use {num_frames} of them, or set num_frames to {values.shape[1]}"
        )
    order = mask.int().argsort(dim=1, descending=True, stable=True)  # valid frames first
    last = mask.sum(dim=1, keepdim=True).clamp(min=1) - 1
    places = torch.arange(num_frames, device=values.device).minimum(last)  # (B, num_frames)
    clean = values.masked_fill(~mask.reshape(*mask.shape, *[1] * (values.ndim - 2)), 0)
    rows = torch.arange(len(values), device=values.device).unsqueeze(1)
    return clean[rows, order.gather(1, places)]
