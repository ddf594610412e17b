"""A WebDataset shard: a tar whose files that share a base name are one sample, read in place.

0001.jpg + 0001.txt + 0001.json are the sample 0001 with the columns jpg and txt and those that the json has; see
https://github.com/webdataset/webdataset. Unusual here is that any sample can be asked for: an index says where each
file begins, and is made from the headers alone.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from mmtrain.data.sources.shard_files import Index, Place, opened, patiently, remote_errors
from mmtrain.data.tables.json_rows import parse_json
from mmtrain.errors import ConfigError, SampleError, printable

TEXTS = ("txt", "text", "caption", "transcript", "cls", "cls2", "class", "label", "count", "index")
SAME = {"jpeg": "jpg", "jsn": "json"}
_BLOCK = 512  # bytes; all of a tar lies on multiples of it
_LOOKS = 16  # samples whose json is read to know the columns
_MAX_NAME = 255  # bytes of a column's name: as long as a file system lets a file's name be
_MAX_EXTENSION = 1 << 20  # bytes of a member that only extends the next header
_MAX_ENDINGS = 1 << 16  # what the index can number


class Member(NamedTuple):
    """A file in a tar: its name, where its content begins, and how long it is."""

    name: str
    offset: int
    size: int


def members_of(file: BinaryIO, place: Place) -> Iterator[Member]:
    """The files of a tar, by its headers; what lies between them is skipped.

    Unlike `tarfile`, which ends quietly there, it does not take a damaged header or a cut for the end.

    Raises:
        ConfigError: when it is no tar, damaged or cut short.
    """
    at, last = 0, "its beginning"
    extended: dict[str, str] = {}  # what extension members say of the next file
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
        raise ConfigError(f"{place.path} is compressed\n    gunzip it: samples are read in place")
    if len(header) < _BLOCK:
        raise _cut(place, f"in the header after {last}")
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError) as error:  # those of wild numbers
        if at == 0:
            raise ConfigError(f"{place.path} is no tar: {error}\n    make or fetch it again") from error
        raise _damaged(place, at, last, str(error)) from error


def _size(info: tarfile.TarInfo, extended: dict[str, str], place: Place, at: int, last: str) -> int:
    """How long a member is: POSIX extensions give what a header has no room for."""
    given = extended.get("size") if info.type not in _WITH_CONTENT else None
    if given is not None and not (given.isascii() and given.isdigit() and len(given) < 20):
        raise _damaged(place, at, last, f"{extended.get('path', info.name)} has the size {given}")
    size = info.size if given is None else int(given)
    if size < 0:
        raise _damaged(place, at, last, f"{extended.get('path', info.name)} has the size {size}")
    return size


def _cut(place: Place, where: str) -> ConfigError:
    return ConfigError(f"{place.path} is cut short: {printable(where)}\n    make or fetch it again, or leave it out")


def _damaged(place: Place, at: int, last: str, what: str) -> ConfigError:
    what = printable(f"after {last}: {what}")
    return ConfigError(f"{place.path} is damaged at byte {at}, {what}\n    make or fetch it again")


def _extension(content: bytes, info: tarfile.TarInfo) -> dict[str, str]:
    """The path and the size in an extension of GNU or of POSIX ("27 path=a/very/long/name" and other lines)."""
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    found = {}
    while content:
        length, _, _ = content[:20].partition(b" ")
        if not length.isdigit() or int(length) <= len(length):
            break
        key, _, value = content[len(length) + 1 : int(length) - 1].partition(b"=")
        content = content[int(length) :]
        if key in (b"path", b"size"):
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
        elif key.startswith(b"GNU.sparse."):
            found["GNU.sparse"] = "yes"
    return found


def split_member(name: str) -> tuple[str, str] | None:
    """The sample that a file belongs to, and its column; None for hidden files and for those without a usable ending.

    >>> split_member("a/0001.seg.PNG"), split_member("0001.jpeg"), split_member("a/.DS_Store")
    (('a/0001', 'seg.png'), ('0001', 'jpg'), None)
    """
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, ending = base.partition(".")
    ending = ending.lower().encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    is_part = bool(stem and dot and ending) and len(ending) <= _MAX_NAME
    return (f"{folder}{slash}{stem}", SAME.get(ending, ending)) if is_part else None


def index_tar(place: Place) -> Index:
    """Where each sample's files begin.

    Returns:
        names: the samples' names, one after the other in UTF-8, (bytes,), uint8; name_ends: (S,), int64, where each
        ends; starts: (S + 1,), int64, the first file of each; offsets, sizes: (M,), int64, in bytes; endings: (M,),
        uint16, numbers in `kinds`; kinds: their names; columns: what the samples have; blocks: [S].

    Raises:
        ConfigError: when it is no tar, damaged, cut short or holds no sample.
    """
    samples: dict[str, dict[str, Member]] = {}
    try:
        with opened(place.path) as file:
            for member in members_of(file, place):
                parts = split_member(member.name)
                if parts is not None:  # of two with one name the later counts, as when a tar is unpacked
                    samples.setdefault(parts[0], {})[parts[1]] = member
            if not samples:
                raise ConfigError(
                    f"{place.path} holds no sample\n"
                    "    put files into it that share a base name, such as 1.jpg and 1.txt"
                )
            columns = _columns(file, list(samples.values()))
    except remote_errors() as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{place.path} cannot be read: {error}\n    mend the path, or fetch it again") from error
    kinds = list(dict.fromkeys(kind for files in samples.values() for kind in files))
    if len(kinds) > _MAX_ENDINGS:
        raise ConfigError(
            f"{place.path} has files with {len(kinds)} different endings, such as {kinds[0]}, {kinds[1]}, {kinds[2]}\n"
            "    name the files without other dots: 0001.jpg, 0001.txt"
        )
    names = [name.encode("utf-8", "surrogateescape") for name in samples]
    number_of = {kind: number for number, kind in enumerate(kinds)}
    found = [(number_of[kind], member) for files in samples.values() for kind, member in files.items()]
    return {
        "names": np.frombuffer(b"".join(names), dtype=np.uint8),
        "name_ends": np.cumsum([len(name) for name in names], dtype=np.int64),
        "starts": np.cumsum([0, *map(len, samples.values())], dtype=np.int64),
        "offsets": np.array([member.offset for _, member in found], dtype=np.int64),
        "sizes": np.array([member.size for _, member in found], dtype=np.int64),
        "endings": np.array([kind for kind, _ in found], dtype=np.uint16),
        "kinds": np.array(kinds),
        "columns": np.array(columns),
        "blocks": np.array([len(samples)], dtype=np.int64),
    }


def _columns(file: BinaryIO, samples: list[dict[str, Member]]) -> list[str]:
    """The endings, and instead of json the keys that the first ones have."""
    columns = dict.fromkeys(kind for files in samples for kind in files)
    inside: dict[str, None] = {}
    for member in [files["json"] for files in samples if "json" in files][:_LOOKS]:
        file.seek(member.offset)
        try:
            content = parse_json(file.read(member.size))
        except ValueError:  # said when the sample is read
            continue
        inside |= dict.fromkeys(content if isinstance(content, dict) else ["json"])
    inside = {column: None for column in inside if len(column) <= _MAX_NAME}
    if inside:
        del columns["json"]
    return [c for c in columns | inside if c != "id"]


class TarShard:
    """An open shard.

    Args:
        place: of the tar.
        index: the file that holds what `index_tar` found.
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
        """The sample's name in the shard."""
        ends = self._index["name_ends"]
        name = self._index["names"][int(ends[row - 1]) if row else 0 : int(ends[row])]
        return name.tobytes().decode("utf-8", "replace")

    def columns(self, row: int) -> list[str]:
        """What a sample has.

        Raises:
            SampleError: when its json cannot be read.
        """
        there = self._members(row)
        inside = list(self._inside(row, there["json"])) if "json" in there else []
        return list(dict.fromkeys([*(kind for kind in there if kind != "json"), *inside]))

    def is_text(self, column: str) -> bool:
        """Whether the cells of a column are text, or come from the json of their samples."""
        return column not in self._kinds or column.rpartition(".")[2] in TEXTS

    def cell(self, row: int, column: str) -> Any:
        """Text as text, anything else as bytes.

        Raises:
            KeyError: when the sample does not have it.
            SampleError: when it cannot be read.
        """
        there = self._members(row)
        if column in there and column != "json":
            content = self._read(row, column, there[column])
            return self._text(row, column, content) if column.rpartition(".")[2] in TEXTS else content
        if "json" not in there:
            raise KeyError(column)
        return self._inside(row, there["json"])[column]

    def _members(self, row: int) -> dict[str, int]:
        """The files of a sample, by their ending."""
        first, last = (int(n) for n in self._index["starts"][row : row + 2])
        return {self._kinds[self._index["endings"][number]]: number for number in range(first, last)}

    def _read(self, row: int, kind: str, number: int) -> bytes:
        offset, size = int(self._index["offsets"][number]), int(self._index["sizes"][number])
        try:
            content = patiently(lambda: self._bytes(offset, size), self._path)
        except remote_errors() as error:
            raise SampleError(self._named(row, kind), f"cannot be read at byte {offset}: {error}") from error
        if len(content) < size:
            reason = f"is cut short: {len(content)} of {size} bytes at byte {offset}"
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
        """What the json of a sample says."""
        if self._json[0] != row:
            try:
                content = parse_json(self._read(row, "json", number))
            except ValueError as error:
                raise SampleError(self._named(row, "json"), f"is not JSON: {error}") from error
            self._json = row, content if isinstance(content, dict) else {"json": content}
        return self._json[1]

    def _named(self, row: int, kind: str) -> str:
        return f"{self.name}: {self.id(row)}.{kind}"
