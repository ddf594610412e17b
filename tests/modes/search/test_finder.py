"""Index and search: what comes first, from the command and from Python, and the messages of failures."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from mmtrain.build import compose
from mmtrain.data.tables.paths import UnconfinedFolder
from mmtrain.errors import ConfigError
from mmtrain.modes.search.finder import Finder, kind_of_file
from mmtrain.modes.search.index import CHUNK, Row, SearchIndex, first_of_each
from mmtrain.modes.search.zero_shot import class_vectors, figures, probabilities
from tests.data.decoding.test_image_file import EPS
from tests.runs import run_tiny
from tests.tiny import ROWS, make_tables

ONE_TASK = ["task=[contrastive]", "trainer.max_epochs=1"]


def index_in(folder: Path) -> list[str]:
    """What is typed to write an index."""
    return ["mode=predict", f"predict.index={folder}"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tmp_path_factory.mktemp("finder") / "data")


@pytest.fixture(scope="module")
def done(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained and indexed."""
    folder = tmp_path_factory.mktemp("finder") / "run"
    assert run_tiny(tables, folder, *ONE_TASK) == 0
    assert run_tiny(tables, folder, *ONE_TASK, *index_in(folder / "index")) == 0
    return folder


def index_of(vectors: torch.Tensor) -> SearchIndex:
    rows = [Row(str(n), "test", None, {}) for n in range(len(vectors))]
    owners = torch.arange(len(vectors))
    return SearchIndex({"image": vectors}, {"image": owners}, rows, Path(), "w", 3)


def test_chunks_of_a_long_index_change_nothing() -> None:
    torch.manual_seed(0)
    vectors = F.normalize(torch.randn(2 * CHUNK + 7, 3), dim=1)
    queries = F.normalize(torch.randn(4, 3), dim=1)
    result = index_of(vectors).nearest(queries, "image", 6)
    expected = (queries @ vectors.T).topk(6)
    assert [one.rows for one in result] == expected.indices.tolist()
    assert [one.scores for one in result] == [pytest.approx(scores) for scores in expected.values.tolist()]


def test_of_equals_the_first_comes_and_a_short_index_gives_what_it_has() -> None:
    (result,) = index_of(torch.ones(3, 1)).nearest(torch.ones(1, 1), "image", 5)
    assert result.rows == [0, 1, 2]
    assert first_of_each([4, 4, 2, 4, 2]) == [0, 2]


def test_an_index_says_what_it_is_of(done: Path, tables: Path) -> None:
    folder = done / "index"
    index = SearchIndex.read(folder)
    rows = [json.loads(line) for split in ROWS for line in (tables / f"{split}.jsonl").read_text().splitlines()]
    assert [row.id for row in index.rows] == [row["id"] for row in rows]
    assert [row.files.get("image") for row in index.rows] == [row["image"] for row in rows]
    captions = list(dict.fromkeys(row["caption"] for row in rows if row["caption"]))
    assert [index.rows[owner].text for owner in index.owners["text"].tolist()] == captions  # each once
    assert len(index.vectors["image"]) == sum(row["image"] is not None for row in rows)
    assert index.folder == tables.resolve()
    for vectors in index.vectors.values():
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))


def test_what_is_indexed_finds_itself(done: Path) -> None:
    finder = Finder.load(done, index=done / "index")
    assert finder.index is not None
    first = finder.index.rows[0]
    (picture, *_) = finder.find(image=finder.index.folder / first.files["image"], within="image", k=3)
    assert (picture.id, picture.score) == (first.id, pytest.approx(1.0, abs=1e-5))
    assert picture.file is not None and picture.file.is_file()
    (caption, *others) = finder.find(text="a red square", within="text", k=3)
    assert (caption.text, caption.score) == ("a red square", pytest.approx(1.0, abs=1e-5))
    assert [one.score for one in others] == sorted((one.score for one in others), reverse=True)
    assert {one.modality for one in finder.find(text="a red square")} == {"image"}
    assert {one.modality for one in finder.find(image=Image.new("RGB", (20, 20), "red"))} == {"text"}


def test_the_data_need_not_be_there_any_more(done: Path, tables: Path) -> None:
    moved = tables.with_name("moved")
    tables.rename(moved)
    try:
        assert len(Finder.load(done, index=done / "index").find(text="a gold bar", k=4)) == 4
    finally:
        moved.rename(tables)


