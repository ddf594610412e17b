"""What a source of data gives: a table a split, and what the paths in them start from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtrain.data.order import Order
from mmtrain.errors import ConfigError

SPLITS = ("train", "val", "test")
ALIASES = {"validation": "val", "valid": "val", "dev": "val", "training": "train", "testing": "test"}


@dataclass(frozen=True)
class Tables:
    """The tables of a data set.

    Attributes:
        splits: by train, val and test, a `datasets.Dataset`, or what can be asked as one: `len(table)`, `table[3]` as
            a dict, `table["column"]` as an iterable of cells, `column_names`, `_fingerprint`.
        names: by split, the file or folder that it came from, for messages.
        folder: what relative paths start from.
        order: of the training split; None for a permutation of all its rows.
    """

    splits: Mapping[str, Any]
    names: Mapping[str, str]
    folder: Path
    order: Order | None = None


def split_name(word: str) -> str | None:
    """The split that a word means; None when it means none.

    >>> split_name("Validation"), split_name("train"), split_name("extra")
    ('val', 'train', None)
    """
    word = word.strip().lower()
    word = ALIASES.get(word, word)
    return word if word in SPLITS else None


def undecoded(table: Any) -> Any:
    """A `datasets.Dataset` whose pictures, sounds and films are left as files, and whose classes have their names.

    We decode ourselves: one broken file must not be the end of a run.
    """
    import datasets

    for name, feature in table.features.items():
        if isinstance(feature, datasets.Image | datasets.Audio | datasets.Video):
            table = table.cast_column(name, type(feature)(decode=False))
        elif isinstance(feature, datasets.ClassLabel):
            table = _with_names(table, name, feature.names)
    return table


def _with_names(table: Any, column: str, names: list[str]) -> Any:
    import datasets

    def name_them(batch: dict[str, list[int | None]]) -> dict[str, list[str | None]]:
        return {column: [names[n] if n is not None and n >= 0 else None for n in batch[column]]}

    features = table.features.copy()
    features[column] = datasets.Value("string")
    return table.map(name_them, batched=True, features=features)


def no_rows(name: str, split: str) -> ConfigError:
    """The message for an empty split."""
    return ConfigError(f"{name} has no rows: the {split} split is empty\n    fill it, or remove the file")
