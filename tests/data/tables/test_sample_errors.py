"""Any error that is raised while a sample is read becomes an error of that sample."""

from typing import Any

import pytest

from mmtrain.data.tables.sample_errors import read_each, read_or, sample_errors
from mmtrain.errors import ConfigError, SampleError


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("Failed to decode image"), "cannot be read: RuntimeError: Failed to decode image"),
        (MemoryError(), "cannot be read: MemoryError"),
        (RecursionError("maximum recursion depth exceeded"), "cannot be read: RecursionError: maximum recursion"),
        (AssertionError(), "cannot be read: AssertionError"),
        (UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "surrogates not allowed"), "cannot be read: UnicodeEncodeError"),
        (KeyError("array"), "cannot be read: KeyError: 'array'"),
    ],
)
def test_every_exception_becomes_one_of_the_sample(error: Exception, reason: str) -> None:
    with pytest.raises(SampleError) as caught, sample_errors("a.png"):
        raise error
    assert caught.value.reason.startswith(reason) and caught.value.file == "a.png"
    assert caught.value.error_type == type(error).__name__


def test_it_is_named_by_what_stands_in_the_cell() -> None:
    names = []
    for cell in ("a.png", b"12345", {"bytes": None, "path": "b.png"}, {"bytes": b"1", "path": "b.png"}, [1, 2]):
        with pytest.raises(SampleError) as caught, sample_errors(cell):
            raise ValueError
        names.append(caught.value.file)
    assert names == ["a.png", "5 bytes", "b.png", "1 bytes", "list"]


@pytest.mark.parametrize("error", [ConfigError("wrong"), SampleError("a", "is empty")])
def test_the_two_errors_of_the_project_stay_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, sample_errors("x"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_ends_it(error: type[BaseException]) -> None:
    with pytest.raises(error), sample_errors("x"):
        raise error


def test_cells_that_cannot_be_read_are_left_out_and_the_first_is_told() -> None:
    def read(cell: Any) -> int:
        return 6 // cell

    faults: list[SampleError] = []
    assert list(read_each([0, 1, "a", 2, None], read, faults)) == [6, 3]
    assert [fault.error_type for fault in faults] == ["ZeroDivisionError"]
    assert read_or(7, 0, read) == 7 and read_or(7, 3, read) == 2
