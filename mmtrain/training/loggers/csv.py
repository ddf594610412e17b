"""metrics.csv: one row per logged step with all values. A resumed run continues the same file.

Lightning's own CSVLogger empties the file of an existing folder, and writes training and validation in separate rows.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from mmtrain.io.run_files import csv_text, encoded, note, read_csv, write_end, write_text


class CSVMetrics(Logger):
    """Writes RUN/metrics.csv. Every call writes the file before it returns.

    Args:
        run_dir: run folder.
        resume_step: step of a resumed run, or of the tested weights; None starts a new file. Rows of later steps are
            dropped when the first later step is logged, because they are repeated. A test drops none.
    """

    first_columns = ("step", "epoch")

    def __init__(self, run_dir: str | Path, *, resume_step: int | None) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"
        self._columns = list(self.first_columns)
        self._last: dict[str, str] = {}
        self._last_start = 0
        self._has_header = True
        self._resume_step = resume_step
        self._begin()

    @rank_zero_only
    def _begin(self) -> None:
        rows = [] if self._resume_step is None else self._rows()
        if self._resume_step and self.path.exists() and not self._has_header:
            note(f"{self.path} is damaged: no header; its rows up to step {self._resume_step} are lost")
        if self._resume_step and not self.path.exists():
            note(f"{self.path} is missing; its rows up to step {self._resume_step} are lost")
        self._write(rows)

    @property
    def name(self) -> str:
        """Required by Lightning; there is one file per run."""
        return ""

    @property
    def version(self) -> str:
        """Required by Lightning; there is one file per run."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **options: Any) -> None:
        """Do nothing, because config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add values to the row of a step. Only the last row can still change."""
        assert step is not None, "each row has a step"
        row = {name: _text(value) for name, value in metrics.items()} | {"step": str(step)}
        if self._resume_step is not None:
            rows = self._rows()
            if step <= self._resume_step:
                self._write(_amended(rows, row, self._columns))
                return
            self._write([earlier for earlier in rows if int(earlier["step"]) <= self._resume_step])
            self._resume_step = None
        if self._last.get("step") == row["step"]:
            row = _merged(self._last, row)
        else:
            self._last_start = self.path.stat().st_size
        self._last = row
        new = [name for name in row if name not in self._columns]
        if new:
            rows = self._rows()[: None if self._last_start == self.path.stat().st_size else -1]
            self._columns += new
            self._write([*rows, row])
        else:
            self._replace_last(row)

    def _replace_last(self, row: Mapping[str, str]) -> None:
        write_end(self.path, self._last_start, self._text([row]))

    def _rows(self) -> list[dict[str, str]]:
        """The rows of the file, without those that a kill or a power failure has damaged."""
        table = read_csv(self.path, whole_numbers=("step",))
        self._has_header = bool(table.columns)
        self._columns = table.columns or list(self.first_columns)
        return table.rows

    def _write(self, rows: list[dict[str, str]]) -> None:
        """Replace the complete file atomically."""
        begin = csv_text([self._columns]) + self._text(rows[:-1])
        write_text(self.path, begin + self._text(rows[-1:]))
        self._last_start = len(encoded(begin))
        self._last = rows[-1] if rows else {}

    def _text(self, rows: Sequence[Mapping[str, str]]) -> str:
        return csv_text([row.get(name, "") for name in self._columns] for row in rows)


def _amended(rows: list[dict[str, str]], row: dict[str, str], columns: list[str]) -> list[dict[str, str]]:
    """The rows with another one, added or merged at its step. New columns are recorded."""
    columns += [name for name in row if name not in columns]
    step = int(row["step"])
    same = [_merged(r, row) for r in rows if int(r["step"]) == step] or [row]
    return [r for r in rows if int(r["step"]) < step] + same + [r for r in rows if int(r["step"]) > step]


def _merged(row: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """A row with more values of its step. Its epoch is kept: for a test after training, the trainer counts one more."""
    return {**row, **more} | ({"epoch": row["epoch"]} if row.get("epoch") else {})


def _text(value: float) -> str:
    """All digits. Values that are not finite are written as nan and inf, because an empty cell would hide them."""
    return str(value) if isinstance(value, int) else repr(float(value))
