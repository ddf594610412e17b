"""What splits share: ids, texts, and files with the same content under any name."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmtrain.data.tables.columns import content_of
from mmtrain.data.tables.paths import checked_path
from mmtrain.errors import SampleError

Named = tuple[str, Any]  # the row's id and its cell


class Overlap(NamedTuple):
    """A content that is in several splits: the ids of its rows by split, and its description."""

    what: str
    rows: dict[str, list[str]]


def find_overlap(values: Mapping[str, Iterable[tuple[str, str]]]) -> list[Overlap]:
    """The values that are in several splits.

    Args:
        values: by split, the row's id and a value.

    >>> find_overlap({"train": [("1", "a dog"), ("2", "a cat")], "test": [("9", "a dog")]})
    [Shared(what='a dog', rows={'train': ['1'], 'test': ['9']})]
    """
    results: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for split, pairs in values.items():
        for id, value in pairs:
            results[value].setdefault(split, []).append(id)
    return [Overlap(value, rows) for value, rows in results.items() if len(rows) > 1]


def normalize_text(text: str) -> str:
    """Normalize a text for comparison: no case, and single spaces."""
    return " ".join(text.split()).casefold()


class SharedFiles(NamedTuple):
    """Files of equal content, and whether all files of equal size were compared."""

    found: list[Overlap]
    complete: bool


def shared_files(cells: Mapping[str, Sequence[Named]], folders: Mapping[str, Path], *, most_bytes: int) -> SharedFiles:
    """Files, or bytes in cells, that are the same in several splits.

    Only contents with the same size as a content of another split are read.

    Args:
        cells: by split.
        folders: of relative paths, by split.
        most_bytes: limit of what is read.
    """
    sized = {split: [(id, part, _size(part, folders[split])) for id, part in _parts(of)] for split, of in cells.items()}
    splits_of: dict[int, set[str]] = defaultdict(set)
    for split, parts in sized.items():
        for _, _, size in parts:
            splits_of[size].add(split)
    digests: dict[tuple[Path, str | bytes], str] = {}
    values: dict[str, list[tuple[str, str]]] = {split: [] for split in cells}
    left = most_bytes
    names: dict[str, str] = {}
    for split, parts in sized.items():
        for id, part, size in parts:
            if size <= 0 or len(splits_of[size]) < 2:
                continue
            place = (folders[split], part)
            if place not in digests and size > left:
                return SharedFiles(_named(find_overlap(values), names), complete=False)
            if place not in digests:
                left -= size
                digests[place] = _digest(part, folders[split])
            names.setdefault(digests[place], part if isinstance(part, str) else f"{len(part)} bytes")
            values[split].append((id, digests[place]))
    return SharedFiles(_named(find_overlap(values), names), complete=True)


def _named(overlaps: Iterable[Overlap], names: Mapping[str, str]) -> list[Overlap]:
    return [Overlap(names[one.what], one.rows) for one in overlaps if one.what]


def _parts(cells: Iterable[Named]) -> Iterable[tuple[str, str | bytes]]:
    for id, cell in cells:
        content = content_of(cell)
        for part in content if isinstance(content, list) else [content]:
            inner = content_of(part)
            if isinstance(inner, str | bytes):
                yield id, inner


def _size(part: str | bytes, folder: Path) -> int:
    """In bytes; -1 if the file does not exist or is outside the folder."""
    if isinstance(part, bytes):
        return len(part)
    try:
        return checked_path(folder, part).stat().st_size
    except (OSError, SampleError):
        return -1


def _digest(part: str | bytes, folder: Path) -> str:
    """The hash of a content; empty if it cannot be read."""
    if isinstance(part, bytes):
        return hashlib.blake2b(part, digest_size=16).hexdigest()
    try:
        with checked_path(folder, part).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except (OSError, SampleError):
        return ""
