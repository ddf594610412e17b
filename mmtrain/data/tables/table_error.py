"""What is wrong with a file of a table, with its fix; and files of text that are not UTF-8."""

import codecs
from pathlib import Path

_LOOKED_AT = 4096  # bytes
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class TableError(ValueError):
    """A table that cannot be read.

    Args:
        what: is wrong with it.
        fix: what to type or write.
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.fix = fix


def encoding_fault(path: Path) -> TableError | None:
    """Why a file of text is not UTF-8, or holds NUL characters; None when it is neither."""
    with path.open("rb") as file:
        first = file.read(_LOOKED_AT)
        if first.startswith(_UTF_16) or first.count(0) > len(first) / 4:
            return TableError("it is UTF-16", f"save it as UTF-8: {_conversion(path, 'UTF-16')}")
        file.seek(0)
        for number, line in enumerate(file, start=1):
            if b"\0" in line:
                new = path.with_name(f"{path.name}.new")
                return TableError(
                    f"line {number} holds a NUL character, which no text has",
                    f"remove it: tr -d '\\000' < '{path}' > '{new}' && mv '{new}' '{path}'",
                )
            try:
                line.decode()
            except UnicodeDecodeError as error:
                what = f"line {number} is not UTF-8: byte 0x{line[error.start]:02x} at {error.start + 1}"
                return TableError(what, f"save it as UTF-8, from Windows by: {_conversion(path, 'CP1252')}")
    return None


def _conversion(path: Path, encoding: str) -> str:
    new = path.with_name(f"{path.name}.new")
    return f"iconv -f {encoding} -t UTF-8 '{path}' > '{new}' && mv '{new}' '{path}'"
