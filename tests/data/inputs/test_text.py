"""Texts as token ids: trained on captions or with pretrained weights, kept in a folder, the same in every process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmtrain.data.inputs.image import key_of
from mmtrain.data.inputs.text import TextInput
from mmtrain.data.survey.lengths import measure_lengths
from mmtrain.data.tables.texts import texts_of
from mmtrain.errors import ConfigError
from mmtrain.io.atomic import replacing_files
from tests.data.parts import NAMES, fitted_text_input, text_input

ALGORITHMS = pytest.mark.parametrize("algorithm", ["bpe", "wordpiece"])
PAD, UNK, CLS, SEP = 0, 1, 2, 3
# 400 characters, so that the vocabulary must leave some out, many of them equally frequent
RARE = ["".join(chr(0x4E00 + (7 * n * n + k) % 400) for k in range(5)) for n in range(120)]

CHILD = """
import sys
from pathlib import Path
from tests.data.parts import NAMES, text_input
from tests.data.inputs.test_text import RARE
for algorithm in ("bpe", "wordpiece"):
    reader = text_input(algorithm=algorithm)
    reader.fit([*NAMES, *RARE], Path())
    Path(sys.argv[1], algorithm).mkdir()
    reader.save(Path(sys.argv[1], algorithm), "text")
