"""Films of a fixed number of frames from films that have fewer: the last frame stands still."""

import torch
from torch import Tensor


def still_frames(values: Tensor, mask: Tensor, num_frames: int) -> Tensor:
    """Bring films to one length: the valid frames of each, then its last valid one again and again.

    Args:
        values: (B, F, ...); what stands under a False mask is not read.
        mask: (B, F), bool, True where a frame is valid, wherever that is.
        num_frames: wanted.

    Returns:
        (B, num_frames, ...); zeros for a film without a valid frame.

    Raises:
        ValueError: for a batch with more frames than are wanted.
    """
    if values.shape[1] > num_frames:
        raise ValueError(
            f"a film of {values.shape[1]} frames, but num_frames = {num_frames};"
            f" take {num_frames} of them, or set num_frames to {values.shape[1]}"
        )
    there = mask.int().argsort(dim=1, descending=True, stable=True)  # the valid ones come first
    last = mask.sum(dim=1, keepdim=True).clamp(min=1) - 1
    places = torch.arange(num_frames, device=values.device).minimum(last)  # (B, num_frames)
    clean = values.masked_fill(~mask.reshape(*mask.shape, *[1] * (values.ndim - 2)), 0)
    rows = torch.arange(len(values), device=values.device).unsqueeze(1)
    return clean[rows, there.gather(1, places)]
