"""The base of tasks with a head on the features of a row, and one target."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmtrain.annotations import Fraction, NonNegativeFloat
from mmtrain.layers.head import LateFusion, PooledHead, make_head
from mmtrain.tasks.names import check_names
from mmtrain.types import Batch, ReportItem, View


class HeadSpec:
    """The features and the target of a head. Its arguments are part of the configuration of each supervised task.

    Args:
        dims: width by feature source: "fused" and each modality.
        known_targets: metadata of each target, by name.
        target: name of the target.
        input: features to read: "fused" or one modality.
        weight: see `Task`.
        dropout: dropout probability before the head.
        decides: the fusion, if it is a late fusion.

    Attributes:
        known: metadata of the target.
        modalities: the modalities of the model.

    Raises:
        ValueError: for an unknown target or feature source.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        known_targets: Mapping[str, Any],
        target: str,
        input: str,
        weight: NonNegativeFloat,
        dropout: Fraction,
        decides: LateFusion | None = None,
    ) -> None:
        check_names(("target", target, known_targets), ("input", input, dims))
        self.dim = dims[input]
        self.modalities = [name for name in dims if name != "fused"]
        self.known = known_targets[target]
        self.target = target
        self.reads = input
        self.weight = weight
        self.dropout = dropout
        self.decides = decides if input == "fused" else None

    @property
    def combines_distributions(self) -> bool:
        """Whether a late fusion combines distributions over classes."""
        return self.decides is not None and self.decides.combine_method in ("mean_probabilities", "product")

    def refuse_distributions(self, problem: str) -> None:
        """Raise a ValueError with the problem if a late fusion combines distributions over classes."""
        if self.decides is not None and self.combines_distributions:
            raise ValueError(
                f"fusion.combine = {self.decides.combine_method} {problem}; set it to mean_logits or learned"
            )


class SupervisedTask(nn.Module):
    """Base of the tasks with one target: classification, multi-label, regression, ranking and VQA.

    Args:
        spec: features and target of the head.
        num_outputs: number of outputs of the head.
    """

    def __init__(self, spec: HeadSpec, num_outputs: int) -> None:
        super().__init__()
        self.reads = (spec.reads,)
        self.needs = () if spec.reads == "fused" else (spec.reads,)
        self.targets = (spec.target,)
        self.weight = spec.weight
        self.dropout = spec.dropout
        self.num_outputs = num_outputs
        self.head = make_head(spec.dim, num_outputs, dropout=spec.dropout, decides=spec.decides)

    def forward(self, view: View) -> Any:
        """Return the outputs of the head (B, num_outputs) for a view."""
        return self.head(view.features(self.reads[0]))

    def new_head(self, dim: int) -> nn.Module:
        """Build another head for features of this width."""
        return PooledHead(dim, self.num_outputs, dropout=self.dropout)

    def _valid(self, batch: Batch) -> Tensor:
        """Return (B,), bool: the labelled rows with a modality to read."""
        return batch.labelled[self.targets[0]] & batch.has_any(self.needs)

    def count(self, batch: Batch) -> Tensor:
        """Count the labelled rows with a modality to read."""
        return self._valid(batch).sum()

    def report_items(self, values: dict[str, Tensor], name: Callable[[int], str]) -> Sequence[ReportItem]:
        """Return []: there is nothing to draw."""
        return []
