"""Every fusion in its smallest size, by its name on the command line, for any widths by modality.

A new file in configs/fusion/ is found. A knob that `SMALL` does not name has the value of its file.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import get_class
from torch import nn

from mmtrain.config.compose import config_dir

FUSED_DIM = 8
# by knob
SMALL: dict[str, Any] = {
    "dim": FUSED_DIM,
    "hidden_dim": 12,
    "joint_dim": 12,
    "factor_dim": 3,
    "sketch_dim": 16,
    "dropout": 0.0,
    "depth": 2,
    "self_depth": 1,
    "fusion_layer": 1,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "missing": "identity",
    "num_chunks": 3,
    "num_factors": 3,
    "num_latents": 3,
    "num_queries": 3,
    "num_bottlenecks": 2,
    "rank": 2,
    "pool": "mean",
    "max_size": 10000,
}
# by fusion, where it needs another value than the rest
SMALL_OF: dict[str, dict[str, Any]] = {
    "attention_pool": {"num_queries": 2},
    "bottleneck": {"depth": 3},
    "concat": {"missing": "learned"},
    "low_rank": {"rank": 3},
    "mult": {"depth": 1},
    "mutan": {"factor_dim": 5},
    "tensor": {"max_size": 2000},
}


def small(path: Path) -> Callable[..., nn.Module]:
    """Return what builds the fusion of a YAML file, given `dims`."""
    node = yaml.safe_load(path.read_text(encoding="utf-8"))
    values = {**node, **SMALL, **SMALL_OF.get(path.stem, {})}
    return partial(get_class(node["_target_"]), **{name: values[name] for name in node if name != "_target_"})


FUSIONS = {path.stem: small(path) for path in sorted((config_dir() / "fusion").glob("*.yaml"))}
# those that refuse a single modality
PAIRWISE = ("film",)
WITH_MAPS = (
    *("attention_pool", "bottleneck", "co_attn", "cross_attn", "gated_cross_attn"),
    *("merged_attn", "mult", "perceiver", "q_former"),
)
