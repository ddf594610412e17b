"""Lightning's ModelCheckpoint, with a state that stays valid when the run folder moves.

Lightning keeps absolute paths in it, and forgets the best score when the folder has another path: of a moved or copied
run, of another mount, in another container. The next validation, however bad, then replaces best.ckpt.
"""

from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning import callbacks as lightning
from pytorch_lightning.utilities import rank_zero_only

from mmtrain.io.escape import print_escaped

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class ModelCheckpoint(lightning.ModelCheckpoint):
    """As Lightning's; its state has file names, which belong into `dirpath`, wherever that is.

    It has Lightning's name because a checkpoint keeps each state under the name of its class.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep how the ranks agree on whether a file exists."""
        super().setup(trainer, pl_module, stage)
        self._is_file = partial(self.file_exists, trainer=trainer)

    def state_dict(self) -> dict[str, Any]:
        """Lightning's, with names in place of absolute paths."""
        state = super().state_dict()
        state |= {key: Path(state[key]).name for key in _PATHS}
        return state | {
            "dirpath": "",
            "best_k_models": {Path(path).name: score for path, score in state["best_k_models"].items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state back, also one with paths of another place; a score without its checkpoint does not count."""
        state = state_dict | {key: self._here(state_dict[key]) for key in _PATHS}
        state["best_k_models"] = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        missing = [path for path in state["best_k_models"] if not self._is_file(path)]
        if missing:
            self._report(missing[0], state["best_model_score"])
            return
        super().load_state_dict(state | {"dirpath": self.dirpath})

    def _here(self, path: str) -> str:
        """Where a file of this name is now."""
        return str(Path(str(self.dirpath)) / Path(path).name) if path else ""

    @rank_zero_only
    def _report(self, path: str, score: Any) -> None:
        print_escaped(
            f"{path} is missing: {self.monitor} = {float(score):.4g}, the best so far, no longer counts,"
            " and best.ckpt is chosen from now on"
        )
