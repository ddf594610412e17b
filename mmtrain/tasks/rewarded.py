"""What learning from the reward of one's own sentences has in common: they are drawn, scored and compared.

Unusual here: a row's draws follow from `Batch.draws`, and its reward from itself alone, so that a step is the same
however its rows fall into micro-batches and ranks. In evaluation the same is done for those rows that sentences are
written for.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from mmtrain.metrics.means import Means
from mmtrain.metrics.rewards import reward_of
from mmtrain.tasks.policy import Continued, Drawn, Policy, draw
from mmtrain.tasks.tally import Tally
from mmtrain.types import Batch

TOLD = ("reward", "kl", "length")  # of drawn sentences


class Scored(NamedTuple):
    """What a view gives.

    Attributes:
        written: in evaluation, what the policy itself gives; None in training.
        rows: (N,), int64, the rows that were drawn for.
        valid: (N,), bool; False in a row that only stands where there is none.
        drawn: G sentences of each.
        rewards: (N, G), float64.
        advantages: (N, G), float64.
    """

    written: Any
    rows: Tensor
    valid: Tensor
    drawn: Drawn
    rewards: Tensor
    advantages: Tensor


class Rewarded(Continued, ABC):
    """Sentences that are drawn and scored.

    Args:
        policy: see `Continued`, and so are all that are not named here; its target keeps its sentences.
        encoders: see there.
        reference: see there.
        continues: see there.
        target: see there.
        modalities: see there.
        weight: see there.
        reward: what a sentence is worth, of `mmtrain.metrics.rewards`.
        num_samples: sentences that are drawn of a row.

    Raises:
        ValueError: as `Continued`, and when there is nothing to compare with.
    """

    monitor = "reward"

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
        reward: str,
        num_samples: int,
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
        if policy.generate_every == 0:
            raise ValueError("policy.generate_every = 0 leaves no sentence to score in validation; set it to 10, say")
        if num_samples < 1:
            raise ValueError(f"num_samples = {num_samples} draws no sentence; set it to 1 or more")
        sentences = policy.known.sentences
        if not sentences:
            raise ValueError(
                f"target = {target} keeps no sentences in training, with which a reward compares;"
                f" set data.targets.{target}.keep_sentences=true"
            )
        self.reward = reward_of(reward, sentences=sentences, tokenize=policy.tokenize)
        self.num_samples = num_samples
        self._tally = Tally(TOLD)

    def _drawn_for(self, batch: Batch) -> Tensor:
        """(B,), bool."""
        answerable: Tensor = self.policy.answerable(batch)
        return answerable if self.training else answerable & self.policy.to_write(batch)

    def count(self, batch: Batch) -> Tensor:
        """Rows that are drawn for: labelled ones with something to read."""
        return self._drawn_for(batch).sum()

    def forward(self, view: Any) -> Scored:
        """Draw and score, and in evaluation what the policy itself gives, too."""
        batch, prompts = view.batch, self.policy.prompts(view)
        rows = self._drawn_for(batch).nonzero().squeeze(1)
        valid = torch.ones_like(rows, dtype=torch.bool)
        if not len(rows):  # every parameter has its part in a step, of zero
            rows, valid = torch.zeros_like(batch.rows[:1]), torch.zeros_like(batch.rows[:1], dtype=torch.bool)
        mine, theirs, draws = prompts.take(rows), self.reference.prompts(view).take(rows), batch.draws[rows]
        drawn = draw(self.policy, mine, self.reference, theirs, draws, num=self.num_samples)
        right = self._right_or_none(batch, rows, valid)
        rewards = self._scores(drawn.ids, right)
        advantages = self._advantages(rewards, mine, draws, right)
        return Scored(None if self.training else self.policy(view), rows, valid, drawn, rewards, advantages)

    def _right_or_none(self, batch: Batch, rows: Tensor, valid: Tensor) -> list[list[str]]:
        if rows.is_meta or not bool(valid.all()):  # without content (mmtrain/plan/watch.py), or without a row
            return [[""]] * len(rows)
        found: list[list[str]] = self.policy.right(batch, rows)
        return found

    def _scores(self, ids: Tensor, right: list[list[str]]) -> Tensor:
        """Rewards (N, G), float64, of ids (N, G, L)."""
        if ids.is_meta:
            return ids.sum(dim=2).double()
        said = [[self.policy.sentence(one) for one in row] for row in ids.tolist()]
        scores = [[self.reward(one, texts) for one in row] for row, texts in zip(said, right, strict=True)]
        return torch.tensor(scores, dtype=torch.double, device=ids.device)

    @abstractmethod
    def _advantages(self, rewards: Tensor, prompts: Any, draws: Tensor, right: list[list[str]]) -> Tensor:
        """(N, G), how much better each sentence is than what could be expected."""

    @abstractmethod
    def _loss(self, predictions: Scored) -> tuple[Tensor, Tensor]:
        """(sum, count) over rows."""

    def loss(self, predictions: Scored, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) over the rows that were drawn for."""
        if self.training:
            self._tally.add({name: value.flatten() for name, value in self._said(predictions).items()})
        return self._loss(predictions)

    def _said(self, predictions: Scored) -> dict[str, Tensor]:
        """Of drawn sentences, by the names of TOLD."""
        drawn, valid = predictions.drawn, predictions.valid
        values = (predictions.rewards, drawn.divergence, drawn.lengths())
        return {name: value[valid] for name, value in zip(TOLD, values, strict=True)}

    def told(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Reward, KL to the reference, and tokens of drawn sentences."""
        return self._tally.take(next(self.parameters()).device)

    def metrics(self) -> MetricCollection:
        """Those of the policy; the reward of what is written; and of drawn sentences reward, KL and length."""
        metrics: MetricCollection = self.policy.metrics()
        metrics.add_metrics({"means": Means(["reward", "reward_of_draws", "kl", "length"])})
        return metrics

    def update(self, metrics: MetricCollection, predictions: Scored, batch: Batch) -> None:
        """Count tokens, and score what is written and what is drawn."""
        chosen = predictions.rows[predictions.valid]
        said, right = self.policy.write(predictions.written, batch, chosen), self.policy.right(batch, chosen)
        self.policy.judge(metrics, predictions.written, batch, chosen, said)
        rewards = [self.reward(one, texts) for one, texts in zip(said, right, strict=True)]
        of_draws = self._said(predictions)
        of_draws["reward_of_draws"] = of_draws.pop("reward")
        metrics["means"].update({"reward": torch.tensor(rewards, dtype=torch.double), **of_draws})
