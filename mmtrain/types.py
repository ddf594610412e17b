"""The shared vocabulary: Sample, Batch, Features, and what tasks show in a report. Imports torch only.

The one idea of the project lives in these types: every sample carries what it has, and masks say what that is, from
the loader to the metric. True always means "is there": a valid token, a present modality, a labelled target.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Features(NamedTuple):
    """What every encoder and every fusion returns.

    Attributes:
        tokens: (B, T, D), floating point.
        mask: (B, T), bool, True where a token is valid. A missing modality is an all-False row.
    """

    tokens: Tensor
    mask: Tensor

    def cleared(self) -> "Features":
        """The same features with zeros under a False mask, so that nothing that stands there (NaN too) can leak."""
        return Features(self.tokens.masked_fill(~self.mask.unsqueeze(-1), 0.0), self.mask)

    def nothing(self) -> "Features":
        """Features of the same shape of rows that lack the modality."""
        return Features(torch.zeros_like(self.tokens), torch.zeros_like(self.mask))

    def take(self, rows: Tensor) -> "Features":
        """Features of the given rows (N,), int64, in that order."""
        return Features(self.tokens[rows], self.mask[rows])


class Padded(NamedTuple):
    """One modality of a batch as an encoder takes it.

    Attributes:
        values: (B, ...) for a fixed shape such as a picture, (B, L, ...) for sequences padded to the longest.
        mask: None for a fixed shape; otherwise (B, L), bool, True where a value is valid.
    """

    values: Tensor
    mask: Tensor | None


class Bad(NamedTuple):
    """A sample that could not be read.

    Attributes:
        id: of the row.
        row: its number in the table of its split.
        file: as the table names it.
        reason: in a few words.
        type: of the exception that reading it ended with, such as MemoryError; SampleError for a fault that the reader
            checks for itself.
    """

    id: str
    row: int
    file: str
    reason: str
    type: str = "SampleError"


@dataclass
class Sample:
    """One row of a data set, decoded. It holds only what the row has.

    Attributes:
        id: the row's name, unique in its data set; "" for a filler row that only evens out the ranks.
        row: its number in the table of its split; -1 for a filler row.
        draw: what every random draw of a task for this sample follows from: in training of (seed, epoch, position), in
            evaluation the number of the row.
        inputs: by modality; (C, H, W) for a picture, (L,) for token ids, ...
        targets: by name; a scalar tensor for a class.
        keys: by modality, a hash of the content: two rows with one key have the same content there. A row can know
            the key of a content that it does not carry, such as a second caption of a picture that comes once.
        bad: rows that could not be read and whose place this one takes; in evaluation the row itself.
        references: by name of a target of sentences: every sentence that is right; in training only of a target
            that keeps its sentences.
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
    """B samples together, with masks that say what each has.

    Attributes:
        ids: B names; "" marks a filler row.
        rows: (B,), int64, numbers in the table of the split; -1 marks a filler row.
        inputs: by modality, padded; what stands in an absent row is arbitrary.
        present: by modality (B,), bool.
        targets: by name (B, ...); what stands in an unlabelled row is arbitrary.
        labelled: by name (B,), bool.
        keys: by modality (B,), int64, equal where the content is equal; 0 where the row knows of none.
        draws: (B,), int64, what a task's random draws for a row follow from, whatever batch the row is in.
        bad: rows that could not be read, in the order in which they were met.
        references: by name of a target of sentences, for each row every sentence that is right; in training only of
            a target that keeps its sentences.
        step: what else is in its step; None where nobody said.
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
        """(B,), bool: rows that have one of these modalities; where none is named, of all."""
        return torch.stack([self.present[m] for m in modalities or tuple(self.present)]).any(dim=0)

    def only(self, modalities: Sequence[str]) -> "Batch":
        """The same rows as if they had only these modalities."""
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

    def replaced(self, inputs: dict[str, Padded]) -> "View":
        """Return a view of the same rows with other inputs of these modalities. The others are not encoded again."""
        ...

    def paired(self, rows: dict[str, Tensor]) -> "View":
        """Return a view with the features of these modalities taken from other rows (B,), int64: wrong pairs."""
        ...

    def having(self, features: dict[str, Features]) -> "View":
        """Return a view of the same rows with other features of these modalities."""
        ...


@dataclass(frozen=True)
class Vocabulary:
    """What the data knows of a text.

    Attributes:
        names: the tokens in the order of their ids.
        special: ids of marks that are no part of a text.
        mask: the id that stands for a hidden token; None where there is none.
    """

    names: list[str]
    special: frozenset[int]
    mask: int | None


@dataclass(frozen=True)
class ClassTarget:
    """What the data knows of a class target: its names in the order of their indices, how often training has each."""

    names: list[str]
    counts: list[int]


@dataclass(frozen=True)
class MultiLabelTarget:
    """What the data knows of a target of several classes at once.

    Attributes:
        names: in the order of their indices.
        counts: how many of training's labelled rows have each.
        num_rows: how many rows of training are labelled, those that have none of the classes among them.
    """

    names: list[str]
    counts: list[int]
    num_rows: int


@dataclass(frozen=True)
class NumberTarget:
    """What the data knows of a target of K numbers; `prediction * std + mean` is in the units of the table.

    Attributes:
        names: K, "0", "1", ...
        mean: K, of the training split; 0 when the target is not scaled.
        std: K, above 0; 1 when the target is not scaled, and for a number that training never sees change.
    """

    names: list[str]
    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class AnswerTarget:
    """What the data knows of an answer: the normalised answers that can be chosen, how often training gives each."""

    names: list[str]
    counts: list[int]


@dataclass(frozen=True)
class TokenTarget:
    """What the data knows of a sentence to be generated.

    Attributes:
        names: the tokens in the order of their ids.
        max_length: no target is longer than so many ids, [CLS] and [SEP] among them.
        pad: the id that fills a row up.
        start: the id that every sentence starts with.
        end: the id that every sentence ends with.
        sentences: of each row of training that has some, those that are right; only of a target that keeps them.
    """

    names: list[str]
    max_length: int
    pad: int
    start: int
    end: int
    sentences: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class PairTarget(TokenTarget):
    """What the data knows of a sentence that is chosen and one that is rejected; targets are (B, 2, L)."""


@dataclass(frozen=True)
class DialogueTarget:
    """What the data knows of dialogues, whose values are (B, L, 2): ids, and a flag.

    The flag is 0 for what is read, 1 + the number of its kind for what is answered, -1 where a row has ended. A
    dialogue that ends unanswered is one to be answered.

    Attributes:
        names: the tokens in the order of their ids.
        max_length: no dialogue is longer than so many ids, a medium counted as one.
        pad: the id that fills a row up.
        end: the id that every answer ends with.
        places: by modality, the id that stands where a medium of it does.
        used: the modalities whose media the dialogues of training speak of.
        kinds: what kinds of dialogues there are, judged each by itself; at least one, "" where they have no names.
        write: ids as a person reads them, without marks.
        sentences: of each dialogue of training that ends with an answer, those that are right; only of a target that
            keeps them.
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
    """What the data knows of dialogues with an answer that is chosen and one that is rejected; values are (B, 2, L, 2).

    The rejected one stands in the dialogue in the place of the chosen one; a row may lack it.
    """


