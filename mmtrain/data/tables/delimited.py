"""Tables of text with separators: csv and tsv, also as spreadsheets of other countries write them.

Every cell is read as it is written; an empty one is null. What is not plain csv (another separator, decimal commas,
quotes that are no quoting, comments above the names) is read with a note where only one reading is possible.
"""

import csv
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice, takewhile
from pathlib import Path

from mmtrain.data.tables.json_rows import parse_json
from mmtrain.data.tables.table_error import TableError, encoding_fault

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SNIFFED = 50  # lines
_DECIMAL = re.compile(r"[-+]?(?:\d+|[1-9]\d{0,2}(?:\.\d{3})+)(?:,\d+)?")  # 12,5 and 1.297,5, not 0.297
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_SPACED_QUOTE = re.compile(r' +"')  # a cell in: red, "a box"
_NO_QUOTES = 'write a quote of the text as "" in a quoted cell ("a ""red"" box"), or save the table as .jsonl'
_Record = tuple[list[str], list[str], int]  # cells, lines, and the number of the first line


class Delimited:
    """A table of text with separators.

    Args:
        path: the file.
        separator: that the ending of its name promises. Another is used when the first lines have only that.
        is_examined: whether the complete file is read before its first row is given, to understand its quotes and
            decimal commas.

    Attributes:
        names: of the columns; none in an empty file.
        notes: what a person should know. Those about rows are there when `rows` has ended.

    Raises:
        TableError: for UTF-16, two columns of one name, and quotes that could be read in two ways.
    """

    def __init__(self, path: Path, separator: str, *, is_examined: bool = True) -> None:
        csv.field_size_limit(sys.maxsize)  # a cell can be a picture in base64
        self.path = path
        self.notes: list[str] = []
        self._is_quoted = True
        self._has_spaced_quotes = False
        self._decimal: list[int] = []  # columns of decimal commas
        first = {n: line for n, line in enumerate(islice(self._lines(0), _SNIFFED)) if line.strip()}
        if any("\0" in line for line in first.values()) and (fault := encoding_fault(path)) is not None:
            raise fault
        self._skipped, self._separator = _beginning(list(first.values()), separator)
        self._skipped = list(first)[self._skipped] if self._skipped < len(first) else len(first)
        above = next(iter(first.values()), "")
        if _is_object(above):
            raise TableError("it holds JSON objects, one a line", f"mv '{path}' '{path.with_suffix('.jsonl')}'")
        if self._separator != separator and "sep=" not in above.lower():
            self.notes.append(f"{path}: its cells are separated by {SEPARATORS[self._separator]}, and are read so")
        if self._skipped and above.startswith("#"):
            self.notes.append(f"{path}: lines above the column names that begin with # are not read")
        if self._has_quotes() if is_examined else any('"' in line for line in first.values()):
            self._find_spaced_quotes(most=None if is_examined else _SNIFFED)
        head = next(self._records(), ([], [], 0))[0]
        self.names = self._named(head)
        if is_examined and self.names:
            self._examine()

    def _named(self, head: Sequence[str]) -> list[str]:
        names = [name.strip() or f"Unnamed: {number}" for number, name in enumerate(head)]  # as pandas names them
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            raise TableError(f"two of its columns are called {twice}", "give each column a name of its own")
        if spaced := [name for name in head if name.strip() and name != name.strip()]:
            self.notes.append(f"{self.path}: spaces around column names do not count: {', '.join(map(repr, spaced))}")
        return names

    def _lines(self, skipped: int) -> Iterator[str]:
        with self.path.open(newline="", encoding="utf-8-sig") as file:
            yield from islice(file, skipped, None)

    def _records(self, *, strict: bool = False) -> Iterator[_Record]:
        """The rows with the lines that each is written in, that of the column names first; blank lines are left out.

        Raises:
            TableError: when `strict`, for text behind a closing quote, and for a quote that is never closed.
        """
        seen: list[str] = []

        def watched() -> Iterator[str]:
            for line in self._lines(self._skipped):
                seen.append(line)
                yield line

        reader = csv.reader(
            watched(),
            delimiter=self._separator,
            quoting=csv.QUOTE_MINIMAL if self._is_quoted else csv.QUOTE_NONE,
            skipinitialspace=self._has_spaced_quotes,
            strict=strict,
        )
        try:
            for cells in reader:
                if cells:
                    yield cells, seen, self._skipped + reader.line_num - len(seen) + 1
                seen.clear()
        except csv.Error as error:
            number = self._skipped + reader.line_num - len(seen) + 1
            raise TableError(
                f"line {number} begins a quoted cell that is not closed before a separator ({error})",
                _NO_QUOTES,
            ) from None

    def _find_spaced_quotes(self, *, most: int | None) -> None:
        """Read spaces before a quote as no part of a cell, if every row can be read so; of so many rows."""
        if not any(_SPACED_QUOTE.match(cell) for cells, _, _ in islice(self._records(), most) for cell in cells):
            return
        self._has_spaced_quotes = True
        try:
            records = islice(self._records(strict=True), most)
            num_names = len(next(records)[0])
            is_read = all(not any(cells[num_names:]) for cells, _, _ in records)
        except TableError:
            is_read = False
        self._has_spaced_quotes = is_read
        if is_read:
            self.notes.append(f"{self.path}: spaces between a separator and a quote do not count")

    def _examine(self) -> None:
        """Understand quotes and decimal commas by all rows."""
        if self._separator != ";" and not self._has_quotes():
            return
        odd: list[int] = []  # first lines of rows that look like several
        decimal = dict.fromkeys(range(len(self.names)), False)  # candidates, and whether one has a comma
        dotted: set[int] = set()
        try:
            for cells, lines, number in islice(self._records(strict=True), 1, None):
                if len(lines) > 1 and all(self._is_row(line) for line in lines):
                    odd.append(number)
                for place in [p for p in decimal if p < len(cells) and cells[p]] if self._separator == ";" else ():
                    if _DECIMAL.fullmatch(cells[place].strip()):
                        decimal[place] |= "," in cells[place]
                        dotted.update([place] if "." in cells[place] else ())
                    else:
                        del decimal[place]
        except TableError as fault:
            self._read_quotes_as_written(fault)
            return
        if odd and all(self._is_row(line) for line in self._lines(self._skipped) if line.strip()):
            raise TableError(f"line {odd[0]} has a quoted cell that holds other rows", _NO_QUOTES)
        if odd:
            self.notes.append(
                f"{self.path}: {len(odd)} quoted cells contain complete rows, the first from line {odd[0]} on"
            )
        if self._separator == ";":
            self._find_decimal(decimal, dotted)

    def _find_decimal(self, columns: Mapping[int, bool], dotted: Collection[int]) -> None:
        """Read commas as decimal commas, and points of such a table as those between thousands.

        Args:
            columns: of such numbers, each with whether one has a comma.
            dotted: columns in which some number has a point.
        """
        commas = [place for place, has_comma in columns.items() if has_comma]
        points = [place for place, has_comma in columns.items() if place in dotted and not has_comma]
        self._decimal = commas + points if commas else []
        if commas:
            named = ", ".join(self.names[place] for place in commas)
            self.notes.append(f"{self.path}: commas in {named} are read as decimal commas: 12,5 is 12.5")
        if points:
            named = ", ".join(self.names[place] for place in points)
            meant = "thousands: 1.297 is 1297" if commas else "decimal points: 1.297 is not 1297"
            self.notes.append(f"{self.path}: points in {named} are read as {meant}")

    def _has_quotes(self) -> bool:
        with self.path.open("rb") as file:
            return any(b'"' in piece for piece in iter(lambda: file.read(1 << 20), b""))

    def _is_row(self, line: str) -> bool:
        """Whether a line alone has as many cells as there are columns."""
        return len(self.names) > 1 and line.count(self._separator) == len(self.names) - 1

    def _read_quotes_as_written(self, fault: TableError) -> None:
        """Read each line as a row, if each can be one and no cell is quoted as csv quotes."""
        lines = (line.rstrip("\r\n") for line in self._lines(self._skipped) if line.strip())
        if not all(
            self._is_row(line) and not any(map(_QUOTED.fullmatch, line.split(self._separator))) for line in lines
        ):
            raise fault
        self._is_quoted = False
        self.notes.append(f"{self.path}: its quotes are no quotes of csv and are read as they are written: {fault}")

    def rows(self) -> Iterator[tuple[dict[str, str | None], int]]:
        """The rows, each with its size in characters.

        Raises:
            TableError: for a row with more cells than there are names.
        """
        num_names = len(self.names)
        short: list[int] = []
        blank: list[int] = []
        for cells, lines, number in islice(self._records(), 1, None):
            if len(cells) > num_names and any(cells[num_names:]):
                what = f"line {number + len(lines) - 1} has {len(cells)} fields under {num_names} column names"
                raise TableError(what, f"quote what holds {_SINGULAR.get(self._separator, self._separator)}")
            if not any(map(str.strip, cells)):  # as spreadsheets write rows that were cleared
                blank.append(number)
                continue
            if len(cells) < num_names:
                short.append(number)
                cells += [""] * (num_names - len(cells))
            for place in self._decimal:
                cells[place] = cells[place].replace(".", "").replace(",", ".")
            yield {name: cell or None for name, cell in zip(self.names, cells, strict=False)}, sum(map(len, lines))
        for lines_of, what in (
            (short, "rows have fewer cells than there are columns"),
            (blank, "rows have no value in any cell and are not read"),
        ):
            if lines_of and not any(what in note for note in self.notes):
                self.notes.append(f"{self.path}: {len(lines_of)} {what}, the first in line {lines_of[0]}")


