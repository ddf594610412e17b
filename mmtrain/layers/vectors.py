"""One vector per modality, for fusions of vectors, and the replacement of missing ones."""

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mmtrain.layers.pooling import MeanPool
from mmtrain.types import Features

Missing = Literal["identity", "learned"]
MISSING: tuple[Missing, ...] = get_args(Missing)


class Vectors(nn.Module):
    """The mean of each modality's valid tokens, followed by a layer norm.

    Args:
        dims: feature width per modality.
    """

    def __init__(self, dims: Mapping[str, int]) -> None:
        super().__init__()
        self.pool = MeanPool()
        self.norms = nn.ModuleDict({m: nn.LayerNorm(dims[m]) for m in sorted(dims)})

    def forward(self, features: Mapping[str, Features]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Map tokens (B, T_m, D_m) to vectors (B, D_m) and presence (B, 1), bool, by modality in sorted order.

        If a modality is missing, its vector is the norm's bias and must be replaced.
        """
        vectors = {m: norm(self.pool(features[m])) for m, norm in self.norms.items()}
        return vectors, {m: features[m].mask.any(dim=1, keepdim=True) for m in self.norms}


class Absent(nn.Module):
    """Replacement of the vectors of missing modalities.

    Args:
        modalities: modalities that may be missing.
        dim: width of the vectors.
        missing: "identity" fills with the neutral element of the formula. "learned" is one learned vector per modality
            that starts there.
        neutral: the neutral element: 0 in a sum, 1 in a product.

    Raises:
        ValueError: for any other `missing`.
    """

    def __init__(self, modalities: Iterable[str], dim: int, *, missing: str, neutral: float) -> None:
        super().__init__()
        if missing not in MISSING:
            raise ValueError(f"missing = {missing}; set it to {' or '.join(MISSING)}")
        self.neutral = neutral
        self.learned: nn.ParameterDict | None = None
        if missing == "learned":
            self.learned = nn.ParameterDict({m: nn.Parameter(torch.full((dim,), neutral)) for m in sorted(modalities)})

    def forward(self, modality: str, vector: Tensor, present: Tensor) -> Tensor:
        """Return the vector (B, D) where `present` (B, 1) is True, and its replacement elsewhere."""
        if self.learned is None:
            return vector.masked_fill(~present, self.neutral)
        return torch.where(present, vector, self.learned[modality].to(vector.dtype))


def one_token(vector: Tensor, present: Mapping[str, Tensor]) -> Features:
    """Return a fused vector (B, D) as one token (B, 1, D), valid where any modality is present, (B, 1) by modality."""
    return Features(vector.unsqueeze(1), torch.cat(list(present.values()), dim=1).any(dim=1, keepdim=True)).cleared()
