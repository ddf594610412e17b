"""Block-superdiagonal fusion (BLOCK, 1902.00038): one small bilinear map per chunk of the projections.

    q_m = W_m x_m in chunks q_m^1 ... q_m^C,   z^c = sum_r  (A_1^{c,r} q_1^c) * ... * (A_M^{c,r} q_M^c),
    y = W [n(z^1); ...; n(z^C)] + b     (* is elementwise, n = l2norm of the signed square root)

This is a block-term decomposition of the bilinear tensor. Every slice of a block has a rank of at most `rank`. The norm
per chunk follows the authors' code. One chunk equals MUTAN with a norm. The paper has two modalities; here the product
takes any number. With one modality, z^c is linear in x. A missing modality contributes a factor of ones, which leaves
the product of the others unchanged.
"""

from functools import reduce
from operator import mul

from torch import Tensor, nn

from mmtrain.annotations import Fraction, Size
from mmtrain.layers.power_norm import power_norm
from mmtrain.layers.vectors import Absent, Missing, Vectors, one_token
from mmtrain.types import Features


class BlockFusion(nn.Module):
    """One fused token from chunks, each a normalized sum of products.

    Args:
        dims: feature width per modality.
        dim: width of the fused token.
        joint_dim: width of each projection, and of all chunks together.
        num_chunks: number of chunks; `joint_dim` / `num_chunks` must be an integer of at least 2.
        rank: number of products that are summed in a chunk.
        dropout: dropout probability on the chunks, after their norm.
        missing: replaces the factors of a missing modality, see `Absent`; identity means ones.

    Raises:
        ValueError: if `num_chunks` does not divide `joint_dim` into chunks of at least 2.
    """

    def __init__(
        self,
        *,
        dims: dict[str, int],
        dim: Size,
        joint_dim: Size,
        num_chunks: Size,
        rank: Size,
        dropout: Fraction,
        missing: Missing,
    ) -> None:
        super().__init__()
        check_chunks(joint_dim, num_chunks)
        self.dim = dim
        self.shape = (num_chunks, rank, joint_dim // num_chunks)
        self.vectors = Vectors(dims)
        self.projections = nn.ModuleDict({m: nn.Linear(dims[m], joint_dim) for m in sorted(dims)})
        self.core = nn.ModuleDict({m: ChunkLinear(joint_dim, rank * joint_dim, num_chunks) for m in sorted(dims)})
        self.absent = Absent(dims, rank * joint_dim, missing=missing, neutral=1.0)
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(joint_dim, dim)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse tokens (B, T_m, D_m) of every modality to one token (B, 1, dim), valid where any modality is present."""
        vectors, present = self.vectors(features)
        sides = [self.absent(m, self.core[m](self.projections[m](v)), present[m]) for m, v in vectors.items()]
        chunks = reduce(mul, sides).unflatten(-1, self.shape).sum(dim=2)  # (B, num_chunks, joint_dim / num_chunks)
        return one_token(self.out(self.drop(power_norm(chunks).flatten(1))), present)


class ChunkLinear(nn.Module):
    """A separate linear layer per chunk of a vector, computed as a grouped convolution of kernel size 1."""

    def __init__(self, dim: int, out_dim: int, num_chunks: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, out_dim, kernel_size=1, groups=num_chunks)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim) to (B, out_dim), outputs of the first chunk first."""
        return self.conv(x.unsqueeze(2)).squeeze(2)


def check_chunks(joint_dim: int, num_chunks: int) -> None:
    """Check that the chunks have equal width of at least 2. The norm would reduce a chunk of width 1 to its sign.

    Raises:
        ValueError: with the nearest valid values of `num_chunks`.
    """
    if num_chunks >= 1 and joint_dim % num_chunks == 0 and joint_dim // num_chunks >= 2:
        return
    fitting = [c for c in range(1, joint_dim // 2 + 1) if joint_dim % c == 0]
    advice = " or ".join(map(str, sorted(sorted(fitting, key=lambda c: abs(c - num_chunks))[:2])))
    raise ValueError(
        f"joint_dim = {joint_dim} cannot be divided into num_chunks = {num_chunks} equal chunks of two or more;"
        f" set num_chunks to {advice}"
    )
