"""Errors that are not bugs of the program, and short reasons from errors of libraries."""

_MAX_LENGTH = 500  # characters of a file name or a reason; a cell can contain a path of megabytes


class ConfigError(ValueError):
    """The configuration or the data is wrong. The message has the problem, its origin and the fix; exit status 2."""


class WriteError(ConfigError):
    """A file cannot be written: a full disk, no permission. The process with the error reports it, on any rank."""


class SampleError(Exception):
    """A sample cannot be read. It is quarantined, and the run continues until there are too many.

    Both texts are made printable, because they come from strangers' files and are written to JSON files and terminals.

    Args:
        file: as the table names it, or a description of the cell, such as "812 bytes".
        reason: in a few words.
    """

    def __init__(self, file: str, reason: str) -> None:
        file, reason = printable(file), printable(reason)
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason

    def __reduce__(self) -> tuple[type["SampleError"], tuple[str, str]]:
        """Workers send it to the main process."""
        return SampleError, (self.file, self.reason)

    @property
    def error_type(self) -> str:
        """The name of the exception that caused it; its own name if there is no cause."""
        return type(self.__cause__ or self).__name__


def printable(text: str) -> str:
    r"""Text on one line, of limited length, without control characters and halves of surrogate pairs.

    >>> printable("a\nb"), printable("\x1b[31mred"), printable("\ud83d.png")
    ('a b', '\\x1b[31mred', '\\ud83d.png')
    """
    text = text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 3]}..."
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in text)


def reason_of(error: Exception) -> str:
    """The message of a library's error, in one line."""
    message = str(error).strip() or type(error).__name__
    if "trust_remote_code" in message:
        return "it brings code of its own (auto_map), which is never run here"
    return message.splitlines()[0][:200]
