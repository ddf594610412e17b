"""mode=chat: a dialogue with a trained model in a terminal. All predictions of the model are shown after each turn.

Each line is a turn of the user, except lines with a slash. /image FILE, /audio FILE and /video FILE add media to the
next line, /new begins another dialogue, /quit ends. Sentences that the model generates are its turns.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from rich.console import Console

from mmtrain.build import rebuild_without_tables
from mmtrain.data.protocols import CountsMedia
from mmtrain.errors import ConfigError, SampleError
from mmtrain.io.escape import one_line
from mmtrain.modes.chat.request import collate_request
from mmtrain.tasks.generation import Generation
from mmtrain.tasks.language_model import LanguageModel
from mmtrain.tasks.policy import writer_of
from mmtrain.training.checkpoint.load_run import load_run

PERSON, MODEL = "person", "model"
MEDIA = ("image", "audio", "video")
HELP = "/image FILE, /audio FILE, /video FILE: send it with your next line; /new: another dialogue; /quit"


class ChatOutput(NamedTuple):
    """Predictions of a model for a dialogue: sentences, and other results by task, such as a class with probability."""

    sentences: dict[str, str]
    judged: dict[str, dict[str, Any]]


class ChatSession:
    """A dialogue with a trained model.

    Args:
        run: a run folder, whose best checkpoint is used, or a checkpoint in it.
        trust: packages of the user's own whose classes the run may name.

    Raises:
        ConfigError: if there is no run, or it reads no text.
    """

    def __init__(self, run: Path, *, trust: Sequence[str] = ()) -> None:
        trained = load_run(run, rebuild_without_tables, trust=trust)
        self.model, self.data = trained.lit.model, trained.data
        self.tasks = {name: writer_of(task) for name, task in self.model.named_tasks().items()}
        self.kinds = {m: self.data.inputs[m].kind for m in self.model.encoders}
        speaks = any(isinstance(task, LanguageModel) for task in self.tasks.values())
        if not speaks and not {"text", "dialogue"} & set(self.kinds.values()):
            raise ConfigError(f"{run}: reads {', '.join(self.kinds)} but no text, which chat needs")
        self.begin()

    def begin(self) -> None:
        """Start a new dialogue."""
        self.turns: list[dict[str, str]] = []
        self.shown: list[tuple[int, str, str]] = []  # turn, modality and file

    def reply(self, words: str, media: Mapping[str, str] = {}) -> ChatOutput:
        """Return the predictions after another turn of the user.

        Args:
            words: text of the turn.
            media: by modality, a file to send with it.

        Raises:
            SampleError: if a file cannot be read.
        """
        self.turns.append({"speaker": PERSON, "text": words})
        self.shown += [(len(self.turns) - 1, modality, file) for modality, file in media.items()]
        try:
            output = self._output()
        except SampleError:
            self.turns.pop()  # the dialogue is unchanged
            self.shown = [one for one in self.shown if one[0] < len(self.turns)]
            raise
        if output.sentences:
            self.turns.append({"speaker": MODEL, "text": next(iter(output.sentences.values()))})
        return output

    @torch.no_grad()
    def _output(self) -> ChatOutput:
        cells = {modality: self._cell(modality) for modality in self.data.inputs}
        batch = collate_request(self.data, cells, self._turns)
        view = self.model.view(batch)
        output = ChatOutput({}, {})
        for name, task in self.tasks.items():
            (row,) = task.rows(task(view), batch)
            if not row:
                continue
            if isinstance(task, Generation | LanguageModel):
                output.sentences[name] = str(row[task.targets[0]])
            else:
                output.judged[name] = row
        return output

    def _cell(self, modality: str) -> Any:
        """The dialogue so far as a table cell."""
        reader = self.data.inputs[modality]
        if reader.kind == "dialogue":
            return self.turns
        if reader.kind == "text":
            return self.turns[-1]["text"]
        files = [file for _, shown, file in self.shown if shown == reader.kind]
        if not files:
            return None
        return files if isinstance(reader, CountsMedia) else files[-1]

    def _turns(self, media: Mapping[str, int]) -> list[dict[str, str]]:
        """Turns for a language model, with a mark for each medium that it receives; the last media come first."""
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
    """Chat until the user quits."""
    talk = ChatSession(Path(cfg.run_dir), trust=cfg.trust)
    reads = [kind for kind in MEDIA if kind in talk.kinds.values()]
    console.print(f"{cfg.run_dir} reads text{''.join(f', {kind}' for kind in reads)}\n{HELP}", markup=False)
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
                console.print(f"this model reads no {command[1:]}", markup=False)
            elif not Path(file.strip()).expanduser().is_file():
                console.print(f"there is no file {file.strip()}", markup=False)
            else:
                media[command[1:]] = str(Path(file.strip()).expanduser().resolve())
        elif command.startswith("/"):
            console.print(HELP, markup=False)
        elif line:
            try:
                _show(talk.reply(line, media), console)
            except SampleError as error:
                console.print(one_line(f"{error.file} {error.reason}"), markup=False, soft_wrap=True)
            media = {}


def _lines() -> Iterator[str]:
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return


def _show(output: ChatOutput, console: Console) -> None:
    for name, sentence in output.sentences.items():
        console.print(f"{name}: {sentence}", markup=False, soft_wrap=True)
    for name, row in output.judged.items():
        parts = [
            f"{v:.2f}" if isinstance(v, float) else ", ".join(map(str, v)) if isinstance(v, list) else str(v)
            for v in row.values()
        ]
        console.print(f"    {name}: {'  '.join(parts)}", markup=False, soft_wrap=True)
