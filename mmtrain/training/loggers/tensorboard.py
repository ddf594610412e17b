"""TensorBoard, which continues the same run: steps that are repeated after a kill are shown once."""

from pytorch_lightning.loggers import TensorBoardLogger


def make_tensorboard(*, run_dir: str, name: str, resume_step: int | None) -> TensorBoardLogger:
    """Create a logger for RUN/NAME.

    Args:
        run_dir: run folder.
        name: name of the folder in it.
        resume_step: step of a resumed run; TensorBoard discards what was logged later.
    """
    again = None if resume_step is None else resume_step + 1
    return TensorBoardLogger(save_dir=run_dir, name=name, version="", purge_step=again)
