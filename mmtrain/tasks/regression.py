"""Regression: K numbers a row from a linear head, learned as the data scales them, scored in the units of the table.

The loss and Huber's delta are in standard deviations of training. `neg_rmse`, which is -`rmse`, chooses checkpoints,
because it is higher for better and always defined. Of several numbers every score is the mean, in the units of each. R2
and the correlations leave out numbers that do not change in the split, and are not there when none does.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from mmtrain.layers.head import Decides, PooledHead, make_head
from mmtrain.losses.regression import absolute_error, huber, squared_error
from mmtrain.metrics.chance import guessed
from mmtrain.metrics.regression import RegressionMetric
from mmtrain.tasks.names import check_names
from mmtrain.types import Batch, Exhibit, NumberTarget

LOSSES = ("mse", "l1", "huber")


class Regression(nn.Module):
    """One number a row, or several.

    Args:
        dims: width by what can be read: "fused" and each modality.
        known_targets: what the data knows of each target, by name.
        target: name of the target of numbers.
        reads: "fused" or one modality.
        weight: see `Task`.
        dropout: before the head.
        loss: mse, l1 or huber.
        huber_delta: the error, in standard deviations, from which huber grows evenly.
        decides: the fusion, when it is one of decisions.

    Raises:
        ValueError: when the data has no such target, nothing of that name can be read, or there is no such loss.
    """

    monitor = "neg_rmse"

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        known_targets: Mapping[str, Any],
        target: str,
        reads: str,
        weight: float,
        dropout: float,
        loss: str,
        huber_delta: float,
        decides: Decides | None = None,
    ) -> None:
        super().__init__()
        check_names(("target", target, known_targets), ("reads", reads, dims), ("loss", loss, LOSSES))
        known = known_targets[target]
        if not isinstance(known, NumberTarget) or not known.names:
            raise ValueError(
                f"target = {target} has no numbers; make it one that has, with target@data.targets.{target}=number,"
                " or name another"
            )
        if not huber_delta > 0.0:
            raise ValueError(f"huber_delta = {huber_delta} is not above 0; set it to 1.0, say")
        decides = decides if reads == "fused" else None
        if decides is not None and decides.decides_by in ("mean_probabilities", "product"):
            raise ValueError(
                f"fusion.combine = {decides.decides_by} is of distributions over classes, but regression has numbers;"
                " set it to mean_logits or learned"
            )
        self.reads = (reads,)
        self.needs = () if reads == "fused" else (reads,)
        self.targets = (target,)
        self.weight = weight
        self.kind = loss
        self.huber_delta = huber_delta
        self.known = known
        self.dropout = dropout
        self.head = make_head(dims[reads], len(known.names), dropout=dropout, decides=decides)

    def forward(self, view: Any) -> Tensor:
        """Scaled numbers (B, K) for a view."""
        return self.head(view.features(self.reads[0]))

    def new_head(self, dim: int) -> nn.Module:
        """Another head for features of that width."""
        return PooledHead(dim, len(self.known.names), dropout=self.dropout)

    def _valid(self, batch: Batch) -> Tensor:
        return batch.labelled[self.targets[0]] & batch.has_any(self.needs)

    def count(self, batch: Batch) -> Tensor:
        """Labelled rows with something to read."""
        return self._valid(batch).sum()

    def loss(self, predictions: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of scaled numbers (B, K), its mean over a row's numbers: (sum, count)."""
        truth, valid = batch.targets[self.targets[0]], self._valid(batch)
        if self.kind == "huber":
            return huber(predictions, truth, valid, delta=self.huber_delta)
        return {"mse": squared_error, "l1": absolute_error}[self.kind](predictions, truth, valid)

    def metrics(self) -> RegressionMetric:
        """MAE, RMSE, R2, Pearson's and Spearman's correlations over the whole split."""
        return RegressionMetric(std=self.known.std, center=self._training_mean())

    def _training_mean(self) -> list[float] | None:
        """Of scaled numbers; None for a target that is not scaled, of which the data does not say it."""
        unscaled = not any(self.known.mean) and all(std == 1.0 for std in self.known.std)
        return None if unscaled else [0.0] * len(self.known.names)

    def update(self, metrics: RegressionMetric, predictions: Tensor, batch: Batch) -> None:
        """Keep the numbers of the labelled rows.

        Raises:
            FloatingPointError: when a prediction is not finite: it must not score.
        """
        valid = self._valid(batch)
        if not predictions[valid].isfinite().all():
            raise FloatingPointError(f"regression of {self.targets[0]}: a prediction is not finite")
        # also where no row counts: a metric that was never shown one is out of step with other processes'
        metrics.update(predictions[valid], batch.targets[self.targets[0]][valid])

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Always the mean of training; of a target that is not scaled, the mean of the rows that were counted."""
        return guessed(values)

    def exhibits(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[Exhibit]:
        """Nothing to draw."""
        return []

    def rows(self, predictions: Tensor, batch: Batch) -> list[dict[str, Any]]:
        """The number in the units of the table to seven digits, a list of them where there are several."""
        scaled = predictions.double()
        numbers = (scaled * scaled.new_tensor(self.known.std) + scaled.new_tensor(self.known.mean)).tolist()
        said = [[float(f"{number:.7g}") for number in row] for row in numbers]
        return [
            {self.targets[0]: row[0] if len(row) == 1 else row} if readable else {}
            for row, readable in zip(said, batch.has_any(self.needs).tolist(), strict=True)
        ]
