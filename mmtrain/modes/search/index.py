"""A search index: unit vectors by modality and their rows, in files that any program can read.

    vectors.safetensors   by modality its vectors (N, D), and in MODALITY.rows the row of each
    rows.jsonl            one {"id", "split", "text", "files": {modality: path}} per line; paths start from `folder`
    index.json            the model, the folder of the files, and a digest of the other two

Content that several rows share, such as a caption, is stored once, with its first row.
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
CHUNK = 2**16  # vectors that are compared with queries at once


class Row(NamedTuple):
    """A row of the data, with the fields that identify it for a user."""

    id: str
    split: str
    text: str | None
    files: dict[str, str]


class Nearest(NamedTuple):
    """Results of a query: row numbers and similarities, nearest first."""

    rows: list[int]
    scores: list[float]


@dataclass(frozen=True)
class SearchIndex:
    """Vectors and rows.

    Attributes:
        vectors: by modality (N, D), float32, unit length.
        owners: by modality (N,), int64, the row of each vector.
        rows: of the data.
        folder: base of the paths in the rows, which must stay inside it, as `data_folder` returns it.
        weights: digest of the towers that computed the vectors.
        step: of the checkpoint.
    """

    vectors: dict[str, Tensor]
    owners: dict[str, Tensor]
    rows: list[Row]
    folder: Path
    weights: str
    step: int

    def nearest(self, queries: Tensor, within: str, k: int) -> list[Nearest]:
        """Return the k most similar vectors of one modality, exactly, in chunks. Ties are in the order of the table.

        Args:
            queries: (Q, D), unit length.
            within: the modality to search.
            k: number of results per query; fewer if there are not enough.

        Raises:
            ConfigError: if the vectors of the index have another width.
        """
        gallery, owners = self.vectors[within], self.owners[within]
        if gallery.shape[1] != queries.shape[1]:
            raise ConfigError(
                f"the index has vectors of {gallery.shape[1]} values, but those of the model have {queries.shape[1]}\n"
                "    fix: create it again with mode=predict predict.index=DIR"
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
        """The file with the content of a row in a modality; None if the content is not in a file.

        Raises:
            ConfigError: if it is outside of the folder, which happens only in a modified index.
        """
        record = self.rows[row]
        if modality not in record.files:
            return None
        if leads_out(self.folder, record.files[modality]):
            raise ConfigError(
                f"the index names a file outside of {self.folder} for {record.id}: {record.files[modality]}\n"
                "    fix: create it again with mode=predict predict.index=DIR"
            )
        return self.folder / record.files[modality]

    def write(self, folder: Path) -> None:
        """Write the index into a folder, and replace an index in it.

        Raises:
            ConfigError: if the folder contains something else, there is nothing to write, or the disk is full. An
                earlier index is kept then.
        """
        if not any(len(v) for v in self.vectors.values()):
            raise ConfigError(f"predict.index={folder}: no row has content to search\n    fix: name other data")
        if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not _is_index(folder))):
            raise ConfigError(f"predict.index={folder}: contains something else\n    fix: name a new folder")
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
        """Read an index that `write` has written.

        Raises:
            ConfigError: if there is none, or it was modified.
        """
        make = "fix: create it with mode=predict predict.index=DIR"
        if not current(folder, HEAD).is_file():
            raise ConfigError(f"{folder}: contains no search index\n    {make}")
        try:
            head = _Head.read(current(folder, HEAD))
            if head.format != FORMAT:
                raise ConfigError(f"{folder}: an index of another version of mmtrain\n    {make} again")
            if head.sha256 != _digest(folder):
                raise ConfigError(f"{folder}: modified, its files are not those that were written\n    {make} again")
            tensors = load_file(current(folder, VECTORS))
            text = current(folder, ROWS).read_text(encoding="utf-8")
            lines = text.split("\n")  # a text may contain other line separators
            rows = [_row(json.loads(line)) for line in lines if line]
            vectors = {m: tensors[m] for m in head.vectors}
            owners = {m: tensors[f"{m}.rows"] for m in head.vectors}
            for m, shape in head.vectors.items():
                _check_vectors(m, vectors[m], owners[m], shape, num_rows=len(rows))
        except ConfigError:
            raise
        except (OSError, LookupError, TypeError, ValueError, RecursionError, SafetensorError) as error:
            raise ConfigError(f"{folder}: cannot be read as an index: {error}\n    {make} again") from error
        place = data_folder(Path(head.folder), restrict_paths=head.confine)
        return cls(vectors, owners, rows, folder=place, weights=head.weights, step=head.step)


@dataclass(frozen=True)
class _Head:
    """Content of index.json. Its digest shows that the other files are unchanged, but not who wrote them."""

    format: int
    weights: str
    step: int
    folder: str
    confine: bool
    vectors: dict[str, list[int]]
    sha256: str

    @classmethod
    def read(cls, path: Path) -> "_Head":
        """Read it from its file.

        Raises:
            ValueError: or KeyError or TypeError, for other content.
        """
        if path.stat().st_size > _MAX_HEAD:
            raise ValueError(f"{HEAD} is larger than {_MAX_HEAD} bytes")
        record: Any = json.loads(path.read_text(encoding="utf-8"))
        kinds = {"format": int, "weights": str, "step": int, "folder": str, "vectors": dict, "sha256": str}
        if not isinstance(record, dict):
            raise ValueError(f"{HEAD} is not an object")
        record.setdefault("confine", True)  # an index of an earlier version
        kinds["confine"] = bool
        for name, kind in kinds.items():
            if type(record[name]) is not kind:
                raise ValueError(f"{name} in {HEAD} is not a {kind.__name__}")
        if record["step"] < 0 or not record["folder"] or not record["vectors"]:
            raise ValueError(f"{HEAD} has a step below 0, no folder or no vectors")
        return cls(**{name: record[name] for name in kinds})


_MAX_HEAD = 2**20  # bytes


def _row(record: Any) -> Row:
    """A line of rows.jsonl.

    Raises:
        ValueError: or KeyError or TypeError, for other content.
    """
    row = Row(**record)
    if not isinstance(row.files, dict):
        raise ValueError(f"files of a row of {ROWS} is not a dict")
    words = [row.id, row.split, *row.files, *row.files.values(), *([] if row.text is None else [row.text])]
    if not all(isinstance(word, str) for word in words):
        raise ValueError(f"a row of {ROWS} has values that are not text")
    return row


def _check_vectors(name: str, vectors: Tensor, owners: Tensor, shape: Any, *, num_rows: int) -> None:
    """Check that vectors of a modality have one width, are finite, and belong to existing rows.

    Raises:
        ValueError: otherwise.
    """
    if vectors.ndim != 2 or vectors.dtype != torch.float32 or list(vectors.shape) != shape:
        raise ValueError(f"{name} in {VECTORS} is {tuple(vectors.shape)} {vectors.dtype}, but {HEAD} has {shape}")
    if owners.shape != vectors.shape[:1] or owners.dtype != torch.int64:
        raise ValueError(f"{name}.rows in {VECTORS} is {tuple(owners.shape)} {owners.dtype} for {len(vectors)} vectors")
    if not vectors.isfinite().all():
        raise ValueError(f"{name} in {VECTORS} is not finite")
    if len(owners) and not (owners.min() >= 0 and owners.max() < num_rows):
        raise ValueError(f"{name}.rows in {VECTORS} names a row that is not in {ROWS}, which has {num_rows}")


def first_of_each(keys: Sequence[int]) -> list[int]:
    """The position of the first occurrence of each content.

    >>> first_of_each([7, 8, 7, 9])
    [0, 1, 3]
    """
    seen: dict[int, int] = {}
    for place, key in enumerate(keys):
        seen.setdefault(key, place)
    return list(seen.values())


def _is_index(folder: Path) -> bool:
    """Whether a folder has an index, or only a temporary folder of a killed attempt."""
    return current(folder, HEAD).is_file() or all(path.name.endswith(".part") for path in folder.iterdir())


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (VECTORS, ROWS):
        with current(folder, name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
