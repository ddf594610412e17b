"""mode=chat: a person and a trained model in a terminal. Whatever the model says of a dialogue is shown, turn by turn.

Lines are what the person says, but for those that begin with a slash: /image FILE, /audio FILE and /video FILE go with
the next line, /new begins another dialogue, /quit ends. Sentences that the model writes are its turns.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from rich.console import Console

from mmtrain.build import build_restored
from mmtrain.data.protocols import Several
from mmtrain.errors import ConfigError, SampleError
from mmtrain.io.escape import one_line
from mmtrain.modes.chat.request import asked_batch
from mmtrain.tasks.generation import Generation
from mmtrain.tasks.language_model import LanguageModel
from mmtrain.tasks.policy import writer_of
from mmtrain.training.checkpoint.load_run import load_trained

PERSON, MODEL = "person", "model"
MEDIA = ("image", "audio", "video")
HELP = "/image FILE, /audio FILE, /video FILE: show it with your next line; /new: another dialogue; /quit"


class Said(NamedTuple):
    """What a model says of a dialogue: sentences, and other things by task, such as a class and its probability."""

    sentences: dict[str, str]
    judged: dict[str, dict[str, Any]]


class Talk:
    """A dialogue with a trained model.

    Args:
        run: a run folder, of which the best checkpoint is taken, or a checkpoint in one.
        trust: packages of the user's own whose classes the run may name.

    Raises:
        ConfigError: when there is none, or it reads no words.
    """

    def __init__(self, run: Path, *, trust: Sequence[str] = ()) -> None:
        trained = load_trained(run, build_restored, trust=trust)
        self.model, self.data = trained.lit.model, trained.data
        self.tasks = {name: writer_of(task) for name, task in self.model.named_tasks().items()}
        self.kinds = {m: self.data.inputs[m].kind for m in self.model.encoders}
        speaks = any(isinstance(task, LanguageModel) for task in self.tasks.values())
        if not speaks and not {"text", "dialogue"} & set(self.kinds.values()):
            raise ConfigError(f"{run} reads {', '.join(self.kinds)} and no words, so that nobody can talk to it")
        self.begin()

    def begin(self) -> None:
        """Forget what was said."""
        self.turns: list[dict[str, str]] = []
        self.shown: list[tuple[int, str, str]] = []  # the turn, the modality, the file

    def say(self, words: str, media: Mapping[str, str] = {}) -> Said:
        """What the model makes of a further turn of the person.

        Args:
            words: of the turn.
            media: by modality a file that goes with it.

        Raises:
            SampleError: when a file cannot be read.
        """
        self.turns.append({"speaker": PERSON, "text": words})
        self.shown += [(len(self.turns) - 1, modality, file) for modality, file in media.items()]
        try:
            said = self._said()
        except SampleError:
            self.turns.pop()  # as if it had not been said
            self.shown = [one for one in self.shown if one[0] < len(self.turns)]
            raise
        if said.sentences:
            self.turns.append({"speaker": MODEL, "text": next(iter(said.sentences.values()))})
        return said

    @torch.no_grad()
    def _said(self) -> Said:
        cells = {modality: self._cell(modality) for modality in self.data.inputs}
        batch = asked_batch(self.data, cells, self._turns)
        view = self.model.view(batch)
        said = Said({}, {})
        for name, task in self.tasks.items():
            (row,) = task.rows(task(view), batch)
            if not row:
                continue
            if isinstance(task, Generation | LanguageModel):
                said.sentences[name] = str(row[task.targets[0]])
            else:
                said.judged[name] = row
        return said

    def _cell(self, modality: str) -> Any:
        """What a table would hold of the dialogue so far."""
        reader = self.data.inputs[modality]
        if reader.kind == "dialogue":
            return self.turns
        if reader.kind == "text":
            return self.turns[-1]["text"]
        files = [file for _, shown, file in self.shown if shown == reader.kind]
        if not files:
            return None
        return files if isinstance(reader, Several) else files[-1]

    def _turns(self, media: Mapping[str, int]) -> list[dict[str, str]]:
        """For a language model: a place for each medium that it gets, the last ones first."""
        left = dict(media)
        places: dict[int, str] = {}
        for turn, modality, _ in reversed(self.shown):
            if left.get(modality, 0) > 0:
                left[modality] -= 1
                places[turn] = f"<{modality}>" + places.get(turn, "")
        roles = {PERSON: "user", MODEL: "assistant"}
        return [
            {"role": roles[turn["speaker"]], "content": places.get(number, "") + turn["text"]}
            for number, turn in enumerate(self.turns)
        ]


def chat(cfg: DictConfig, console: Console) -> None:
    """Talk until the person has enough."""
    talk = Talk(Path(cfg.run_dir), trust=cfg.trust)
    reads = [kind for kind in MEDIA if kind in talk.kinds.values()]
    console.print(f"{cfg.run_dir} reads words{''.join(f', {kind}' for kind in reads)}\n{HELP}", markup=False)
    media: dict[str, str] = {}
    for line in _lines():
        command, _, file = line.partition(" ")
        if not sys.stdin.isatty():
            console.print(f"> {line}", markup=False, soft_wrap=True)
        if command == "/quit":
            return
        if command == "/new":
            talk.begin()
            media = {}
        elif command[1:] in MEDIA and command.startswith("/"):
            if command[1:] not in reads:
                console.print(f"it reads no {command[1:]}", markup=False)
            elif not Path(file.strip()).expanduser().is_file():
                console.print(f"there is no file {file.strip()}", markup=False)
            else:
                media[command[1:]] = str(Path(file.strip()).expanduser().resolve())
        elif command.startswith("/"):
            console.print(HELP, markup=False)
        elif line:
            try:
                _show(talk.say(line, media), console)
            except SampleError as error:
                console.print(one_line(f"{error.file} {error.reason}"), markup=False, soft_wrap=True)
            media = {}


def _lines() -> Iterator[str]:
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return


def _show(said: Said, console: Console) -> None:
    for name, sentence in said.sentences.items():
        console.print(f"{name}: {sentence}", markup=False, soft_wrap=True)
    for name, row in said.judged.items():
        parts = [
            f"{v:.2f}" if isinstance(v, float) else ", ".join(map(str, v)) if isinstance(v, list) else str(v)
            for v in row.values()
        ]
        console.print(f"    {name}: {'  '.join(parts)}", markup=False, soft_wrap=True)
