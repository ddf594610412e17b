"""What a run learned, as files: those of two attempts are never taken for one, and a damaged one is named."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtrain.data.inputs.text import TextInput
from mmtrain.data.targets.label import ClassLabel
from mmtrain.data.tokenizers.vocabulary import RECORD, read_vocabulary, write_vocabulary
from mmtrain.errors import ConfigError
from tests.data.parts import fitted_label, fitted_text_input, text_input
from tests.data.test_module import make_folder, read

FACTS = {"origin": ["a"], "inputs": ["text"], "targets": ["label"]}


def parts(**changed: Any) -> dict[str, TextInput | ClassLabel]:
    return {"text": fitted_text_input(**changed), "label": fitted_label("ant", "cat")}


def test_the_record_has_the_digest_of_every_file(tmp_path: Path) -> None:
    assert read_vocabulary(tmp_path) is None
    write_vocabulary(tmp_path, parts(), FACTS)
    record = read_vocabulary(tmp_path)
    assert record is not None and record | FACTS == record
    digests = {
        n: hashlib.sha256((tmp_path / n).read_bytes()).hexdigest() for n in ("classes_label.json", "tokenizer.json")
    }
    assert record["files"] == digests
    assert sorted(path.name for path in tmp_path.iterdir()) == [RECORD, "classes_label.json", "tokenizer.json"]


def test_a_record_of_an_earlier_version_is_taken(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, parts(), FACTS)
    (tmp_path / RECORD).write_text(json.dumps(FACTS))
    assert read_vocabulary(tmp_path) == FACTS


# ---------------------------------------------------------------------------- attempts that were killed


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill before the file system takes its `step`th change of a name."""
    left = step
    for name in ("replace", "rename", "unlink"):
        change = getattr(Path, name)

        def counted(self: Path, *args: Any, change: Callable[..., Any] = change, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return change(self, *args, **options)

        monkeypatch.setattr(Path, name, counted)


@pytest.mark.parametrize("step", range(14))
def test_files_of_a_killed_attempt_are_not_taken_for_those_of_another(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt again has its own tokenizer, wherever the second one was killed."""
    root, run = make_folder(tmp_path / "data"), tmp_path / "run"
    first = read(root, run, inputs={"text": text_input(vocab_size=40)})
    assert len(first.inputs["text"].words()) > 25
    with monkeypatch.context() as patched:
        killed_at(step, patched)
        try:
            read(root, run, inputs={"text": text_input(vocab_size=20)})
        except KeyboardInterrupt:
            assert step < 13, "it comes to its end"
    again = read(root, run, inputs={"text": text_input(vocab_size=40)})
    assert again.inputs["text"].words() == first.inputs["text"].words()
    assert read_vocabulary(run) is not None


def test_a_file_of_another_attempt_is_damage(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, parts(), FACTS)
    before = (tmp_path / "tokenizer.json").read_bytes()
    write_vocabulary(tmp_path, parts(vocab_size=20), FACTS)
    (tmp_path / "tokenizer.json").write_bytes(before)
    with pytest.raises(ConfigError, match=r"tokenizer.json is damaged: its SHA-256 is not the one in .vocabulary.json"):
        read_vocabulary(tmp_path)


# ---------------------------------------------------------------------------- damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "one bit": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
}
FILES = ("tokenizer.json", "classes_label.json", RECORD)


@pytest.mark.parametrize("with_digests", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_where_a_checkpoint_depends_on_it(
    name: str, damage: str, with_digests: bool, tmp_path: Path
) -> None:
    if (name, damage) == (RECORD, "deleted"):
        pytest.skip("then it is learned again, and the checkpoint has the names to compare")
    root, run = make_folder(tmp_path / "data"), tmp_path / "run"
    read(root, run)
    if not with_digests:
        record = json.loads((run / RECORD).read_text())
        del record["files"]
        (run / RECORD).write_text(json.dumps(record))
    DAMAGES[damage](run / name)
    with pytest.raises(ConfigError) as caught:
        read(root, run, bound=True)
    assert str(run / name) in str(caught.value) and "\n    fix: restore it, or delete" in str(caught.value)
    with pytest.raises(ConfigError):
        read(root, run, training=False)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_learned_again_while_no_checkpoint_depends_on_it(
    name: str, damage: str, tmp_path: Path
) -> None:
    root, run = make_folder(tmp_path / "data"), tmp_path / "run"
    first = read(root, run)
    before = {name: (run / name).read_bytes() for name in FILES}
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").write_bytes(b"half a checkpoint binds nothing")
    DAMAGES[damage](run / name)
    again = read(root, run)
    assert again.known_targets == first.known_targets
    assert {name: (run / name).read_bytes() for name in FILES} == before
    noted = [note for note in again.notes if "it is learned again" in note]
    assert len(noted) == (0 if (name, damage) == (RECORD, "deleted") else 1)


def test_a_vocabulary_is_read_from_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, run = make_folder(tmp_path / "data"), tmp_path / "run"
    first = read(root, run)
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}

    def refuse(*_: object) -> None:
        raise AssertionError("nothing is locked or written")

    monkeypatch.setattr("mmtrain.data.module.FileLock", refuse)
    assert read(root, run, training=False).known_targets == first.known_targets
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_only_a_checkpoint_that_is_gone_on_from_binds(tmp_path: Path) -> None:
    root, other, run = make_folder(tmp_path / "data"), make_folder(tmp_path / "other"), tmp_path / "run"
    read(root, run)
    rows = [json.loads(line) for line in (other / "train.jsonl").read_text().splitlines()]
    lines = [json.dumps(row | {"label": f"the {row['label']}"}) + "\n" for row in rows]
    (other / "train.jsonl").write_text("".join(lines))
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").write_bytes(b"half a checkpoint binds nothing")
    assert read(other, run, bound=True).known_targets["label"].names == ["ant", "cat", "dog"]
    assert "the cat" in read(other, run).known_targets["label"].names
