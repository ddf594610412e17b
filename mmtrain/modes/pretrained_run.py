"""A run folder for a pretrained pair that was never trained here, so that it is tested and searched like a run.

    python train.py mode=test encoder=clip encoder.pretrained=NAME data=files data.root=DIR test.zero_shot=label

The folder has the configuration and the weights of the pair at step 0, and no metrics.
"""

from pathlib import Path

from omegaconf import DictConfig

import mmtrain
from mmtrain.build import build_data, build_lit, build_model
from mmtrain.errors import ConfigError
from mmtrain.io.run_files import CONFIG, write_config
from mmtrain.model import MultimodalModel
from mmtrain.tasks.contrastive import Contrastive
from mmtrain.training.checkpoint.load import WEIGHTS
from mmtrain.training.checkpoint.safetensors import write_weights


def begin_pretrained_run(cfg: DictConfig) -> None:
    """Write a run folder with the pretrained weights of a configuration.

    Nothing is done for a folder that has a run already.

    Args:
        cfg: resolved; its tasks use only what the checkpoint has.

    Raises:
        ConfigError: if the model has parts that must be trained first.
    """
    folder = Path(cfg.run_dir)
    if (folder / CONFIG).is_file():
        return
    data = build_data(cfg)
    data.fit_without_tables(folder)
    model = build_model(cfg, data)
    _check_is_complete(model)
    lit = build_lit(cfg, model)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints").mkdir(exist_ok=True)
    record = {"version": mmtrain.__version__, "command": "pretrained weights", "names": data.names()}
    weights = {"state_dict": lit.state_dict(), "global_step": 0, "mmtrain": record}
    write_weights(weights, folder / "checkpoints" / WEIGHTS)
    write_config(folder / CONFIG, cfg)  # last: a folder with it is complete


def _check_is_complete(model: MultimodalModel) -> None:
    """Check that every part of a model has pretrained weights."""
    for name, task in model.tasks.items():
        if not isinstance(task, Contrastive) or set(task.pretrained) != set(task.reads):
            raise ConfigError(
                f"task.{name}: has parts without pretrained weights, and run_dir is not the folder of a trained run\n"
                "    fix: choose a pair and task=[contrastive], or set run_dir to the folder of a run"
            )
