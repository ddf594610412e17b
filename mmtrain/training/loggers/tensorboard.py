"""TensorBoard, which goes on in the same run: what comes again after a kill is shown once."""

from pytorch_lightning.loggers import TensorBoardLogger


def make_tensorboard(*, run_dir: str, name: str, resume_step: int | None) -> TensorBoardLogger:
    """A logger into RUN/NAME.

    Args:
        run_dir: folder of the run.
        name: of the folder inside it.
        resume_step: the step that training goes on from; TensorBoard forgets what was logged of later ones.
    """
    again = None if resume_step is None else resume_step + 1
    return TensorBoardLogger(save_dir=run_dir, name=name, version="", purge_step=again)
