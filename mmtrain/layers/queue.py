"""The rows of the last steps, kept as more wrong answers: a memory across batches (XBM, 1912.06798; MoCo, 1911.05722).

Vectors age by a step each step. Unlike in MoCo no second encoder makes them: what is a few steps old is nearly what it
would be now, once learning has settled. Plain tensors and no buffers: averages of weights must not average them.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Queue:
    """The last rows, first in first out.

    Args:
        size: rows; 0 keeps none.
        modalities: of each row.
        dim: width of a vector.
    """

    def __init__(self, *, size: int, modalities: Sequence[str], dim: int) -> None:
        self.size = size
        self.place = 0
        self.vectors = {m: torch.zeros(size, dim) for m in modalities}
        self.keys = {m: torch.zeros(size, dtype=torch.long) for m in modalities}
        self.present = {m: torch.zeros(size, dtype=torch.bool) for m in modalities}

    def to(self, device: torch.device) -> None:
        """Move it, if it is elsewhere."""
        for kept in (self.vectors, self.keys, self.present):
            for m, tensor in kept.items():
                kept[m] = tensor.to(device)

    def push(self, vectors: Mapping[str, Tensor], keys: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> None:
        """Take rows in place of the oldest.

        Args:
            vectors: by modality (B, dim), of no meaning in a row that lacks it.
            keys: by modality (B,), int64.
            present: by modality (B,), bool.
        """
        for m in self.vectors:
            number = len(keys[m])
            places = (self.place + torch.arange(number, device=keys[m].device)) % self.size
            kept = slice(max(number - self.size, 0), None)  # of more rows than there is room for, the last
            for mine, new in ((self.vectors, vectors), (self.keys, keys), (self.present, present)):
                mine[m][places[kept]] = new[m].detach()[kept].to(mine[m].dtype)
        self.place = (self.place + number) % self.size

    def state(self) -> dict[str, Tensor]:
        """All of it."""
        tensors = {
            f"{kind}/{m}": tensor.clone()
            for kind, kept in (("vectors", self.vectors), ("keys", self.keys), ("present", self.present))
            for m, tensor in kept.items()
        }
        return tensors | {"place": torch.tensor(self.place)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state` gave."""
        self.place = int(state["place"])
        for kind, kept in (("vectors", self.vectors), ("keys", self.keys), ("present", self.present)):
            for m in kept:
                kept[m] = state[f"{kind}/{m}"].clone()
