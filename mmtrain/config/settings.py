"""The values of keys that no constructor of mmtrain declares: those of the program itself, and of library classes.

`mmtrain.config.constraints` reads these annotations from the source. Nothing makes an object of these classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from mmtrain.annotations import (
    Depth,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ProperFraction,
    Seed,
    Size,
)

Mode = Literal["fit", "test", "predict", "plan", "search", "chat"]
Corruption = Literal["noise", "blur", "crop", "typos", "missing"]
Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"]
Strategy = Literal[  # those that Lightning registers
    "auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true", "ddp_spawn",
    "ddp_spawn_find_unused_parameters_false", "ddp_spawn_find_unused_parameters_true", "ddp_fork",
    "ddp_fork_find_unused_parameters_false", "ddp_fork_find_unused_parameters_true", "ddp_notebook",
    "ddp_notebook_find_unused_parameters_false", "ddp_notebook_find_unused_parameters_true", "deepspeed",
    "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_2_offload", "deepspeed_stage_3",
    "deepspeed_stage_3_offload", "deepspeed_stage_3_offload_nvme", "fsdp", "fsdp_cpu_offload", "single_device",
    "single_tpu", "single_xla", "xla", "xla_debug",
]  # fmt: skip
Precision = Literal[
    32, "32", "32-true", 64, "64", "64-true", 16, "16", "16-mixed", "16-true", "bf16", "bf16-mixed", "bf16-true",
    "transformer-engine", "transformer-engine-float16",
]  # fmt: skip


@dataclass
class Run:
    """Keys at the top."""

    mode: Mode
    seed: Seed
    dim: Size


@dataclass
class Checkpoint:
    """Keys of `checkpoint`."""

    mode: Literal["max", "min"]
    every_n_steps: PositiveInt | None
    every_minutes: PositiveFloat | None
    background: bool
    safetensors: bool


@dataclass
class Test:
    """Keys of `test`."""

    subsets: Literal["single", "all", "none"] | None
    corruptions: Sequence[Corruption]
    severities: Sequence[Annotated[int, Ge(1), Le(5)]]
    templates: Sequence[str] | str
    class_names: str | Sequence[str] | Mapping[str, str] | None


@dataclass
class Predict:
    """Keys of `predict`."""

    split: Literal["train", "val", "test"] | None


@dataclass
class Search:
    """Keys of `search`."""

    k: PositiveInt


@dataclass
class Plan:
    """Keys of `plan`."""

    accelerator: Accelerator
    strategy: Strategy | Literal["single", "model_parallel"]
    samples_per_second: PositiveFloat | None
    flops_per_second: PositiveFloat | None


@dataclass
class Trainer:
    """Keys of `trainer`."""

    accelerator: Accelerator
    strategy: Strategy
    precision: Precision
    num_nodes: PositiveInt
    max_epochs: Annotated[int, Ge(-1)] | None
    max_steps: Annotated[int, Ge(-1)] | None
    accumulate_grad_batches: PositiveInt
    gradient_cache: bool
    find_batch_size: bool
    max_nonfinite_steps: NonNegativeInt
    gradient_clip_val: NonNegativeFloat | None
    check_val_every_n_epoch: PositiveInt | None
    val_check_interval: PositiveFloat | None
    limit_train_batches: NonNegativeFloat | None
    limit_val_batches: NonNegativeFloat | None
    limit_test_batches: NonNegativeFloat | None
    log_every_n_steps: PositiveInt
    deterministic: Literal["warn"] | bool | None
    benchmark: bool | None
    detect_anomaly: bool
    sync_batchnorm: bool
    profile: bool
    tf32: bool
    compile: bool


@dataclass
class Optimizer:
    """Keys of `optimizer`, for any class."""

    lr: NonNegativeFloat
    weight_decay: NonNegativeFloat
    eps: PositiveFloat
    betas: tuple[ProperFraction, ProperFraction]
    momentum: ProperFraction
    fused: Literal["auto"] | bool


@dataclass
class EarlyStopping:
    """Keys of Lightning's callback."""

    patience: NonNegativeInt
    min_delta: float
    mode: Literal["min", "max"]


@dataclass
class Adapter:
    """Keys of the adapters of peft."""

    r: Size
    alpha: PositiveFloat
    lora_alpha: PositiveFloat
    lora_dropout: ProperFraction
    rank_dropout: ProperFraction
    module_dropout: ProperFraction


@dataclass
class ModelConfig:
    """Keys of a `config` of transformers."""

    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Depth
    num_attention_heads: Size
    num_key_value_heads: Size
    max_position_embeddings: Size


# by the key of the node that has these keys
BY_KEY: Mapping[str, type] = {
    "": Run,
    "checkpoint": Checkpoint,
    "test": Test,
    "predict": Predict,
    "search": Search,
    "plan": Plan,
    "trainer": Trainer,
    "optimizer": Optimizer,
}
# by the `_target_` next to these keys
BY_TARGET: Mapping[str, type] = {
    "pytorch_lightning.callbacks.EarlyStopping": EarlyStopping,
    "peft.LoraConfig": Adapter,
    "peft.LoHaConfig": Adapter,
    "peft.LoKrConfig": Adapter,
}
