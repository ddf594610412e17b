"""Regression: K numbers per row from a linear head, trained on scaled targets, scored in the units of the table.

The loss and Huber's delta are in standard deviations of the training targets. `neg_rmse`, which is -`rmse`, selects
checkpoints, because higher is better and it is always defined. For several numbers, each score is their mean, each in
its own units. R2 and the correlations exclude numbers that are constant in the split, and are omitted if all are.
"""

from typing import Any, Literal, get_args

from torch import Tensor

from mmtrain.annotations import Flattened, PositiveFloat
from mmtrain.losses.regression import absolute_error, huber, squared_error
from mmtrain.metrics.chance import chance_scores
from mmtrain.metrics.regression import RegressionMetric
from mmtrain.tasks.names import check_names
from mmtrain.tasks.supervised import HeadSpec, SupervisedTask
from mmtrain.types import Batch, NumberTarget

Loss = Literal["mse", "l1", "huber"]
LOSSES: tuple[Loss, ...] = get_args(Loss)


class Regression(SupervisedTask):
    """Regression of one or several numbers per row.

    Args:
        head: features and target of the head.
        loss: mse, l1 or huber.
        huber_delta: error, in standard deviations, above which the Huber loss is linear.

    Raises:
        ValueError: for an unknown target, feature source or loss.
    """

    monitor = "neg_rmse"

    def __init__(self, *, head: Flattened[HeadSpec], loss: Loss, huber_delta: PositiveFloat) -> None:
        check_names(("loss", loss, LOSSES))
        known = head.known
        if not isinstance(known, NumberTarget) or not known.names:
            raise ValueError(
                f"target = {head.target} has no numbers; make it one that has, with"
                f" target@data.targets.{head.target}=number, or set another target"
            )
        if not huber_delta > 0.0:
            raise ValueError(f"huber_delta = {huber_delta} is not above 0; set it to 1.0, for example")
        head.refuse_distributions("needs distributions over classes, but regression has numbers")
        super().__init__(head, len(known.names))
        self.kind = loss
        self.huber_delta = huber_delta
        self.known = known

    def loss(self, predictions: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss of scaled numbers (B, K), its mean over the numbers of a row: (sum, count)."""
        truth, valid = batch.targets[self.targets[0]], self._valid(batch)
        if self.kind == "huber":
            return huber(predictions, truth, valid, delta=self.huber_delta)
        return {"mse": squared_error, "l1": absolute_error}[self.kind](predictions, truth, valid)

    def metrics(self) -> RegressionMetric:
        """Return MAE, RMSE, R2, and Pearson and Spearman correlations over the complete split."""
        return RegressionMetric(std=self.known.std, center=self._training_mean())

    def _training_mean(self) -> list[float] | None:
        """Return the training mean of scaled numbers; None for an unscaled target, whose mean is unknown."""
        unscaled = not any(self.known.mean) and all(std == 1.0 for std in self.known.std)
        return None if unscaled else [0.0] * len(self.known.names)

    def update(self, metrics: RegressionMetric, predictions: Tensor, batch: Batch) -> None:
        """Add the numbers of the labelled rows.

        Raises:
            FloatingPointError: if a prediction is not finite, because it must not contribute to a score.
        """
        valid = self._valid(batch)
        if not predictions[valid].isfinite().all():
            raise FloatingPointError(f"regression of {self.targets[0]}: a prediction is not finite")
        # also without valid rows: otherwise the metric would be out of sync with other processes
        metrics.update(predictions[valid], batch.targets[self.targets[0]][valid])

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Score always predicting the training mean; for an unscaled target, the mean of the evaluated rows."""
        return chance_scores(values)

    def rows(self, predictions: Tensor, batch: Batch) -> list[dict[str, Any]]:
        """Return the number in the units of the table with seven digits, or a list of numbers if there are several."""
        scaled = predictions.double()
        numbers = (scaled * scaled.new_tensor(self.known.std) + scaled.new_tensor(self.known.mean)).tolist()
        messages = [[float(f"{number:.7g}") for number in row] for row in numbers]
        return [
            {self.targets[0]: row[0] if len(row) == 1 else row} if readable else {}
            for row, readable in zip(messages, batch.has_any(self.needs).tolist(), strict=True)
        ]
