"""Answers of a causal language model with media tokens in the dialogue (LLaVA, 2304.08485).

A connector maps the tokens of a media item's encoder to the language model; they replace the item's placeholder in the
dialogue. The loss is the mean over all answer tokens of a step. The placeholder of a missing item is removed, so an
answer depends only on what the row has. Several rows can share a line of the model without attending to each other,
with the same loss.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from mmtrain.annotations import Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt
from mmtrain.errors import ConfigError
from mmtrain.layers.causal_lm import CausalLM, CausalLMSource
from mmtrain.layers.decoder import Decoding
from mmtrain.layers.gated_read import reading
from mmtrain.layers.splice import Lines, Media, Spliced, align_right, lay_out, media_context, splice, within_rows
from mmtrain.losses.cross_entropy import cross_entropy
from mmtrain.metrics.chance import chance_scores
from mmtrain.metrics.text_generation import TextGeneration, TokenAccuracy, Tokenize
from mmtrain.tasks.names import check_names
from mmtrain.tasks.shown import shown_captions
from mmtrain.types import Batch, DialogueTarget, Features, ReportItem, View


@runtime_checkable
class AcceptsMultipleItems(Protocol):
    """An encoder of several media items per row, (B, N, ...), with the same number of tokens per item, in order.

    Attributes:
        takes_several: True.
    """

    takes_several: bool


@runtime_checkable
class CrossAttendsMedia(Protocol):
    """A connector for cross-attention: its media tokens are not inserted in the text."""

    def readers(self, num_blocks: int) -> nn.ModuleDict:
        """Build the cross-attention layers, keyed by the index of the block that follows."""
        ...


class LanguageModelOutput(NamedTuple):
    """Predictions for a view.

    Attributes:
        logits: (A, V) for answer tokens, row by row, each given the tokens before it; at least one.
        wanted: (A,), int64, the true answer tokens.
        counts: (A,), bool; False for a placeholder token in a batch without answers.
        media: media tokens from which answers are generated, by placeholder id.
    """

    logits: Tensor
    wanted: Tensor
    counts: Tensor
    media: dict[int, Media]


class DialoguePrompts(NamedTuple):
    """Prompts from which answers are generated.

    Attributes:
        ids: (N, L), int64.
        keep: (N, L), bool, True for prompt tokens; at least one per row.
        media: media tokens by placeholder id.
    """

    ids: Tensor
    keep: Tensor
    media: dict[int, Media]

    def take(self, rows: Tensor) -> "DialoguePrompts":
        """Select rows (N,), int64."""
        media = {place: Media(m.tokens[rows], m.mask[rows]) for place, m in self.media.items()}
        return DialoguePrompts(self.ids[rows], self.keep[rows], media)


class LanguageModel(nn.Module):
    """A language model that answers, one dialogue per row.

    Args:
        dims: feature width per modality.
        known_targets: metadata of each target, by name.
        encoders: by modality.
        target: name of the dialogue target.
        modalities: modalities that the language model reads.
        weight: see `Task`.
        label_smoothing: fraction of the target that is spread over all tokens.
        lm: the language model.
        connector: called per modality with `in_dim`, the width of its encoder, and `dim`, that of the language model.
        pack: number of tokens per line when rows of a batch share lines; None for one row per line.
        decoding: decoding options for evaluation.
        generate_every: validation generates for every n-th row of the table; 0 for none. Test generates for all.
        tokenize: sacrebleu's tokenizer for BLEU.

    Raises:
        ValueError: for an unknown target, if the dialogues use other modalities, or if the parts do not fit each other.
    """

    monitor = "token_accuracy"  # available for every row at no extra cost; answers exist only for some rows

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        known_targets: Mapping[str, Any],
        encoders: Mapping[str, nn.Module],
        target: str,
        modalities: list[str],
        weight: NonNegativeFloat,
        label_smoothing: Fraction,
        lm: CausalLMSource,
        connector: Callable[..., nn.Module],
        pack: PositiveInt | None,
        decoding: Decoding,
        generate_every: NonNegativeInt,
        tokenize: Tokenize,
    ) -> None:
        super().__init__()
        check_names(("target", target, known_targets), *(("modalities", m, dims) for m in modalities))
        self.known = _dialogues(known_targets[target], target, modalities)
        if generate_every < 0:
            raise ValueError(f"generate_every = {generate_every}; set it to 0 for none, 1 for all, 10 for a tenth")
        if pack is not None and pack < 1:
            raise ValueError(f"pack = {pack} is below 1; set it to 1024, for example, or to null")
        self.reads = tuple(modalities)
        self.needs: tuple[str, ...] = ()
        self.targets = (target,)
        self.weight = weight
        self.label_smoothing = label_smoothing
        self.pack = pack
        self.decoding = decoding
        self.generate_every = generate_every
        self.tokenize = tokenize
        self.stage = "test"
        self.metrics()  # report an unknown `tokenize` before anything runs
        self.several = frozenset(m for m in modalities if isinstance(encoders[m], AcceptsMultipleItems))
        self.lm = CausalLM(source=lm, known=self.known)
        self.never = self.lm.never
        if pack is not None:
            self.lm.check_packing()
        connectors = {m: connector(in_dim=dims[m], dim=self.lm.dim) for m in modalities}
        first = connectors[modalities[0]]
        self.connectors = nn.ModuleDict(connectors)
        self.readers = first.readers(len(self.lm.blocks())) if isinstance(first, CrossAttendsMedia) else None

    def on_evaluation_start(self, stage: str) -> None:
        """Called before val or test; validation generates only for some rows."""
        self.stage = stage

    def forward(self, view: View) -> LanguageModelOutput:
        """Return logits of the view's answers, and the media tokens.

        Raises:
            ConfigError: on the meta device, because the layout depends on values.
        """
        batch, media = view.batch, self._all_media(view)
        values = self._values(batch)
        keep = (values[..., 1] >= 0) & self._valid(batch).unsqueeze(1)
        keep[0, 0] |= ~keep.any()  # the model needs at least one token, even without valid rows
        logits, wanted = self._answers(self._spliced(values, keep, media), media)
        if not len(wanted):  # logits after the first token, which are not counted
            return LanguageModelOutput(
                logits, wanted.new_zeros(1), torch.zeros_like(wanted.new_zeros(1), dtype=torch.bool), media
            )
        return LanguageModelOutput(logits, wanted, torch.ones_like(wanted, dtype=torch.bool), media)

    def _answers(self, spliced: Spliced, media: Mapping[int, Media]) -> tuple[Tensor, Tensor]:
        """Return logits (A, V) and answer tokens (A,), int64; without answers, logits of one token and no answers."""
        lines = lay_out(spliced, room=self.pack)
        answers = (spliced.flags > 0).nonzero().squeeze(1)
        some = answers if len(answers) else answers.new_ones(1)
        mask = None if lines.rank is None else within_rows(lines.put(spliced.row, -1), spliced.embeds.dtype)
        with self._reading(spliced, lines, media):
            logits = self.lm(lines.put(spliced.embeds, 0.0), lines.put(spliced.position, 0), mask, lines.slot[some - 1])
        return logits, spliced.ids[answers]

    def _reading(self, spliced: Spliced, lines: Lines, media: Mapping[int, Media]) -> AbstractContextManager[None]:
        """Cross-attend to media that are not inserted in the text, within the context."""
        if self.readers is None:
            return nullcontext()
        return reading(self.lm.blocks(), self.readers, media_context(spliced, lines, media))

    def _all_media(self, view: View) -> dict[int, Media]:
        if view.batch.rows.is_meta:
            raise ConfigError(
                "mode=plan cannot estimate a language_model: the length of its lines depends on the content of rows\n"
                "    measure a few steps instead: mode=fit trainer.max_steps=5"
            )
        return {self.known.places[m]: self._media(m, view.encoded(m), view.batch) for m in self.reads}

    def _media(self, modality: str, features: Features, batch: Batch) -> Media:
        """Apply the connector to each media item; one item per row, unless the encoder has several."""
        number = batch.inputs[modality].values.shape[1] if modality in self.several else 1
        tokens, mask = (part.unflatten(1, (number, -1)).flatten(0, 1) for part in features)  # (B * N, K, D)
        connected = self.connectors[modality](Features(tokens, mask))
        return Media(*(part.unflatten(0, (-1, number)) for part in connected))

    def _spliced(self, values: Tensor, keep: Tensor, media: Mapping[int, Media]) -> Spliced:
        spliced = splice(values, keep, self.lm.embed, media, inserted=self.readers is None)
        # every rank waits for a gradient of every connector, even if no row has a placeholder
        touched = torch.stack([tokens.sum() for tokens, _ in media.values()]).sum() * 0.0
        return spliced._replace(embeds=spliced.embeds + touched.to(spliced.embeds.dtype))

    def _sides(self, batch: Batch) -> Tensor:
        """Return (B, S, L, 2), int64, with padding in unlabelled rows; S is 2 for pairs, the chosen one first."""
        values = batch.targets[self.targets[0]]
        sides = values if values.ndim == 4 else values.unsqueeze(1)  # the reference was not trained on pairs
        blank = torch.tensor([self.known.pad, -1], device=values.device)
        return torch.where(batch.labelled[self.targets[0]][:, None, None, None], sides, blank)

    def _values(self, batch: Batch) -> Tensor:
        """Return (B, L, 2), int64, with padding in unlabelled rows; for a pair, the chosen dialogue."""
        return self._sides(batch)[:, 0]

    def _valid(self, batch: Batch) -> Tensor:
        """Return rows with an answer; media are not required."""
        return (self._values(batch)[..., 1] > 0).any(dim=1)

    def answerable(self, batch: Batch) -> Tensor:
        """Return (B,), bool: rows whose dialogue ends with an answer; media are not required."""
        return _last_answer(self._values(batch)).any(dim=1)

    def given(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the last answers of the target, and which tokens count: (B, S, L); see `Policy`."""
        sides = self._sides(batch)
        last = _last_answer(sides)
        order = (~last).long().argsort(dim=-1, stable=True)[..., : max(1, int(last.sum(dim=-1).max()))]
        return sides[..., 0].gather(-1, order), last.gather(-1, order)

    def right(self, batch: Batch, rows: Tensor) -> list[list[str]]:
        """Return the reference answers of some rows."""
        right = batch.references.get(self.targets[0], [])  # missing if no row of the batch has a dialogue
        return [right[row] for row in rows.tolist()]

    def prompts(self, view: View) -> DialoguePrompts:
        """Return the prompts for the last answers."""
        return self._asked(view.batch, self._all_media(view))

    def _asked(self, batch: Batch, media: dict[int, Media]) -> DialoguePrompts:
        values = self._values(batch)
        keep = (values[..., 1] >= 0) & ~_last_answer(values)
        keep[:, 0] |= ~keep.any(dim=1)  # at least one token to generate from
        return DialoguePrompts(values[..., 0], keep, media)

    def logits(self, prompts: DialoguePrompts, ids: Tensor, counts: Tensor) -> Tensor:
        """Return logits (N, L, V) for each token of answers (N, L), given the tokens before it; zeros for padding."""
        values = torch.stack([torch.cat([prompts.ids, ids], dim=1)] * 2, dim=2)
        values[..., 1] = torch.cat([torch.zeros_like(prompts.ids), torch.ones_like(ids)], dim=1)
        keep = torch.cat([prompts.keep, counts], dim=1)
        logits, positions = self._answers(self._spliced(values, keep, prompts.media), prompts.media)
        full = logits.new_zeros(*ids.shape, logits.shape[1])
        if not len(positions):
            return full + logits.sum() * 0.0  # gives every parameter a gradient
        return full.index_put(counts.nonzero(as_tuple=True), logits)

    @torch.no_grad()
    def generate(self, prompts: DialoguePrompts, draws: Tensor, decoding: Decoding) -> Tensor:
        """Generate one answer per row, in evaluation mode; see `CausalLM`."""
        if not len(draws):
            return prompts.ids[:, :0]
        training = self.training
        self.eval()
        values = torch.stack([prompts.ids, torch.zeros_like(prompts.ids)], dim=2)
        spliced = self._spliced(values, prompts.keep, prompts.media)
        lines = align_right(spliced)
        there = lines.put(torch.ones_like(spliced.row, dtype=torch.bool), False)
        with self._reading(spliced, lines, prompts.media):
            ids = self.lm.generate(lines.put(spliced.embeds, 0.0), there, draws, decoding)
        self.train(training)
        return ids

    def sentence(self, ids: list[int]) -> str:
        """Decode ids to readable text."""
        return self.known.write(ids)

    def count(self, batch: Batch) -> Tensor:
        """Count the answer tokens, including end tokens."""
        return (self._values(batch)[..., 1] > 0).sum()

    def loss(self, predictions: LanguageModelOutput, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the cross entropy over answer tokens: (sum, count)."""
        logits, wanted, counts, _ = predictions
        return cross_entropy(logits, wanted, counts, label_smoothing=self.label_smoothing)

    def metrics(self) -> MetricCollection:
        """Return the token accuracy under teacher forcing, and the scores of `TextGeneration` per kind of answer."""
        parts: dict[str, Metric | MetricCollection] = {"tokens": TokenAccuracy(len(self.known.names))}
        for kind in self.known.kinds:
            parts[f"sentences_{kind}"] = TextGeneration(tokenize=self.tokenize, prefix=_prefix(kind))
        return MetricCollection(parts, compute_groups=False)

    def update(self, metrics: MetricCollection, predictions: LanguageModelOutput, batch: Batch) -> None:
        """Add the answer tokens, and generate answers for the selected rows.

        Raises:
            FloatingPointError: if a logit is not finite, because it must not contribute to a score.
        """
        rows = (self.answerable(batch) & self.to_write(batch)).nonzero().squeeze(1)
        self.judge(metrics, predictions, batch, rows, self.write(predictions, batch, rows))

    def judge(
        self, metrics: Any, predictions: LanguageModelOutput, batch: Batch, rows: Tensor, sentences: list[str]
    ) -> None:
        """Add the answer tokens, and the generated answers of some rows, separately per kind."""
        counts = predictions.counts
        logits = predictions.logits[counts]
        if not logits.isfinite().all():
            raise FloatingPointError(f"language_model of {self.targets[0]}: a logit is not finite")
        metrics["tokens"].update(logits.argmax(dim=1), predictions.wanted[counts])
        kinds = self._values(batch)[rows, :, 1].amax(dim=1) - 1
        right = self.right(batch, rows)
        for number, kind in enumerate(self.known.kinds):
            some = (kinds == number).nonzero().squeeze(1).tolist()
            metrics[f"sentences_{kind}"].update(
                [sentences[at] for at in some], [right[at] for at in some], batch.rows[rows[some]]
            )

    def to_write(self, batch: Batch) -> Tensor:
        """Return (B,), bool: rows for which evaluation generates."""
        if self.stage == "test":
            return torch.ones_like(batch.rows, dtype=torch.bool)
        every = self.generate_every
        return batch.rows % every == 0 if every else torch.zeros_like(batch.rows, dtype=torch.bool)

    def write(self, predictions: LanguageModelOutput, batch: Batch, rows: Tensor) -> list[str]:
        """Generate the last answer of some rows (N,) from the tokens before it, with `decoding`."""
        prompts = self._asked(batch, predictions.media).take(rows)
        return [self.sentence(row) for row in self.generate(prompts, batch.rows[rows], self.decoding).tolist()]

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Score always predicting the most frequent token, and the most frequent answer, of the evaluated rows."""
        return chance_scores(values)

    def report_items(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[ReportItem]:
        """Return twelve rows per kind spread over the split, if answers were generated."""
        kinds = [kind for kind in self.known.kinds if f"{_prefix(kind)}shown" in values]
        return [shown_captions(kind or self.targets[0], values[f"{_prefix(kind)}shown"], name) for kind in kinds]

    def rows(self, predictions: LanguageModelOutput, batch: Batch) -> list[dict[str, Any]]:
        """Return the answer, for rows with a dialogue."""
        chosen = (self._values(batch)[..., 1] >= 0).any(dim=1).nonzero().squeeze(1)
        answers = dict(zip(chosen.tolist(), self.write(predictions, batch, chosen), strict=True))
        return [{self.targets[0]: answers[i]} if i in answers else {} for i in range(len(batch))]


def _last_answer(values: Tensor) -> Tensor:
    """Return (..., L), bool: which of values (..., L, 2) belong to the answer at the end of a dialogue."""
    flags = values[..., 1]
    read_later = ((flags == 0).flip(-1).cumsum(dim=-1) > 0).flip(-1)
    return (flags > 0) & ~read_later


def _prefix(kind: str) -> str:
    return f"{kind}_" if kind else ""


def _dialogues(known: Any, target: str, modalities: list[str]) -> DialogueTarget:
    """Return the metadata of a target, after checking that it is a dialogue target with only these modalities."""
    if not isinstance(known, DialogueTarget):
        raise ValueError(
            f"target = {target} contains no dialogues; set another column for them,"
            f" +target@data.targets.NAME=chat data.columns.NAME={target}"
        )
    if unread := sorted(known.used - set(modalities)):
        raise ValueError(
            f"the dialogues of {target} contain <{unread[0]}>, but modalities = [{', '.join(modalities)}];"
            f" set modalities to [{', '.join([*modalities, *unread])}]"
        )
    if unexpected := [m for m in modalities if m not in known.places]:
        raise ValueError(
            f"modalities = [{', '.join(modalities)}], but dialogues of {target} can contain {', '.join(known.places)};"
            f" set data.targets.{target}.placeholders to [{', '.join([*known.places, *unexpected])}]"
        )
    return known
