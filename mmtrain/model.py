"""MultimodalModel: encoders, then fusion, then tasks. A plain module that also runs without Lightning and Hydra.

A task does not receive tensors but a `View` of the batch. It requests from the view what it needs: features of one
modality, fused features, predictions of another task, or the same for other pairs of rows. A view computes each once.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmtrain.distributed import rank, world_size
from mmtrain.errors import ConfigError
from mmtrain.layers.attention import AttentionMaps
from mmtrain.layers.batch_norm import use_running_stats_for_single_values
from mmtrain.layers.finetuning import frozen_modules
from mmtrain.tasks.task import Task
from mmtrain.types import Batch, Features, Padded


class MultimodalModel(nn.Module):
    """Encoders by modality, one fusion (or none), tasks by name.

    Args:
        encoders: by modality; each maps `(values, mask)` to `Features`.
        fusion: maps `dict[str, Features]` of every encoder to `Features`; None when no task reads "fused".
        tasks: by name; see `mmtrain.tasks`.
    """

    def __init__(
        self, *, encoders: dict[str, nn.Module], fusion: nn.Module | None, tasks: dict[str, nn.Module]
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion
        self.tasks = nn.ModuleDict(tasks)
        use_running_stats_for_single_values(self)

    def forward(self, batch: Batch) -> dict[str, Any]:
        """Every task's predictions, by task name."""
        view = self.view(batch)
        return {name: view.predictions(name) for name in self.tasks}

    def train(self, mode: bool = True) -> "MultimodalModel":
        """As of any module, but frozen modules stay in evaluation mode: no dropout, no new statistics."""
        super().train(mode)
        for encoder in self.encoders.values():
            for module in frozen_modules(encoder):
                module.eval()
        return self

    def losses(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Every task's (sum, count) over the rows of this batch that it can learn from."""
        view = self.view(batch)
        return {name: task.loss(view.predictions(name), batch) for name, task in self.named_tasks().items()}

    def named_tasks(self) -> dict[str, Task]:
        """The tasks by name, with their type."""
        return {name: cast(Task, task) for name, task in self.tasks.items()}

    @property
    def has_maps(self) -> bool:
        """Whether the fusion can return its attention maps."""
        return self.fusion is not None and "return_attention" in inspect.signature(self.fusion.forward).parameters

    def view(self, batch: Batch) -> "LazyView":
        """A view of a batch that computes values when they are used."""
        return LazyView(model=self, batch=batch)


@dataclass
class LazyView:
    """What tasks can read of a batch. Everything is computed on the first call and kept."""

    model: MultimodalModel
    batch: Batch
    _encoded: dict[str, Features] = field(default_factory=dict)
    _fused: Features | None = None
    _predictions: dict[str, Any] = field(default_factory=dict)
    _whole: "LazyView | None" = None  # the view from which this view differs
    _replaced: tuple[str, ...] = ()  # in these modalities

    def encoded(self, modality: str) -> Features:
        """One modality's features: tokens (B, T, D) and mask (B, T), all False in rows without it."""
        if self._whole is not None and modality not in self._replaced:
            return self._whole.encoded(modality)
        if modality not in self._encoded:
            self._encoded[modality] = encode_present(self.model.encoders[modality], self.batch, modality)
        return self._encoded[modality]

    def fused(self) -> Features:
        """The fusion's features of all modalities."""
        if self._fused is None:
            assert self.model.fusion is not None, "a task reads `fused` but no fusion was built"
            self._fused = self.model.fusion({m: self.encoded(m) for m in self.model.encoders})
        return self._fused

    def attention(self) -> AttentionMaps:
        """What the fusion's tokens read of each modality, by (query, key); {} where it has no such maps."""
        if not self.model.has_maps:
            return {}
        assert self.model.fusion is not None
        _, maps = self.model.fusion({m: self.encoded(m) for m in self.model.encoders}, return_attention=True)
        return maps

    def features(self, name: str) -> Features:
        """`fused`, or the modality of that name."""
        return self.fused() if name == "fused" else self.encoded(name)

    def predictions(self, task: str) -> Any:
        """What a task says of this view."""
        if task not in self._predictions:
            self._predictions[task] = self.model.tasks[task](self)
        return self._predictions[task]

    def only(self, modalities: Sequence[str]) -> "LazyView":
        """The same encoded features as if the rows had only these modalities."""
        encoded = {m: self.encoded(m) for m in self.model.encoders}
        left = {m: f if m in modalities else f.nothing() for m, f in encoded.items()}
        return LazyView(model=self.model, batch=self.batch.only(modalities), _encoded=left)

    def with_inputs(self, inputs: dict[str, Padded]) -> "LazyView":
        """The same rows with other contents of these modalities; the others are not encoded again."""
        batch = replace(self.batch, inputs=self.batch.inputs | inputs)
        return LazyView(model=self.model, batch=batch, _whole=self, _replaced=tuple(inputs))

    def paired(self, rows: dict[str, Tensor]) -> "LazyView":
        """The same encoded features with the given modalities taken from other rows (B,), int64: wrong pairs."""
        return self.with_features({m: self.encoded(m).take(places) for m, places in rows.items()})

    def with_features(self, features: dict[str, Features]) -> "LazyView":
        """The same rows with other features of these modalities."""
        encoded = {m: features[m] if m in features else self.encoded(m) for m in self.model.encoders}
        return LazyView(model=self.model, batch=self.batch, _encoded=encoded)


def encode_present(encoder: nn.Module, batch: Batch, modality: str) -> Features:
    """Encode the rows with the modality; other rows get zeros and a False mask.

    A batch without such a row still uses every parameter, with a gradient of zero, because another rank of the same
    step may have some and waits for the gradients of this one.

    Raises:
        ConfigError: if there is no such row, but batch norms on other ranks wait for one (trainer.sync_batchnorm).
    """
    values, mask = batch.inputs[modality]
    present = batch.present[modality]
    rows = present.nonzero().squeeze(1)
    if len(rows) == len(present):
        return encoder(values, mask).cleared()
    if len(rows) == 0:
        _check_not_synchronized(encoder, modality)
        return _encode_nothing(encoder, values, mask, len(present))
    tokens, valid = encoder(values[rows], None if mask is None else mask[rows]).cleared()
    return Features(
        tokens.new_zeros(len(present), *tokens.shape[1:]).index_copy(0, rows, tokens),
        valid.new_zeros(len(present), valid.shape[1]).index_copy(0, rows, valid),
    )


def _check_not_synchronized(encoder: nn.Module, modality: str) -> None:
    """Check for synchronized batch norms, which wait for the rows of every rank and would hang."""
    if world_size() > 1 and any(isinstance(m, nn.SyncBatchNorm) and m.training for m in encoder.modules()):
        raise ConfigError(
            f"trainer.sync_batchnorm=true: no row of rank {rank()} has {modality} in this batch, but the batch norms of"
            f" encoder.{modality} wait for one on every rank\n"
            "    fix: set trainer.sync_batchnorm=false, or raise data.batch_size"
        )


def _encode_nothing(encoder: nn.Module, values: Tensor, mask: Tensor | None, num_rows: int) -> Features:
    modes = {module: module.training for module in encoder.modules()}
    encoder.eval()  # a made-up row must not move the statistics of a batch norm
    tokens, valid = encoder(torch.zeros_like(values[:1]), None if mask is None else torch.ones_like(mask[:1]))
    for module, mode in modes.items():  # separately: some may be in evaluation mode, such as a frozen norm
        module.training = mode
    return Features((tokens * 0.0).expand(num_rows, -1, -1), torch.zeros_like(valid).expand(num_rows, -1))
