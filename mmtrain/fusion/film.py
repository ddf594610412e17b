"""Feature-wise linear modulation (FiLM, 1709.07871, eq. 1 and 2): the other modalities scale and shift one of them.

    FiLM(x) = gamma * x + beta,   gamma = prod_m (1 + g_m),   beta = sum_m h_m,   [g_m; h_m] = W_m c_m + b_m

x are the tokens of the base modality, c_m is the vector of another modality, and * is per channel. The paper has one
conditioning modality. With several, the gammas multiply and the betas add, so each modality modulates independently. As
in the paper, gamma is learned as its difference from 1, and a layer is a residual block: h = relu(A x), y = h +
relu(FiLM(n(C h))). Two differences: A and C are linear maps per token (convolutions in the paper), and n is a layer
norm without scale. The paper's batch norm would make samples depend on each other.

A missing conditioning modality modulates nothing: gamma = 1, beta = 0. If the base modality is missing, one learned
token in the first position replaces it, and the others modulate it. In all other samples this token is not used.
"""

from functools import reduce
from operator import add, mul

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmtrain.annotations import Depth, Fraction, Size
from mmtrain.layers.streams import check_counts
from mmtrain.layers.vectors import Vectors
from mmtrain.types import Features

BASE = "text"


class FiLM(nn.Module):
    """The tokens of one modality after layers that all other modalities modulate.

    Args:
        dims: feature width per modality; two modalities or more.
        dim: width of the fused tokens; the base modality is projected to it.
        base: the modality that is modulated. None means text if present, else the first by name.
        depth: number of layers.
        dropout: dropout probability on the output of a layer's modulated branch.

    Raises:
        ValueError: for a single modality, a `base` that is not a modality, or a `depth` below 1.
    """

    def __init__(self, *, dims: dict[str, int], dim: Size, base: str | None, depth: Depth, dropout: Fraction) -> None:
        super().__init__()
        check_counts({"depth": depth})
        self.dim = dim
        self.base = find_base(sorted(dims), base)
        others = {m: dims[m] for m in sorted(dims) if m != self.base}
        self.projection = nn.Linear(dims[self.base], dim)
        self.stand_in = nn.Parameter(torch.randn(dim) * 0.02)
        self.vectors = Vectors(others)
        self.layers = nn.ModuleList(FiLMLayer(dims=others, dim=dim, dropout=dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: dict[str, Features]) -> Features:
        """Map tokens (B, T_m, D_m) of every modality to fused tokens of the base modality, (B, T_base, dim)."""
        vectors, present = self.vectors(features)
        tokens, mask = self._stood_in(features[self.base], torch.cat(list(present.values()), dim=1))
        for layer in self.layers:
            tokens = layer(tokens, vectors, present)
        return Features(self.norm(tokens), mask).cleared()

    def _stood_in(self, base: Features, others: Tensor) -> Features:
        """Project the base. Where only `others` (B, M) are present, its first token is the learned stand-in."""
        first = torch.arange(base.mask.shape[1], device=base.mask.device) == 0
        uses_stand_in = first & others.any(dim=1, keepdim=True) & ~base.mask.any(dim=1, keepdim=True)  # (B, T)
        tokens = self.projection(base.cleared().tokens)
        stand_in = self.stand_in.to(tokens.dtype)
        return Features(torch.where(uses_stand_in.unsqueeze(-1), stand_in, tokens), base.mask | uses_stand_in)


class FiLMLayer(nn.Module):
    """A residual block per token whose branch is modulated.

    Args:
        dims: width of the conditioning vectors per modality.
        dim: width of the tokens.
        dropout: dropout probability on the output of the branch.
    """

    def __init__(self, *, dims: dict[str, int], dim: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, dim)
        self.outer = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.generators = nn.ModuleDict({m: nn.Linear(width, 2 * dim) for m, width in dims.items()})
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, vectors: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        """Map (B, T, dim) to (B, T, dim), given vectors (B, D_m) and presence (B, 1) per modality."""
        hidden = F.relu(self.inner(tokens))
        made = [g(vectors[m]).masked_fill(~present[m], 0.0).unsqueeze(1) for m, g in self.generators.items()]
        changes, shifts = zip(*(both.chunk(2, dim=-1) for both in made), strict=True)  # of each modality (B, 1, dim)
        gamma, beta = reduce(mul, [1.0 + change for change in changes]), reduce(add, shifts)
        return hidden + self.drop(F.relu(gamma * self.norm(self.outer(hidden)) + beta))


def find_base(modalities: list[str], base: str | None) -> str:
    """Return the modality that is modulated.

    Raises:
        ValueError: if there is only one modality, or if `base` is not one of the modalities.
    """
    if len(modalities) < 2:
        raise ValueError(f"nothing can modulate {modalities[0]}, the only modality; choose fusion=concat")
    if base is None:
        return BASE if BASE in modalities else modalities[0]
    if base not in modalities:
        raise ValueError(
            f"base = {base}, but the modalities are {', '.join(modalities)}; set it to one of them or null"
        )
    return base
