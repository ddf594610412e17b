"""The kinds of error that are not a fault of the program, and what those of libraries say."""


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


def reason_of(error: Exception) -> str:
    """What a library reports, in one line."""
    said = str(error).strip() or type(error).__name__
    if "trust_remote_code" in said:
        return "it brings code of its own (auto_map), which is never run here"
    return said.splitlines()[0][:200]