"""

MINILM = Path(os.environ.get("MMTRAIN_CACHE", "~/.cache/mmtrain")).expanduser() / "weights" / "minilm_l6"
MARKS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def ids(reader: TextInput, text: str) -> list[int]:
    return reader.load(text, Path(), seed=0, train=False)[0].tolist()


def tokens(reader: TextInput, text: str) -> list[str]:
    return [reader.tokenizer.id_to_token(i) for i in ids(reader, text)]


@ALGORITHMS
def test_a_text_stands_between_its_two_marks(algorithm: str) -> None:
    reader = fitted_text_input(algorithm=algorithm)
    result, key = reader.load("a red cat", Path(), seed=0, train=False)
    assert result.dtype == torch.int64 and result.ndim == 1
    assert result[0] == CLS and result[-1] == SEP and key == key_of("a red cat")
    assert "".join(tokens(reader, "red")[1:-1]).replace("##", "") == "red"
    assert UNK not in result.tolist() and PAD not in result.tolist()


@ALGORITHMS
def test_what_was_saved_gives_the_same_ids(tmp_path: Path, algorithm: str) -> None:
    reader = fitted_text_input(algorithm=algorithm)
    reader.save(tmp_path, "text")
    again = text_input(algorithm=algorithm)
    again.restore(tmp_path, "text")
    for text in [*NAMES, "GREEN sheep!", "éàü 猫", "x " * 40, "[MASK]"]:
        assert ids(again, text) == ids(reader, text), text


@ALGORITHMS
def test_a_long_text_is_cut_and_keeps_its_end(algorithm: str) -> None:
    reader = fitted_text_input(algorithm=algorithm, max_length=6)
    result = ids(reader, "a red cat and a green dog and two blue birds")
    assert len(result) == 6 and result[0] == CLS and result[-1] == SEP
    assert result[1:5] == ids(fitted_text_input(algorithm=algorithm, max_length=90), "a red cat and a green dog")[1:5]
    assert len(ids(fitted_text_input(algorithm=algorithm, max_length=3), "a red cat")) == 3


@ALGORITHMS
def test_unknown_characters_are_unknown_and_known_ones_stay(algorithm: str) -> None:
    reader = fitted_text_input(algorithm=algorithm)
    assert ids(reader, "猫") == [CLS, UNK, SEP]
    assert tokens(reader, "red 猫 cat")[1:-1].count("[UNK]") == 1


def test_case_is_folded_only_when_asked() -> None:
    folded, kept = fitted_text_input(lowercase=True), fitted_text_input(lowercase=False)
    assert ids(folded, "A RED Cat") == ids(folded, "a red cat")
    assert ids(kept, "A RED Cat") != ids(kept, "a red cat") and UNK in ids(kept, "RED")


def test_compatible_characters_are_one() -> None:
    reader = fitted_text_input()
    assert ids(reader, "ｒｅｄ ﬁsh") == ids(reader, "red fish")


@ALGORITHMS
@pytest.mark.parametrize("vocab_size", [20, 60, 100])
def test_the_vocabulary_is_never_larger_than_asked(algorithm: str, vocab_size: int) -> None:
    reader = text_input(algorithm=algorithm, vocab_size=vocab_size)
    reader.fit([*NAMES, *RARE], Path())
    assert reader.tokenizer.get_vocab_size() <= vocab_size
    assert max(i for text in [*NAMES, *RARE] for i in ids(reader, text)) < vocab_size


def test_another_process_trains_the_same_tokenizers(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], cwd=root, check=True, timeout=120)
    for algorithm in ("bpe", "wordpiece"):
        reader = text_input(algorithm=algorithm)
        reader.fit([*NAMES, *RARE], Path())
        reader.save(tmp_path, "text")
        assert (tmp_path / "tokenizer.json").read_bytes() == (tmp_path / algorithm / "tokenizer.json").read_bytes()


def test_padding_is_as_long_as_the_longest_and_masked() -> None:
    reader = fitted_text_input()
    results = [torch.tensor([CLS, 9, SEP]), None, torch.tensor([CLS, 8, 9, 9, SEP])]
    values, mask = reader.pad(results)
    assert mask is not None
    assert values.tolist() == [[CLS, 9, SEP, PAD, PAD], [PAD] * 5, [CLS, 8, 9, 9, SEP]]
    assert mask.tolist() == [[True] * 3 + [False] * 2, [False] * 5, [True] * 5]
    assert reader.pad([None, None]).values.shape == (2, 1)


def test_training_takes_one_of_several_and_evaluation_the_first() -> None:
    reader = fitted_text_input()
    several = ["a red cat", " ", "a green dog"]
    assert {reader.load(several, Path(), seed=seed, train=True)[1] for seed in range(30)} == {
        key_of("a red cat"),
        key_of("a green dog"),
    }
    assert {reader.load(several, Path(), seed=seed, train=False)[1] for seed in range(30)} == {key_of("a red cat")}
    assert reader.load(several, Path(), seed=4, train=True)[1] == reader.load(several, Path(), seed=4, train=True)[1]


def test_words_are_hidden_in_training_only_and_by_the_seed_alone() -> None:
    reader = fitted_text_input(word_dropout=0.5, max_length=60)
    full = reader.load(NAMES[2], Path(), seed=0, train=False)[0]
    drawn = [reader.load(NAMES[2], Path(), seed=seed, train=True)[0] for seed in range(200)]
    assert all(len(d) == len(full) and d[0] == CLS and d[-1] == SEP for d in drawn)
    hidden = torch.stack(drawn) != full
    assert set(torch.stack(drawn)[hidden].tolist()) == {UNK}
    assert 0.4 < hidden[:, 1:-1].float().mean() < 0.6
    assert torch.equal(reader.load(NAMES[2], Path(), seed=9, train=True)[0], drawn[9])
    assert torch.equal(reader.load(NAMES[2], Path(), seed=9, train=False)[0], full)


def test_texts_of_a_cell() -> None:
    assert texts_of(None) == texts_of("") == texts_of(" \n") == texts_of([]) == texts_of([None, " "]) == []
    assert texts_of("a") == texts_of(["a"]) == texts_of(["", "a", None]) == ["a"]
    assert texts_of(7) == ["7"] and texts_of([1, "b"]) == ["1", "b"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"algorithm": "unigram"}, "algorithm = unigram; set it to bpe or wordpiece"),
        ({"vocab_size": 5}, "vocab_size = 5 leaves no room"),
        ({"max_length": 2}, "max_length = 2 leaves no room"),
        ({"word_dropout": 1.0}, "word_dropout = 1.0 is not a chance below 1"),
    ],
)
def test_knobs_that_cannot_work_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        text_input(**changed)


def write_tokenizer(folder: Path, marks: dict[str, str] = MARKS) -> Path:
    """A WordPiece tokenizer of the library with these marks."""
    from transformers import PreTrainedTokenizerFast

    inside = fitted_text_input(algorithm="wordpiece", vocab_size=70).tokenizer
    inside.enable_padding(length=8)  # as published files have it
    PreTrainedTokenizerFast(tokenizer_object=inside, **marks).save_pretrained(folder)
    return folder


def of_weights(folder: Path, **changed: object) -> TextInput:
    reader = text_input(tokenizer=str(folder), **changed)
    reader.fit([], Path())
    return reader


def assert_ids_of_the_library(reader: TextInput, folder: Path, texts: list[str]) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    for text in texts:
        assert ids(reader, text) == theirs(text, truncation=True, max_length=reader.max_length)["input_ids"], text


def test_a_tokenizer_of_weights_replaces_the_trained_one(tmp_path: Path) -> None:
    reader = of_weights(write_tokenizer(tmp_path), vocab_size=9, algorithm="bpe", lowercase=False)
    assert_ids_of_the_library(reader, tmp_path, [*NAMES, "A RED Cat", "猫", "x " * 40])
    assert reader.vocab_size == len(reader.words()) == 70 and reader.words()[:2] == ["[PAD]", "[UNK]"]
    assert len(ids(reader, "x " * 40)) == 10


@pytest.mark.skipif(not MINILM.is_dir(), reason="python scripts/fetch_weights.py brings it")
def test_published_tokenizers_give_the_librarys_ids() -> None:
    reader = of_weights(MINILM, max_length=12)
    assert_ids_of_the_library(reader, MINILM, [*NAMES, "Skateboarder jumping over stairs; éàü 猫 " * 3])
    assert reader.vocab_size == len(reader.words()) == 30522


@pytest.mark.parametrize(("name", "place"), [("text", "tokenizer"), ("title", "tokenizer_title")])
def test_the_run_folder_keeps_a_tokenizer_of_weights(tmp_path: Path, name: str, place: str) -> None:
    weights, run = write_tokenizer(tmp_path / "weights"), tmp_path / "run"
    reader = of_weights(weights)
    (run / place).mkdir(parents=True)
    (run / place / "vocab.txt").write_text("of an attempt before")
    with replacing_files(run) as part:
        reader.save(part, name)
    shutil.rmtree(weights)
    assert [path.name for path in run.iterdir()] == [place] and not (run / place / "vocab.txt").exists()
    again = text_input(tokenizer=str(weights))
    before = again.fingerprint
    again.restore(run, name)
    assert again.vocab_size == 70 and again.fingerprint == before == reader.fingerprint
    for text in [*NAMES, "GREEN sheep!", "猫", "x " * 40]:
        assert ids(again, text) == ids(reader, text), text


def test_padding_is_the_tokenizers_own(tmp_path: Path) -> None:
    values, mask = of_weights(write_tokenizer(tmp_path, MARKS | {"pad_token": "[MASK]"})).pad([torch.tensor([5]), None])
    assert values.tolist() == [[5], [4]] and mask is not None and mask.tolist() == [[True], [False]]
    without = {key: mark for key, mark in MARKS.items() if key != "pad_token"}
    assert of_weights(write_tokenizer(tmp_path / "b", without)).pad([None]).values.tolist() == [[0]]


@pytest.mark.parametrize(("unknown", "hidden"), [("[UNK]", UNK), ("[SEP]", 4)])
def test_a_hidden_word_is_the_unknown_token_or_the_mask(tmp_path: Path, unknown: str, hidden: int) -> None:
    """An unknown token that also ends the text, as CLIP's, says something else."""
    reader = of_weights(write_tokenizer(tmp_path, MARKS | {"unk_token": unknown}), word_dropout=0.6, max_length=60)
    full = reader.load(NAMES[2], Path(), seed=0, train=False)[0]
    drawn = torch.stack([reader.load(NAMES[2], Path(), seed=seed, train=True)[0] for seed in range(60)])
    assert set(drawn[drawn != full].tolist()) == {hidden}
    assert (drawn[:, 0] == CLS).all() and (drawn[:, -1] == SEP).all()


