"""Files of shards: patterns for files, local or in any file system of fsspec, and the cache of their indices."""

import hashlib
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np

from mmtrain.errors import ConfigError, WriteError
from mmtrain.io.atomic import atomic_write

Index = dict[str, np.ndarray]
FORMAT = 1  # increase it when the format changes, so that old indices are not used
BLOCK = 1 << 16  # minimum number of bytes of a remote read
_WILD = re.compile(r"[*?\[]")
WAITS = (0.5, 2.0, 8.0)  # seconds before a request is repeated

T = TypeVar("T")


class Place(NamedTuple):
    """A file, and what shows whether it has changed."""

    path: str
    size: int
    stamp: str


def is_remote(path: str) -> bool:
    """Whether a path is for fsspec: https://..., s3://..., hf://...

    >>> is_remote("https://host/a.tar"), is_remote("data/a.tar")
    (True, False)
    """
    return "://" in path


def remote_errors() -> tuple[type[Exception], ...]:
    """Errors of a file system that cannot read; those of aiohttp have no common base class with the others."""
    try:
        from aiohttp import ClientError
    except ImportError:  # part of fsspec's optional http support
        return (OSError, ValueError)
    return (OSError, ValueError, ClientError)


def with_retries(read: Callable[[], T], path: str) -> T:
    """The result of `read`. A failed request is repeated, because a short failure must not change the data."""
    for wait in WAITS if is_remote(path) else ():
        try:
            return read()
        except FileNotFoundError:
            break
        except remote_errors():
            time.sleep(wait)
    return read()


def suffix_of(path: str) -> str:
    """The suffix of a path or a URL.

    >>> suffix_of("https://host/a.tar?key=1.2"), suffix_of("a.v1.parquet")
    ('.tar', '.parquet')
    """
    return PurePosixPath(path.partition("?")[0] if is_remote(path) else path).suffix


def opened(path: str) -> BinaryIO:
    """A file with random access."""
    if not is_remote(path):
        return Path(path).open("rb")
    system, inner = _system(path)
    return system.open(inner, mode="rb", block_size=BLOCK, cache_type="readahead")


def _system(path: str) -> tuple[Any, str]:
    """The file system in this process (fsspec keeps one per process), and the path in it."""
    from fsspec.core import url_to_fs

    if any(re.match(r"reference(:|$)", part) for part in path.split("::")):
        raise ConfigError(
            f"{path}: a reference file system inserts templates of its author and is not read\n"
            "    fix: name the shards directly"
        )
    try:
        return url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be opened: {error}\n    fix: install its requirements, or correct the path"
        ) from error


def place_of(path: str) -> Place:
    """Size and modification time or version of a file.

    Raises:
        ConfigError: if it does not exist.
    """
    if not is_remote(path):
        try:
            stat = Path(path).stat()
        except OSError as error:
            raise ConfigError(
                f"{path}: {error.strerror}\n    fix: correct the path or the pattern of the shards"
            ) from error
        if not S_ISREG(stat.st_mode):  # opening a pipe would block
            raise ConfigError(f"{path} is not a regular file\n    fix: correct the pattern of the shards")
        return Place(path, stat.st_size, str(stat.st_mtime_ns))
    system, inner = _system(path)
    try:
        info = with_retries(lambda: system.info(inner), path)
    except remote_errors() as error:
        reason = "the file does not exist" if isinstance(error, FileNotFoundError) else str(error)
        raise ConfigError(f"{path}: {reason}\n    fix: correct the path or the pattern of the shards") from error
    if info.get("size") is None:
        raise ConfigError(f"{path}: its server does not report its size\n    fix: copy the shards to another place")
    marks = ("mtime", "LastModified", "last_modified", "ETag", "etag", "created")
    return Place(path, int(info["size"]), next((str(info[m]) for m in marks if info.get(m)), ""))


def expand_braces(pattern: str) -> Iterator[str]:
    """Expand a pattern with braces to patterns without.

    >>> list(expand_braces("{a,b}-{08..10}.tar"))
    ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']
    """
    brace = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if brace is None:
        yield pattern
        return
    first, last, words = brace.groups()
    if words is None:
        choices = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    else:
        choices = words.split(",")
    for choice in choices:
        yield from expand_braces(pattern[: brace.start()] + choice + pattern[brace.end() :])


def paths_of(patterns: str | Sequence[str], where: str) -> list[str]:
    """The distinct files of a glob, a brace pattern, or a list of them; those of a glob are sorted.

    Args:
        patterns: local paths, or URLs of fsspec.
        where: key of the patterns, for messages.

    Raises:
        ConfigError: if a pattern matches no file.
    """
    results: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        paths = [path for plain in expand_braces(pattern) for path in _globbed(plain)]
        if not paths:
            raise ConfigError(
                f"{where}={pattern}: matches no file\n"
                f"    fix: use a path, 'shards/*.tar', or on the command line \"{where}='shards/{{000..127}}.tar'\""
            )
        results |= dict.fromkeys(paths)
    return list(results)


def _globbed(pattern: str) -> list[str]:
    if is_remote(pattern):
        if not _WILD.search(pattern.partition("://")[2].partition("?")[0]):
            return [pattern]
        system, inner = _system(pattern)
        return sorted(system.unstrip_protocol(path) for path in system.glob(inner))
    path = Path(pattern).expanduser().absolute()
    if path.exists() or not _WILD.search(pattern):
        return [str(path)]  # a missing one of {000..127} is reported later
    places = [Path(path.anchor)]
    for part in path.parts[1:]:  # an existing folder is meant, even with special characters
        places = [result for place in places for result in _matching(place, part)]
    return sorted(map(str, places))


def _matching(place: Path, part: str) -> list[Path]:
    candidate = place / part
    if candidate.exists():
        return [candidate]
    return list(place.glob(part)) if _WILD.search(part) else []


def indexed(place: Place, cache_dir: Path, build: Callable[[Place], Index]) -> Path:
    """The file with the index of a shard, which is built once and cached.

    Several processes may build it at once: all results are equal, and the last one is kept.

    Raises:
        ConfigError: if the shard cannot be indexed, or the cache cannot be written.
    """
    digest = hashlib.sha256(f"{FORMAT}|{place.path}|{place.size}|{place.stamp}".encode()).hexdigest()[:32]
    file = cache_dir / "shards" / f"{digest}.npz"
    if file.exists() and _is_whole(file):
        return file
    index = build(place)
    try:
        with atomic_write(file) as part, part.open("wb") as arrays:
            np.savez(arrays, **index)  # type: ignore[arg-type]  # its signature has a flag among the arrays
    except OSError as error:
        raise WriteError(
            f"{file.parent}: the index of {place.path} cannot be written: {error.strerror}\n"
            "    fix: set MMTRAIN_CACHE to a folder on a disk with space"
        ) from error
    return file


def _is_whole(file: Path) -> bool:
    return zipfile.is_zipfile(file)  # its directory is at the end
