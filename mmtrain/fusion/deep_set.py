"""Fusion as a set of tokens (Deep Sets, 1703.06114, theorem 2): invariant to the order of the tokens.

    y = rho(sum over all valid tokens x of all modalities of phi_m(x))

The mean over those tokens can replace the sum. phi_m is one hidden layer per modality, which maps tokens of different
widths to one space. rho is an MLP. The paper has one kind of element; here there is one kind per modality. A missing
modality has no tokens in the set and adds nothing.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mmtrain.annotations import Fraction, Size
from mmtrain.layers.mlp import MLP
from mmtrain.types import Features

Pool = Literal["sum", "mean"]
POOLS: tuple[Pool, ...] = get_args(Pool)


class DeepSet(nn.Module):
    """One fused token: the sum or the mean of all tokens, each after a hidden layer.

    Args:
        dims: feature width per modality.
        dim: width of the fused token.
        hidden_dim: width in which tokens are added, also the hidden width of the MLP after it.
        pool: "sum", which grows with the number of tokens, or "mean" over all valid tokens of all modalities.
        dropout: dropout probability in the MLP.

    Raises:
        ValueError: for any other `pool`.
    """

    def __init__(self, *, dims: dict[str, int], dim: Size, hidden_dim: Size, pool: Pool, dropout: Fraction) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"pool = {pool}; set it to {' or '.join(POOLS)}")
        self.dim = dim
        self.pool = pool
        self.modalities = sorted(dims)
        self.phi = nn.ModuleDict(
            {m: nn.Sequential(nn.LayerNorm(d), nn.Linear(d, hidden_dim), nn.GELU()) for m, d in sorted(dims.items())}
        )
        self.rho = MLP(dim=hidden_dim, hidden_dim=hidden_dim, out_dim=dim, dropout=dropout)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse tokens (B, T_m, D_m) of every modality to one token (B, 1, dim), valid where any modality is present."""
        joint = torch.stack([self._added(m, features[m]) for m in self.modalities]).sum(dim=0)
        count = torch.stack([features[m].mask.sum(dim=1, keepdim=True) for m in self.modalities]).sum(dim=0)  # (B, 1)
        if self.pool == "mean":
            joint = joint / count.clamp(min=1)
        return Features(self.rho(joint).unsqueeze(1), count > 0).cleared()

    def _added(self, modality: str, features: Features) -> Tensor:
        tokens, mask = features.cleared()
        return Features(self.phi[modality](tokens), mask).cleared().tokens.sum(dim=1)
