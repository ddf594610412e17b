"""What a column can hold: what every kind of input and every kind of target offers. Nothing is inherited."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from mmtrain.types import Padded, Vocabulary


class InputKind(Protocol):
    """How the cells of one modality become tensors.

    Attributes:
        kind: image, text, audio, video, vector, sequence or dialogue.
    """

    kind: str

    def load(self, value: Any, folder: Path, *, seed: int, train: bool) -> tuple[Tensor, int] | None:
        """One cell as a tensor and the key of its content; None when it turns out to hold nothing.

        Args:
            value: the cell; never null or blank.
            folder: what a relative path starts from. A reader opens a file by `checked_path(folder, path)` of paths.py,
                which refuses one that leads out of the folder.
            seed: every random draw follows from it alone.
            train: whether to draw at all.

        Raises:
            SampleError: when it cannot be read.
        """
        ...

    def key(self, value: Any) -> int:
        """The key of a cell's content, not 0: equal contents have equal keys."""
        ...

    def pad(self, values: Sequence[Tensor | None]) -> Padded:
        """B tensors together; what stands for None is zeros under a False mask."""
        ...


@runtime_checkable
class Learned(Protocol):
    """A part that learns from the training split and is kept in the run folder, to be used again by all that follows.

    Attributes:
        recipe: what the result follows from beside the cells.
    """

    recipe: str

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Learn from the cells of the training split, null and blank ones among them.

        Args:
            cells: of one column.
            folder: what a relative path in them starts from.

        Raises:
            ConfigError: when they cannot be of this kind.
        """
        ...

    def save(self, folder: Path, name: str) -> None:
        """Write what was learned for the input or target of this name.

        Args:
            folder: a new one; what is in it is moved into the run folder when everything is written.
            name: of the input or target; the names of the files follow from it.
        """
        ...

    def restore(self, folder: Path, name: str) -> None:
        """Take what `save` wrote."""
        ...


@runtime_checkable
class Worded(Protocol):
    """An input of token ids."""

    def words(self) -> list[str]:
        """The tokens in the order of their ids."""
        ...

    def vocabulary(self) -> Vocabulary:
        """The same, and which of them are marks."""
        ...


class TargetKind(Learned, Protocol):
    """How the cells of one target become tensors.

    Attributes:
        known: what was learned, as tasks are told of it; its `names` are empty when there was nothing.
    """

    known: Any

    def load(self, value: Any) -> Tensor | None:
        """One cell as a tensor; None for an empty cell, and for a class that training never saw.

        Raises:
            SampleError: when it is not of this kind.
        """
        ...

    def pad(self, values: Sequence[Tensor | None]) -> Tensor:
        """(B, ...) of B cells; what stands for None is arbitrary."""
        ...


@runtime_checkable
class Referenced(Protocol):
    """A target of sentences, which what was written is compared with.

    Attributes:
        keep_sentences: whether training samples bring them, too.
    """

    keep_sentences: bool

    def references(self, value: Any) -> list[str]:
        """Every sentence of a cell that is not empty, whole, in the spelling in which sentences are written out."""
        ...


@runtime_checkable
class Illustrated(Protocol):
    """A target that speaks of the media of its row."""

    def check_media(self, value: Tensor, media: Mapping[str, int]) -> None:
        """Refuse a value that speaks of other media than the row has.

        Args:
            value: what `load` gave.
            media: by modality, how many the row has; what it has none of can be missing.

        Raises:
            SampleError: with both numbers.
        """
        ...


@runtime_checkable
class Several(Protocol):
    """An input of which one cell can hold several media, each its own place in a text."""

    def count(self, value: Tensor) -> int:
        """How many there are in what `load` gave."""
        ...
