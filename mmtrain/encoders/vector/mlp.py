"""An MLP for a vector of numbers: several tokens from one vector."""

from itertools import pairwise

from torch import Tensor, nn

from mmtrain.annotations import Depth, Fraction, Size
from mmtrain.types import Features


class VectorMLP(nn.Module):
    """Hidden layers with GELU, a projection to several tokens, final norm.

    Args:
        in_dim: number of input values, taken from the data.
        dim: width of the tokens.
        num_tokens: number of tokens; with several, an attention fusion can read different aspects of the vector.
        hidden_dim: width of the hidden layers.
        depth: number of hidden layers; 0 for a linear map.
        dropout: dropout probability after each hidden layer.
    """

    def __init__(
        self,
        *,
        in_dim: int,
        dim: Size,
        num_tokens: Size,
        hidden_dim: Size,
        depth: Depth,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.num_tokens = num_tokens
        widths = [in_dim, *[hidden_dim] * depth]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.GELU(), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.proj = nn.Linear(widths[-1], num_tokens * dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return an empty stem, then the hidden layers."""
        return [(), *((layer,) for layer in self.hidden if isinstance(layer, nn.Linear))]

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Features:
        """Encode rows of numbers.

        Args:
            values: (B, in_dim), floating point, scaled.
            mask: unused; a vector has no padding.

        Returns:
            tokens (B, num_tokens, dim); all are valid.
        """
        x = self.proj(self.hidden(values)).unflatten(1, (self.num_tokens, self.dim))
        x = self.norm(x)
        return Features(x, x.new_ones(x.shape[:2]).bool())