@dataclass(frozen=True)
class Hit:
    """One item that a query found: the row's id, the similarity, and whether it is a right answer."""

    id: str
    score: float
    correct: bool


@dataclass(frozen=True)
class Retrieval:
    """For a report: some queries of one direction and the nearest items of the gallery, nearest first.

    `queries[i]` is the row whose `query` modality was asked with, `hits[i]` the rows whose `gallery` modality came.
    """

    query: str
    gallery: str
    queries: list[str]
    hits: list[list[Hit]]


@dataclass(frozen=True)
class Confusion:
    """For a report: `counts[i][j]` is how many rows of class i were called class j."""

    task: str
    names: list[str]
    counts: list[list[int]]


@dataclass(frozen=True)
class Attended:
    """For a report: what one row's words, or the fused tokens, read of its picture.

    Attributes:
        id: of the row.
        query: the modality that asks, or "fused".
        words: what each map belongs to.
        grids: by word, the weight of each patch, row by row from the top; a word's weights sum to 1 at most.
    """

    id: str
    query: str
    words: list[str]
    grids: list[list[list[float]]]


@dataclass(frozen=True)
class Caption:
    """For a report: what was written of a row, and what is right."""

    id: str
    written: str
    right: list[str]


@dataclass(frozen=True)
class Captions:
    """For a report: sentences of a task for some rows."""

    task: str
    rows: list[Caption]


Exhibit = Retrieval | Confusion | Attended | Captions
