"""A queue of rows of the last steps as additional negatives, a cross-batch memory (XBM, 1912.06798; MoCo, 1911.05722).

The vectors are a few steps old. In contrast to MoCo, there is no momentum encoder: once learning is stable, a vector
from a few steps ago is close to the current one. The memory uses plain tensors, not buffers, because weight averaging
must not average them.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Queue:
    """The last rows, first in, first out.

    Args:
        size: maximum number of rows; 0 disables the queue.
        modalities: modalities of each row.
        dim: width of a vector.
    """

    def __init__(self, *, size: int, modalities: Sequence[str], dim: int) -> None:
        self.size = size
        self.place = 0
        self.vectors = {m: torch.zeros(size, dim) for m in modalities}
        self.keys = {m: torch.zeros(size, dtype=torch.long) for m in modalities}
        self.present = {m: torch.zeros(size, dtype=torch.bool) for m in modalities}

    def to(self, device: torch.device) -> None:
        """Move the queue to a device, if it is on another one."""
        for kept in (self.vectors, self.keys, self.present):
            for m, tensor in kept.items():
                kept[m] = tensor.to(device)

    def push(self, vectors: Mapping[str, Tensor], keys: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> None:
        """Replace the oldest rows by new ones.

        Args:
            vectors: (B, dim) by modality; ignored where the modality is missing.
            keys: (B,), int64, by modality.
            present: (B,), bool, by modality.
        """
        for m in self.vectors:
            number = len(keys[m])
            places = (self.place + torch.arange(number, device=keys[m].device)) % self.size
            kept = slice(max(number - self.size, 0), None)  # if there are more rows than space, keep the last
            for mine, new in ((self.vectors, vectors), (self.keys, keys), (self.present, present)):
                mine[m][places[kept]] = new[m].detach()[kept].to(mine[m].dtype)
        self.place = (self.place + number) % self.size

    def state_dict(self) -> dict[str, Tensor]:
        """Return the complete state."""
        tensors = {
            f"{kind}/{m}": tensor.clone()
            for kind, kept in (("vectors", self.vectors), ("keys", self.keys), ("present", self.present))
            for m, tensor in kept.items()
        }
        return tensors | {"place": torch.tensor(self.place)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a result of `state`."""
        self.place = int(state["place"])
        for kind, kept in (("vectors", self.vectors), ("keys", self.keys), ("present", self.present)):
            for m in kept:
                kept[m] = state[f"{kind}/{m}"].clone()
