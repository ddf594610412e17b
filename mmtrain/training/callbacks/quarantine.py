"""Records samples that cannot be read in quarantine.jsonl, and stops if there are too many."""

from pathlib import Path
from typing import Any

from filelock import FileLock
from pytorch_lightning import Callback, LightningModule, Trainer

from mmtrain.errors import ConfigError
from mmtrain.io.escape import one_line
from mmtrain.io.run_files import read_json_lines, write_json_lines
from mmtrain.types import Bad, Batch

NUM_SHOWN = 5


class Quarantine(Callback):
    """Writes RUN/quarantine.jsonl: one {"split", "id", "row", "file", "reason", "type"} per line, in the order of rows.

    All ranks write into one file. Existing lines are counted, so a resumed run continues counting.

    Args:
        run_dir: run folder.
        num_rows: number of rows by split.
        max_bad_fraction: fraction of a split's rows that may be bad.
    """

    def __init__(self, run_dir: str | Path, *, num_rows: dict[str, int], max_bad_fraction: float) -> None:
        self.path = Path(run_dir) / "quarantine.jsonl"
        self.num_rows = num_rows
        self.max_bad_fraction = max_bad_fraction
        self._noted: set[tuple[str, int]] = set()

    def begin(self) -> None:
        """Discard the file of an attempt that ended before its first checkpoint."""
        self.path.unlink(missing_ok=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Record bad samples of a step."""
        self._note("train", batch)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Record bad samples of a batch."""
        self._note("val", batch)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Record bad samples of a batch."""
        self._note("test", batch)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Record bad samples of a batch."""
        self._note("test", batch)

    def _note(self, split: str, window: list[Batch]) -> None:
        new = [bad for batch in window for bad in batch.bad if (split, bad.row) not in self._noted]
        if not new:
            return
        self._noted |= {(split, bad.row) for bad in new}
        with FileLock(self.path.with_name(".quarantine.lock")):
            known = read_json_lines(self.path, keys=("split", "row", "id", "file", "reason"))
            rows = {(row["split"], row["row"]): row for row in known}
            rows |= {(split, bad.row): {"split": split, **bad._asdict()} for bad in new}
            write_json_lines(self.path, [rows[key] for key in sorted(rows)])
        bad_rows = [row for row in rows.values() if row["split"] == split]
        if len(bad_rows) > self.max_bad_fraction * self.num_rows[split]:
            raise ConfigError(self._too_many(split, bad_rows, new))

    def _too_many(self, split: str, rows: list[dict[str, Any]], new: list[Bad]) -> str:
        shown = ["    " + one_line(f"{row['id']}: {row['file']}: {row['reason']}") for row in rows[:NUM_SHOWN]]
        more = [f"    ... and {len(rows) - NUM_SHOWN} more"] if len(rows) > NUM_SHOWN else []
        total = self.num_rows[split]
        return "\n".join(
            [
                f"{len(rows)} of {total} samples of {split} cannot be read;"
                f" data.max_bad_fraction={self.max_bad_fraction:g} allows"
                f" {int(self.max_bad_fraction * total)}",
                *shown,
                *more,
                f"    fix: repair the files in {self.path}, remove their rows, or raise data.max_bad_fraction",
            ]
        )