_SINGULAR = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}


def _is_object(line: str) -> bool:
    """Whether a line is a JSON object."""
    try:
        return line.startswith("{") and isinstance(parse_json(line), dict)
    except ValueError:
        return False


def _beginning(lines: Sequence[str], promised: str) -> tuple[int, str]:
    """The number of lines above the column names, and the separator of cells.

    Excel reads `sep=;` in the first line. Comments begin with #, and so may the line of the names: it has as many cells
    as the next one.
    """
    named = re.fullmatch(r'"?sep=(.)"?\s*', lines[0], re.IGNORECASE) if lines else None
    if named is not None:
        return 1, named[1]
    num_comments = len(list(takewhile(lambda line: line.startswith("#"), lines)))
    rest = lines[num_comments:]
    separator = _sniffed(rest, promised)
    if not num_comments or not rest:
        return 0, _sniffed(lines, promised)
    counts = [len(cells) for cells in csv.reader([lines[num_comments - 1], rest[0]], delimiter=separator)]
    is_head = counts[0] == counts[-1] > 1
    return num_comments - is_head, separator


def _sniffed(lines: Sequence[str], promised: str) -> str:
    """The separator that gives all lines the same number of cells, and the most; else the promised one if it can be."""
    counts = {mark: [len(cells) for cells in csv.reader(lines, delimiter=mark) if cells] for mark in SEPARATORS}
    several = {mark: result for mark, result in counts.items() if result and result[0] > 1}
    even = {mark: result[0] for mark, result in several.items() if len(set(result)) == 1}
    if even:
        return max(even, key=lambda mark: (even[mark], mark == promised))
    if promised in several or not several:
        return promised
    return max(several, key=lambda mark: several[mark].count(several[mark][0]))
