"""Talking to a trained model: what it says and judges, what it remembers, what it is shown."""

import io
from pathlib import Path

import pytest

from mmtrain.build import compose
from mmtrain.errors import ConfigError, SampleError
from mmtrain.modes.chat.repl import MODEL, PERSON, ChatSession
from mmtrain.modes.run import run
from tests.runs import run_tiny
from tests.tiny import make_tables

TASKS = (
    *("task=[classification,captioning]", "task.captioning.input=fused", "task.captioning.decoder.depth=1"),
    *("data.columns.dialogue=caption", "data.columns.text=null", "trainer.max_epochs=1", "test.subsets=none"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that reads dialogues and pictures, and a picture."""
    folder = tmp_path_factory.mktemp("talk")
    tables = make_tables(folder / "data")
    assert run_tiny(tables, folder / "run", *TASKS) == 0
    return folder / "run", tables / "images" / "test0.png"


def test_it_answers_judges_and_remembers(place: tuple[Path, Path]) -> None:
    talk = ChatSession(place[0])
    first = talk.reply("a red bar", {"image": str(place[1])})
    assert set(first.sentences) == {"captioning"} and set(first.judged) == {"classification"}
    assert [turn["speaker"] for turn in talk.turns] == [PERSON, MODEL]
    again = talk.reply("a red bar")
    assert len(talk.turns) == 4 and talk.turns[1]["text"] == first.sentences["captioning"]
    assert again.judged != ChatSession(place[0]).reply("a red bar").judged, "the dialogue before counts"
    talk.begin()
    assert talk.reply("a red bar", {"image": str(place[1])}) == first


def test_what_cannot_be_read_was_not_said(place: tuple[Path, Path], tmp_path: Path) -> None:
    talk = ChatSession(place[0])
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(SampleError):
        talk.reply("what is this?", {"image": str(tmp_path / "a.png")})
    assert talk.turns == talk.shown == []


def test_the_terminal(
    place: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        "a red bar",
        f"/image {place[1]}",
        "and this?",
        "/image nowhere.png",
        "/audio x.wav",
        "/what",
        "/new",
        "hi",
        "/quit",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert run(compose(["mode=chat", f"run_dir={place[0]}"])) == 0
    output = capsys.readouterr().out
    assert output.count("captioning: ") == output.count("    classification: ") == 3
    assert "there is no file nowhere.png" in output and "this model reads no audio" in output


def test_a_model_without_words_cannot_be_talked_to(tmp_path: Path) -> None:
    tables = make_tables(tmp_path / "data")
    alone = ("task=[classification]", "task.classification.input=image", "trainer.max_epochs=1")
    assert run_tiny(tables, tmp_path / "run", *alone) == 0
    with pytest.raises(ConfigError, match="reads image but no text"):
        ChatSession(tmp_path / "run")
