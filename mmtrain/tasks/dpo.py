"""Direct preference optimization (2305.18290): a sentence that is chosen becomes likelier than one that is rejected.

It goes on from a run that learned to write, which is also the reference. Unusual here: the log probabilities are of
what the policy reads, and encoders learn, too, unless they are frozen.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from mmtrain.losses.preference import dpo, token_log_probabilities
from mmtrain.metrics.means import Means
from mmtrain.tasks.policy import Continued, Drawn, Policy, draw
from mmtrain.tasks.tally import Tally
from mmtrain.types import Batch, DialoguePairTarget, DialogueTarget, PairTarget

TOLD = ("reward_chosen", "reward_rejected", "reward_margin", "pair_accuracy", "length_chosen", "length_rejected")


class Judged(NamedTuple):
    """What a view gives.

    Attributes:
        written: in evaluation, what the policy itself gives; None in training.
        policy: (B, 2), log probabilities of the chosen and of the rejected sentence; 0 where there is none.
        reference: (B, 2), those of the reference.
        drawn: in evaluation, one sentence of each row that is written for; None in training.
    """

    written: Any
    policy: Tensor
    reference: Tensor
    drawn: Drawn | None


class Dpo(Continued):
    """Pairs of sentences; of a row without a rejected one the chosen one is judged and not learned.

    Args:
        policy: see `Continued`, and so are all that are not named here; its target gives pairs.
        encoders: see there.
        reference: see there.
        continues: see there.
        target: see there.
        modalities: see there.
        weight: see there.
        beta: how much it costs to leave the reference.
        label_smoothing: share of pairs that may be the wrong way round.

    Raises:
        ValueError: as `Continued`, and when the target has no pairs, or a number means nothing.
    """

    monitor = "pair_accuracy"

    def __init__(
        self,
        *,
        policy: Policy,
        encoders: Mapping[str, nn.Module],
        reference: nn.Module | str | None,
        continues: str,
        target: str,
        modalities: list[str],
        weight: float,
        beta: float,
        label_smoothing: float,
    ) -> None:
        super().__init__(
            policy=policy,
            encoders=encoders,
            reference=reference,
            continues=continues,
            target=target,
            modalities=modalities,
            weight=weight,
        )
        if not isinstance(policy.known, PairTarget | DialoguePairTarget):
            speaks = isinstance(policy.known, DialogueTarget)
            kind, columns = ("chat_preference", "[...,REJECTED]") if speaks else ("preference", "[CHOSEN,REJECTED]")
            raise ValueError(
                f"target = {target} holds one sentence a row; make it pairs, with"
                f" target@data.targets.{target}={kind} data.columns.{target}={columns}"
            )
        if beta <= 0.0 or not 0.0 <= label_smoothing < 0.5:
            raise ValueError(
                f"beta = {beta} and label_smoothing = {label_smoothing}; set beta above 0, such as 0.1, and"
                " label_smoothing to 0 or more, below 0.5"
            )
        self.beta = beta
        self.label_smoothing = label_smoothing
        self._tally = Tally(TOLD)

    def _pairs(self, batch: Batch) -> Tensor:
        """(B,), bool: rows that have both."""
        return self.policy.given(batch)[1].any(dim=2).all(dim=1)

    def forward(self, view: Any) -> Judged:
        """Both sentences under both models, and in evaluation what the policy draws."""
        batch = view.batch
        prompts = self.policy.prompts(view)
        theirs = self.reference.prompts(view)
        twice = torch.arange(len(batch), device=batch.rows.device).repeat_interleave(2)
        ids, counts = (part.flatten(0, 1) for part in self.policy.given(batch))
        logits = self.policy.logits(prompts.take(twice), ids, counts)
        old = self.reference.logits(theirs.take(twice), ids, counts)
        policy, reference = (token_log_probabilities(x, ids, counts).sum(dim=1).view(-1, 2) for x in (logits, old))
        if self.training:
            return Judged(None, policy, reference, None)
        rows = (self.policy.answerable(batch) & self.policy.to_write(batch)).nonzero().squeeze(1)
        drawn = None
        if len(rows):
            with torch.no_grad():
                mine, before = prompts.take(rows), theirs.take(rows)
                drawn = draw(self.policy, mine, self.reference, before, batch.rows[rows], num=1)
        return Judged(self.policy(view), policy, reference, drawn)

    def count(self, batch: Batch) -> Tensor:
        """Rows that have both sentences and something to read."""
        return self._pairs(batch).sum()

    def loss(self, predictions: Judged, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) over pairs."""
        pairs = self._pairs(batch)
        if self.training:
            lengths = self.policy.given(batch)[1][pairs].sum(dim=2)
            told = dict(zip(("length_chosen", "length_rejected"), lengths.unbind(dim=1), strict=True))
            self._tally.add(self._rewards(predictions, pairs) | told)
        return dpo(
            predictions.policy, predictions.reference, pairs, beta=self.beta, label_smoothing=self.label_smoothing
        )

    def _rewards(self, predictions: Judged, pairs: Tensor) -> dict[str, Tensor]:
        """What the policy implies (section 4): beta log(policy / reference)."""
        rewards = self.beta * (predictions.policy - predictions.reference)[pairs]
        chosen, rejected = rewards.unbind(dim=1)
        margin = chosen - rejected
        told = {"reward_chosen": chosen, "reward_rejected": rejected, "reward_margin": margin}
        return told | {"pair_accuracy": (margin > 0).double()}

    def told(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Rewards, how often the chosen one has the higher one, and lengths."""
        return self._tally.take(next(self.parameters()).device)

    def metrics(self) -> MetricCollection:
        """Those of the policy, rewards of pairs, and of drawn sentences the KL and the length."""
        metrics: MetricCollection = self.policy.metrics()
        metrics.add_metrics({"means": Means([*TOLD[:4], "kl", "length"])})
        return metrics

    def update(self, metrics: MetricCollection, predictions: Judged, batch: Batch) -> None:
        """As the policy, and the pairs."""
        self.policy.update(metrics, predictions.written, batch)
        metrics["means"].update(self._rewards(predictions, self._pairs(batch)))
        if predictions.drawn is not None:
            drawn = predictions.drawn
            metrics["means"].update({"kl": drawn.divergence, "length": drawn.lengths()})
