"""A feature map as tokens, row by row."""

from torch import Tensor


def map_tokens(x: Tensor) -> Tensor:
    """Map (B, C, H, W) to (B, H * W, C).

    The gradient comes back in the memory order of the map: for a batch of one, torch's batch norm on the CPU reads one
    in the order of the tokens wrongly (seen in 2.14), and the gradients below it are wrong without a word.
    """
    if x.requires_grad:
        x.register_hook(lambda gradient: gradient.contiguous())
    return x.flatten(2).transpose(1, 2)
