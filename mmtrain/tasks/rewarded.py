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

from mmtrain.layers.decoder import DecoderShape, Decoding
from mmtrain.layers.head import Decides
from mmtrain.metrics.means import Means
from mmtrain.metrics.rewards import reward_of
from mmtrain.tasks.generation import Generation, Written, sentence
from mmtrain.tasks.policy import Drawn, Reference, draw, plain_draws
from mmtrain.tasks.tally import Tally
from mmtrain.types import Batch, Features

TOLD = ("reward", "kl", "length")  # of drawn sentences


class Scored(NamedTuple):
    """What a view gives.

    Attributes:
        written: as `Generation` has it; no logits in training.
        rows: (N,), int64, the rows that were drawn for.
        valid: (N,), bool; False in a row that only stands where there is none.
        drawn: G sentences of each.
        rewards: (N, G), float64.
        advantages: (N, G), float64.
    """

    written: Written
    rows: Tensor
    valid: Tensor
    drawn: Drawn
    rewards: Tensor
    advantages: Tensor


class Rewarded(Generation, ABC):
    """Sentences that are drawn and scored.

    Args:
        dims: see `Generation`, and so are all that are not named here.
        known_targets: see there.
        reference: the trained model that this run starts as.
        continues: name of its task of sentences, whose weights this one takes.
        target: see `Generation`.
        reads: see there.
        weight: see there.
        reward: what a sentence is worth, of `mmtrain.metrics.rewards`.
        num_samples: sentences that are drawn of a row.
        decoder: see `Generation`.
        decoding: see there.
        generate_every: see there; not 0.
        tokenize: see there; also of the reward.
        decides: see there.

    Raises:
        ValueError: as `Generation`, and when there is nothing to compare with.
    """

    monitor = "reward"

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        known_targets: Mapping[str, Any],
        reference: nn.Module | None,
        continues: str,
        target: str,
        reads: str,
        weight: float,
        reward: str,
        num_samples: int,
        decoder: DecoderShape,
        decoding: Decoding,
        generate_every: int,
        tokenize: str,
        decides: Decides | None = None,
    ) -> None:
        super().__init__(
            dims=dims,
            known_targets=known_targets,
            target=target,
            reads=reads,
            weight=weight,
            label_smoothing=0.0,
            decoder=decoder,
            decoding=decoding,
            generate_every=generate_every,
            tokenize=tokenize,
            decides=decides,
        )
        if generate_every == 0:
            raise ValueError("generate_every = 0 leaves no sentence to score in validation; set it to 10, say")
        if num_samples < 1:
            raise ValueError(f"num_samples = {num_samples} draws no sentence; set it to 1 or more")
        if not self.known.sentences:
            raise ValueError(
                f"target = {target} keeps no sentences in training, with which a reward compares;"
                f" set data.targets.{target}.keep_sentences=true"
            )
        self.reward = reward_of(reward, sentences=self.known.sentences, tokenize=tokenize)
        self.num_samples = num_samples
        self.continues = continues
        self.reference = Reference(reference, of=continues, known=self.known)
        self._tally = Tally(TOLD)

    def _drawn_for(self, batch: Batch) -> Tensor:
        """(B,), bool."""
        return self._valid(batch) if self.training else self._valid(batch) & self._to_write(batch)

    def count(self, batch: Batch) -> Tensor:
        """Rows that are drawn for: labelled ones with something to read."""
        return self._drawn_for(batch).sum()

    def forward(self, view: Any) -> Any:
        """Draw and score, and in evaluation logits of a view's targets, too: `Scored`."""
        batch, read = view.batch, view.features(self.reads[0])
        rows = self._drawn_for(batch).nonzero().squeeze(1)
        valid = torch.ones_like(rows, dtype=torch.bool)
        if not len(rows):  # every parameter has its part in a step, of zero
            rows, valid = torch.zeros_like(batch.rows[:1]), torch.zeros_like(batch.rows[:1], dtype=torch.bool)
        mine, theirs = read.take(rows), self.reference.read(batch).take(rows)
        draws, how = batch.draws[rows], plain_draws(self.decoding)
        drawn = draw(self.decoder, mine, self.reference, theirs, draws, num=self.num_samples, how=how)
        right = self._right_or_none(batch, rows, valid)
        rewards = self._scores(drawn.ids, right)
        advantages = self._advantages(rewards, mine, draws, right)
        logits = rewards[:0] if self.training else super().forward(view).logits
        return Scored(Written(logits, read), rows, valid, drawn, rewards, advantages)

    def _right_or_none(self, batch: Batch, rows: Tensor, valid: Tensor) -> list[list[str]]:
        if rows.is_meta or not bool(valid.all()):  # without content (mmtrain/plan/watch.py), or without a row
            return [[""]] * len(rows)
        return self._right(batch, rows)

    def _scores(self, ids: Tensor, right: list[list[str]]) -> Tensor:
        """Rewards (N, G), float64, of ids (N, G, L)."""
        if ids.is_meta:
            return ids.sum(dim=2).double()
        said = [[sentence(one, self.known) for one in row] for row in ids.tolist()]
        scores = [[self.reward(one, texts) for one in row] for row, texts in zip(said, right, strict=True)]
        return torch.tensor(scores, dtype=torch.double, device=ids.device)

    @abstractmethod
    def _advantages(self, rewards: Tensor, read: Features, draws: Tensor, right: list[list[str]]) -> Tensor:
        """(N, G), how much better each sentence is than what could be expected."""

    @abstractmethod
    def _loss(self, predictions: Scored) -> tuple[Tensor, Tensor]:
        """(sum, count) over rows."""

    def loss(self, predictions: Any, batch: Batch) -> tuple[Tensor, Tensor]:
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
        """Those of `Generation`; the reward of what is written; and of drawn sentences reward, KL and length."""
        metrics = super().metrics()
        metrics.add_metrics({"means": Means(["reward", "reward_of_draws", "kl", "length"])})
        return metrics

    def update(self, metrics: MetricCollection, predictions: Any, batch: Batch) -> None:
        """Count tokens, and score what is written and what is drawn."""
        self._update_tokens(metrics, predictions.written, batch)
        chosen = predictions.rows[predictions.valid]
        said, right = self._write(predictions.written, batch, chosen), self._right(batch, chosen)
        self._update_sentences(metrics, said, batch, chosen)
        rewards = [self.reward(one, texts) for one, texts in zip(said, right, strict=True)]
        of_draws = self._said(predictions)
        of_draws["reward_of_draws"] = of_draws.pop("reward")
        metrics["means"].update({"reward": torch.tensor(rewards, dtype=torch.double), **of_draws})

    def rows(self, predictions: Any, batch: Batch) -> list[dict[str, Any]]:
        """The sentence, where there is something to read."""
        return super().rows(predictions.written, batch)
