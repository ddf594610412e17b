"""Base of training with rewards of sampled sentences: sample, score and compare.

Samples of a row are seeded by `Batch.draws`, and its reward depends only on the row. So a step does not depend on the
split into micro-batches and ranks. Evaluation does the same for the rows for which it generates sentences.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from mmtrain.annotations import Flattened, Size
from mmtrain.metrics.means import Means
from mmtrain.metrics.rewards import RewardName, reward_of
from mmtrain.tasks.policy import ContinuedTask, SampledSentences, TrainedPolicy, sample_sentences
from mmtrain.tasks.tally import RunningMeans
from mmtrain.types import Batch, View

STEP_METRICS = ("reward", "kl", "length")  # of sampled sentences


class RewardedSamples(NamedTuple):
    """Predictions for a view.

    Attributes:
        written: in evaluation, the output of the policy; None in training.
        rows: (N,), int64, the rows with samples.
        valid: (N,), bool; False for a placeholder row if there are none.
        drawn: G sampled sentences per row.
        rewards: (N, G), float64.
        advantages: (N, G), float64.
    """

    written: Any
    rows: Tensor
    valid: Tensor
    drawn: SampledSentences
    rewards: Tensor
    advantages: Tensor


class Rewarded(ContinuedTask, ABC):
    """Samples sentences and scores them.

    Args:
        trained: the policy and its reference; the target must keep its sentences.
        reward: name of a reward in `mmtrain.metrics.rewards`.
        num_samples: number of sampled sentences per row.

    Raises:
        ValueError: as in `TrainedPolicy`, for a number out of range, or if there are no reference sentences.
    """

    monitor = "reward"

    def __init__(self, *, trained: Flattened[TrainedPolicy], reward: RewardName, num_samples: Size) -> None:
        super().__init__(trained)
        if self.policy.generate_every == 0:
            raise ValueError(
                "policy.generate_every = 0 gives validation no sentence to score; set it to 10, for example"
            )
        if num_samples < 1:
            raise ValueError(f"num_samples = {num_samples} is below 1; set it to 1 or more")
        sentences = self.policy.known.sentences
        if not sentences:
            raise ValueError(
                f"target = {trained.target} keeps no training sentences, which the reward needs as references;"
                f" set data.targets.{trained.target}.keep_references=true"
            )
        self.reward = reward_of(reward, sentences=sentences, tokenize=self.policy.tokenize)
        self.num_samples = num_samples
        self._tally = RunningMeans(STEP_METRICS)

    def _drawn_for(self, batch: Batch) -> Tensor:
        """Return (B,), bool: rows with samples."""
        answerable: Tensor = self.policy.answerable(batch)
        return answerable if self.training else answerable & self.policy.to_write(batch)

    def count(self, batch: Batch) -> Tensor:
        """Count the rows with samples: labelled rows with a modality to read."""
        return self._drawn_for(batch).sum()

    def forward(self, view: View) -> RewardedSamples:
        """Sample and score; in evaluation, also run the policy."""
        batch, prompts = view.batch, self.policy.prompts(view)
        rows = self._drawn_for(batch).nonzero().squeeze(1)
        valid = torch.ones_like(rows, dtype=torch.bool)
        if not len(rows):  # a placeholder row with zero weight, so that every parameter gets a gradient
            rows, valid = torch.zeros_like(batch.rows[:1]), torch.zeros_like(batch.rows[:1], dtype=torch.bool)
        mine, theirs, draws = prompts.take(rows), self.reference.prompts(view).take(rows), batch.draws[rows]
        drawn = sample_sentences(self.policy, mine, self.reference, theirs, draws, num=self.num_samples)
        right = self._right_or_none(batch, rows, valid)
        rewards = self._scores(drawn.ids, right)
        advantages = self._advantages(rewards, mine, draws, right)
        return RewardedSamples(None if self.training else self.policy(view), rows, valid, drawn, rewards, advantages)

    def _right_or_none(self, batch: Batch, rows: Tensor, valid: Tensor) -> list[list[str]]:
        if rows.is_meta or not bool(valid.all()):  # a meta tensor (mmtrain/modes/plan/watch.py), or a placeholder row
            return [[""]] * len(rows)
        result: list[list[str]] = self.policy.right(batch, rows)
        return result

    def _scores(self, ids: Tensor, right: list[list[str]]) -> Tensor:
        """Return rewards (N, G), float64, of ids (N, G, L)."""
        if ids.is_meta:
            return ids.sum(dim=2).double()
        messages = [[self.policy.sentence(one) for one in row] for row in ids.tolist()]
        scores = [[self.reward(one, texts) for one in row] for row, texts in zip(messages, right, strict=True)]
        return torch.tensor(scores, dtype=torch.double, device=ids.device)

    @abstractmethod
    def _advantages(self, rewards: Tensor, prompts: Any, draws: Tensor, right: list[list[str]]) -> Tensor:
        """Return (N, G): the reward of each sentence relative to a baseline."""

    @abstractmethod
    def _loss(self, predictions: RewardedSamples) -> tuple[Tensor, Tensor]:
        """Return (sum, count) over rows."""

    def loss(self, predictions: RewardedSamples, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (sum, count) over the rows with samples."""
        if self.training:
            self._tally.add({name: value.flatten() for name, value in self._sample_values(predictions).items()})
        return self._loss(predictions)

    def _sample_values(self, predictions: RewardedSamples) -> dict[str, Tensor]:
        """Return the values of sampled sentences, by the names in TOLD."""
        drawn, valid = predictions.drawn, predictions.valid
        values = (predictions.rewards, drawn.divergence, drawn.lengths())
        return {name: value[valid] for name, value in zip(STEP_METRICS, values, strict=True)}

    def step_metrics(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return reward, KL to the reference, and length of sampled sentences, as (sum, count)."""
        return self._tally.take(next(self.parameters()).device)

    def metrics(self) -> MetricCollection:
        """Return the policy's metrics, the reward of its sentences, and reward, KL and length of samples."""
        metrics: MetricCollection = self.policy.metrics()
        metrics.add_metrics({"means": Means(["reward", "reward_of_draws", "kl", "length"])})
        return metrics

    def update(self, metrics: MetricCollection, predictions: RewardedSamples, batch: Batch) -> None:
        """Add tokens, and the scores of generated and sampled sentences."""
        chosen = predictions.rows[predictions.valid]
        sentences, right = self.policy.write(predictions.written, batch, chosen), self.policy.right(batch, chosen)
        self.policy.judge(metrics, predictions.written, batch, chosen, sentences)
        rewards = [self.reward(one, texts) for one, texts in zip(sentences, right, strict=True)]
        of_draws = self._sample_values(predictions)
        of_draws["reward_of_draws"] = of_draws.pop("reward")
        metrics["means"].update({"reward": torch.tensor(rewards, dtype=torch.double), **of_draws})
