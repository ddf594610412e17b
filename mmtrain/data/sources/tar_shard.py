"""A WebDataset shard: a tar in which files with the same base name are one sample, read in place.

0001.jpg + 0001.txt + 0001.json are the sample 0001 with the columns jpg and txt and those of the json; see
https://github.com/webdataset/webdataset. Unusual: any sample can be read directly, because an index has the position of
each file. It is created from the headers only.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mmtrain.data.sources.shard_files import Index, Place, opened, remote_errors, with_retries
from mmtrain.data.tables.json_rows import parse_json
from mmtrain.errors import ConfigError, SampleError, printable

TEXTS = ("txt", "text", "caption", "transcript", "cls", "cls2", "class", "label", "count", "index")
SAME = {"jpeg": "jpg", "jsn": "json"}
_BLOCK = 512  # bytes; everything in a tar is aligned to it
_LOOKS = 16  # number of samples whose json is read to find the columns
_MAX_NAME = 255  # bytes of a column name, as for file names
_MAX_EXTENSION = 1 << 20  # bytes of a member that only extends the next header
_MAX_ENDINGS = 1 << 16  # maximum in the index


class Member(NamedTuple):
    """A file in a tar: its name, its position, and its length."""

    name: str
    offset: int
    size: int


def members_of(file: BinaryIO, place: Place) -> Iterator[Member]:
    """The files of a tar, read from its headers; their content is skipped.

    Unlike `tarfile`, it does not mistake a damaged header or a truncation for the end.

    Raises:
        ConfigError: if it is not a tar, damaged or truncated.
    """
    at, last = 0, "its beginning"
    extended: dict[str, str] = {}  # content of extension members for the next file
    while at < place.size:
        file.seek(at)
        header = file.read(_BLOCK)
        if not header.strip(b"\0") and len(header) == _BLOCK:
            return
        info = _header(header, place, at, last)
        start, size = at + _BLOCK, _size(info, extended, place, at, last)
        if start + size > place.size:
            name = extended.get("path", info.name)
            raise _cut(place, f"{name} should end at byte {start + size}, the file at {place.size}")
        if info.type in _EXTENSIONS:
            if size > _MAX_EXTENSION:
                raise _damaged(place, at, last, f"the header extension has {size} bytes, more than {_MAX_EXTENSION}")
            extended |= _extension(file.read(size), info)
        elif info.type == tarfile.GNUTYPE_SPARSE or "GNU.sparse" in extended:
            name = extended.get("path", info.name)
            raise _damaged(place, at, last, f"{name} is a sparse file; pack it without --sparse")
        else:
            if info.isreg():
                last = extended.get("path", info.name)
                yield Member(last, start, size)
            extended = extended if info.type == tarfile.XGLTYPE else {}
        at = start + (-(-size // _BLOCK) * _BLOCK if info.isreg() or info.type in _WITH_CONTENT else 0)


_EXTENSIONS = (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE)
_WITH_CONTENT = (*_EXTENSIONS, tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE)


def _header(header: bytes, place: Place, at: int, last: str) -> tarfile.TarInfo:
    if at == 0 and header[:2] == b"\x1f\x8b":
        raise ConfigError(f"{place.path} is compressed\n    fix: gunzip it: samples are read in place")
    if len(header) < _BLOCK:
        raise _cut(place, f"in the header after {last}")
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError) as error:  # errors of extreme numbers
        if at == 0:
            raise ConfigError(f"{place.path} is not a tar: {error}\n    fix: create or download it again") from error
        raise _damaged(place, at, last, str(error)) from error


def _size(info: tarfile.TarInfo, extended: dict[str, str], place: Place, at: int, last: str) -> int:
    """The length of a member, from POSIX extensions if it is too large for a header."""
    given = extended.get("size") if info.type not in _WITH_CONTENT else None
    if given is not None and not (given.isascii() and given.isdigit() and len(given) < 20):
        raise _damaged(place, at, last, f"{extended.get('path', info.name)} has the size {given}")
    size = info.size if given is None else int(given)
    if size < 0:
        raise _damaged(place, at, last, f"{extended.get('path', info.name)} has the size {size}")
    return size


def _cut(place: Place, where: str) -> ConfigError:
    return ConfigError(
        f"{place.path} is truncated: {printable(where)}\n    fix: create or download it again, or remove it"
    )


def _damaged(place: Place, at: int, last: str, what: str) -> ConfigError:
    what = printable(f"after {last}: {what}")
    return ConfigError(f"{place.path} is damaged at byte {at}, {what}\n    fix: create or download it again")


def _extension(content: bytes, info: tarfile.TarInfo) -> dict[str, str]:
    """The path and the size in an extension of GNU or of POSIX ("27 path=a/very/long/name" and other lines)."""
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    results = {}
    while content:
        length, _, _ = content[:20].partition(b" ")
        if not length.isdigit() or int(length) <= len(length):
            break
        key, _, value = content[len(length) + 1 : int(length) - 1].partition(b"=")
        content = content[int(length) :]
        if key in (b"path", b"size"):
            results[key.decode()] = value.decode("utf-8", "surrogateescape")
        elif key.startswith(b"GNU.sparse."):
            results["GNU.sparse"] = "yes"
    return results


def split_member(name: str) -> tuple[str, str] | None:
    """The sample of a file, and its column; None for hidden files and for those without a usable suffix.

    >>> split_member("a/0001.seg.PNG"), split_member("0001.jpeg"), split_member("a/.DS_Store")
    (('a/0001', 'seg.png'), ('0001', 'jpg'), None)
    """
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, ending = base.partition(".")
    ending = ending.lower().encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    is_part = bool(stem and dot and ending) and len(ending) <= _MAX_NAME
    return (f"{folder}{slash}{stem}", SAME.get(ending, ending)) if is_part else None


def index_tar(place: Place) -> Index:
    """Positions of the files of each sample.

    Returns:
        names: names of the samples, concatenated in UTF-8, (bytes,), uint8; name_ends: (S,), int64, the end of each;
        starts: (S + 1,), int64, the first file of each; offsets, sizes: (M,), int64, in bytes; endings: (M,), uint16,
        indices in `kinds`; kinds: their names; columns: columns of the samples; blocks: [S].

    Raises:
        ConfigError: if it is not a tar, damaged, truncated or without samples.
    """
    samples: dict[str, dict[str, Member]] = {}
    try:
        with opened(place.path) as file:
            for member in members_of(file, place):
                parts = split_member(member.name)
                if parts is not None:  # of two with one name the later is used, as in unpacking
                    samples.setdefault(parts[0], {})[parts[1]] = member
            if not samples:
                raise ConfigError(
                    f"{place.path} contains no sample\n"
                    "    fix: add files with a common base name, such as 1.jpg and 1.txt"
                )
            columns = _columns(file, list(samples.values()))
    except remote_errors() as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{place.path} cannot be read: {error}\n    fix: correct the path, or download it again"
        ) from error
    kinds = list(dict.fromkeys(kind for files in samples.values() for kind in files))
    if len(kinds) > _MAX_ENDINGS:
        raise ConfigError(
            f"{place.path} has files with {len(kinds)} different endings, such as {kinds[0]}, {kinds[1]}, {kinds[2]}\n"
            "    fix: name the files without other dots: 0001.jpg, 0001.txt"
        )
    names = [name.encode("utf-8", "surrogateescape") for name in samples]
    number_of = {kind: number for number, kind in enumerate(kinds)}
    results = [(number_of[kind], member) for files in samples.values() for kind, member in files.items()]
    return {
        "names": np.frombuffer(b"".join(names), dtype=np.uint8),
        "name_ends": np.cumsum([len(name) for name in names], dtype=np.int64),
        "starts": np.cumsum([0, *map(len, samples.values())], dtype=np.int64),
        "offsets": np.array([member.offset for _, member in results], dtype=np.int64),
        "sizes": np.array([member.size for _, member in results], dtype=np.int64),
        "endings": np.array([kind for kind, _ in results], dtype=np.uint16),
        "kinds": np.array(kinds),
        "columns": np.array(columns),
        "blocks": np.array([len(samples)], dtype=np.int64),
    }


def _columns(file: BinaryIO, samples: list[dict[str, Member]]) -> list[str]:
    """The suffixes, and instead of json the keys of the first ones."""
    columns = dict.fromkeys(kind for files in samples for kind in files)
    inside: dict[str, None] = {}
    for member in [files["json"] for files in samples if "json" in files][:_LOOKS]:
        file.seek(member.offset)
        try:
            content = parse_json(file.read(member.size))
        except ValueError:  # reported when the sample is read
            continue
        inside |= dict.fromkeys(content if isinstance(content, dict) else ["json"])
    inside = {column: None for column in inside if len(column) <= _MAX_NAME}
    if inside:
        del columns["json"]
    return [c for c in columns | inside if c != "id"]


class TarShard:
    """An open shard.

    Args:
        place: the tar.
        index: the file with the result of `index_tar`.
    """

    def __init__(self, place: Place, index: Path) -> None:
        self.name = place.path.rpartition("/")[2]
        self._path = place.path
        with np.load(index, allow_pickle=False) as arrays:
            self._index: Index = {key: arrays[key] for key in arrays.files if key not in ("columns", "blocks")}
        self._kinds: list[str] = self._index["kinds"].tolist()
        self._file = opened(place.path)
        self._json: tuple[int, dict[str, Any]] = (-1, {})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def id(self, row: int) -> str:
        """The name of the sample in the shard."""
        ends = self._index["name_ends"]
        name = self._index["names"][int(ends[row - 1]) if row else 0 : int(ends[row])]
        return name.tobytes().decode("utf-8", "replace")

    def columns(self, row: int) -> list[str]:
        """The columns of a sample.

        Raises:
            SampleError: if its json cannot be read.
        """
        members = self._members(row)
        inside = list(self._inside(row, members["json"])) if "json" in members else []
        return list(dict.fromkeys([*(kind for kind in members if kind != "json"), *inside]))

    def is_text(self, column: str) -> bool:
        """Whether the cells of a column are text, or from the json of their samples."""
        return column not in self._kinds or column.rpartition(".")[2] in TEXTS

    def cell(self, row: int, column: str) -> Any:
        """Text files as text, anything else as bytes.

        Raises:
            KeyError: if the sample does not have it.
            SampleError: if it cannot be read.
        """
        members = self._members(row)
        if column in members and column != "json":
            content = self._read(row, column, members[column])
            return self._text(row, column, content) if column.rpartition(".")[2] in TEXTS else content
        if "json" not in members:
            raise KeyError(column)
        return self._inside(row, members["json"])[column]

    def _members(self, row: int) -> dict[str, int]:
        """The files of a sample, by suffix."""
        first, last = (int(n) for n in self._index["starts"][row : row + 2])
        return {self._kinds[self._index["endings"][number]]: number for number in range(first, last)}

    def _read(self, row: int, kind: str, number: int) -> bytes:
        offset, size = int(self._index["offsets"][number]), int(self._index["sizes"][number])
        try:
            content = with_retries(lambda: self._bytes(offset, size), self._path)
        except remote_errors() as error:
            raise SampleError(self._named(row, kind), f"cannot be read at byte {offset}: {error}") from error
        if len(content) < size:
            reason = f"is truncated: {len(content)} of {size} bytes at byte {offset}"
            raise SampleError(self._named(row, kind), reason)
        return content

    def _bytes(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)

    def _text(self, row: int, kind: str, content: bytes) -> str:
        try:
            return content.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise SampleError(self._named(row, kind), "is not UTF-8") from error

    def _inside(self, row: int, number: int) -> dict[str, Any]:
        """Content of the json of a sample."""
        if self._json[0] != row:
            try:
                content = parse_json(self._read(row, "json", number))
            except ValueError as error:
                raise SampleError(self._named(row, "json"), f"is not JSON: {error}") from error
            self._json = row, content if isinstance(content, dict) else {"json": content}
        return self._json[1]

    def _named(self, row: int, kind: str) -> str:
        return f"{self.name}: {self.id(row)}.{kind}"