def test_the_command_finds_and_draws(done: Path, tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tables / "images" / "test0.png"
    nameless = done / "picture"  # found by its content
    shutil.copy(picture, nameless)
    queries = f'search.query=["a red bar","{nameless}"]'
    assert run_tiny(tables, done, *ONE_TASK, "mode=search", queries, "search.k=2") == 0
    output = capsys.readouterr().out
    assert "text: a red bar" in output and "similarity" in output
    with Image.open(done / "found.png") as sheet:
        assert sheet.width > 300 and sheet.height > 300
    results = [json.loads(line) for line in (done / "found.jsonl").read_text().splitlines()]
    assert [len(one["found"]) for one in results] == [2, 2]
    assert [one["found"][0]["modality"] for one in results] == ["image", "text"]


def test_a_folder_of_pictures_is_indexed(done: Path, tables: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(tables / "images", pictures / "deep")
    (pictures / ".hidden.png").write_bytes(b"")
    (pictures / "notes.txt").write_text("no picture")
    shown = index_in(tmp_path / "index")
    assert run_tiny(tables, done, *ONE_TASK, "data=pictures", f"data.root={pictures}", *shown) == 0
    finder = Finder.load(done, index=tmp_path / "index")
    assert finder.index is not None and set(finder.index.vectors) == {"image"}
    (result,) = finder.find(image=pictures / "deep" / "val3.png", within="image", k=1)
    assert result.id == "deep/val3.png"


def refusal(tables: Path, folder: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    assert run_tiny(tables, folder, *ONE_TASK, *overrides) == 2
    return capsys.readouterr().err


def test_a_query_that_cannot_be_asked_with_is_refused(
    done: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    for query, said in (
        (str(tmp_path / "none.png"), "the file does not exist"),
        (str(broken), "neither a readable image nor a readable sound"),
        (" ", "search.query: blank"),
    ):
        assert said in refusal(tables, done, capsys, "mode=search", f'search.query="{query}"')
    assert "search.within=audio: the index has only image, text" in refusal(
        tables, done, capsys, "mode=search", "search.query=dog", "search.within=audio"
    )
    with pytest.raises(ConfigError, match="has no audio; its contrastive task has image, text"):
        Finder.load(done, index=done / "index").find(audio=torch.zeros(16000))
    with pytest.raises(ConfigError, match="find needs one of text, image and audio, but got text, image"):
        Finder.load(done, index=done / "index").find(text="a", image="b.png")
    with pytest.raises(ConfigError, match=r"search\.query=nowhere\.png: "):
        Finder.load(done, index=done / "index").find(image="nowhere.png")


def test_a_file_that_lacks_what_is_asked_with_is_refused(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a silent film has no sound."""
    finder = Finder.load(done, index=done / "index")
    monkeypatch.setattr(finder.towers.readers["image"], "load", lambda *args, **options: None)
    with pytest.raises(ConfigError, match=r"film\.mp4: contains no image"):
        finder.find(image="film.mp4")


def test_an_index_of_other_weights_or_that_is_damaged_is_refused(
    done: Path, tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "run"
    assert run_tiny(tables, other, *ONE_TASK, "seed=5") == 0
    index = f"search.index={done / 'index'}"
    assert "the index is stale" in refusal(tables, other, capsys, "mode=search", "search.query=dog", index)
    shutil.copytree(done / "index", tmp_path / "index")
    (tmp_path / "index" / "rows.jsonl").write_text("")
    with pytest.raises(ConfigError, match="modified, its files are not"):
        SearchIndex.read(tmp_path / "index")
    nowhere = ["search.query=dog", f"search.index={tmp_path}"]
    assert "contains no search index" in refusal(tables, done, capsys, "mode=search", *nowhere)
    (tmp_path / "something").mkdir()
    (tmp_path / "something" / "mine.txt").write_text("keep")
    assert "contains something else" in refusal(tables, done, capsys, *index_in(tmp_path / "something"))


def test_inputs_that_are_prepared_otherwise_are_refused(
    done: Path, tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = refusal(tables, done, capsys, *index_in(done / "index"), "data.inputs.image.mean=[0.4,0.5,0.5]")
    assert "was trained with data.inputs.image.mean=[0.5, 0.5, 0.5]" in output


def test_a_run_that_is_not_contrastive_is_refused(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = ["task=[classification]", "trainer.max_epochs=1", "trainer.limit_train_batches=1"]
    assert run_tiny(tables, tmp_path / "run", *alone) == 0
    assert run_tiny(tables, tmp_path / "run", *alone, *index_in(tmp_path / "index")) == 2
    assert "has no contrastive task" in capsys.readouterr().err


def test_the_kind_of_a_file_is_what_it_holds(tables: Path, tmp_path: Path) -> None:
    import av
    import numpy as np

    with av.open(str(tmp_path / "sound.txt"), "w", format="wav") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    assert kind_of_file(tmp_path / "sound.txt") == "audio"
    assert kind_of_file(tables / "images" / "test0.png") == "image"
    assert kind_of_file(tables / "test.jsonl") is None
    (tmp_path / "program.png").write_bytes(EPS)
    assert kind_of_file(tmp_path / "program.png") is None


# ------------------------------------------------------------------- zero shot


def test_a_class_is_the_mean_of_its_sentences(done: Path) -> None:
    """2103.00020, section 3.1.4, written out."""
    towers = Finder.load(done).towers
    names, templates = ["red", "blue"], ["a {} bar", "a {} square"]
    result = class_vectors(towers, names, templates)
    for name, vector in zip(names, result, strict=True):
        sentences = towers.encode("text", [template.format(name) for template in templates])
        mean = sentences.sum(dim=0) / 2
        torch.testing.assert_close(vector, mean / mean.norm())
    for wrong in ([], ["no place"], ["{} and {}"]):
        with pytest.raises(ConfigError, match=r"write one \{\} in each"):
            class_vectors(towers, names, wrong)


def test_pictures_are_classified_by_names(done: Path, tables: Path) -> None:
    finder = Finder.load(done)
    (said,) = finder.classify([tables / "images" / "test0.png"], names=["red", "blue"], templates=["a {} square"])
    assert set(said) == {"red", "blue"} and sum(said.values()) == pytest.approx(1.0)
    assert list(said.values()) == sorted(said.values(), reverse=True)


def test_figures_of_classes_are_written_beside_chance() -> None:
    probability = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0], [0.7, 0.3, 0.0]]).double()
    result = figures(probability, torch.tensor([0, 1, 1, 0]), num_classes=3)
    assert result["accuracy"] == {"value": 0.75, "chance": 0.5}
    assert result["class_accuracy"] == {"value": 0.75, "chance": pytest.approx(1 / 3)}
    assert result["calibration_error"]["value"] == pytest.approx((0.1 + 0.2 + 0.6 + 0.3) / 4)
    torch.testing.assert_close(
        probabilities(torch.eye(2), torch.eye(2), scale=2.0)[0], torch.tensor([2.0, 0.0]).double().softmax(0)
    )


def test_search_wants_a_query(done: Path) -> None:
    from mmtrain.cli.main import normalize_override
    from mmtrain.config.compose import config_dir
    from mmtrain.config.validate import faults_of

    def faults(*overrides: str) -> list[Any]:
        return faults_of(config_dir(), None, [normalize_override(o) for o in overrides], multirun=False)

    requested = ["mode=search", f"run_dir={done}", "task=[contrastive]"]
    query = 'search.query=a "red" car, or two'
    assert faults(*requested, query) == []
    assert compose([normalize_override(query)]).search.query == 'a "red" car, or two'
    assert [f.splitlines()[0].split(" (")[0] for f in faults(*requested, "search.k=0")] == [
        "search.k=0: must be an integer of at least 1",
        "search.query: not set",
    ]


def test_an_index_names_no_file_outside_of_its_folder(tmp_path: Path) -> None:
    vectors = torch.nn.functional.normalize(torch.eye(2))
    rows = [Row("a", "test", None, {"image": "a.png"}), Row("b", "test", "words", {"image": "../b.png"})]
    for folder in (tmp_path / "data", UnconfinedFolder(tmp_path / "data")):
        SearchIndex({"image": vectors}, {"image": torch.arange(2)}, rows, folder, "w", 3).write(tmp_path / "index")
        index = SearchIndex.read(tmp_path / "index")
        assert index.file(0, "image") == tmp_path / "data" / "a.png" and index.file(0, "audio") is None
        if isinstance(folder, UnconfinedFolder):
            assert index.file(1, "image") == tmp_path / "data" / "../b.png"
        else:
            with pytest.raises(ConfigError, match=r"names a file outside of .*/data for b: \.\./b\.png"):
                index.file(1, "image")
