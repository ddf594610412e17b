"""The shared types: Sample, Batch, Features, and examples of tasks for a report. Imports torch only.

Every sample has the modalities and targets of its row, and masks mark them from the loader to the metric. True always
means present: a valid token, a present modality, a labelled target.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Features(NamedTuple):
    """The output of every encoder and every fusion.

    Attributes:
        tokens: (B, T, D), floating point.
        mask: (B, T), bool, True where a token is valid. A missing modality is an all-False row.
    """

    tokens: Tensor
    mask: Tensor

    def cleared(self) -> "Features":
        """The same features with zeros under a False mask, so that no value there, not even NaN, has an effect."""
        return Features(self.tokens.masked_fill(~self.mask.unsqueeze(-1), 0.0), self.mask)

    def nothing(self) -> "Features":
        """Features of the same shape for rows without the modality."""
        return Features(torch.zeros_like(self.tokens), torch.zeros_like(self.mask))

    def take(self, rows: Tensor) -> "Features":
        """Features of the given rows (N,), int64, in that order."""
        return Features(self.tokens[rows], self.mask[rows])


class Padded(NamedTuple):
    """One modality of a batch, as input of an encoder.

    Attributes:
        values: (B, ...) for a fixed shape such as an image, (B, L, ...) for sequences padded to the longest.
        mask: None for a fixed shape; otherwise (B, L), bool, True where a value is valid.
    """

    values: Tensor
    mask: Tensor | None


class Bad(NamedTuple):
    """A sample that could not be read.

    Attributes:
        id: id of the row.
        row: its index in the table of its split.
        file: file name as in the table.
        reason: short description.
        type: the exception that ended reading, such as MemoryError; SampleError if the reader detected the error
            itself.
    """

    id: str
    row: int
    file: str
    reason: str
    type: str = "SampleError"


@dataclass
class Sample:
    """One decoded row of a data set, with only the inputs and targets that the row has.

    Attributes:
        id: name of the row, unique in its data set; "" for a filler row, which makes ranks have equal numbers of rows.
        row: its index in the table of its split; -1 for a filler row.
        draw: seed of all random draws of a task for this sample: in training a function of (seed, epoch, position), in
            evaluation the index of the row.
        inputs: by modality; (C, H, W) for an image, (L,) for token ids, ...
        targets: by name; a scalar tensor for a class.
        keys: by modality, a hash of the content: rows with equal keys have equal content. A row can have the key of a
            content that it does not contain, such as a second caption of an image that is stored once.
        bad: rows that could not be read and were replaced by this one; in evaluation the row itself.
        references: by name of a text target, all correct sentences; in training only for a target that keeps its
            sentences.
    """

    id: str = ""
    row: int = -1
    draw: int = -1
    inputs: dict[str, Tensor] = field(default_factory=dict)
    targets: dict[str, Tensor] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    bad: list[Bad] = field(default_factory=list)
    references: dict[str, list[str]] = field(default_factory=dict)


class Step(Protocol):
    """The optimizer step that a batch is a part of: the rows of all micro-batches on all ranks, N of them.

    Attributes:
        rows: those N rows with presence, keys and draws, but without inputs and targets.
    """

    rows: "Batch"

    def vectors(self, task: str, own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return a task's vectors of all N rows, without gradient; `own` are those of the batch."""
        ...

    def paired(self, view: "View", places: Mapping[str, Tensor]) -> "View":
        """Return a view of the batch with the given modalities taken from other rows of the step, with gradients.

        All ranks call it at the same time.

        Args:
            view: of the batch.
            places: by modality, which of the N rows, (B,), int64.
        """
        ...

    def place(self) -> Tensor:
        """(B,), int64: which of the N rows are those of the batch."""
        ...


