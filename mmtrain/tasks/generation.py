"""Generation: a decoder writes a sentence about what it reads; teacher forcing and cross entropy over tokens.

As captions of pictures in Show and Tell (1411.4555), with a Transformer that reads every token (1706.03762). Unusual
here: the loss counts tokens, not rows, so that a long sentence weighs as much as it has tokens; and writing sentences
is slow, so that validation does it for some rows alone, always the same ones whatever the ranks.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from tokenizers.decoders import WordPiece
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from mmtrain.layers.decoder import Decoder, DecoderShape, Decoding
from mmtrain.layers.head import Decides
from mmtrain.losses.cross_entropy import cross_entropy
from mmtrain.metrics.chance import guessed
from mmtrain.metrics.text_generation import TextGeneration, TokenAccuracy
from mmtrain.tasks.names import check_names
from mmtrain.tasks.shown import shown_captions
from mmtrain.types import Batch, DialogueTarget, Exhibit, Features, PairTarget, TokenTarget


class Written(NamedTuple):
    """What a view gives.

    Attributes:
        logits: (B, L, V) of the target's tokens behind the start mark, each given the true ones before it.
        read: what sentences are written from.
    """

    logits: Tensor
    read: Features


class Generation(nn.Module):
    """One sentence a row.

    Args:
        dims: width by what can be read: "fused" and each modality.
        known_targets: what the data knows of each target, by name.
        target: name of the text target.
        reads: "fused" or one modality.
        weight: see `Task`.
        label_smoothing: share of the target spread over all tokens.
        decoder: sizes of the decoder.
        decoding: how sentences are written in evaluation.
        generate_every: validation writes those of each n-th row of the table; 0: none. Test writes all.
        tokenize: how BLEU splits words, one of sacrebleu's: 13a for most languages; zh, ja-mecab, ko-mecab, char.
        decides: the fusion, when it is one of decisions.

    Raises:
        ValueError: when the data has no such target, nothing of that name can be read, or the parts do not fit.
    """

    monitor = "token_accuracy"  # of every row at the price of the loss; sentences are of some rows

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        known_targets: Mapping[str, Any],
        target: str,
        reads: str,
        weight: float,
        label_smoothing: float,
        decoder: DecoderShape,
        decoding: Decoding,
        generate_every: int,
        tokenize: str,
        decides: Decides | None = None,
    ) -> None:
        super().__init__()
        check_names(("target", target, known_targets), ("reads", reads, dims))
        self.known = _sentences(known_targets[target], target, decoding)
        if decides is not None and reads == "fused":
            raise ValueError(
                "a sentence is written from modalities together, but the fusion decides by each alone;"
                " choose another, such as fusion=cross_attn, or set reads to a modality"
            )
        if generate_every < 0:
            raise ValueError(f"generate_every = {generate_every}; set it to 0 for none, 1 for all, 10 for a tenth")
        self.reads = (reads,)
        self.needs = () if reads == "fused" else (reads,)
        self.targets = (target,)
        self.weight = weight
        self.label_smoothing = label_smoothing
        self.decoding = decoding
        self.generate_every = generate_every
        self.tokenize = tokenize
        self.stage = "test"
        self.metrics()  # an unknown `tokenize` is said before anything runs
        self.decoder = Decoder(read_dim=dims[reads], shape=decoder, known=self.known)
        self.never = self.decoder.never

    def start_evaluation(self, stage: str) -> None:
        """What comes is val or test: validation writes sentences for some rows alone."""
        self.stage = stage

    def forward(self, view: Any) -> Written:
        """Logits of a view's targets, and what it read."""
        read = self.prompts(view)
        return Written(self.logits(read, *self._wanted(view.batch)), read)

    def answerable(self, batch: Batch) -> Tensor:
        """(B,), bool: labelled rows with something to read."""
        return batch.labelled[self.targets[0]] & batch.has_any(self.needs)

    def given(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The sentences of the target behind their start mark, and which tokens count: (B, S, L); see `Policy`."""
        values = batch.targets[self.targets[0]]
        sides = values if isinstance(self.known, PairTarget) else values.unsqueeze(1)
        valid = self.answerable(batch).repeat_interleave(sides.shape[1])
        ids = only_of(valid, sides.flatten(0, 1), self.known)[:, 1:]
        counts = up_to_end(ids, self.known) & valid.unsqueeze(1)
        return ids.unflatten(0, sides.shape[:2]), counts.unflatten(0, sides.shape[:2])

    def _wanted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The tokens to learn (B, L) and which of them count; of a pair, those of the chosen sentence."""
        ids, counts = self.given(batch)
        return ids[:, 0], counts[:, 0]

    def prompts(self, view: Any) -> Features:
        """What sentences are written from."""
        return view.features(self.reads[0])

    def logits(self, prompts: Features, ids: Tensor, counts: Tensor) -> Tensor:
        """(N, L, V), of each token of sentences (N, L), given those before it."""
        start = torch.full_like(ids[:, :1], self.known.start)
        return self.decoder(torch.cat([start, ids[:, :-1]], dim=1), prompts)

    def generate(self, prompts: Features, draws: Tensor, decoding: Decoding) -> Tensor:
        """See `Decoder`."""
        return self.decoder.generate(prompts, draws, decoding)

    def sentence(self, ids: list[int]) -> str:
        """Ids as a person reads them."""
        return sentence(ids, self.known)

    def count(self, batch: Batch) -> Tensor:
        """Tokens to write in labelled rows with something to read, end marks among them."""
        return self._wanted(batch)[1].sum()

    def loss(self, predictions: Written, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross entropy over tokens: (sum, count)."""
        wanted, counts = self._wanted(batch)
        return cross_entropy(
            predictions.logits.flatten(0, 1), wanted.flatten(), counts.flatten(), label_smoothing=self.label_smoothing
        )

    def metrics(self) -> MetricCollection:
        """Share of right tokens given the true ones before, and what `TextGeneration` says of whole sentences."""
        parts: dict[str, Metric | MetricCollection] = {
            "tokens": TokenAccuracy(len(self.known.names)),
            "sentences": TextGeneration(tokenize=self.tokenize),
        }
        return MetricCollection(parts, compute_groups=False)

    def update(self, metrics: MetricCollection, predictions: Written, batch: Batch) -> None:
        """Count the tokens of labelled rows, and write sentences for those that are to have them.

        Raises:
            FloatingPointError: when a logit is not finite: it must not score.
        """
        rows = (self.answerable(batch) & self.to_write(batch)).nonzero().squeeze(1)
        self.judge(metrics, predictions, batch, rows, self.write(predictions, batch, rows))

    def judge(self, metrics: Any, predictions: Written, batch: Batch, rows: Tensor, said: list[str]) -> None:
        """Count the tokens of labelled rows, and score what was said of some rows."""
        wanted, counts = self._wanted(batch)
        logits = predictions.logits[counts]
        if not logits.isfinite().all():
            raise FloatingPointError(f"generation of {self.targets[0]}: a logit is not finite")
        metrics["tokens"].update(logits.argmax(dim=1), wanted[counts])
        metrics["sentences"].update(said, self.right(batch, rows), batch.rows[rows])

    def right(self, batch: Batch, rows: Tensor) -> list[list[str]]:
        """The sentences that are right for some rows."""
        right = batch.references.get(self.targets[0], [])  # none when no row of the batch has a sentence
        return [right[row] for row in rows.tolist()]

    def to_write(self, batch: Batch) -> Tensor:
        """(B,), bool: rows that evaluation writes for."""
        if self.stage == "test":
            return torch.ones_like(batch.rows, dtype=torch.bool)
        every = self.generate_every
        return batch.rows % every == 0 if every else torch.zeros_like(batch.rows, dtype=torch.bool)

    def write(self, predictions: Written, batch: Batch, rows: Tensor) -> list[str]:
        """The sentences of some rows, as `decoding` says."""
        ids = self.generate(predictions.read.take(rows), batch.rows[rows], self.decoding)
        return [self.sentence(row) for row in ids.tolist()]

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Always the most frequent token, and always the most frequent sentence, of the rows that were counted."""
        return guessed(values)

    def exhibits(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[Exhibit]:
        """Twelve rows spread over the split, if sentences were written."""
        if "shown" not in values:
            return []
        return [shown_captions(self.targets[0], values["shown"], name)]

    def rows(self, predictions: Written, batch: Batch) -> list[dict[str, Any]]:
        """The sentence, where there is something to read."""
        chosen = batch.has_any(self.needs).nonzero().squeeze(1)
        said = dict(zip(chosen.tolist(), self.write(predictions, batch, chosen), strict=True))
        return [{self.targets[0]: said[i]} if i in said else {} for i in range(len(batch))]


def _sentences(known: Any, target: str, decoding: Decoding) -> TokenTarget:
    """What is known of a target, if it is one of sentences that are long enough."""
    if not isinstance(known, TokenTarget):
        raise ValueError(
            f"target = {target} holds no sentences;"
            f" name another column for them, +target@data.targets.NAME=text data.columns.NAME={target}"
        )
    longest, asked = known.max_length - 1, decoding.max_new_tokens
    if asked is not None and asked > longest:
        raise ValueError(
            f"decoding.max_new_tokens = {asked}, but no sentence of {target} has more than {longest} tokens;"
            f" set it to {longest}, or data.targets.{target}.text.max_length to {asked + 1}"
        )
    return known


def only_of(valid: Tensor, ids: Tensor, known: TokenTarget) -> Tensor:
    """Ids (B, L), int64, with padding in rows that are not valid (B,); L at least 2."""
    ids = ids.masked_fill(~valid.unsqueeze(1), known.pad)
    return nn.functional.pad(ids, (0, max(2 - ids.shape[1], 0)), value=known.pad)


def up_to_end(ids: Tensor, known: TokenTarget | DialogueTarget) -> Tensor:
    """Which of ids (..., L), int64, behind the start mark are a sentence's own: up to the end mark, that too."""
    is_end = ids == known.end
    over = is_end.cumsum(dim=-1) - is_end.long() > 0
    return ~over & (is_end | (ids != known.pad))  # some tokenizers pad with their end mark


def sentence(ids: list[int], known: TokenTarget) -> str:
    """Ids as a person reads them: up to the end mark, without marks, pieces of a word together.

    >>> known = TokenTarget(["[PAD]", "[S]", "[E]", "a", "do", "##g"], max_length=8, pad=0, start=1, end=2)
    >>> sentence([1, 3, 4, 5, 2, 3], known)
    'a dog'
    """
    body = ids[1:] if ids[:1] == [known.start] else ids  # some tokenizers start and end with one mark
    kept = body[: body.index(known.end)] if known.end in body else body
    return WordPiece(cleanup=True).decode([known.names[i] for i in kept if i not in (known.pad, known.start)])
