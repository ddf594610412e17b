"""Compact bilinear pooling (MCB, 1606.01847, algorithm 1): the outer product of all vectors, hashed to `sketch_dim`.

    S(x)[h(i)] += s(i) x(i),   z = S_1(x_1) (*) ... (*) S_M(x_M),   y = W l2norm(signed sqrt(z)) + b

(*) is circular convolution, computed as a product of spectra. The count sketch of an outer product is the convolution
of the count sketches. The positions h and the signs s are drawn once from a fixed seed and are saved with the weights.
The paper has two modalities; here the convolution takes any number. With one modality, z is its sketch. The sketch of a
missing modality is the unit impulse (1, 0, ..., 0), which leaves the convolution of the others unchanged. Sketches and
spectra have at least 32 bits at any precision, because there is no FFT in bfloat16.
"""

from functools import reduce
from operator import mul

import torch
from torch import Tensor, nn

from mmtrain.annotations import Fraction, Size
from mmtrain.layers.power_norm import power_norm
from mmtrain.layers.vectors import Absent, Missing, Vectors, one_token
from mmtrain.types import Features

SEED = 0


class MCB(nn.Module):
    """One fused token from the hashed outer product of the modalities' vectors.

    Args:
        dims: feature width per modality.
        dim: width of the fused token.
        sketch_dim: width to which the outer product is hashed.
        dropout: dropout probability on the product.
        missing: replaces the sketch of a missing modality. "identity" is the unit impulse; "learned" starts at the unit
            impulse.
    """

    def __init__(
        self, *, dims: dict[str, int], dim: Size, sketch_dim: Size, dropout: Fraction, missing: Missing
    ) -> None:
        super().__init__()
        self.dim = dim
        self.sketch_dim = sketch_dim
        generator = torch.Generator().manual_seed(SEED)
        self.vectors = Vectors(dims)
        self.sketches = nn.ModuleDict({m: CountSketch(dims[m], sketch_dim, generator) for m in sorted(dims)})
        self.absent = Absent(dims, sketch_dim, missing=missing, neutral=0.0)
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(sketch_dim, dim)

    def forward(self, features: dict[str, Features]) -> Features:
        """Fuse tokens (B, T_m, D_m) of every modality to one token (B, 1, dim), valid where any modality is present."""
        vectors, present = self.vectors(features)
        spectra = []
        for m, vector in vectors.items():
            sketch = self.absent(m, self.sketches[m](vector), present[m])
            spectra.append(torch.fft.rfft(sketch) + ~present[m])  # the spectrum of the unit impulse is all ones
        joint = power_norm(torch.fft.irfft(reduce(mul, spectra), n=self.sketch_dim))
        return one_token(self.out(self.drop(joint.to(self.out.weight.dtype))), present)


class CountSketch(nn.Module):
    """A fixed random projection: each input is added to one output position with a random sign.

    Args:
        dim: input width.
        sketch_dim: number of output positions.
        generator: random generator for positions and signs.
    """

    places: Tensor
    signs: Tensor

    def __init__(self, dim: int, sketch_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.sketch_dim = sketch_dim
        self.register_buffer("places", torch.randint(sketch_dim, (dim,), generator=generator))
        self.register_buffer("signs", torch.randint(2, (dim,), generator=generator) * 2.0 - 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim) to (B, sketch_dim), in float32 or wider."""
        signed = x.to(torch.promote_types(x.dtype, torch.float32)) * self.signs
        return signed.new_zeros(x.shape[0], self.sketch_dim).index_add(1, self.places, signed)
