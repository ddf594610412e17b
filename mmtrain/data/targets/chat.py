"""A dialogue as token ids of a language model. Answers are learned, and the other turns are only read.

Questions and answers are tokenized separately, as in generation.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from mmtrain.annotations import VocabSize
from mmtrain.data.decoding.dialogue import HOLDS, Dialogue, dialogue_of, places_in
from mmtrain.data.tables.columns import is_empty
from mmtrain.data.tables.sample_errors import read_each
from mmtrain.data.tokenizers.chat import PLAIN, render_dialogue, tokenizer_of, train_tokenizer
from mmtrain.errors import ConfigError, SampleError
from mmtrain.io.run_files import LEARN_AGAIN, read_json, write_json
from mmtrain.types import DialogueTarget

SEEN = "dialogues.json"
MAX_KINDS = 20
_MAX_TRAINED = 100_000  # dialogues that a tokenizer is trained on
_MAX_CHECKED = 100  # number of dialogues; the template must be able to render at least one


class ChatTarget:
    """A column of dialogues, or columns of their parts.

    Args:
        column_roles: content of the column, or of each of several columns; see `mmtrain.data.decoding.dialogue`.
        prompt: the user's turn for a cell without turns; {question} is the question of the cell.
        tokenizer: the tokenizer of a language model, a folder or a name of the hub; None to train one.
        template: a chat template; None for the tokenizer's own, or a plain one if it has none.
        vocab_size: maximum number of tokens of a trained tokenizer.
        max_length: in a longer dialogue, the end of the last answer is truncated.
        placeholders: modalities that dialogues can mention, as <image>.
        keep_references: whether training samples have all correct answers, and the run folder those of all rows, with
            which a reward compares.

    Raises:
        ValueError: if a cell cannot contain these parts.
    """

    def __init__(
        self,
        *,
        column_roles: Sequence[Literal["turns", "question", "answer", "kind"]],
        prompt: str,
        tokenizer: str | None,
        template: str | None,
        vocab_size: VocabSize,
        max_length: Annotated[int, Ge(8), Le(2**20)],
        placeholders: Sequence[str],
        keep_references: bool,
    ) -> None:
        if sorted(column_roles) not in [sorted(known) for known in HOLDS]:
            raise ValueError(
                f"column_roles = [{', '.join(column_roles)}] is no dialogue; set it to"
                f" {' or '.join('[' + ', '.join(known) + ']' for known in HOLDS)}"
            )
        if vocab_size < 256 + len(placeholders) + 2:
            raise ValueError(
                f"vocab_size = {vocab_size} is too small for 256 bytes and special tokens; set it to 300 or more"
            )
        if max_length < 8:
            raise ValueError(f"max_length = {max_length} is too small for a question; set it to 64, for example")
        self.column_roles, self.prompt, self.pretrained, self.template = list(column_roles), prompt, tokenizer, template
        self.vocab_size, self.max_length, self.placeholders = vocab_size, max_length, list(placeholders)
        self.keep_references = keep_references
        self.fingerprint = (
            f"{'kept ' if keep_references else ''}dialogue {','.join(column_roles)} {prompt!r} tokenizer={tokenizer}"
            f" vocab_size={vocab_size} max_length={max_length} template={template} {','.join(placeholders)}"
        )
        self.tokenizer: Any = None
        self.known = DialogueTarget([], max_length, 0, 0, {}, frozenset(), [""], str)

    @property
    def chosen_template(self) -> str:
        """The chat template in use."""
        return str(self.template or self.tokenizer.chat_template or PLAIN)

    def fit(self, cells: Iterable[Any], folder: Path) -> None:
        """Load or train the tokenizer, and collect media and kinds; nothing is learned if there is no dialogue.

        Raises:
            ConfigError: for too many kinds, and if no dialogue can be used, because a template can hide the end of
                answers.
        """
        used: set[str] = set()
        kinds: set[str] = set()
        some: list[Dialogue] = []
        right: list[list[str]] = []
        faults: list[SampleError] = []
        for dialogue in read_each((cell for cell in cells if not is_empty(cell)), self._dialogue, faults):
            if dialogue is not None and dialogue.answers:
                used.update(places_in(dialogue.turns, self.placeholders))
                kinds.add(dialogue.kind)
                some += [dialogue] if len(some) < _MAX_TRAINED else []
                right += [dialogue.answers] if self.keep_references else []
        if not some and faults:
            raise _none_of_use(faults)
        if not some:
            return
        if len(kinds) > MAX_KINDS:
            raise ConfigError(
                f"the dialogues have {len(kinds)} kinds, such as {', '.join(sorted(kinds)[:3])}\n"
                f"    fix: name a column with at most {MAX_KINDS} kinds, or remove kind from holds"
            )
        if self.pretrained is None:
            blank = train_tokenizer([], vocab_size=self.vocab_size, places=self.placeholders)
            marks = re.compile("|".join(map(re.escape, blank.all_special_tokens)))
            self.tokenizer = blank
            faults = []
            template = self.chosen_template
            written_out = read_each(
                some, lambda d: render_dialogue(blank, d.turns, template=template, asking=False), faults
            )
            texts = [marks.sub("", text) for text in written_out]
            if not texts:
                raise _none_of_use(faults)
            self.tokenizer = train_tokenizer(texts, vocab_size=self.vocab_size, places=self.placeholders)
        else:
            self.tokenizer = tokenizer_of(self.pretrained, places=self.placeholders)
        self._learned(used, sorted(kinds), [self._spelled(answers) for answers in right])
        self._check_template(some[:_MAX_CHECKED])

    def _check_template(self, dialogues: Sequence[Dialogue]) -> None:
        """Check that at least one dialogue can be encoded. The others are quarantined when they are loaded."""
        faults: list[SampleError] = []
        if next(read_each(dialogues, self.encode, faults), None) is None:
            raise _none_of_use(faults)

    def _dialogue(self, cell: Any) -> Dialogue | None:
        return dialogue_of(cell, holds=self.column_roles, prompt=self.prompt)

    def _learned(self, used: Iterable[str], kinds: list[str], sentences: list[list[str]]) -> None:
        names = {number: token for token, number in self.tokenizer.get_vocab().items()}
        self.known = DialogueTarget(
            names=[names.get(number, f"[{number}]") for number in range(max(names) + 1)],
            max_length=self.max_length,
            pad=self.tokenizer.pad_token_id,
            end=self.tokenizer.eos_token_id,
            places={name: self.tokenizer.convert_tokens_to_ids(f"<{name}>") for name in self.placeholders},
            used=frozenset(used),
            kinds=kinds,
            write=self._write,
            sentences=sentences,
        )

    def _write(self, ids: list[int]) -> str:
        kept = ids[: ids.index(self.known.end)] if self.known.end in ids else ids
        return str(self.tokenizer.decode(kept, skip_special_tokens=True)).strip()

    def save(self, folder: Path, name: str) -> None:
        """Write the tokenizer and the metadata of dialogues into a new folder."""
        place = folder / f"tokenizer_target_{name}"
        self.tokenizer.save_pretrained(place)
        seen: dict[str, Any] = {"used": sorted(self.known.used), "kinds": self.known.kinds}
        seen |= {"sentences": self.known.sentences} if self.keep_references else {}
        write_json(place / SEEN, seen)

    def restore(self, folder: Path, name: str) -> None:
        """Restore the state that `save` wrote, without the hub or the folder of the language model."""
        place = folder / f"tokenizer_target_{name}"
        self.tokenizer = tokenizer_of(place, places=self.placeholders)
        seen = read_json(place / SEEN, fix=LEARN_AGAIN, keys=("used", "kinds"))
        self._learned(seen["used"], seen["kinds"], seen["sentences"] if self.keep_references else [])

    def load(self, value: Any) -> Tensor | None:
        """(L, 2), int64, ids and flags as in `DialogueTarget`; None for a cell without a question.

        Raises:
            SampleError: if it is not a dialogue, or its question is too long.
        """
        dialogue = self._dialogue(value)
        return None if dialogue is None else self.encode(dialogue)

    def encode(self, dialogue: Dialogue) -> Tensor:
        """(L, 2), as from `load`.

        Raises:
            SampleError: if an answer contains a medium, the question is too long, or the template rejects the turns or
                does not show which tokens are the answer.
        """
        turns, flag = dialogue.turns, 1 + self._number(dialogue.kind)
        messages = [turn for turn in turns if turn["role"] == "assistant"]
        if places_in(messages, self.placeholders):
            raise SampleError(
                "an answer", f"contains <{places_in(messages, self.placeholders)[0]}>: media cannot be generated"
            )
        ids: list[int] = []
        flags: list[int] = []
        done, prompt_length = "", 0
        for number, turn in enumerate(turns):
            is_last = number == len(turns) - 1
            if turn["role"] != "assistant" and not is_last:
                continue
            if turn["role"] == "assistant" and all(other["role"] != "user" for other in turns[:number]):
                continue  # without a question before it, it is read but not learned
            before = turns[:number] if turn["role"] == "assistant" else turns
            question = render_dialogue(self.tokenizer, before, template=self.chosen_template, asking=True)
            read = self._ids(question, done)
            ids, flags, done = ids + read, flags + [0] * len(read), question
            prompt_length = len(ids)
            if turn["role"] == "assistant":
                rendered = render_dialogue(
                    self.tokenizer, turns[: number + 1], template=self.chosen_template, asking=False
                )
                answer, behind = self._up_to_end(self._ids(rendered, done))
                ids, flags, done = ids + answer, flags + [flag] * len(answer), rendered
                if not is_last:
                    ids, flags = ids + behind, flags + [0] * len(behind)
        if prompt_length >= self.max_length:
            raise SampleError(
                "a dialogue",
                f"asks in {prompt_length} tokens, but max_length = {self.max_length}; set it to {prompt_length + 32}",
            )
        return torch.tensor([ids, flags]).T[: self.max_length]

    def _ids(self, text: str, done: str) -> list[int]:
        """Ids of the part of the text after `done`."""
        if not text.startswith(done):
            raise SampleError(
                "a dialogue",
                "the chat template renders earlier turns differently when others follow, so it is not known which"
                " tokens are the answer; set data.targets.chat.template to one that only appends",
            )
        return list(self.tokenizer(text[len(done) :], add_special_tokens=False)["input_ids"])

    def _up_to_end(self, ids: list[int]) -> tuple[list[int], list[int]]:
        end = self.tokenizer.eos_token_id
        if end not in ids:
            raise SampleError(
                "a dialogue",
                f"the chat template does not end an answer with the tokenizer's eos_token, {self.tokenizer.eos_token};"
                " set data.targets.chat.template to one that does, because otherwise the model would not learn to stop",
            )
        place = ids.index(end) + 1
        return ids[:place], ids[place:]

    @property
    def _or_prompt(self) -> str:
        """A hint about the prompt, which is not used for cells with turns."""
        return "" if "turns" in self.column_roles else ", or set data.targets.chat.prompt"

    def _number(self, kind: str) -> int:
        return self.known.kinds.index(kind) if kind in self.known.kinds else 0  # not in the training split

    def check_media(self, value: Tensor, media: Mapping[str, int]) -> None:
        """Reject a dialogue that mentions another number of media than the row has, if it has any.

        Raises:
            SampleError: with both numbers.
        """
        for name, place in self.known.places.items():
            spoken, given_number = int((value[:, 0] == place).sum()), media.get(name, 0)
            if given_number and spoken != given_number:
                raise SampleError(
                    "a dialogue",
                    f"mentions <{name}> {spoken} times, but the row has {given_number} of {name};"
                    f" write <{name}> at the place of each{self._or_prompt}",
                )

    def pad(self, values: Sequence[Tensor | None]) -> Tensor:
        """(B, L, 2), int64, padded with the padding id and -1."""
        length = max((len(v) for v in values if v is not None), default=1)
        padded = torch.tensor([self.known.pad, -1]).expand(len(values), length, 2).clone()
        for row, value in zip(padded, values, strict=True):
            if value is not None:
                row[: len(value)] = value
        return padded

    def references(self, value: Any) -> list[str]:
        """All correct last answers, in the spelling of generated text."""
        dialogue = self._dialogue(value)
        assert dialogue is not None
        return self._spelled(dialogue.answers)

    def _spelled(self, answers: Sequence[str]) -> list[str]:
        ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in answers]
        return [self._write(list(row)) for row in ids]


def _none_of_use(faults: Sequence[SampleError]) -> ConfigError:
    return ConfigError(
        f"no dialogue of the training split can be used, such as {faults[0]}\n"
        "    fix: change the dialogues, data.targets.chat.template or data.targets.chat.max_length"
    )
