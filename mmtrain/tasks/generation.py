"""Generation: a decoder generates a sentence from features; training by teacher forcing and token cross entropy.

As for image captions in Show and Tell (1411.4555), with a Transformer that attends to every token (1706.03762). The
loss counts tokens, not rows, so a sentence is weighted by its length. Generation is slow, so validation generates for a
subset of rows, which does not depend on the number of ranks.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from tokenizers.decoders import WordPiece
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from mmtrain.annotations import Fraction, NonNegativeFloat, NonNegativeInt
from mmtrain.layers.decoder import Decoder, DecoderShape, Decoding
from mmtrain.layers.head import LateFusion
from mmtrain.losses.cross_entropy import cross_entropy
from mmtrain.metrics.chance import chance_scores
from mmtrain.metrics.text_generation import TextGeneration, TokenAccuracy, Tokenize
from mmtrain.tasks.names import check_names
from mmtrain.tasks.shown import shown_captions
from mmtrain.types import Batch, DialogueTarget, Features, PairTarget, ReportItem, TokenTarget, View


class GenerationOutput(NamedTuple):
    """Predictions for a view.

    Attributes:
        logits: (B, L, V) for the target tokens after the start token, each given the true ones before it.
        read: features from which sentences are generated.
    """

    logits: Tensor
    read: Features


class Generation(nn.Module):
    """Text generation, one sentence per row.

    Args:
        dims: width by feature source: "fused" and each modality.
        known_targets: metadata of each target, by name.
        target: name of the text target.
        input: features to read: "fused" or one modality.
        weight: see `Task`.
        label_smoothing: fraction of the target that is spread over all tokens.
        decoder: sizes of the decoder.
        decoding: decoding options for evaluation.
        generate_every: validation generates for every n-th row of the table; 0 for none. Test generates for all.
        tokenize: sacrebleu's tokenizer for BLEU: 13a for most languages; zh, ja-mecab, ko-mecab, char.
        decides: the fusion, if it is a late fusion.

    Raises:
        ValueError: for an unknown target or feature source, or if the parts do not fit each other.
    """

    monitor = "token_accuracy"  # available for every row at no extra cost; sentences exist only for some rows

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        known_targets: Mapping[str, Any],
        target: str,
        input: str,
        weight: NonNegativeFloat,
        label_smoothing: Fraction,
        decoder: DecoderShape,
        decoding: Decoding,
        generate_every: NonNegativeInt,
        tokenize: Tokenize,
        decides: LateFusion | None = None,
    ) -> None:
        super().__init__()
        check_names(("target", target, known_targets), ("input", input, dims))
        self.known = _sentences(known_targets[target], target, decoding)
        if decides is not None and input == "fused":
            raise ValueError(
                "a sentence is generated from all modalities together, but a late fusion predicts from each one alone;"
                " choose another fusion, such as fusion=cross_attn, or set input to a modality"
            )
        if generate_every < 0:
            raise ValueError(f"generate_every = {generate_every}; set it to 0 for none, 1 for all, 10 for a tenth")
        self.reads = (input,)
        self.needs = () if input == "fused" else (input,)
        self.targets = (target,)
        self.weight = weight
        self.label_smoothing = label_smoothing
        self.decoding = decoding
        self.generate_every = generate_every
        self.tokenize = tokenize
        self.stage = "test"
        self.metrics()  # report an unknown `tokenize` before anything runs
        self.decoder = Decoder(read_dim=dims[input], shape=decoder, known=self.known)
        self.never = self.decoder.never

    def on_evaluation_start(self, stage: str) -> None:
        """Called before val or test; validation generates only for some rows."""
        self.stage = stage

    def forward(self, view: View) -> GenerationOutput:
        """Return logits of the view's targets, and the features."""
        read = self.prompts(view)
        return GenerationOutput(self.logits(read, *self._wanted(view.batch)), read)

    def answerable(self, batch: Batch) -> Tensor:
        """Return (B,), bool: labelled rows with a modality to read."""
        return batch.labelled[self.targets[0]] & batch.has_any(self.needs)

    def given(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the target sentences without start token, and which tokens count: (B, S, L); see `Policy`."""
        values = batch.targets[self.targets[0]]
        sides = values if isinstance(self.known, PairTarget) else values.unsqueeze(1)
        valid = self.answerable(batch).repeat_interleave(sides.shape[1])
        ids = only_of(valid, sides.flatten(0, 1), self.known)[:, 1:]
        counts = up_to_end(ids, self.known) & valid.unsqueeze(1)
        return ids.unflatten(0, sides.shape[:2]), counts.unflatten(0, sides.shape[:2])

    def _wanted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the target tokens (B, L) and which of them count; for a pair, those of the chosen sentence."""
        ids, counts = self.given(batch)
        return ids[:, 0], counts[:, 0]

    def prompts(self, view: View) -> Features:
        """Return the features from which sentences are generated."""
        return view.features(self.reads[0])

    def logits(self, prompts: Features, ids: Tensor, counts: Tensor) -> Tensor:
        """Return logits (N, L, V) for each token of sentences (N, L), given those before it."""
        start = torch.full_like(ids[:, :1], self.known.start)
        return self.decoder(torch.cat([start, ids[:, :-1]], dim=1), prompts)

    def generate(self, prompts: Features, draws: Tensor, decoding: Decoding) -> Tensor:
        """Generate sentences; see `Decoder`."""
        return self.decoder.generate(prompts, draws, decoding)

    def sentence(self, ids: list[int]) -> str:
        """Decode ids to readable text."""
        return sentence(ids, self.known)

    def count(self, batch: Batch) -> Tensor:
        """Count the target tokens, including end tokens, of labelled rows with a modality to read."""
        return self._wanted(batch)[1].sum()

    def loss(self, predictions: GenerationOutput, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the cross entropy over tokens: (sum, count)."""
        wanted, counts = self._wanted(batch)
        return cross_entropy(
            predictions.logits.flatten(0, 1), wanted.flatten(), counts.flatten(), label_smoothing=self.label_smoothing
        )

    def metrics(self) -> MetricCollection:
        """Return the token accuracy under teacher forcing, and the scores of `TextGeneration`."""
        parts: dict[str, Metric | MetricCollection] = {
            "tokens": TokenAccuracy(len(self.known.names)),
            "sentences": TextGeneration(tokenize=self.tokenize),
        }
        return MetricCollection(parts, compute_groups=False)

    def update(self, metrics: MetricCollection, predictions: GenerationOutput, batch: Batch) -> None:
        """Add the tokens of labelled rows, and generate sentences for the selected rows.

        Raises:
            FloatingPointError: if a logit is not finite, because it must not contribute to a score.
        """
        rows = (self.answerable(batch) & self.to_write(batch)).nonzero().squeeze(1)
        self.judge(metrics, predictions, batch, rows, self.write(predictions, batch, rows))

    def judge(
        self, metrics: Any, predictions: GenerationOutput, batch: Batch, rows: Tensor, sentences: list[str]
    ) -> None:
        """Add the tokens of labelled rows, and the generated sentences of some rows."""
        targets, counts = self._wanted(batch)
        logits = predictions.logits[counts]
        if not logits.isfinite().all():
            raise FloatingPointError(f"generation of {self.targets[0]}: a logit is not finite")
        metrics["tokens"].update(logits.argmax(dim=1), targets[counts])
        metrics["sentences"].update(sentences, self.right(batch, rows), batch.rows[rows])

    def right(self, batch: Batch, rows: Tensor) -> list[list[str]]:
        """Return the references of some rows."""
        right = batch.references.get(self.targets[0], [])  # missing if no row of the batch has a sentence
        return [right[row] for row in rows.tolist()]

    def to_write(self, batch: Batch) -> Tensor:
        """Return (B,), bool: rows for which evaluation generates."""
        if self.stage == "test":
            return torch.ones_like(batch.rows, dtype=torch.bool)
        every = self.generate_every
        return batch.rows % every == 0 if every else torch.zeros_like(batch.rows, dtype=torch.bool)

    def write(self, predictions: GenerationOutput, batch: Batch, rows: Tensor) -> list[str]:
        """Generate the sentences of some rows with `decoding`."""
        ids = self.generate(predictions.read.take(rows), batch.rows[rows], self.decoding)
        return [self.sentence(row) for row in ids.tolist()]

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Score always predicting the most frequent token, and the most frequent sentence, of the evaluated rows."""
        return chance_scores(values)

    def report_items(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[ReportItem]:
        """Return twelve rows spread over the split, if sentences were generated."""
        if "shown" not in values:
            return []
        return [shown_captions(self.targets[0], values["shown"], name)]

    def rows(self, predictions: GenerationOutput, batch: Batch) -> list[dict[str, Any]]:
        """Return the sentence, for rows with a modality to read."""
        chosen = batch.has_any(self.needs).nonzero().squeeze(1)
        sentences = dict(zip(chosen.tolist(), self.write(predictions, batch, chosen), strict=True))
        return [{self.targets[0]: sentences[i]} if i in sentences else {} for i in range(len(batch))]


def _sentences(known: Any, target: str, decoding: Decoding) -> TokenTarget:
    """Return the metadata of a target, after checking that it is a sentence target with sufficient length."""
    if not isinstance(known, TokenTarget):
        raise ValueError(
            f"target = {target} contains no sentences;"
            f" set another column for them, +target@data.targets.NAME=text data.columns.NAME={target}"
        )
    longest, requested = known.max_length - 1, decoding.max_new_tokens
    if requested is not None and requested > longest:
        raise ValueError(
            f"decoding.max_new_tokens = {requested}, but no sentence of {target} has more than {longest} tokens;"
            f" set it to {longest}, or data.targets.{target}.text.max_length to {requested + 1}"
        )
    return known


def only_of(valid: Tensor, ids: Tensor, known: TokenTarget) -> Tensor:
    """Return ids (B, L), int64, with padding in invalid rows (B,); L is at least 2."""
    ids = ids.masked_fill(~valid.unsqueeze(1), known.pad)
    return nn.functional.pad(ids, (0, max(2 - ids.shape[1], 0)), value=known.pad)


def up_to_end(ids: Tensor, known: TokenTarget | DialogueTarget) -> Tensor:
    """Return which of ids (..., L), int64, after the start token belong to the sentence, including the end token."""
    is_end = ids == known.end
    over = is_end.cumsum(dim=-1) - is_end.long() > 0
    return ~over & (is_end | (ids != known.pad))  # some tokenizers pad with their end token


def sentence(ids: list[int], known: TokenTarget) -> str:
    """Decode ids up to the end token, without special tokens, and join word pieces.

    >>> known = TokenTarget(["[PAD]", "[S]", "[E]", "a", "do", "##g"], max_length=8, pad=0, start=1, end=2)
    >>> sentence([1, 3, 4, 5, 2, 3], known)
    'a dog'
    """
    body = ids[1:] if ids[:1] == [known.start] else ids  # some tokenizers use one token for start and end
    kept = body[: body.index(known.end)] if known.end in body else body
    return WordPiece(cleanup=True).decode([known.names[i] for i in kept if i not in (known.pad, known.start)])