@dataclass
class Batch:
    """B samples, with masks for what each of them has.

    Attributes:
        ids: B names; "" marks a filler row.
        rows: (B,), int64, indices in the table of the split; -1 marks a filler row.
        inputs: by modality, padded; values in absent rows are arbitrary.
        present: by modality (B,), bool.
        targets: by name (B, ...); values in unlabelled rows are arbitrary.
        labelled: by name (B,), bool.
        keys: by modality (B,), int64, equal for equal content; 0 if the row has no key.
        draws: (B,), int64, seeds of a task's random draws for each row, independent of the batch.
        bad: rows that could not be read, in the order of reading.
        references: by name of a text target, all correct sentences of each row; in training only for a target that
            keeps its sentences.
        step: the optimizer step that the batch belongs to; None if it is not known.
    """

    ids: list[str]
    rows: Tensor
    inputs: dict[str, Padded]
    present: dict[str, Tensor]
    targets: dict[str, Tensor]
    labelled: dict[str, Tensor]
    keys: dict[str, Tensor]
    draws: Tensor
    bad: list[Bad] = field(default_factory=list)
    references: dict[str, list[list[str]]] = field(default_factory=dict)
    step: Step | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def has_any(self, modalities: Sequence[str]) -> Tensor:
        """(B,), bool: rows with at least one of these modalities; all rows if none is given."""
        return torch.stack([self.present[m] for m in modalities or tuple(self.present)]).any(dim=0)

    def only(self, modalities: Sequence[str]) -> "Batch":
        """The same rows with only these modalities."""
        present = {m: p if m in modalities else torch.zeros_like(p) for m, p in self.present.items()}
        return replace(self, present=present)

    def map(self, move: Callable[[Tensor], Tensor]) -> "Batch":
        """The same batch with every tensor replaced by `move(tensor)`."""
        return Batch(
            ids=self.ids,
            rows=move(self.rows),
            inputs={
                m: Padded(move(p.values), None if p.mask is None else move(p.mask)) for m, p in self.inputs.items()
            },
            present={k: move(v) for k, v in self.present.items()},
            targets={k: move(v) for k, v in self.targets.items()},
            labelled={k: move(v) for k, v in self.labelled.items()},
            keys={k: move(v) for k, v in self.keys.items()},
            draws=move(self.draws),
            bad=self.bad,
            references=self.references,
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory; the DataLoader calls this."""
        return self.map(Tensor.pin_memory)


class View(Protocol):
    """A batch as tasks see it: features and predictions, each computed on the first call and then kept.

    `mmtrain.model.MultimodalModel.view` returns one.

    Attributes:
        model: the model that computes them; `model.tasks` has the other tasks by name.
        batch: the rows.
    """

    model: Any
    batch: Batch

    def encoded(self, modality: str) -> Features:
        """Return one modality's features: tokens (B, T, D) and mask (B, T), all False in rows without it."""
        ...

    def fused(self) -> Features:
        """Return the fusion's features of all modalities."""
        ...

    def features(self, name: str) -> Features:
        """Return the features of this name: "fused" or a modality."""
        ...

    def attention(self) -> dict[tuple[str, str], Tensor]:
        """Return the fusion's attention maps (B, T_query, T_key) by (query, key); {} if it has none."""
        ...

    def predictions(self, task: str) -> Any:
        """Return the predictions of the task of this name."""
        ...

    def only(self, modalities: Sequence[str]) -> "View":
        """Return a view of the same rows without the other modalities. Nothing is encoded again."""
        ...

    def with_inputs(self, inputs: dict[str, Padded]) -> "View":
        """Return a view of the same rows with other inputs of these modalities. The others are not encoded again."""
        ...

    def paired(self, rows: dict[str, Tensor]) -> "View":
        """Return a view with the features of these modalities taken from other rows (B,), int64: wrong pairs."""
        ...

    def with_features(self, features: dict[str, Features]) -> "View":
        """Return a view of the same rows with other features of these modalities."""
        ...


@dataclass(frozen=True)
class Vocabulary:
    """Metadata of a text input.

    Attributes:
        names: tokens in the order of their ids.
        special: ids of special tokens, which are not part of a text.
        mask: id of the mask token; None if there is none.
    """

    names: list[str]
    special: frozenset[int]
    mask: int | None


@dataclass(frozen=True)
class ClassTarget:
    """Metadata of a class target: class names in the order of their indices, and their number of training rows."""

    names: list[str]
    counts: list[int]


@dataclass(frozen=True)
class MultiLabelTarget:
    """Metadata of a target with several classes per row.

    Attributes:
        names: class names in the order of their indices.
        counts: number of labelled training rows with each class.
        num_rows: number of labelled training rows, including rows without any class.
    """

    names: list[str]
    counts: list[int]
    num_rows: int


@dataclass(frozen=True)
class NumberTarget:
    """Metadata of a target of K numbers; `prediction * std + mean` has the units of the table.

    Attributes:
        names: K, "0", "1", ...
        mean: K means of the training split; 0 if the target is not scaled.
        std: K standard deviations, above 0; 1 if the target is not scaled, and for a constant number.
    """

    names: list[str]
    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class AnswerTarget:
    """Metadata of an answer: the normalised answers to choose from, and their number of training rows."""

    names: list[str]
    counts: list[int]


@dataclass(frozen=True)
class TokenTarget:
    """Metadata of a sentence to generate.

    Attributes:
        names: tokens in the order of their ids.
        max_length: maximum number of ids of a target, including [CLS] and [SEP].
        pad: id of the padding token.
        start: id of the first token of every sentence.
        end: id of the last token of every sentence.
        sentences: correct sentences of each training row; only for a target that keeps them.
    """

    names: list[str]
    max_length: int
    pad: int
    start: int
    end: int
    sentences: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class PairTarget(TokenTarget):
    """Metadata of a pair of a chosen and a rejected sentence; targets are (B, 2, L)."""


@dataclass(frozen=True)
class DialogueTarget:
    """Metadata of dialogues, whose values are (B, L, 2): ids, and a flag.

    The flag is 0 for tokens to read, 1 + the index of the dialogue's kind for tokens to learn, -1 for padding. A
    dialogue that ends without an answer is to be continued.

    Attributes:
        names: tokens in the order of their ids.
        max_length: maximum number of ids of a dialogue; a medium counts as one.
        pad: id of the padding token.
        end: id of the last token of every answer.
        places: by modality, the id of its placeholder token.
        used: modalities that are mentioned in training dialogues.
        kinds: kinds of dialogues, which are evaluated separately; at least one, "" without names.
        write: decodes ids to text without special tokens.
        sentences: correct answers of each training dialogue that ends with an answer; only for a target that keeps
            them.
    """

    names: list[str]
    max_length: int
    pad: int
    end: int
    places: dict[str, int]
    used: frozenset[str]
    kinds: list[str]
    write: Callable[[list[int]], str]
    sentences: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class DialoguePairTarget(DialogueTarget):
    """Metadata of dialogues with a chosen and a rejected answer; values are (B, 2, L, 2).

    The rejected answer replaces the chosen one in the dialogue. It may be missing in a row.
    """


@dataclass(frozen=True)
class Hit:
    """One search result: the id of its row, the similarity, and whether it is correct."""

    id: str
    score: float
    correct: bool


@dataclass(frozen=True)
class Retrieval:
    """For a report: some queries of one direction, and the nearest items of the gallery, nearest first.

    `queries[i]` is the row of the query, in the modality `query`. `hits[i]` are the nearest rows in the modality
    `gallery`.
    """

    query: str
    gallery: str
    queries: list[str]
    hits: list[list[Hit]]


@dataclass(frozen=True)
class Confusion:
    """For a report: `counts[i][j]` is the number of rows of class i with the prediction j."""

    task: str
    names: list[str]
    counts: list[list[int]]


@dataclass(frozen=True)
class AttentionMap:
    """For a report: attention of one row's words, or of the fused tokens, to its image.

    Attributes:
        id: id of the row.
        query: the modality of the queries, or "fused".
        words: the word of each map.
        grids: by word, the weight of each patch, in rows from the top; the weights of a word sum to at most 1.
    """

    id: str
    query: str
    words: list[str]
    grids: list[list[list[float]]]


@dataclass(frozen=True)
class Caption:
    """For a report: the generated text of a row, and the references."""

    id: str
    written: str
    right: list[str]


@dataclass(frozen=True)
class Captions:
    """For a report: generated text of a task for some rows."""

    task: str
    rows: list[Caption]


ReportItem = Retrieval | Confusion | AttentionMap | Captions
