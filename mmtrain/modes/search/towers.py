"""The towers of a contrastive task: content of one modality -> unit vectors in the shared space."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtrain.data.protocols import InputKind
from mmtrain.data.tables.sample_errors import describe_content, sample_errors
from mmtrain.errors import ConfigError, SampleError
from mmtrain.model import MultimodalModel
from mmtrain.tasks.contrastive import Contrastive
from mmtrain.types import Batch

NUM_AT_ONCE = 64


class Towers:
    """Maps content to vectors with a trained model.

    Args:
        model: with a contrastive task; set to evaluation mode.
        readers: by modality, the input that converts content to tensors.
        where: the run, for messages.

    Attributes:
        modalities: those with vectors in the shared space.
        kinds: by modality, its kind: text, image, audio ...

    Raises:
        ConfigError: if the model has no contrastive task.
    """

    def __init__(self, model: MultimodalModel, readers: Mapping[str, InputKind], *, where: str) -> None:
        tasks = {name: task for name, task in model.tasks.items() if isinstance(task, Contrastive)}
        if not tasks:
            raise ConfigError(
                f"{where}: has no contrastive task, whose vectors are searched; it has"
                f" {', '.join(model.tasks)}\n    fix: name a run that was trained with task=[contrastive]"
            )
        self.name, self.task = next(iter(tasks.items()))
        self.where = where
        self.model = model.eval()
        self.readers = {m: readers[m] for m in self.task.reads}
        self.modalities = self.task.reads
        self.kinds = {m: reader.kind for m, reader in self.readers.items()}

    @property
    def scale(self) -> float:
        """The learned inverse temperature."""
        return float(self.task.scale.detach())

    def of_kind(self, kind: str) -> str:
        """The modality of a kind.

        Raises:
            ConfigError: if there is none.
        """
        results = [m for m, its_kind in self.kinds.items() if its_kind == kind]
        if not results:
            more = ",".join([*self.modalities, kind])
            raise ConfigError(
                f"{self.where}: has no {kind}; its contrastive task has {', '.join(self.modalities)}\n"
                f"    fix: query with one of these, or train a run with task.contrastive.modalities=[{more}]"
            )
        return results[0]

    @torch.inference_mode()
    def of_batch(self, batch: Batch, modality: str) -> Tensor:
        """Return (B, D), float32, on the CPU; rows without the modality have undefined values."""
        device = next(self.model.parameters()).device
        return self.task.embed(self.model.view(batch.to(device)), modality).cpu()

    def encode(self, modality: str, values: Sequence[Any], folder: Path = Path()) -> Tensor:
        """Compute unit vectors of content.

        Args:
            modality: of all values.
            values: content of table cells: texts, paths, images, waveforms.
            folder: base of relative paths.

        Returns:
            (N, D), float32.

        Raises:
            SampleError: if a value cannot be read, or does not contain the modality, such as a video without sound.
        """
        reader, parts = self.readers[modality], []
        for start in range(0, len(values), NUM_AT_ONCE):
            chunk = values[start : start + NUM_AT_ONCE]
            tensors = []
            for value in chunk:
                with sample_errors(value):
                    loaded = reader.load(value, folder, seed=0, train=False)
                if loaded is None:
                    raise SampleError(describe_content(value), f"contains no {self.kinds[modality]}")
                tensors.append(loaded[0])
            parts.append(self.of_batch(self._batch(modality, tensors), modality))
        return torch.cat(parts) if parts else torch.empty(0, 0)

    def _batch(self, modality: str, tensors: Sequence[Tensor]) -> Batch:
        size = len(tensors)
        return Batch(
            ids=[str(n) for n in range(size)],
            rows=torch.arange(size),
            inputs={modality: self.readers[modality].pad(tensors)},
            present={modality: torch.ones(size, dtype=torch.bool)},
            targets={},
            labelled={},
            keys={modality: torch.zeros(size, dtype=torch.long)},
            draws=torch.arange(size),
        )

    def digest(self) -> str:
        """Digest of every weight that determines the vectors. Models with equal digests compute equal vectors."""
        digest = hashlib.sha256()
        parts = {m: self.model.encoders[m] for m in self.modalities} | {"projections": self.task.projections}
        for part, module in parts.items():
            for name, tensor in sorted(module.state_dict().items()):
                digest.update(f"{part}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]
