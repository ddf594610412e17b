"""The texts of a cell."""

from typing import Any

from mmtrain.errors import SampleError


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
