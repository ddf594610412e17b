"""Ask a trained language model that reads media, of any connector and tower.

    from mmtrain.modes.chat.pipeline import Answers
    answers = Answers("outputs/mine")
    print(answers("<image>what is this?", image="a.png"))

What was learned lies in the run folder; the tables that it was learned from are not needed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmtrain.build import build_restored
from mmtrain.data.decoding.dialogue import Turn
from mmtrain.errors import ConfigError
from mmtrain.model import MultimodalModel
from mmtrain.modes.chat.request import asked_batch
from mmtrain.tasks.language_model import LanguageModel
from mmtrain.tasks.policy import writer_of
from mmtrain.training.checkpoint.load_run import load_trained


class Answers:
    """A run that answers.

    Args:
        run: a run folder, of which the best checkpoint is taken, or a checkpoint in one.
        task: which of its tasks; also one that went on from a language model, such as scst.
        trust: packages of your own whose classes the run may name, such as `["mine"]`.

    Raises:
        ConfigError: when there is no such run, or the task is no language model.
    """

    def __init__(self, run: str | Path, *, task: str = "language_model", trust: Sequence[str] = ()) -> None:
        trained = load_trained(Path(run), build_restored, trust=trust)
        self.model: MultimodalModel = trained.lit.model
        self.data = trained.data
        chosen: Any = writer_of(self.model.named_tasks().get(task))
        if not isinstance(chosen, LanguageModel):
            raise ConfigError(f"task = {task} is no language model; {run} has {', '.join(self.model.tasks)}")
        self.task = chosen

    def __call__(self, asked: str | list[Turn], **media: Any) -> str:
        """The answer.

        Args:
            asked: a question, in which <image> and the like stand for media, or turns of which the last is the user's.
            media: by modality, what a cell of a table could hold: a path, a picture, bytes, or a list of several.

        Raises:
            ConfigError: for media that the run does not read.
            SampleError: when a medium cannot be read, or the question speaks of another number of them.
        """
        turns = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        if unknown := sorted(media.keys() - set(self.task.reads)):
            raise ConfigError(f"{unknown[0]} is not read; the run reads {', '.join(self.task.reads)}")
        batch = asked_batch(self.data, media, lambda _: turns)
        with torch.no_grad():
            said = self.task.rows(self.task(self.model.view(batch)), batch)
        return str(said[0][self.task.targets[0]])
