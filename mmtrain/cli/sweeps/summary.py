"""The callback for the end of a sweep."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from mmtrain.training.run_folder import is_locked
from mmtrain.training.sweep.records import JobRecord, folders_of


class Summary(Callback):
    """Ends a sweep: writes its table and its page, and exits with the worst status of its runs."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra for every launcher."""
        from mmtrain.report.sweep import show_sweep

        folder = Path(config.hydra.sweep.dir)
        runs = folders_of(folder)
        if not runs:
            sys.exit(1)
        show_sweep(folder)
        records = [JobRecord.read(run) for run in runs if not is_locked(run)]  # others still run elsewhere
        sys.exit(max((1 if a is None or a.status is None else a.status for a in records), default=0))
