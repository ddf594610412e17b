"""Direct preference optimization (2305.18290): increase the probability of a chosen over a rejected sentence.

It starts from a run that learned to generate text, which is also the reference. Log probabilities are conditioned on
the features that the policy reads. Encoders are trained too, unless they are frozen.
"""

from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge, Lt
from torch import Tensor
from torchmetrics import MetricCollection

from mmtrain.annotations import Flattened, PositiveFloat
from mmtrain.losses.preference import dpo, token_log_probabilities
from mmtrain.metrics.means import Means
from mmtrain.tasks.policy import ContinuedTask, SampledSentences, TrainedPolicy, sample_sentences
from mmtrain.tasks.tally import RunningMeans
from mmtrain.types import Batch, DialoguePairTarget, DialogueTarget, PairTarget, View

STEP_METRICS = (
    "reward_chosen",
    "reward_rejected",
    "reward_margin",
    "pair_accuracy",
    "length_chosen",
    "length_rejected",
)


class DpoPredictions(NamedTuple):
    """Predictions for a view.

    Attributes:
        written: in evaluation, the output of the policy; None in training.
        policy: (B, 2), log probabilities of the chosen and the rejected sentence; 0 if missing.
        reference: (B, 2), the same for the reference.
        drawn: in evaluation, one sampled sentence per row for which evaluation generates; None in training.
    """

    written: Any
    policy: Tensor
    reference: Tensor
    drawn: SampledSentences | None


class Dpo(ContinuedTask):
    """DPO on pairs of sentences. A row without a rejected sentence is evaluated, but not used in the loss.

    Args:
        trained: the policy and its reference; the target must provide pairs.
        beta: strength of the penalty for deviation from the reference.
        label_smoothing: assumed fraction of flipped pairs.

    Raises:
        ValueError: as in `TrainedPolicy`, if the target has no pairs, or for a number out of range.
    """

    monitor = "pair_accuracy"

    def __init__(
        self,
        *,
        trained: Flattened[TrainedPolicy],
        beta: PositiveFloat,
        label_smoothing: Annotated[float, Ge(0), Lt(0.5)],
    ) -> None:
        super().__init__(trained)
        known, target = self.policy.known, trained.target
        if not isinstance(known, PairTarget | DialoguePairTarget):
            speaks = isinstance(known, DialogueTarget)
            kind, columns = ("chat_preference", "[...,REJECTED]") if speaks else ("preference", "[CHOSEN,REJECTED]")
            raise ValueError(
                f"target = {target} has one sentence per row; make it pairs, with"
                f" target@data.targets.{target}={kind} data.columns.{target}={columns}"
            )
        if beta <= 0.0 or not 0.0 <= label_smoothing < 0.5:
            raise ValueError(
                f"beta = {beta} and label_smoothing = {label_smoothing}; set beta above 0, such as 0.1, and"
                " label_smoothing to 0 or more, below 0.5"
            )
        self.beta = beta
        self.label_smoothing = label_smoothing
        self._tally = RunningMeans(STEP_METRICS)

    def _pairs(self, batch: Batch) -> Tensor:
        """Return (B,), bool: rows that have both sentences."""
        return self.policy.given(batch)[1].any(dim=2).all(dim=1)

    def forward(self, view: View) -> DpoPredictions:
        """Return log probabilities of both sentences under both models; in evaluation also a sampled sentence."""
        batch = view.batch
        prompts = self.policy.prompts(view)
        theirs = self.reference.prompts(view)
        twice = torch.arange(len(batch), device=batch.rows.device).repeat_interleave(2)
        ids, counts = (part.flatten(0, 1) for part in self.policy.given(batch))
        logits = self.policy.logits(prompts.take(twice), ids, counts)
        old = self.reference.logits(theirs.take(twice), ids, counts)
        policy, reference = (token_log_probabilities(x, ids, counts).sum(dim=1).view(-1, 2) for x in (logits, old))
        if self.training:
            return DpoPredictions(None, policy, reference, None)
        rows = (self.policy.answerable(batch) & self.policy.to_write(batch)).nonzero().squeeze(1)
        drawn = None
        if len(rows):
            with torch.no_grad():
                mine, before = prompts.take(rows), theirs.take(rows)
                drawn = sample_sentences(self.policy, mine, self.reference, before, batch.rows[rows], num=1)
        return DpoPredictions(self.policy(view), policy, reference, drawn)

    def count(self, batch: Batch) -> Tensor:
        """Count the rows that have both sentences and a modality to read."""
        return self._pairs(batch).sum()

    def loss(self, predictions: DpoPredictions, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (sum, count) over pairs."""
        pairs = self._pairs(batch)
        if self.training:
            lengths = self.policy.given(batch)[1][pairs].sum(dim=2)
            values = dict(zip(("length_chosen", "length_rejected"), lengths.unbind(dim=1), strict=True))
            self._tally.add(self._rewards(predictions, pairs) | values)
        return dpo(
            predictions.policy, predictions.reference, pairs, beta=self.beta, label_smoothing=self.label_smoothing
        )

    def _rewards(self, predictions: DpoPredictions, pairs: Tensor) -> dict[str, Tensor]:
        """Return the implicit rewards (section 4): beta log(policy / reference)."""
        rewards = self.beta * (predictions.policy - predictions.reference)[pairs]
        chosen, rejected = rewards.unbind(dim=1)
        margin = chosen - rejected
        values = {"reward_chosen": chosen, "reward_rejected": rejected, "reward_margin": margin}
        return values | {"pair_accuracy": (margin > 0).double()}

    def step_metrics(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return rewards, pair accuracy and lengths, as (sum, count)."""
        return self._tally.take(next(self.parameters()).device)

    def metrics(self) -> MetricCollection:
        """Return the policy's metrics, the rewards of pairs, and KL and length of sampled sentences."""
        metrics: MetricCollection = self.policy.metrics()
        metrics.add_metrics({"means": Means([*STEP_METRICS[:4], "kl", "length"])})
        return metrics

    def update(self, metrics: MetricCollection, predictions: DpoPredictions, batch: Batch) -> None:
        """Update the policy's metrics, and add the pairs."""
        self.policy.update(metrics, predictions.written, batch)
        metrics["means"].update(self._rewards(predictions, self._pairs(batch)))
        if predictions.drawn is not None:
            drawn = predictions.drawn
            metrics["means"].update({"kl": drawn.divergence, "length": drawn.lengths()})
