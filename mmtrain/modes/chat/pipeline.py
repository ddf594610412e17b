"""Ask questions of a trained language model that reads media, with any connector and encoder.

    from mmtrain.modes.chat.pipeline import ChatPipeline
    answers = ChatPipeline("outputs/mine")
    print(answers("<image>what is this?", image="a.png"))

The run folder has everything that was learned. The tables of the training are not needed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmtrain.build import rebuild_without_tables
from mmtrain.data.decoding.dialogue import Turn
from mmtrain.errors import ConfigError
from mmtrain.model import MultimodalModel
from mmtrain.modes.chat.request import collate_request
from mmtrain.tasks.language_model import LanguageModel
from mmtrain.tasks.policy import writer_of
from mmtrain.training.checkpoint.load_run import load_run


class ChatPipeline:
    """A run that answers questions.

    Args:
        run: a run folder, whose best checkpoint is used, or a checkpoint in it.
        task: name of a task, also of a task such as scst that continues the training of a language model.
        trust: packages of your own whose classes the run may name, such as `["mine"]`.

    Raises:
        ConfigError: if there is no such run, or the task is not a language model.
    """

    def __init__(self, run: str | Path, *, task: str = "language_model", trust: Sequence[str] = ()) -> None:
        trained = load_run(Path(run), rebuild_without_tables, trust=trust)
        self.model: MultimodalModel = trained.lit.model
        self.data = trained.data
        chosen: Any = writer_of(self.model.named_tasks().get(task))
        if not isinstance(chosen, LanguageModel):
            raise ConfigError(f"task={task}: not a language model; {run} has {', '.join(self.model.tasks)}")
        self.task = chosen

    def __call__(self, message: str | list[Turn], **media: Any) -> str:
        """Return the answer.

        Args:
            message: a question, in which <image> and similar marks represent media, or turns that end with the user's.
            media: by modality, the content of a table cell: a path, an image, bytes, or a list of them.

        Raises:
            ConfigError: for media that the run does not read.
            SampleError: if a medium cannot be read, or the question mentions another number of media.
        """
        turns = [{"role": "user", "content": message}] if isinstance(message, str) else message
        if unknown := sorted(media.keys() - set(self.task.reads)):
            raise ConfigError(f"{unknown[0]}: not read by this run, which reads {', '.join(self.task.reads)}")
        batch = collate_request(self.data, media, lambda _: turns)
        with torch.no_grad():
            rows = self.task.rows(self.task(self.model.view(batch)), batch)
        return str(rows[0][self.task.targets[0]])
