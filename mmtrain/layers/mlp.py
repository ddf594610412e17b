"""The feed-forward layer of a Transformer block."""

from torch import Tensor, nn


class MLP(nn.Module):
    """Linear, GELU, Linear. Parameter names are those of timm (`fc1`, `fc2`)."""

    def __init__(self, *, dim: int, hidden_dim: int, out_dim: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.drop = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden_dim, out_dim or dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., out_dim)."""
        return self.fc2(self.drop(self.act(self.fc1(x))))
