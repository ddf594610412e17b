"""One vector a modality, for fusions whose formula takes vectors, and what stands for one that a sample lacks."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from mmtrain.layers.pooling import MeanPool
from mmtrain.types import Features

MISSING = ("neutral", "learned")


class Vectors(nn.Module):
    """The mean of each modality's valid tokens, brought to mean 0 and variance 1 with a learned scale and shift.

    Args:
        dims: width by modality.
    """

    def __init__(self, dims: Mapping[str, int]) -> None:
        super().__init__()
        self.pool = MeanPool()
        self.norms = nn.ModuleDict({m: nn.LayerNorm(dims[m]) for m in sorted(dims)})

    def forward(self, features: Mapping[str, Features]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Map tokens (B, T_m, D_m) to vectors (B, D_m) and presence (B, 1), bool, by modality in sorted order.

        The vector of a row that lacks the modality is the norm's shift; it has to be replaced.
        """
        vectors = {m: norm(self.pool(features[m])) for m, norm in self.norms.items()}
        return vectors, {m: features[m].mask.any(dim=1, keepdim=True) for m in self.norms}


class Absent(nn.Module):
    """What stands in the place of a vector that a sample lacks.

    Args:
        modalities: which may be lacking.
        dim: width of the vectors.
        missing: neutral, for the number that changes nothing in the formula; learned, for a vector a modality that
            starts there.
        neutral: that number: 0 in a sum, 1 in a product.

    Raises:
        ValueError: for another `missing`.
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
        """The vector (B, D) where the modality is there, (B, 1) True; its replacement elsewhere."""
        if self.learned is None:
            return vector.masked_fill(~present, self.neutral)
        return torch.where(present, vector, self.learned[modality].to(vector.dtype))


def one_token(vector: Tensor, present: Mapping[str, Tensor]) -> Features:
    """A fused vector (B, D) as one token (B, 1, D), valid where any modality is there, by modality (B, 1)."""
    return Features(vector.unsqueeze(1), torch.cat(list(present.values()), dim=1).any(dim=1, keepdim=True)).cleared()
