"""What goes wrong while a sample is read belongs to that sample: every exception becomes a SampleError.

Decoders raise any exception for a damaged file: OverflowError, AttributeError, an assertion. No list of exception
types is ever complete, so the places where samples are read catch all of them. Lists of types elsewhere only serve to
give a better reason.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from mmtrain.data.tables.columns import content_of
from mmtrain.data.tables.paths import shown_path
from mmtrain.errors import ConfigError, SampleError

T = TypeVar("T")
D = TypeVar("D")


@contextmanager
def sample_errors(value: Any) -> Iterator[None]:
    """Turn every exception of the block into a SampleError; SampleError and ConfigError stay as they are.

    MemoryError and RecursionError are exceptions as well: a sample that is too large or too deep cannot be
    read.

    Args:
        value: the cell that is read, which the message names; or a name.

    Raises:
        SampleError: "cannot be read", with the type and the message of the exception.
    """
    try:
        yield
    except (SampleError, ConfigError):
        raise
    except Exception as error:
        raise SampleError(describe_content(content_of(value)), f"cannot be read: {describe_error(error)}") from error


def describe_error(error: BaseException) -> str:
    """An exception in a few words: its type, and its message if it has one."""
    message = str(error).strip()
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def describe_content(content: Any) -> str:
    """A cell's content in a message: the path, or how much there is."""
    if isinstance(content, str):
        return shown_path(content)
    return f"{len(content)} bytes" if isinstance(content, bytes) else type(content).__name__


def read_each(cells: Iterable[Any], read: Callable[[Any], T], faults: list[SampleError] | None = None) -> Iterator[T]:
    """The result of `read` for each cell. Unreadable cells are left out; they are reported when the sample is loaded.

    Args:
        cells: of a column.
        read: called with each cell.
        faults: takes the first error.
    """
    for cell in cells:
        try:
            with sample_errors(cell):
                result = read(cell)
        except SampleError as error:
            if faults is not None and not faults:
                faults.append(error)
            continue
        yield result


def read_or(default: D, cell: Any, read: Callable[[Any], T]) -> T | D:
    """The result of `read`, or a default for an unreadable cell, which is reported when the sample is loaded."""
    return next(read_each([cell], read), default)
