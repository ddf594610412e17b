"""Dialogues: what cells can be, which tokens answer, what is refused, what is kept in the run folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmtrain.data.decoding.dialogue import dialogue_of
from mmtrain.data.targets.chat import ChatTarget
from mmtrain.errors import ConfigError, SampleError

TURNS = [
    {"role": "user", "content": "<image>what is this?"},
    {"role": "assistant", "content": "a red square"},
    {"role": "user", "content": "and this, <image>?"},
    {"role": "assistant", "content": "a blue bar"},
]
CHATML = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "\n\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def make_target(column_roles: list[str] | None = None, **options: Any) -> ChatTarget:
    plain = {"prompt": "<image>{question}", "tokenizer": None, "template": None, "vocab_size": 320, "max_length": 256}
    plain |= {"keep_references": False}
    return ChatTarget(
        column_roles=column_roles or ["turns"], **{**plain, "placeholders": ["image", "audio"], **options}
    )


def fitted(cells: list[Any], column_roles: list[str] | None = None, **options: Any) -> ChatTarget:
    target = make_target(column_roles, **options)
    target.fit(cells, Path())
    return target


def text_of(target: ChatTarget, value: Any, *, answers: bool) -> str:
    ids = [i for i, flag in value.tolist() if (flag > 0) == answers]
    return str(target.tokenizer.decode(ids))


def test_answers_are_told_from_what_is_asked() -> None:
    target = fitted([TURNS])
    value = target.load(TURNS)
    assert value is not None and value.dtype == torch.int64
    assert text_of(target, value, answers=True) == " a red square</s> a blue bar</s>"
    requested = "user: <image>what is this?\nassistant:\nuser: and this, <image>?\nassistant:"
    assert text_of(target, value, answers=False) == requested
    assert (value[:, 0] == target.known.places["image"]).sum() == 2
    assert value[-1].tolist() == [target.known.end, 1]
    assert target.references(TURNS) == ["a blue bar"]
    assert target.known.used == {"image"}


def test_a_template_of_ones_own() -> None:
    target = fitted([TURNS], template=CHATML)
    value = target.load(TURNS)
    assert text_of(target, value, answers=True) == "a red square</s>a blue bar</s>"


def test_an_unanswered_dialogue_ends_where_the_answer_starts() -> None:
    target = fitted([TURNS])
    value, full = target.load(TURNS[:3]), target.load(TURNS)
    assert value is not None and full is not None
    torch.testing.assert_close(value, full[: len(value)])
    assert full[len(value) :, 1].tolist() == [1] * (len(full) - len(value))


@pytest.mark.parametrize(
    "cell",
    [
        json.dumps(TURNS),
        [{"from": "human", "value": t["content"]} if t["role"] == "user" else {"from": "gpt", "value": t["content"]}
         for t in TURNS],
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is this?"}]}, *TURNS[1:]],
    ],
    ids=["json", "llava", "parts"],
)  # fmt: skip
def test_other_spellings_of_turns(cell: Any) -> None:
    result = dialogue_of(cell, holds=["turns"], prompt="")
    assert result is not None and result.turns == TURNS


@pytest.mark.parametrize(
    ("role", "meant"),
    [("User", "user"), ("HUMAN", "user"), (" prompter ", "user"), ("GPT", "assistant"), ("bot", "assistant"),
     ("Model", "assistant"), ("AI", "assistant"), ("System", "system")],
)  # fmt: skip
def test_roles_have_many_names(role: str, meant: str) -> None:
    result = dialogue_of([{"role": role, "content": "a"}, TURNS[0]], holds=["turns"], prompt="")
    assert result is not None and result.turns[0]["role"] == meant


def test_a_key_that_is_null_is_not_there() -> None:
    llava = [{"role": None, "content": None, "from": "human", "value": "what?"}]
    result = dialogue_of(llava, holds=["turns"], prompt="")
    assert result is not None and result.turns == [{"role": "user", "content": "what?"}]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "a.png"},
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "image_url", "image_url": "a.png", "text": None},
        {"type": "input_image", "image_url": "a.png"},
        {"type": "image", "url": "file://a.png"},
        {"type": "image", "path": "a.png"},
        {"image": "a.png"},
        {"image": "a.png", "text": None},
        {"type": "image"},
    ],
)
def test_parts_of_a_content_are_places_of_media(part: dict[str, Any]) -> None:
    cell = [{"role": "user", "content": [part, {"type": "input_text", "text": "what is "}, "this?"]}, *TURNS[1:]]
    result = dialogue_of(cell, holds=["turns"], prompt="")
    assert result is not None and result.turns == TURNS


STRICT = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "[{{ m.content }}]{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


def test_what_the_assistant_says_before_it_is_asked_is_read_and_not_learned() -> None:
    greeting = {"role": "assistant", "content": "hello"}
    for before in ([greeting], [{"role": "system", "content": "be kind"}, greeting], [greeting, greeting]):
        target = fitted([[*before, *TURNS]])
        value = target.load([*before, *TURNS])
        assert text_of(target, value, answers=True) == " a red square</s> a blue bar</s>"
        assert "assistant: hello</s>\nuser: <image>what is this?" in text_of(target, value, answers=False)
    target = fitted([[greeting, *TURNS], TURNS], template=STRICT)
    with pytest.raises(SampleError, match="rejects the turns assistant, user: Conversation roles must alternate"):
        target.load([greeting, *TURNS])
    with pytest.raises(SampleError, match="rejects the turns user, user: Conversation"):
        target.load([TURNS[0], *TURNS[:2]])
    assert target.load(TURNS) is not None


def test_if_no_dialogue_can_be_read_the_first_reason_is_given() -> None:
    wrong = [{"role": "robot", "content": "a"}, TURNS[1]]
    with pytest.raises(ConfigError, match=r"no dialogue .* can be used, such as role 'robot': is none of system, user"):
        fitted([None, wrong, [TURNS[1]]])
    assert fitted([None, []]).known.names == []
    assert fitted([wrong, TURNS]).known.names != []


@pytest.mark.parametrize("first", ["<image>" + "look carefully " * 120, "ok"])
def test_the_first_dialogue_is_like_any_other(first: str) -> None:
    answer = "red" if first != "ok" else "red <image>"
    bad = [{"role": "user", "content": first}, {"role": "assistant", "content": answer}]
    target = fitted([bad, TURNS], max_length=64)
    assert target.load(TURNS) is not None
    with pytest.raises(SampleError, match=r"asks in|cannot be generated"):
        target.load(bad)


def test_the_prompt_is_named_only_where_it_is_used() -> None:
    pair = fitted([["what?", "a"]], ["question", "answer"], prompt="{question}")
    with pytest.raises(SampleError, match=r"write <image> at the place of each, or set data\.targets\.chat\.prompt"):
        pair.check_media(pair.load(["what?", "a"]), {"image": 1})  # type: ignore[arg-type]
    target = fitted([TURNS])
    with pytest.raises(SampleError, match=r"write <image> at the place of each$"):
        target.check_media(target.load(TURNS), {"image": 1})  # type: ignore[arg-type]


def test_a_question_and_answers_and_an_answer_alone() -> None:
    pair = fitted([["what?", ["a", "an a"]]], ["question", "answer"])
    assert text_of(pair, pair.load(["what?", ["a", "an a"]]), answers=False) == "user: <image>what?\nassistant:"
    assert pair.references(["what?", ["a", "an a"]]) == ["a", "an a"]
    assert pair.load([None, "a"]) is None
    unanswered = pair.load(["what?", None])
    assert unanswered is not None and unanswered[:, 1].tolist() == [0] * len(unanswered)
    caption = fitted(["a bar", None], ["answer"])
    assert text_of(caption, caption.load(None), answers=False) == "user: <image>\nassistant:"
    assert fitted([None, ["what?", None]], ["question", "answer"]).known.names == []


def test_kinds_are_numbered() -> None:
    target = fitted([["a", "caption"], ["b", "group"], ["c", None]], ["answer", "kind"])
    assert target.known.kinds == ["", "caption", "group"]
    assert target.load(["b", "group"])[-1, 1] == 3  # type: ignore[index]
    with pytest.raises(ConfigError, match="the dialogues have 21 kinds"):
        fitted([["a", str(i)] for i in range(21)], ["answer", "kind"])


def test_padding_and_long_answers() -> None:
    target = fitted([TURNS], max_length=60)
    long = [TURNS[0], {"role": "assistant", "content": "red " * 60}]
    values = [target.load(long), None, target.load(TURNS[:2])]
    padded = target.pad(values)
    assert padded.shape == (3, 60, 2)
    assert padded[1].tolist() == [[target.known.pad, -1]] * 60
    assert len(values[0]) == 60 and padded[0, -1, 1] == 1  # type: ignore[arg-type]
    with pytest.raises(SampleError, match=r"asks in \d+ tokens, but max_length = 60"):
        target.load([{"role": "user", "content": "why " * 99}])


def test_media_are_counted() -> None:
    target = fitted([TURNS])
    value = target.load(TURNS)
    assert value is not None
    target.check_media(value, {"image": 2})
    target.check_media(value, {})  # a row may have no such medium
    for there in (1, 3):
        with pytest.raises(
            SampleError, match=f"mentions <image> 2 times, but the row has {there} of image; write <image>"
        ):
            target.check_media(value, {"image": there})


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("[1", "no list of turns"),
        ([1], "is no turn"),
        ([{"role": "robot", "content": "a"}], "none of system, user"),
        ([{"role": "user", "content": None}], "has no content"),
        ([TURNS[1]], "no turn of a user"),
        ([TURNS[0], {"role": "assistant", "content": "<image>"}], "cannot be generated"),
    ],
)
def test_what_is_no_dialogue_is_set_aside(cell: Any, message: str) -> None:
    with pytest.raises(SampleError, match=message):
        fitted([TURNS]).load(cell)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"column_roles": ["answer", "turns"]},
            r"column_roles = \[answer, turns\] is no dialogue; set it to \[turns\]",
        ),
        ({"vocab_size": 200}, "vocab_size = 200 is too small"),
        ({"max_length": 3}, "max_length = 3"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_target(**options)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ messages[0].content }}{{ eos_token if add_generation_prompt else '' }}",
            "renders earlier turns differently",
        ),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "does not end an answer with"),
        ("{{ raise_exception('no') }}", "rejects the turns"),
    ],
)
def test_a_template_that_hides_answers_is_refused(template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fitted([TURNS], template=template)


PICKY = (
    "{% for m in messages %}{% if m.content == 'why?' %}{{ raise_exception('no why') }}{% endif %}"
    "{% if m.content == 'odd' %}{{ m.content + 1 }}{% endif %}"
    "{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


def asked(content: Any, role: Any = "user") -> list[dict[str, Any]]:
    return [{"role": role, "content": content}, {"role": "assistant", "content": "yes"}]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ('[{"role": "user", "content": "half \\ud83d"}, {"role": "assistant", "content": "b"}]', "half of a surrogate"),
        (asked("half \ud83d"), "half of a surrogate pair at character 5"),
        ("[" * 200_000, "nested more than 100 deep"),
        (asked("a", role=[1]), "is none of system, user"),
        (asked("a", role={}), "is none of system, user"),
        (asked([{"type": ["image"]}]), "is no part of a content"),
        (asked("why?"), "the chat template rejects the turns user: no why"),
        (asked("why " * 300), "asks in"),
    ],
)
def test_one_bad_dialogue_among_good_ones_is_set_aside(cell: Any, message: str) -> None:
    good = asked("what?")
    target, plain = fitted([cell, good, cell], template=PICKY), fitted([good], template=PICKY)
    with pytest.raises(SampleError, match=message):
        target.load(cell)
    assert torch.equal(target.load(good), plain.load(good)) or "asks" in message  # type: ignore[arg-type]


def test_a_template_may_raise_whatever_it_likes() -> None:
    target = fitted([asked("odd"), asked("what?")], template=PICKY)
    with pytest.raises(TypeError):  # which becomes a SampleError where samples are made
        target.load(asked("odd"))
    with pytest.raises(
        ConfigError, match=r"no dialogue of the training split can be used, such as .*TypeError.*\n    fix: change"
    ):
        fitted([asked("odd")], template=PICKY)


def test_the_run_folder_keeps_it_and_a_language_models_is_taken(tmp_path: Path) -> None:
    target = fitted([TURNS])
    target.save(tmp_path, "chat")
    again = make_target()
    again.restore(tmp_path, "chat")
    torch.testing.assert_close(again.load(TURNS), target.load(TURNS))
    assert again.known.names == target.known.names and again.known.used == target.known.used
    other = fitted([TURNS], tokenizer=str(tmp_path / "tokenizer_target_chat"), placeholders=["image", "audio", "video"])
    assert other.known.names == [*target.known.names, "<video>"]
    assert other.known.write([*other.tokenizer(" ein Ei").input_ids, other.known.end, 5]) == "ein Ei"
    with pytest.raises(ConfigError, match="cannot be loaded"):
        fitted([TURNS], tokenizer=str(tmp_path / "none"))
