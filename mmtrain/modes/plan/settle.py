"""`trainer.find_batch_size=true`: before a run begins, its batch size is found; a run that goes on keeps its own."""

import tempfile
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from mmtrain.config.run_config import read_run_config
from mmtrain.errors import ConfigError
from mmtrain.io.escape import print_escaped
from mmtrain.io.run_files import CONFIG
from mmtrain.modes.plan.find import find_batch_size


def settle_batch_size(cfg: DictConfig) -> int:
    """Set `data.batch_size`; the exit status, 0 to go on.

    Args:
        cfg: resolved; it is changed.
    """
    record = Path(cfg.run_dir) / CONFIG
    if cfg.resume is not None and record.is_file():
        try:
            size = OmegaConf.select(read_run_config(record.parent), "data.batch_size")
        except ConfigError as error:
            print_escaped(error, stderr=True)
            return 2
        if type(size) is not int:
            print_escaped(f"{record}: data.batch_size={size}: no number\n    fix: set data.batch_size", stderr=True)
            return 2
        said = f"data.batch_size={size}, as this run found it before"
    else:
        try:
            with tempfile.TemporaryDirectory() as folder:
                trial = cfg.copy()
                with open_dict(trial):
                    trial.run_dir = folder
                size, said = find_batch_size(trial, Path(folder))
        except ConfigError as error:
            print_escaped(error, stderr=True)
            return 2
    cfg.data.batch_size = size
    print_escaped(said)
    return 0
