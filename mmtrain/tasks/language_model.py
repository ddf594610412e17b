"""Answers of a causal language model that reads media in the midst of a dialogue (LLaVA, 2304.08485).

The tokens of a medium's encoder go through a connector and stand where the dialogue speaks of it. The loss counts the
tokens of answers alone, all of them over a step together. Unusual here: a medium that a row lacks leaves nothing in its
place, so that what a row has is all that it is answered from; and rows can share a line of the model without reading
each other, at the same loss.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from mmtrain.errors import ConfigError
from mmtrain.layers.causal_lm import CausalLM, CausalLMSource
from mmtrain.layers.decoder import Decoding
from mmtrain.layers.gated_read import reading
from mmtrain.layers.splice import Lines, Media, Spliced, at_right_end, beside, lay_out, splice, within_rows
from mmtrain.losses.cross_entropy import cross_entropy
from mmtrain.metrics.chance import guessed
from mmtrain.metrics.text_generation import TextGeneration, TokenAccuracy
from mmtrain.tasks.names import check_names
from mmtrain.tasks.shown import shown_captions
from mmtrain.types import Batch, DialogueTarget, Exhibit, Features


@runtime_checkable
class TakesSeveral(Protocol):
    """An encoder of several media a row, (B, N, ...): each has as many tokens, in order.

    Attributes:
        takes_several: True.
    """

    takes_several: bool


@runtime_checkable
class StandsBeside(Protocol):
    """A connector whose media do not stand in the text."""

    def readers(self, num_blocks: int) -> nn.ModuleDict:
        """What reads them in front of blocks, by their number."""
        ...


class Answered(NamedTuple):
    """What a view gives.

    Attributes:
        logits: (A, V) of the tokens of answers, row by row, each given what stands before it; at least one.
        wanted: (A,), int64, those tokens.
        counts: (A,), bool; False for one that only stands in where there is none.
        media: by the id of their place, what answers are written from.
    """

    logits: Tensor
    wanted: Tensor
    counts: Tensor
    media: dict[int, Media]


class Asked(NamedTuple):
    """What answers are written from.

    Attributes:
        ids: (N, L), int64.
        keep: (N, L), bool, which of them are asked; at least one a row.
        media: by the id of their place.
    """

    ids: Tensor
    keep: Tensor
    media: dict[int, Media]

    def take(self, rows: Tensor) -> "Asked":
        """That of some rows (N,), int64."""
        media = {place: Media(m.tokens[rows], m.mask[rows]) for place, m in self.media.items()}
        return Asked(self.ids[rows], self.keep[rows], media)


class LanguageModel(nn.Module):
    """An answer a row.

    Args:
        dims: width by modality.
        known_targets: what the data knows of each target, by name.
        encoders: by modality.
        target: name of the target of dialogues.
        modalities: whose media the model reads.
        weight: see `Task`.
        label_smoothing: share of the target spread over all tokens.
        lm: the language model.
        connector: made for each modality of `in_dim`, the width of its encoder, and `dim`, that of the language model.
        pack: tokens that rows of a batch share a line of the model in; None: a line a row.
        decoding: how answers are written in evaluation.
        generate_every: validation writes those of each n-th row of the table; 0: none. Test writes all.
        tokenize: how BLEU splits words, one of sacrebleu's.

    Raises:
        ValueError: when the data has no such target, the dialogues speak of other media, or the parts do not fit.
    """

    monitor = "token_accuracy"  # of every row at the price of the loss; answers are of some rows

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        known_targets: Mapping[str, Any],
        encoders: Mapping[str, nn.Module],
        target: str,
        modalities: list[str],
        weight: float,
        label_smoothing: float,
        lm: CausalLMSource,
        connector: Callable[..., nn.Module],
        pack: int | None,
        decoding: Decoding,
        generate_every: int,
        tokenize: str,
    ) -> None:
        super().__init__()
        check_names(("target", target, known_targets), *(("modalities", m, dims) for m in modalities))
        self.known = _dialogues(known_targets[target], target, modalities)
        if generate_every < 0:
            raise ValueError(f"generate_every = {generate_every}; set it to 0 for none, 1 for all, 10 for a tenth")
        if pack is not None and pack < 1:
            raise ValueError(f"pack = {pack} has no room for a token; set it to 1024, say, or to null")
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
        self.metrics()  # an unknown `tokenize` is said before anything runs
        self.several = frozenset(m for m in modalities if isinstance(encoders[m], TakesSeveral))
        self.lm = CausalLM(source=lm, known=self.known)
        self.never = self.lm.never
        if pack is not None:
            self.lm.check_packing()
        connectors = {m: connector(in_dim=dims[m], dim=self.lm.dim) for m in modalities}
        first = connectors[modalities[0]]
        self.connectors = nn.ModuleDict(connectors)
        self.readers = first.readers(len(self.lm.blocks())) if isinstance(first, StandsBeside) else None

    def start_evaluation(self, stage: str) -> None:
        """What comes is val or test: validation writes answers for some rows alone."""
        self.stage = stage

    def forward(self, view: Any) -> Answered:
        """Logits of a view's answers, and what they are written from.

        Raises:
            ConfigError: on the meta device, where nothing has a content.
        """
        batch, media = view.batch, self._all_media(view)
        values = self._values(batch)
        keep = (values[..., 1] >= 0) & self._valid(batch).unsqueeze(1)
        keep[0, 0] |= ~keep.any()  # something to do, also without a row that counts
        logits, wanted = self._answers(self._spliced(values, keep, media), media)
        if not len(wanted):  # of the token behind the first, and not counted
            return Answered(logits, wanted.new_zeros(1), torch.zeros_like(wanted.new_zeros(1), dtype=torch.bool), media)
        return Answered(logits, wanted, torch.ones_like(wanted, dtype=torch.bool), media)

    def _answers(self, spliced: Spliced, media: Mapping[int, Media]) -> tuple[Tensor, Tensor]:
        """Logits (A, V) of the tokens of answers (A,), int64; of one more token where there are none."""
        lines = lay_out(spliced, room=self.pack)
        answers = (spliced.flags > 0).nonzero().squeeze(1)
        some = answers if len(answers) else answers.new_ones(1)
        mask = None if lines.rank is None else within_rows(lines.put(spliced.row, -1), spliced.embeds.dtype)
        with self._reading(spliced, lines, media):
            logits = self.lm(lines.put(spliced.embeds, 0.0), lines.put(spliced.position, 0), mask, lines.slot[some - 1])
        return logits, spliced.ids[answers]

    def _reading(self, spliced: Spliced, lines: Lines, media: Mapping[int, Media]) -> AbstractContextManager[None]:
        """Media that do not stand in the text are read beside it."""
        if self.readers is None:
            return nullcontext()
        return reading(self.lm.blocks(), self.readers, beside(spliced, lines, media))

    def _all_media(self, view: Any) -> dict[int, Media]:
        if view.batch.rows.is_meta:
            raise ConfigError(
                "mode=plan cannot say what a language_model takes: how long its lines are follows from what rows hold\n"
                "    measure a few steps instead: mode=fit trainer.max_steps=5"
            )
        return {self.known.places[m]: self._media(m, view.encoded(m), view.batch) for m in self.reads}

    def _media(self, modality: str, features: Features, batch: Batch) -> Media:
        """Each medium by itself through the connector; one a row, unless the encoder takes several."""
        number = batch.inputs[modality].values.shape[1] if modality in self.several else 1
        tokens, mask = (part.unflatten(1, (number, -1)).flatten(0, 1) for part in features)  # (B * N, K, D)
        connected = self.connectors[modality](Features(tokens, mask))
        return Media(*(part.unflatten(0, (-1, number)) for part in connected))

    def _spliced(self, values: Tensor, keep: Tensor, media: Mapping[int, Media]) -> Spliced:
        spliced = splice(values, keep, self.lm.embed, media, inserted=self.readers is None)
        # every rank waits for a gradient of every connector, also when no row has a place for its media
        touched = torch.stack([tokens.sum() for tokens, _ in media.values()]).sum() * 0.0
        return spliced._replace(embeds=spliced.embeds + touched.to(spliced.embeds.dtype))

    def _sides(self, batch: Batch) -> Tensor:
        """(B, S, L, 2), int64, padding in rows that do not count; S is 2 of pairs, the chosen first."""
        values = batch.targets[self.targets[0]]
        sides = values if values.ndim == 4 else values.unsqueeze(1)  # a reference did not learn from pairs
        blank = torch.tensor([self.known.pad, -1], device=values.device)
        return torch.where(batch.labelled[self.targets[0]][:, None, None, None], sides, blank)

    def _values(self, batch: Batch) -> Tensor:
        """(B, L, 2), int64, padding in rows that do not count; of a pair, the chosen one."""
        return self._sides(batch)[:, 0]

    def _valid(self, batch: Batch) -> Tensor:
        """Rows with an answer; media are not needed."""
        return (self._values(batch)[..., 1] > 0).any(dim=1)

    def answerable(self, batch: Batch) -> Tensor:
        """(B,), bool: rows whose dialogue ends with an answer; media are not needed."""
        return _last_answer(self._values(batch)).any(dim=1)

    def given(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The last answers of the target, and which tokens count: (B, S, L); see `Policy`."""
        sides = self._sides(batch)
        last = _last_answer(sides)
        order = (~last).long().argsort(dim=-1, stable=True)[..., : max(1, int(last.sum(dim=-1).max()))]
        return sides[..., 0].gather(-1, order), last.gather(-1, order)

    def right(self, batch: Batch, rows: Tensor) -> list[list[str]]:
        """The last answers that are right for some rows."""
        right = batch.references.get(self.targets[0], [])  # none when no row of the batch has a dialogue
        return [right[row] for row in rows.tolist()]

    def prompts(self, view: Any) -> Asked:
        """What last answers are written from."""
        return self._asked(view.batch, self._all_media(view))

    def _asked(self, batch: Batch, media: dict[int, Media]) -> Asked:
        values = self._values(batch)
        keep = (values[..., 1] >= 0) & ~_last_answer(values)
        keep[:, 0] |= ~keep.any(dim=1)  # something to write from
        return Asked(values[..., 0], keep, media)

    def logits(self, prompts: Asked, ids: Tensor, counts: Tensor) -> Tensor:
        """(N, L, V), of each token of answers (N, L), given what stands before it; zeros where none counts."""
        values = torch.stack([torch.cat([prompts.ids, ids], dim=1)] * 2, dim=2)
        values[..., 1] = torch.cat([torch.zeros_like(prompts.ids), torch.ones_like(ids)], dim=1)
        keep = torch.cat([prompts.keep, counts], dim=1)
        logits, there = self._answers(self._spliced(values, keep, prompts.media), prompts.media)
        whole = logits.new_zeros(*ids.shape, logits.shape[1])
        if not len(there):
            return whole + logits.sum() * 0.0  # every parameter has its part in a step
        return whole.index_put(counts.nonzero(as_tuple=True), logits)

    @torch.no_grad()
    def generate(self, prompts: Asked, draws: Tensor, decoding: Decoding) -> Tensor:
        """Write an answer a row, in evaluation mode; see `CausalLM`."""
        if not len(draws):
            return prompts.ids[:, :0]
        training = self.training
        self.eval()
        values = torch.stack([prompts.ids, torch.zeros_like(prompts.ids)], dim=2)
        spliced = self._spliced(values, prompts.keep, prompts.media)
        lines = at_right_end(spliced)
        there = lines.put(torch.ones_like(spliced.row, dtype=torch.bool), False)
        with self._reading(spliced, lines, prompts.media):
            ids = self.lm.generate(lines.put(spliced.embeds, 0.0), there, draws, decoding)
        self.train(training)
        return ids

    def sentence(self, ids: list[int]) -> str:
        """Ids as a person reads them."""
        return self.known.write(ids)

    def count(self, batch: Batch) -> Tensor:
        """Tokens of answers, end marks among them."""
        return (self._values(batch)[..., 1] > 0).sum()

    def loss(self, predictions: Answered, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross entropy over tokens of answers: (sum, count)."""
        logits, wanted, counts, _ = predictions
        return cross_entropy(logits, wanted, counts, label_smoothing=self.label_smoothing)

    def metrics(self) -> MetricCollection:
        """Share of right tokens given the true ones before, and what `TextGeneration` says of each kind's answers."""
        parts: dict[str, Metric | MetricCollection] = {"tokens": TokenAccuracy(len(self.known.names))}
        for kind in self.known.kinds:
            parts[f"sentences_{kind}"] = TextGeneration(tokenize=self.tokenize, prefix=_prefix(kind))
        return MetricCollection(parts, compute_groups=False)

    def update(self, metrics: MetricCollection, predictions: Answered, batch: Batch) -> None:
        """Count the tokens of answers, and write some for those rows that are to have them.

        Raises:
            FloatingPointError: when a logit is not finite: it must not score.
        """
        rows = (self.answerable(batch) & self.to_write(batch)).nonzero().squeeze(1)
        self.judge(metrics, predictions, batch, rows, self.write(predictions, batch, rows))

    def judge(self, metrics: Any, predictions: Answered, batch: Batch, rows: Tensor, said: list[str]) -> None:
        """Count the tokens of answers, and score what was said of some rows, each kind by itself."""
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
                [said[at] for at in some], [right[at] for at in some], batch.rows[rows[some]]
            )

    def to_write(self, batch: Batch) -> Tensor:
        """(B,), bool: rows that evaluation writes for."""
        if self.stage == "test":
            return torch.ones_like(batch.rows, dtype=torch.bool)
        every = self.generate_every
        return batch.rows % every == 0 if every else torch.zeros_like(batch.rows, dtype=torch.bool)

    def write(self, predictions: Answered, batch: Batch, rows: Tensor) -> list[str]:
        """The last answer of some rows (N,), from what stands before it, as `decoding` says."""
        asked = self._asked(batch, predictions.media).take(rows)
        return [self.sentence(row) for row in self.generate(asked, batch.rows[rows], self.decoding).tolist()]

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Always the most frequent token, and always the most frequent answer, of the rows that were counted."""
        return guessed(values)

    def exhibits(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[Exhibit]:
        """Twelve rows of each kind spread over the split, if answers were written."""
        kinds = [kind for kind in self.known.kinds if f"{_prefix(kind)}shown" in values]
        return [shown_captions(kind or self.targets[0], values[f"{_prefix(kind)}shown"], name) for kind in kinds]

    def rows(self, predictions: Answered, batch: Batch) -> list[dict[str, Any]]:
        """The answer, where something is asked."""
        chosen = (self._values(batch)[..., 1] >= 0).any(dim=1).nonzero().squeeze(1)
        said = dict(zip(chosen.tolist(), self.write(predictions, batch, chosen), strict=True))
        return [{self.targets[0]: said[i]} if i in said else {} for i in range(len(batch))]


def _last_answer(values: Tensor) -> Tensor:
    """(..., L), bool, which of values (..., L, 2) are the answer that a dialogue ends with."""
    flags = values[..., 1]
    read_later = ((flags == 0).flip(-1).cumsum(dim=-1) > 0).flip(-1)
    return (flags > 0) & ~read_later


def _prefix(kind: str) -> str:
    return f"{kind}_" if kind else ""


def _dialogues(known: Any, target: str, modalities: list[str]) -> DialogueTarget:
    """What is known of a target, if it is one of dialogues that speak of nothing else."""
    if not isinstance(known, DialogueTarget):
        raise ValueError(
            f"target = {target} holds no dialogues; name another column for them,"
            f" +target@data.targets.NAME=chat data.columns.NAME={target}"
        )
    if unread := sorted(known.used - set(modalities)):
        raise ValueError(
            f"the dialogues of {target} speak of <{unread[0]}>, but modalities = [{', '.join(modalities)}];"
            f" set modalities to [{', '.join([*modalities, *unread])}]"
        )
    if strange := [m for m in modalities if m not in known.places]:
        raise ValueError(
            f"modalities = [{', '.join(modalities)}], but dialogues of {target} can speak of {', '.join(known.places)};"
            f" set data.targets.{target}.places to [{', '.join([*known.places, *strange])}]"
        )
    return known