def test_word_dropout_without_a_token_for_it_is_refused(tmp_path: Path) -> None:
    marks = {key: mark for key, mark in MARKS.items() if key not in ("unk_token", "mask_token")}
    write_tokenizer(tmp_path, marks)
    assert of_weights(tmp_path).unknown is None
    with pytest.raises(
        ConfigError, match=r"word_dropout = 0.3, but tokenizer = (.|\n)*set data.inputs.text.word_dropout"
    ):
        of_weights(tmp_path, word_dropout=0.3)


def test_auto_without_weights_trains_one() -> None:
    one, other = text_input(tokenizer="auto"), fitted_text_input(tokenizer=None)
    one.fit(NAMES, Path())
    assert one.fingerprint == other.fingerprint and one.tokenizer.to_str() == other.tokenizer.to_str()


def test_lengths_are_counted_with_a_tokenizer_of_weights(tmp_path: Path) -> None:
    reader = of_weights(write_tokenizer(tmp_path), max_length=4)
    count = len(ids(of_weights(tmp_path, max_length=90), "red red red"))
    [result] = measure_lengths(reader, [(0, "red red red"), (1, "猫")], Path()).lengths
    assert (result.low, result.high) == ("3", str(count)) and count > 4
    unknown = f"{1 / (count - 2 + 1):.1%} of the tokens are unknown"
    assert result.note == f"1 of 2 are cut to max_length = 4; {unknown}"


def test_what_is_no_tokenizer_is_refused_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_text("{}")
    for name, said in (
        (tmp_path / "gone", "cannot be loaded"),
        (tmp_path / "broken", "cannot be loaded"),
        (tmp_path, "has no words"),
        (Path("no/such-model"), "cannot be loaded: We couldn't connect"),
    ):
        with pytest.raises(
            ConfigError, match=rf"tokenizer = {name} {said}(.|\n)*set data.inputs.text.tokenizer to a folder"
        ):
            of_weights(name)


def test_a_tokenizer_that_brings_code_is_refused_and_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody_answers(*said: object) -> str:
        raise AssertionError("a user was prompted")

    monkeypatch.setattr("builtins.input", nobody_answers)
    folder = write_tokenizer(tmp_path)
    (folder / "theirs.py").write_text("from pathlib import Path\nPath(__file__).with_name('proof').touch()\n")
    said = {"tokenizer_class": "Theirs", "auto_map": {"AutoTokenizer": [None, "theirs.Theirs"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    with pytest.raises(ConfigError, match="it brings code of its own"):
        of_weights(folder)
    assert not (folder / "proof").exists()


def test_transformers_is_imported_for_a_tokenizer_of_weights_only() -> None:
    fit = "import sys; from tests.data.parts import fitted_text_input; fitted_text_input()"
    code = f"{fit}; print('transformers' in sys.modules)"
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=True, timeout=120, capture_output=True, text=True
    )
    assert done.stdout == "False\n"
