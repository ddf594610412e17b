"""Which samples each step had, as proof that none was left out or came twice: ledger.jsonl."""

import json
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from mmtrain.distributed import gather_objects
from mmtrain.types import Batch


class Ledger(Callback):
    """Keeps RUN/ledger.jsonl: {"step", "epoch", "ids"} a line, the ids of all micro-batches and ranks.

    Args:
        run_dir: folder of the run.
    """

    def __init__(self, *, run_dir: str) -> None:
        self.path = Path(run_dir) / "ledger.jsonl"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop steps that come again."""
        if not trainer.is_global_zero:
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]  # a kill may have cut the last short
        kept = [line for line in whole if json.loads(line)["step"] <= trainer.global_step]
        temporary = self.path.with_name(".ledger.jsonl.part")
        temporary.write_text("".join(kept), encoding="utf-8")
        temporary.replace(self.path)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: list[Batch], *_: Any
    ) -> None:
        """Note those of a step."""
        ids = [id for part in gather_objects([id for b in batch for id in b.ids if id]) for id in part]
        if trainer.is_global_zero:
            line = {"step": trainer.global_step, "epoch": trainer.current_epoch, "ids": ids}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
