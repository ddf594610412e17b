"""Direct preference optimization (2305.18290): a sentence that is chosen becomes likelier than one that is rejected.

It goes on from a run that learned to write, which is also the reference. Unusual here: the log probabilities are of
what the decoder reads, and encoders learn, too, unless they are frozen.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from mmtrain.layers.decoder import DecoderShape, Decoding
from mmtrain.layers.head import Decides
from mmtrain.losses.preference import dpo, token_log_probabilities
from mmtrain.metrics.means import Means
from mmtrain.tasks.generation import Generation, Written, only_of, up_to_end
from mmtrain.tasks.policy import Drawn, Reference, draw, plain_draws
from mmtrain.tasks.tally import Tally
from mmtrain.types import Batch, Features, PairTarget

TOLD = ("reward_chosen", "reward_rejected", "reward_margin", "pair_accuracy", "length_chosen", "length_rejected")


class Judged(NamedTuple):
    """What a view gives.

    Attributes:
        logits: (B, L, V) of the chosen sentences' tokens behind the start mark.
        read: what sentences are written from.
        policy: (B, 2), log probabilities of the chosen and of the rejected sentence; 0 where there is none.
        reference: (B, 2), those of the reference.
        drawn: in evaluation, one sentence of each row that is written for; None in training.
    """

    logits: Tensor
    read: Features
    policy: Tensor
    reference: Tensor
    drawn: Drawn | None


class Dpo(Generation):
    """Pairs of sentences; of a row without a rejected one the chosen one is judged and not learned.

    Args:
        dims: see `Generation`, and so are all that are not named here.
        known_targets: see there.
        reference: the trained model that this run starts as.
        continues: name of its task of sentences, whose weights this one takes.
        target: name of the target of pairs.
        beta: how much it costs to leave the reference.
        label_smoothing: share of pairs that may be the wrong way round.
        reads: see `Generation`.
        weight: see there.
        decoder: see there.
        decoding: see there.
        generate_every: see there.
        tokenize: see there.
        decides: see there.

    Raises:
        ValueError: as `Generation`, and when the target has no pairs, or a number means nothing.
    """

    monitor = "pair_accuracy"

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
        beta: float,
        label_smoothing: float,
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
            label_smoothing=label_smoothing,
            decoder=decoder,
            decoding=decoding,
            generate_every=generate_every,
            tokenize=tokenize,
            decides=decides,
        )
        if not isinstance(self.known, PairTarget):
            raise ValueError(
                f"target = {target} holds one sentence a row; make it pairs, with"
                f" target@data.targets.{target}=preference data.columns.{target}=[CHOSEN,REJECTED]"
            )
        if beta <= 0.0 or not 0.0 <= label_smoothing < 0.5:
            raise ValueError(
                f"beta = {beta} and label_smoothing = {label_smoothing}; set beta above 0, such as 0.1, and"
                " label_smoothing to 0 or more, below 0.5"
            )
        self.beta = beta
        self.continues = continues
        self.reference = Reference(reference, of=continues, known=self.known)
        self._tally = Tally(TOLD)

    def _ids(self, batch: Batch) -> Tensor:
        return only_of(self._valid(batch), batch.targets[self.targets[0]][:, 0], self.known)

    def _pairs(self, batch: Batch) -> Tensor:
        """(B,), bool: rows that have both."""
        rejected = batch.targets[self.targets[0]][:, 1, 1:]
        return self._valid(batch) & up_to_end(rejected, self.known).any(dim=1)

    def forward(self, view: Any) -> Any:
        """Both sentences under both models, and in evaluation what the policy draws: `Judged`."""
        batch, read = view.batch, view.features(self.reads[0])
        theirs = self.reference.read(batch)
        twice = torch.arange(len(batch), device=batch.rows.device).repeat_interleave(2)
        valid = torch.stack([self._valid(batch), self._pairs(batch)], dim=1).flatten()
        ids = only_of(valid, batch.targets[self.targets[0]].flatten(0, 1), self.known)
        before, wanted = ids[:, :-1], ids[:, 1:]
        counts = up_to_end(wanted, self.known) & valid.unsqueeze(1)
        logits = self.decoder(before, read.take(twice))
        old = self.reference.logits(before, theirs.take(twice))
        policy, reference = (token_log_probabilities(x, wanted, counts).sum(dim=1).view(-1, 2) for x in (logits, old))
        drawn = None
        if not self.training:
            rows = (self._valid(batch) & self._to_write(batch)).nonzero().squeeze(1)
            drawn = self._draw(read.take(rows), theirs.take(rows), batch.rows[rows]) if len(rows) else None
        return Judged(logits[::2], read, policy, reference, drawn)

    @torch.no_grad()
    def _draw(self, read: Features, theirs: Features, rows: Tensor) -> Drawn:
        how = plain_draws(self.decoding)
        return draw(self.decoder, read, self.reference, theirs, rows, num=1, how=how)

    def count(self, batch: Batch) -> Tensor:
        """Rows that have both sentences and something to read."""
        return self._pairs(batch).sum()

    def loss(self, predictions: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) over pairs."""
        pairs = self._pairs(batch)
        if self.training:
            lengths = up_to_end(batch.targets[self.targets[0]][pairs][:, :, 1:], self.known).sum(dim=2)
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
        """Those of `Generation`, rewards of pairs, and of drawn sentences the KL and the length."""
        metrics = super().metrics()
        metrics.add_metrics({"means": Means([*TOLD[:4], "kl", "length"])})
        return metrics

    def update(self, metrics: MetricCollection, predictions: Any, batch: Batch) -> None:
        """As `Generation`, and the pairs."""
        super().update(metrics, Written(predictions.logits, predictions.read), batch)
        pairs = self._pairs(batch)
        metrics["means"].update(self._rewards(predictions, pairs))
        if predictions.drawn is not None:
            drawn = predictions.drawn
            metrics["means"].update({"kl": drawn.divergence, "length": drawn.lengths()})
