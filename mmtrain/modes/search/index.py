"""What is searched in: unit vectors by modality and the rows they belong to, as files that any program can read.

    vectors.safetensors   by modality its vectors (N, D), and under MODALITY.rows the row of each
    rows.jsonl            {"id", "split", "text", "files": {modality: path}} a line; paths start from `folder`
    index.json            what model it is of, where the files lie, and a digest of the two

A content that several rows share, such as a caption, stands there once, with its first row.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmtrain.data.tables.paths import UnconfinedFolder, data_folder, leads_out
from mmtrain.errors import ConfigError
from mmtrain.io.atomic import current, replacing, replacing_files
from mmtrain.io.run_files import write_json, write_json_lines

FORMAT = 1
HEAD, ROWS, VECTORS = "index.json", "rows.jsonl", "vectors.safetensors"
CHUNK = 2**16  # vectors that queries are compared with at once


class Row(NamedTuple):
    """A row of the data: what a person needs to find it again."""

    id: str
    split: str
    text: str | None
    files: dict[str, str]


class Nearest(NamedTuple):
    """What a query found: numbers of rows and similarities, nearest first."""

    rows: list[int]
    scores: list[float]


@dataclass(frozen=True)
class SearchIndex:
    """Vectors and rows.

    Attributes:
        vectors: by modality (N, D), float32, unit length.
        owners: by modality (N,), int64, the row of each vector.
        rows: of the data.
        folder: what paths in the rows start from, and must stay in, as `data_folder` gives it.
        weights: digest of the towers that made the vectors.
        step: of the checkpoint.
    """

    vectors: dict[str, Tensor]
    owners: dict[str, Tensor]
    rows: list[Row]
    folder: Path
    weights: str
    step: int

    def nearest(self, queries: Tensor, within: str, k: int) -> list[Nearest]:
        """The k most similar of one modality, exactly, a chunk at a time; of equals the first in the table.

        Args:
            queries: (Q, D), unit length.
            within: the modality that is looked through.
            k: how many of each; fewer where there are fewer.

        Raises:
            ConfigError: when the index has vectors of another width.
        """
        gallery, owners = self.vectors[within], self.owners[within]
        if gallery.shape[1] != queries.shape[1]:
            raise ConfigError(
                f"the index has vectors of {gallery.shape[1]} values, and the model makes {queries.shape[1]}\n"
                "    make it again with mode=predict predict.index=DIR"
            )
        best, places = queries.new_empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.long)
        for start in range(0, len(gallery), CHUNK):
            scores = queries @ gallery[start : start + CHUNK].T
            here = torch.arange(start, start + scores.shape[1]).expand(len(queries), -1)
            both, of_both = torch.cat([best, scores], dim=1), torch.cat([places, here], dim=1)
            order = both.sort(dim=1, descending=True, stable=True).indices[:, :k]
            best, places = both.gather(1, order), of_both.gather(1, order)
        return [Nearest(owners[p].tolist(), s.tolist()) for p, s in zip(places, best, strict=True)]

    def file(self, row: int, modality: str) -> Path | None:
        """The file of what a row has of a modality; None where that lies in no file.

        Raises:
            ConfigError: when it leads out of the folder, as in an index that was changed.
        """
        there = self.rows[row]
        if modality not in there.files:
            return None
        if leads_out(self.folder, there.files[modality]):
            raise ConfigError(
                f"the index names a file outside of {self.folder} for {there.id}: {there.files[modality]}\n"
                "    make it again with mode=predict predict.index=DIR"
            )
        return self.folder / there.files[modality]

    def write(self, folder: Path) -> None:
        """Put it into a folder, in place of an index that lies there.

        Raises:
            ConfigError: when the folder holds something else, or there is nothing to write, or no room: the index that
                lies there stays.
        """
        if not any(len(v) for v in self.vectors.values()):
            raise ConfigError(f"predict.index = {folder}: no row has anything to search in\n    name data that has")
        if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not _is_index(folder))):
            raise ConfigError(f"predict.index = {folder} holds something else\n    name a new folder")
        owners = {f"{m}.rows": rows for m, rows in self.owners.items()}
        with replacing_files(folder) as part:
            write_json_lines(part / ROWS, (row._asdict() for row in self.rows))
            with replacing(part / VECTORS) as vectors:
                save_file({m: v.contiguous() for m, v in (self.vectors | owners).items()}, vectors)
            head = {
                "format": FORMAT,
                "weights": self.weights,
                "step": self.step,
                "folder": str(self.folder.resolve()),
                "confine": not isinstance(self.folder, UnconfinedFolder),
                "vectors": {m: list(v.shape) for m, v in self.vectors.items()},
                "sha256": _digest(part),
            }
            write_json(part / HEAD, head, indent=1)

    @classmethod
    def read(cls, folder: Path) -> "SearchIndex":
        """Take what `write` put there.

        Raises:
            ConfigError: when there is none, or it is not what was written.
        """
        make = "make it with mode=predict predict.index=DIR"
        if not current(folder, HEAD).is_file():
            raise ConfigError(f"{folder} holds no index to search in\n    {make}")
        try:
            head = _Head.read(current(folder, HEAD))
            if head.format != FORMAT:
                raise ConfigError(f"{folder} is of another version of mmtrain\n    {make} again")
            if head.sha256 != _digest(folder):
                raise ConfigError(f"{folder} is not whole: its files are not what was written\n    {make} again")
            tensors = load_file(current(folder, VECTORS))
            text = current(folder, ROWS).read_text(encoding="utf-8")
            lines = text.split("\n")  # a text may have other ends of lines in it
            rows = [_row(json.loads(line)) for line in lines if line]
            vectors = {m: tensors[m] for m in head.vectors}
            owners = {m: tensors[f"{m}.rows"] for m in head.vectors}
            for m, shape in head.vectors.items():
                _check_vectors(m, vectors[m], owners[m], shape, num_rows=len(rows))
        except ConfigError:
            raise
        except (OSError, LookupError, TypeError, ValueError, RecursionError, SafetensorError) as error:
            raise ConfigError(f"{folder} cannot be read as an index: {error}\n    {make} again") from error
        place = data_folder(Path(head.folder), confine=head.confine)
        return cls(vectors, owners, rows, folder=place, weights=head.weights, step=head.step)


@dataclass(frozen=True)
class _Head:
    """What index.json has; its digest of the other files says that they are those that were written, not by whom."""

    format: int
    weights: str
    step: int
    folder: str
    confine: bool
    vectors: dict[str, list[int]]
    sha256: str

    @classmethod
    def read(cls, path: Path) -> "_Head":
        """Take it from its file.

        Raises:
            ValueError: or a KeyError or TypeError, when it is none.
        """
        if path.stat().st_size > _MAX_HEAD:
            raise ValueError(f"{HEAD} has more than {_MAX_HEAD} bytes")
        said: Any = json.loads(path.read_text(encoding="utf-8"))
        kinds = {"format": int, "weights": str, "step": int, "folder": str, "vectors": dict, "sha256": str}
        if not isinstance(said, dict):
            raise ValueError(f"{HEAD} has no object")
        said.setdefault("confine", True)  # an index of before
        kinds["confine"] = bool
        for name, kind in kinds.items():
            if type(said[name]) is not kind:
                raise ValueError(f"{name} in {HEAD} is no {kind.__name__}")
        if said["step"] < 0 or not said["folder"] or not said["vectors"]:
            raise ValueError(f"{HEAD} has a step below 0, no folder or no vectors")
        return cls(**{name: said[name] for name in kinds})


_MAX_HEAD = 2**20  # bytes


def _row(said: Any) -> Row:
    """A line of rows.jsonl.

    Raises:
        ValueError: or a KeyError or TypeError, when it is none.
    """
    row = Row(**said)
    if not isinstance(row.files, dict):
        raise ValueError(f"files of a row of {ROWS} is no dict")
    words = [row.id, row.split, *row.files, *row.files.values(), *([] if row.text is None else [row.text])]
    if not all(isinstance(word, str) for word in words):
        raise ValueError(f"a row of {ROWS} has other values than texts")
    return row


def _check_vectors(name: str, vectors: Tensor, owners: Tensor, shape: Any, *, num_rows: int) -> None:
    """Vectors of one modality are as long as each other, finite, and each belongs to a row that is there.

    Raises:
        ValueError: otherwise.
    """
    if vectors.ndim != 2 or vectors.dtype != torch.float32 or list(vectors.shape) != shape:
        raise ValueError(f"{name} in {VECTORS} is {tuple(vectors.shape)} {vectors.dtype}, and {HEAD} says {shape}")
    if owners.shape != vectors.shape[:1] or owners.dtype != torch.int64:
        raise ValueError(f"{name}.rows in {VECTORS} is {tuple(owners.shape)} {owners.dtype}, of {len(vectors)} vectors")
    if not vectors.isfinite().all():
        raise ValueError(f"{name} in {VECTORS} is not finite")
    if len(owners) and not (owners.min() >= 0 and owners.max() < num_rows):
        raise ValueError(f"{name}.rows in {VECTORS} names a row that is not in {ROWS}, which has {num_rows}")


def first_of_each(keys: Sequence[int]) -> list[int]:
    """The place of each content where it comes first.

    >>> first_of_each([7, 8, 7, 9])
    [0, 1, 3]
    """
    seen: dict[int, int] = {}
    for place, key in enumerate(keys):
        seen.setdefault(key, place)
    return list(seen.values())


def _is_index(folder: Path) -> bool:
    """An attempt that was killed may have left its part folder; nobody needs it."""
    return current(folder, HEAD).is_file() or all(path.name.endswith(".part") for path in folder.iterdir())


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (VECTORS, ROWS):
        with current(folder, name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
