"""BlockFusion against its formula, one sample at a time, from valid tokens only."""

import pytest
import torch
from torch import Tensor

from mmtrain.fusion.block import BlockFusion
from tests.plain_attention import make_random
from tests.plain_vectors import DIMS, Vectors, assert_fuses_vectors, factor_of_missing, power_normed


def make(dims: dict[str, int], missing: str, num_chunks: int) -> BlockFusion:
    fusion = BlockFusion(dims=dims, dim=6, joint_dim=6, num_chunks=num_chunks, rank=3, dropout=0.0, missing=missing)
    make_random(fusion)
    return fusion


def plain(fusion: BlockFusion, vectors: Vectors) -> Tensor:
    """`vectors` has None for a missing modality."""
    num_chunks, rank, size = fusion.shape
    chunks = []
    for chunk in range(num_chunks):
        total = torch.zeros(size, dtype=torch.float64)
        for r in range(rank):
            product = torch.ones(size, dtype=torch.float64)
            part = slice((chunk * rank + r) * size, (chunk * rank + r + 1) * size)
            for modality, x in vectors.items():
                layer, core = fusion.projections[modality], fusion.core[modality].conv
                factor = factor_of_missing(fusion, modality, core.bias)[part]
                if x is not None:
                    projected = layer.weight @ x + layer.bias
                    mine = projected[chunk * size : (chunk + 1) * size]
                    factor = core.weight[part, :, 0] @ mine + core.bias[part]
                product = product * factor
            total = total + product
        chunks.append(power_normed(total))
    return fusion.out.weight @ torch.cat(chunks) + fusion.out.bias


@pytest.mark.parametrize("missing", ["identity", "learned"])
@pytest.mark.parametrize("num_chunks", [1, 2, 3])
@pytest.mark.parametrize("modalities", [("text", "image"), ("text", "audio", "image")])
def test_values_and_gradients_are_those_of_the_formula(
    modalities: tuple[str, ...], num_chunks: int, missing: str
) -> None:
    fusion = make({m: DIMS[m] for m in modalities}, missing, num_chunks)
    assert_fuses_vectors(fusion, lambda vectors: plain(fusion, vectors))


@pytest.mark.parametrize(("num_chunks", "advice"), [(4, "2 or 3"), (6, "2 or 3"), (0, "1 or 2")])
def test_chunks_that_do_not_divide_or_have_one_number_are_refused(num_chunks: int, advice: str) -> None:
    message = (
        f"joint_dim = 6 cannot be divided into num_chunks = {num_chunks} equal chunks of two or more;"
        " set num_chunks to "
    )
    with pytest.raises(ValueError, match=f"{message}{advice}"):
        make(DIMS, "identity", num_chunks)
