"""A feature map as a sequence of tokens, row by row."""

from torch import Tensor


def map_tokens(x: Tensor) -> Tensor:
    """Map (B, C, H, W) to (B, H * W, C).

    The gradient is made contiguous in the memory order of the map. With a batch of one, PyTorch's batch norm on the CPU
    misreads a gradient in token order (seen in 2.14), and the gradients below it are wrong without any error.
    """
    if x.requires_grad:
        x.register_hook(lambda gradient: gradient.contiguous())
    return x.flatten(2).transpose(1, 2)
