"""A cell as a dialogue: turns as in chat models, a question and its answer, or only an answer."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmtrain.data.tables.columns import is_empty
from mmtrain.data.tables.content_parts import PICTURE_IN_WORDS, text_of_part
from mmtrain.data.tables.json_rows import parse_json
from mmtrain.data.tables.texts import check_text, valid_texts
from mmtrain.errors import SampleError

# Role names in data sets, in any case: human and gpt of LLaVA and ShareGPT, model of Gemma, prompter of OASST,
# developer of OpenAI
ROLES: Mapping[str, str] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "developer": "system",
}
_HOLDS = (["turns"], ["answer"], ["question", "answer"])
HOLDS = (*_HOLDS, *([*parts, "kind"] for parts in _HOLDS))
_KEYS = (("role", "from"), ("content", "value"))
Turn = dict[str, str]


class Dialogue(NamedTuple):
    """The content of a cell.

    Attributes:
        turns: each {"role": ..., "content": ...}; the last one is the user's if there is no answer.
        answers: all correct last answers, that of `turns` first.
        kind: "" if the cell has none.
    """

    turns: list[Turn]
    answers: list[str]
    kind: str


def dialogue_of(cell: Any, *, holds: Sequence[str], prompt: str) -> Dialogue | None:
    """The dialogue of a cell; None if it has no question.

    Args:
        cell: of one column, or a list with one cell for each of several columns.
        holds: content of the columns; from `HOLDS`, in any order.
        prompt: the user's turn for a cell without turns; {question} is the question of the cell.

    Raises:
        SampleError: if it is not such a cell.
    """
    parts = _parts(cell, holds)
    kind = "" if is_empty(parts.get("kind")) else str(parts["kind"])
    if "turns" in holds:
        if is_empty(parts["turns"]):
            return None
        turns = [_turn(turn) for turn in _listed(parts["turns"])]
        if not any(turn["role"] == "user" for turn in turns):
            raise SampleError("a dialogue", "has no turn of a user")
        return Dialogue(turns, [turns[-1]["content"]] if turns[-1]["role"] == "assistant" else [], kind)
    if "question" in holds and is_empty(parts["question"]):
        return None
    question = str(parts["question"]) if "question" in holds else ""
    check_text(question + kind)
    answers = [] if is_empty(parts["answer"]) else valid_texts(parts["answer"])
    user_turn = {"role": "user", "content": prompt.replace("{question}", question)}
    return Dialogue([user_turn, *({"role": "assistant", "content": a} for a in answers[:1])], answers, kind)


def places_in(turns: Sequence[Turn], names: Sequence[str]) -> list[str]:
    """The modalities of the mentioned media, in order.

    >>> places_in([{"role": "user", "content": "<image> and <image>: <b>which?</b>"}], ["image", "audio"])
    ['image', 'image']
    """
    pattern = re.compile("|".join(re.escape(f"<{name}>") for name in names))
    return [mark[1:-1] for turn in turns for mark in pattern.findall(turn["content"])] if names else []


def _parts(cell: Any, holds: Sequence[str]) -> dict[str, Any]:
    if len(holds) == 1:
        return {holds[0]: cell}
    if not isinstance(cell, list | tuple) or len(cell) != len(holds):
        raise SampleError(
            str(cell)[:40], f"is not {', '.join(holds)}; name as many columns, such as [{','.join(holds)}]"
        )
    return dict(zip(holds, cell, strict=True))


def _listed(turns: Any) -> list[Any]:
    if isinstance(turns, str):
        try:
            turns = parse_json(turns)
        except ValueError as error:
            raise SampleError(turns[:40], f"is no list of turns: {error}; write it as JSON") from error
    if not isinstance(turns, list | tuple):
        raise SampleError(str(turns)[:40], 'is no list of turns, such as [{"role": "user", "content": "..."}]')
    return list(turns)


def _turn(turn: Any) -> Turn:
    if not isinstance(turn, Mapping):
        raise SampleError(str(turn)[:40], 'is no turn; write {"role": "user", "content": "..."}')
    # a key can be present and null, because tables give every turn the keys of all turns
    role, content = (turn[new] if turn.get(new) is not None else turn.get(old) for new, old in _KEYS)
    known = ROLES.get(role.strip().lower()) if isinstance(role, str) else None
    if known is None:
        raise SampleError(f"role {role!r}", f"is none of {', '.join(ROLES)}")
    if isinstance(content, list | tuple):
        content = "".join(text_of_part(part) for part in content)
    if not isinstance(content, str):
        raise SampleError(f"a turn of the {known}", f"has no content, but {content!r}")
    content = PICTURE_IN_WORDS.sub("<image>", content)
    check_text(content)
    return {"role": known, "content": content}
