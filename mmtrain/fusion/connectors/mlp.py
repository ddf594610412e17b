"""Two linear layers with a GELU between them, applied to each token (LLaVA-1.5, 2310.03744, 3.2)."""

from torch import nn

from mmtrain.annotations import Size
from mmtrain.layers.mlp import MLP
from mmtrain.types import Features


class MLPConnector(nn.Module):
    """An MLP per token; the number of tokens does not change.

    Args:
        in_dim: width of the encoder's tokens.
        dim: width of the language model, also the hidden width.
    """

    def __init__(self, *, in_dim: int, dim: Size) -> None:
        super().__init__()
        self.mlp = MLP(dim=in_dim, hidden_dim=dim, out_dim=dim)

    def forward(self, features: Features) -> Features:
        """Map tokens (B, T, in_dim), mask (B, T) to (B, T, dim), (B, T)."""
        tokens, mask = features.cleared()
        return Features(self.mlp(tokens), mask)
