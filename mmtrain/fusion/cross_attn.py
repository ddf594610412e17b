"""Fusion by cross-attention: the tokens of each modality read those of all the others (as in LXMERT, 1908.07490).

Where the paper fixes two modalities, the others are read here as one sequence, so that any number works; with one
modality alone a block is self-attention. A modality that a sample lacks is not read (its mask is False); tokens that
find nothing to read keep their own value.
"""

import torch
from torch import Tensor, nn

from mmtrain.layers.attention import CrossAttention
from mmtrain.layers.block import Block
from mmtrain.types import Features


class CrossAttn(nn.Module):
    """Layers of cross-attention followed by a self-attention block for each modality.

    Args:
        dims: width by modality.
        dim: width of the fused tokens; each modality is projected to it.
        depth: number of layers.
        num_heads: attention heads, divides `dim`.
        mlp_ratio: hidden width of a block's MLP over `dim`.
        dropout: of what attention and MLP add.
    """

    def __init__(
        self, *, dims: dict[str, int], dim: int, depth: int, num_heads: int, mlp_ratio: float, dropout: float
    ) -> None:
        super().__init__()
        self.dim = dim
        self.modalities = sorted(dims)
        self.projections = nn.ModuleDict({m: nn.Linear(dims[m], dim) for m in self.modalities})
        self.kinds = nn.ParameterDict({m: nn.Parameter(torch.randn(dim) * 0.02) for m in self.modalities})
        self.layers = nn.ModuleList(
            CrossLayer(modalities=self.modalities, dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse tokens (B, T_m, D_m) of every modality into (B, sum of T_m, dim), in the sorted order of modalities."""
        masks = {m: features[m].mask for m in self.modalities}
        tokens = {m: self.projections[m](features[m].cleared().tokens) + self.kinds[m] for m in self.modalities}
        for layer in self.layers:
            tokens = layer(tokens, masks)
        together = torch.cat([tokens[m] for m in self.modalities], dim=1)
        mask = torch.cat([masks[m] for m in self.modalities], dim=1)
        return Features(self.norm(together), mask).cleared()


class CrossLayer(nn.Module):
    """Each modality reads the others, then itself."""

    def __init__(self, *, modalities: list[str], dim: int, num_heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.reading = len(modalities) > 1
        if self.reading:
            self.norms = nn.ModuleDict({m: nn.LayerNorm(dim) for m in modalities})
            self.drop = nn.Dropout(dropout)
            self.cross = nn.ModuleDict({m: CrossAttention(dim=dim, num_heads=num_heads) for m in modalities})
        self.blocks = nn.ModuleDict(
            {m: Block(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout) for m in modalities}
        )

    def forward(self, tokens: dict[str, Tensor], masks: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map tokens (B, T_m, D), masks (B, T_m) to tokens of the same shapes."""
        if self.reading:
            normed = {m: self.norms[m](x) for m, x in tokens.items()}
            tokens = {m: x + self.drop(self._read(m, normed, masks)) for m, x in tokens.items()}
        return {m: self.blocks[m](x, masks[m]) for m, x in tokens.items()}

    def _read(self, modality: str, normed: dict[str, Tensor], masks: dict[str, Tensor]) -> Tensor:
        others = [m for m in normed if m != modality]
        context = torch.cat([normed[m] for m in others], dim=1)
        mask = torch.cat([masks[m] for m in others], dim=1)
        return self.cross[modality](normed[modality], context, mask)
