"""Interfaces of columns: what every kind of input and every kind of target provides. Nothing is inherited."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from mmtrain.types import Padded, Vocabulary


class InputKind(Protocol):
    """Converts the cells of one modality to tensors.

    Attributes:
        kind: image, text, audio, video, vector, sequence or dialogue.
    """

    kind: str

    def load(self, value: Any, folder: Path, *, seed: int, train: bool) -> tuple[Tensor, int] | None:
        """Convert a cell to a tensor and the key of its content; None if it turns out to be empty.

        Args:
            value: the cell; never null or blank.
            folder: base of relative paths. A reader opens a file with `checked_path(folder, path)` of paths.py, which
                rejects paths that lead out of the folder.
            seed: determines every random draw.
            train: whether to draw at all.

        Raises:
            SampleError: if it cannot be read.
        """
        ...

    def key(self, value: Any) -> int:
        """The key of a cell's content, not 0: equal content has equal keys."""
        ...

    def pad(self, values: Sequence[Tensor | None]) -> Padded:
        """Collate B tensors. None becomes zeros under a False mask."""
        ...


@runtime_checkable
class FittedKind(Protocol):
    """A component that learns from the training split, and is saved in the run folder for later runs of the model.

    Attributes:
        fingerprint: everything except the cells that determines the result.
    """

    fingerprint: str

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Learn from the cells of the training split, including null and blank ones.

        Args:
            cells: cells of one column.
            folder: base of relative paths in them.

        Raises:
            ConfigError: if they do not have this type.
        """
        ...

    def save(self, folder: Path, name: str) -> None:
        """Write the learned state of the input or target of this name.

        Args:
            folder: a new folder; its content is moved into the run folder when it is complete.
            name: name of the input or target, which determines the file names.
        """
        ...

    def restore(self, folder: Path, name: str) -> None:
        """Restore the state that `save` wrote."""
        ...


@runtime_checkable
class HasVocabulary(Protocol):
    """An input of token ids."""

    def words(self) -> list[str]:
        """The tokens in the order of their ids."""
        ...

    def vocabulary(self) -> Vocabulary:
        """The tokens, and which of them are special."""
        ...


class TargetKind(FittedKind, Protocol):
    """Converts the cells of one target to tensors.

    Attributes:
        known: learned metadata for tasks; its `names` are empty if nothing was learned.
    """

    known: Any

    def load(self, value: Any) -> Tensor | None:
        """Convert a cell to a tensor; None for an empty cell, and for a class that is not in the training split.

        Raises:
            SampleError: if it does not have this type.
        """
        ...

    def pad(self, values: Sequence[Tensor | None]) -> Tensor:
        """Collate B cells to (B, ...). Values for None are arbitrary."""
        ...


@runtime_checkable
class HasReferences(Protocol):
    """A text target, with which generated text is compared.

    Attributes:
        keep_references: whether training samples have the references, too.
    """

    keep_references: bool

    def references(self, value: Any) -> list[str]:
        """All complete sentences of a non-empty cell, in the spelling of generated text."""
        ...


@runtime_checkable
class ChecksMedia(Protocol):
    """A target that mentions the media of its row."""

    def check_media(self, value: Tensor, media: Mapping[str, int]) -> None:
        """Reject a value that mentions other media than those of the row.

        Args:
            value: from `load`.
            media: number of media of the row by modality; a modality without media may be omitted.

        Raises:
            SampleError: with both numbers.
        """
        ...


@runtime_checkable
class CountsMedia(Protocol):
    """An input whose cells can contain several media, each with its own place in a text."""

    def count(self, value: Tensor) -> int:
        """Number of media in a value from `load`."""
        ...
