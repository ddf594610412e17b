"""Lightning's ModelCheckpoint, with a state that remains valid if the run folder is moved.

Lightning stores absolute paths in it, and discards the best score if the folder has another path, for example in a
moved or copied run, another mount, or another container. Then the next validation replaces best.ckpt, even if worse.
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
    """As Lightning's, but its state has file names, relative to the current `dirpath`.

    It has Lightning's name, because a checkpoint stores each state under the name of its class.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Store how the ranks agree on whether a file exists."""
        super().setup(trainer, pl_module, stage)
        self._is_file = partial(self.file_exists, trainer=trainer)

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state, with names instead of absolute paths."""
        state = super().state_dict()
        state |= {key: Path(state[key]).name for key in _PATHS}
        return state | {
            "dirpath": "",
            "best_k_models": {Path(path).name: score for path, score in state["best_k_models"].items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, also one with paths of another place. A score without its checkpoint is discarded."""
        state = state_dict | {key: self._here(state_dict[key]) for key in _PATHS}
        state["best_k_models"] = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        missing = [path for path in state["best_k_models"] if not self._is_file(path)]
        if missing:
            self._report(missing[0], state["best_model_score"])
            return
        super().load_state_dict(state | {"dirpath": self.dirpath})

    def _here(self, path: str) -> str:
        """The current path of a file of this name."""
        return str(Path(str(self.dirpath)) / Path(path).name) if path else ""

    @rank_zero_only
    def _report(self, path: str, score: Any) -> None:
        print_escaped(
            f"{path}: missing, so the best score so far ({self.monitor} = {float(score):.4g}) is discarded,"
            " and best.ckpt is chosen from now on"
        )
