"""The kinds of error that are not a fault of the program."""


class ConfigError(ValueError):
    """The configuration or the data is wrong. The message says what, where and the mend; exit status 2."""


class WriteError(ConfigError):
    """A file cannot be written: a full disk, no permission. The process that it happens to says so, on any rank."""


class SampleError(Exception):
    """One sample cannot be read. It is set aside, and the run goes on until too many are.

    Args:
        file: as the table names it, or what stands in the cell, such as "812 bytes".
        reason: in a few words.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason

    def __reduce__(self) -> tuple[type["SampleError"], tuple[str, str]]:
        """Workers send it to the main process."""
        return SampleError, (self.file, self.reason)
