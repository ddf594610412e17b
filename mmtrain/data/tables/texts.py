"""The texts of a cell."""

import re
from collections.abc import Sequence
from typing import Any

from mmtrain.errors import SampleError

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # which files have and texts have not


def are_texts(cells: Sequence[bytes]) -> bool:
    r"""Whether bytes are UTF-8 texts: some programs write texts as binary columns.

    >>> are_texts(["a dog".encode(), "ein Bär".encode()]), are_texts([b"\x89PNG\r\n\x1a\n"]), are_texts([])
    (True, False, False)
    """
    try:
        return bool(cells) and not any(_CONTROLS.search(cell.decode()) for cell in cells)
    except UnicodeDecodeError:
        return False


def texts_of(value: Any) -> list[str]:
    """The captions of a cell: one, several, or none; blank ones do not count."""
    texts = value if isinstance(value, list | tuple) else [value]
    return [str(t) for t in texts if t is not None and str(t).strip()]


def valid_texts(value: Any) -> list[str]:
    """As `texts_of`.

    Raises:
        SampleError: for a text that is not valid Unicode.
    """
    texts = texts_of(value)
    for text in texts:
        check_text(text)
    return texts


def check_text(text: str) -> None:
    """Refuse half of a surrogate pair, such as half an emoji: no tokenizer takes it, and no file can hold it.

    Raises:
        SampleError: with the place of the first.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SampleError(text, f"is not valid Unicode: half of a surrogate pair at character {error.start}") from None
