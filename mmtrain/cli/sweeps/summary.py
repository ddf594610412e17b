"""What Hydra calls when a sweep has ended."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from mmtrain.training.run_folder import is_locked
from mmtrain.training.sweep.records import Asked, folders_of


class Summary(Callback):
    """Ends a sweep: its table, its page, and as exit status that of the worst of its runs."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra, whoever launched the runs."""
        from mmtrain.report.sweep import show_sweep

        folder = Path(config.hydra.sweep.dir)
        runs = folders_of(folder)
        if not runs:
            sys.exit(1)
        show_sweep(folder)
        asked = [Asked.read(run) for run in runs if not is_locked(run)]  # the others are still being run, elsewhere
        sys.exit(max((1 if a is None or a.status is None else a.status for a in asked), default=0))
