"""Every fusion in its smallest size, by its name on the command line, for any widths by modality."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from mmtrain.fusion.attention_pool import AttentionPool
from mmtrain.fusion.block import BlockFusion
from mmtrain.fusion.bottleneck import Bottleneck
from mmtrain.fusion.co_attn import CoAttn
from mmtrain.fusion.concat import Concat
from mmtrain.fusion.cross_attn import CrossAttn
from mmtrain.fusion.deep_set import DeepSet
from mmtrain.fusion.film import FiLM
from mmtrain.fusion.gated import Gated
from mmtrain.fusion.gated_cross_attn import GatedCrossAttn
from mmtrain.fusion.late import Late
from mmtrain.fusion.low_rank import LowRank
from mmtrain.fusion.mcb import MCB
from mmtrain.fusion.merged_attn import MergedAttn
from mmtrain.fusion.mfb import MFB
from mmtrain.fusion.mfh import MFH
from mmtrain.fusion.mlb import MLB
from mmtrain.fusion.mult import MulT
from mmtrain.fusion.multiplicative import Multiplicative
from mmtrain.fusion.mutan import Mutan
from mmtrain.fusion.perceiver import Perceiver
from mmtrain.fusion.q_former import QFormer
from mmtrain.fusion.sum import Sum
from mmtrain.fusion.tensor import TensorFusion

FUSED_DIM = 8
VECTOR: dict[str, Any] = {"dim": FUSED_DIM, "dropout": 0.0}
FILLED: dict[str, Any] = {**VECTOR, "missing": "neutral"}
ATTENTION: dict[str, Any] = {**VECTOR, "num_heads": 2, "mlp_ratio": 2.0}

FUSIONS: dict[str, Callable[..., nn.Module]] = {
    "attention_pool": partial(AttentionPool, num_queries=2, **ATTENTION),
    "block": partial(BlockFusion, joint_dim=12, num_chunks=3, rank=2, **FILLED),
    "bottleneck": partial(Bottleneck, depth=3, fusion_layer=1, num_bottlenecks=2, **ATTENTION),
    "co_attn": partial(CoAttn, depth=2, **ATTENTION),
    "concat": partial(Concat, hidden_dim=12, **VECTOR, missing="learned"),
    "cross_attn": partial(CrossAttn, depth=2, **ATTENTION),
    "deep_set": partial(DeepSet, hidden_dim=12, pool="mean", **VECTOR),
    "film": partial(FiLM, base=None, depth=2, **VECTOR),
    "gated": partial(Gated, **FILLED),
    "gated_cross_attn": partial(GatedCrossAttn, reader=None, depth=2, **ATTENTION),
    "late": partial(Late, dim=FUSED_DIM, dropout=0.0, combine="mean_logits"),
    "low_rank": partial(LowRank, rank=3, **FILLED),
    "mcb": partial(MCB, sketch_dim=16, **FILLED),
    "merged_attn": partial(MergedAttn, depth=2, **ATTENTION),
    "mfb": partial(MFB, joint_dim=12, num_factors=3, **FILLED),
    "mfh": partial(MFH, order=2, joint_dim=12, num_factors=3, **FILLED),
    "mlb": partial(MLB, joint_dim=12, activation="tanh", **FILLED),
    "mult": partial(MulT, depth=1, self_depth=1, **ATTENTION),
    "multiplicative": partial(Multiplicative, factor_dim=3, max_size=10000, **FILLED),
    "mutan": partial(Mutan, factor_dim=5, joint_dim=12, rank=2, **FILLED),
    "perceiver": partial(Perceiver, num_latents=3, depth=2, **ATTENTION),
    "q_former": partial(QFormer, text=None, num_queries=3, depth=2, cross_every=2, **ATTENTION),
    "sum": partial(Sum, average=False, hidden_dim=12, **FILLED),
    "tensor": partial(TensorFusion, factor_dim=3, hidden_dim=12, max_size=2000, **FILLED),
}
# those that refuse a single modality
PAIRWISE = ("film",)
WITH_MAPS = (
    *("attention_pool", "bottleneck", "co_attn", "cross_attn", "gated_cross_attn"),
    *("merged_attn", "mult", "perceiver", "q_former"),
)
