"""Records the samples of each step in ledger.jsonl, to prove that none was skipped or repeated."""

import json
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from mmtrain.distributed import gather_objects
from mmtrain.io.run_files import append_line, read_json_lines, write_json_lines
from mmtrain.types import Batch


class Ledger(Callback):
    """Writes RUN/ledger.jsonl: one {"step", "epoch", "ids"} per line, with the ids of all micro-batches and ranks.

    Args:
        run_dir: run folder.
    """

    def __init__(self, *, run_dir: str) -> None:
        self.path = Path(run_dir) / "ledger.jsonl"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove steps that will be repeated."""
        if not trainer.is_global_zero:
            return
        rows = read_json_lines(self.path, keys=("step", "epoch", "ids"))
        write_json_lines(self.path, [row for row in rows if row["step"] <= trainer.global_step])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: list[Batch], *_: Any
    ) -> None:
        """Record the samples of a step."""
        ids = [id for part in gather_objects([id for b in batch for id in b.ids if id]) for id in part]
        if trainer.is_global_zero:
            line = {"step": trainer.global_step, "epoch": trainer.current_epoch, "ids": ids}
            append_line(self.path, json.dumps(line, ensure_ascii=False))
