"""Errors of samples: printable for any file of a stranger, and the same behind a process."""

import pickle

import pytest

from mmtrain.errors import SampleError, printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b.png", "a b.png"),
        ("Bär 猫 🐈", "Bär 猫 🐈"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\ud83d.png", "\\ud83d.png"),
        ("a\0b", "a\\x00b"),
        ("right\u202eleft", "right\\u202eleft"),
        ("x" * 10**6, "x" * 497 + "..."),
    ],
)
def test_what_a_file_says_is_made_printable(text: str, expected: str) -> None:
    assert printable(text) == expected
    error = SampleError(text, text)
    assert (error.file, error.reason) == (expected, expected)
    str(error).encode()


def test_an_error_goes_from_a_worker_to_the_main_process() -> None:
    error = pickle.loads(pickle.dumps(SampleError("a.png", "is empty")))
    assert (error.file, error.reason, error.error_type) == ("a.png", "is empty", "SampleError")


def test_the_type_is_that_of_the_cause() -> None:
    error = SampleError("a.tiff", "cannot be read")
    error.__cause__ = OverflowError("too large")
    assert error.error_type == "OverflowError"
