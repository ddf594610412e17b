"""The data of a run: columns, vocabularies that stay in the run folder, and loaders for every part of a run."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmtrain.data.inputs.vector import VectorInput
from mmtrain.data.module import DataModule
from mmtrain.data.sampling.buckets import Buckets
from mmtrain.data.sources.files import existing_folder
from mmtrain.data.tables.splits import Split
from mmtrain.data.targets.label import ClassLabel
from mmtrain.errors import ConfigError
from tests.data.parts import NAMES, draw_pictures, image_input, text_input, write_rows

ROOT = Path(__file__).parents[2]
# A real process that reads the data into a run folder as soon as the file of the second argument is there.
CHILD = """
import sys, time
from pathlib import Path
from tests.data.test_module import module
data, go = module(Path(sys.argv[1])), Path(sys.argv[2])
print("ready", flush=True)
while not go.exists():
    time.sleep(0.001)
data.read(Path(sys.argv[3]), training=True)
print(data.inputs["text"].tokenizer.to_str() + str(data.known_targets))
"""


def make_folder(root: Path, rows: int = 10, **renamed: str) -> Path:
    """Three tables; columns may get other names."""
    root.mkdir(parents=True, exist_ok=True)
    names = draw_pictures(root, rows)
    cells = [
        {"id": f"r{n}", "image": names[n], "caption": NAMES[n % 6], "label": ("cat", "dog", "ant")[n % 3]}
        for n in range(rows)
    ]
    table = [{renamed.get(name, name): value for name, value in row.items()} for row in cells]
    for split, part in {"train": table, "val": table[:4], "test": table[4:9]}.items():
        write_rows(root / f"{split}.jsonl", part)
    return root


def module(root: Path, *, columns: dict[str, str | None] | None = None, **changed: Any) -> DataModule:
    made: dict[str, Any] = {
        "source": lambda: existing_folder(root),
        "columns": columns or {"image": None, "text": None, "label": None},
        "inputs": {"image": image_input(), "text": text_input()},
        "targets": {"label": ClassLabel()},
        "split": Split(column=None, fractions={"train": 0.8, "val": 0.1, "test": 0.1}, group=None),
        "max_bad_fraction": 0.01,
        "label_fraction": 1.0,
        "modality_dropout": 0.0,
        "restrict_paths": False,
        "license": None,
        "languages": None,
        "bucket": Buckets(by=None, window=20, max_tokens=None),
        "batch_size": 4,
        "eval_batch_size": 3,
        "num_workers": 0,
        "seed": 0,
        "num_micro_batches": 2,
    }
    return DataModule(**made | changed)


def read(root: Path, run: Path, *, training: bool = True, bound: bool = False, **changed: Any) -> DataModule:
    data = module(root, **changed)
    data.read(run, training=training, bound=bound)
    return data


def refused(root: Path, run: Path, *, training: bool = True, **changed: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(root, run, training=training, **changed)
    return str(caught.value)


def vocabulary(run: Path) -> dict[str, str]:
    names = ("tokenizer.json", "classes_label.json", ".vocabulary.json")
    return {n: hashlib.sha256((run / n).read_bytes()).hexdigest() for n in names}


def ids(data: DataModule, text: str = "a red cat") -> list[int]:
    return data.inputs["text"].load(text, Path(), seed=0, train=False)[0].tolist()


def test_reading_learns_and_reading_again_takes_the_same(tmp_path: Path) -> None:
    root, run = make_folder(tmp_path / "data"), tmp_path / "run"
    data = read(root, run)
    assert list(data.inputs) == ["image", "text"]
    assert data.known_targets["label"].names == ["ant", "cat", "dog"]
    assert data.known_targets["label"].counts == [3, 4, 3]
    before = vocabulary(run)
    again = read(root, run, training=False)
    assert vocabulary(run) == before
    assert again.known_targets == data.known_targets and ids(again) == ids(data)


def test_new_rows_are_predicted_without_labels_and_splits(tmp_path: Path) -> None:
    run = tmp_path / "run"
    columns = {"image": None, "text": None, "label": "kind"}
    read(make_folder(tmp_path / "data", label="kind"), run, columns=columns)
    (tmp_path / "new").mkdir()
    write_rows(tmp_path / "new" / "rows.jsonl", [{"id": "a", "caption": "a cat"}, {"id": "b", "caption": "a dog"}])
    new = module(tmp_path / "new", columns=columns)
    new.read(run, training=False, predicting=True)
    assert new.tables["test"]["id"][:] == ["a", "b"] and not new.has_row("test", needs=["text"], targets=["label"])
    assert f"{tmp_path}/new/rows.jsonl has no column kind: its rows are without a label" in new.notes


def test_new_rows_may_lack_columns_of_inputs(tmp_path: Path) -> None:
    """A missing column is a missing value of every row; a misspelt one is refused."""
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    cells = [{"words": "a cat", "a": n, "b": 2.0 * n, "kind": "xy"[n % 2]} for n in range(12)]
    for split in ("train", "val", "test"):
        write_rows(data / f"{split}.jsonl", cells)
    columns = {"image": None, "text": "words", "vector": ["a", "b"], "label": "kind"}
    inputs = {"text": text_input(), "vector": VectorInput(scale="none")}
    read(data, run, columns=columns, inputs=inputs)

    def predicted(row: dict[str, Any]) -> DataModule:
        (tmp_path / "new").mkdir(exist_ok=True)
        write_rows(tmp_path / "new" / "rows.jsonl", [row])
        new = module(tmp_path / "new", columns=columns, inputs=inputs)
        new.read(run, training=False, predicting=True)
        return new

    new = predicted({"id": "r", "b": 3.0})
    where = f"{tmp_path}/new/rows.jsonl"
    assert f"{where} has no column words: the input text is missing in every row" in new.notes
    assert f"{where} has no column a: the values of vector are missing in every row" in new.notes
    sample = new.split("test").sample(0, seed=0, train=False)
    assert sample.inputs.keys() == {"vector"} and sample.inputs["vector"].tolist() == [0.0, 3.0]
    with pytest.raises(ConfigError, match=r"data.columns.text = words, but .* has the columns Words, b"):
        predicted({"Words": "a cat", "b": 3.0})
    with pytest.raises(ConfigError, match="no column is known as an input; the table has id, kind"):
        predicted({"id": "r", "kind": "x"})


def test_a_class_that_training_never_saw_is_no_label(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data")
    for split, label in (("val", "Cat"), ("test", "cat")):
        write_rows(root / f"{split}.jsonl", [{"caption": "a cat", "label": label}])
    data = read(root, tmp_path / "run")
    assert [data.has_row(split, needs=[], targets=["label"]) for split in ("val", "test")] == [False, True]
    assert data.has_row("val", needs=["text"], targets=[])


@pytest.mark.slow
def test_cells_between_semicolons_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("sep=,\nimage;caption;label\n" + "a.png;a cat;cat\n" * 8)
    message = refused(tmp_path, tmp_path / "run")
    assert "has one column, 'image;caption;label': its cells are separated by ';'" in message
    assert "save it with commas as .csv" in message


def test_two_processes_at_once_have_one_vocabulary(tmp_path: Path) -> None:
    root, go, run = make_folder(tmp_path / "data"), tmp_path / "go", tmp_path / "run"
    command = [sys.executable, "-c", CHILD, str(root), str(go), str(run)]
    children = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    go.touch()
    output = [child.communicate(timeout=120)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert output[0] == output[1] and "[SEP]" in output[0]
    read(root, tmp_path / "alone")
    assert vocabulary(run) == vocabulary(tmp_path / "alone"), "and a single process learns the same"


def test_a_run_that_never_trained_leaves_nothing_that_binds_the_next(tmp_path: Path) -> None:
    root, run = make_folder(tmp_path / "data"), tmp_path / "run"
    write_rows(root / "train.jsonl", [{"caption": name, "kind": "xy"[len(name) % 2]} for name in NAMES])
    assert list(read(root, run).known_targets) == []
    columns = {"image": None, "text": None, "label": "kind"}
    assert read(root, run, columns=columns).known_targets["label"].names == ["x", "y"]
    smaller = {"inputs": {"text": text_input(vocab_size=40)}, "columns": columns}
    assert read(root, run, **smaller).inputs["text"].tokenizer.get_vocab_size() <= 40
    write_rows(root / "train.jsonl", [{"caption": name, "kind": "yz"[len(name) % 2]} for name in NAMES])
    assert read(root, run, columns=columns).known_targets["label"].names == ["y", "z"]


def test_what_a_trained_run_learned_stays_when_the_data_changes(tmp_path: Path) -> None:
    root, run = make_folder(tmp_path / "data"), tmp_path / "run"
    data = read(root, run)
    write_rows(root / "train.jsonl", [{"image": "0.png", "caption": "quite other words", "label": "new"}] * 9)
    again = read(root, run, bound=True)
    assert again.known_targets == data.known_targets and ids(again) == ids(data)


def test_a_table_to_predict_from_needs_neither_labels_nor_captions_nor_a_training_split(tmp_path: Path) -> None:
    trained, run = make_folder(tmp_path / "data"), tmp_path / "run"
    read(trained, run)
    for name, rows in {
        "pictures": [{"image": "0.png"}, {"image": "1.png"}],
        "captions": [{"caption": "a red cat"}],
        "one": [{"image": "0.png"}],
    }.items():
        root = tmp_path / name
        root.mkdir()
        draw_pictures(root, 2)
        write_rows(root / "test.jsonl", rows)
        data = read(root, run, training=False)
        assert list(data.inputs) == ["image", "text"] and list(data.known_targets) == ["label"]
        example = data.example()
        assert len(example) == 2 and not example.labelled["label"].any()
        assert example.present["image"].all() == (name != "captions")
        assert example.present["text"].all() == (name == "captions")
        assert data.split("test")[0, 0].targets == {}


def test_a_column_that_training_did_not_have_is_not_read_later(tmp_path: Path) -> None:
    root, run = make_folder(tmp_path / "data", label="something"), tmp_path / "run"
    assert list(read(root, run).known_targets) == []
    make_folder(root)
    data = read(root, run, training=False)
    assert list(data.known_targets) == [] and data.split("test")[0, 0].targets == {}


def test_rows_that_a_task_can_use_are_counted(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data")
    rows = rows_of(root, "train")
    rows[0]["image"] = rows[1]["caption"] = rows[2]["label"] = None
    rows[3]["image"] = rows[3]["caption"] = rows[4]["image"] = rows[4]["caption"] = None
    write_rows(root / "train.jsonl", rows)
    data = read(root, tmp_path / "run")
    assert data.filled("train") == {"image": 7, "text": 7, "label": 9}
    classification, of_image, contrastive = ((), ["label"]), (["image"], ["label"]), (["image", "text"], [])
    assert data.num_usable("train", [classification]) == 7
    assert data.num_usable("train", [of_image]) == 6
    assert data.num_usable("train", [contrastive]) == 6
    assert data.num_usable("train", [classification, contrastive]) == 8
    assert data.num_usable("train", [(None, ["label"])]) == 9


def test_a_target_without_any_value_is_none(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_rows(root / "train.jsonl", [{"caption": name, "label": None} for name in NAMES])
    assert read(root, tmp_path / "run").known_targets == {}


def test_columns_come_by_usual_names_or_by_the_names_given(tmp_path: Path) -> None:
    usual = make_folder(tmp_path / "usual", image="photo", caption="title", label="category")
    assert read(usual, tmp_path / "1").columns == {"image": "photo", "text": "title", "label": "category"}
    odd = make_folder(tmp_path / "odd", image="x", caption="y", label="z")
    named = {"image": "x", "text": "y", "label": "z"}
    data = read(odd, tmp_path / "2", columns=named)
    assert data.columns == named
    assert data.example().present["image"].all() and data.example().labelled["label"].all()
    pictures_only = read(odd, tmp_path / "3", columns={"image": "x", "text": None, "label": None})
    assert list(pictures_only.inputs) == ["image"] and pictures_only.known_targets == {}


def test_columns_that_do_not_serve_are_explained(tmp_path: Path) -> None:
    odd = make_folder(tmp_path / "odd", image="x", caption="y", label="z")
    message = refused(odd, tmp_path / "run")
    assert "no column is known as an input; the table has id, x, y, z" in message
    assert "data.columns.image=" in message
    wrong = {"image": "x", "text": "y", "label": "zz"}
    assert "data.columns.label=z" in refused(odd, tmp_path / "run", columns=wrong)
    assert not (tmp_path / "run").exists(), "nothing is written before the data is known to be good"


def test_a_column_that_is_something_else_is_explained_before_anything_is_learned(tmp_path: Path) -> None:
    root, run = make_folder(tmp_path / "data"), tmp_path / "run"
    train = root / "train.jsonl"
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    write_rows(train, [row | {"same": "one", "number": 1.5, "boxes": [{"x": 1}]} for row in rows])
    table = f"{train}: the column"
    for columns, message in {
        ("caption", "caption", "label"): f"{train}: of the column caption none of the first 10 files is there, such as",
        (
            "number",
            "caption",
            "label",
        ): f"{table} number holds 1.5, which is no picture\n    name the column of pictures",
        (
            "image",
            "boxes",
            "label",
        ): f"{table} boxes holds [{{'x': 1}}], which is no text\n    name the column of texts",
        ("image", "caption", "same"): f"{table} same holds one class alone, 'one', in 10 rows\n    name another column",
    }.items():
        text = refused(root, run, columns=dict(zip(("image", "text", "label"), columns, strict=True)))
        assert text.startswith(message), text
        assert [path.name for path in run.iterdir()] == [".vocabulary.lock"]


def test_texts_that_lose_their_ends_are_counted(tmp_path: Path) -> None:
    root, run = make_folder(tmp_path / "data"), tmp_path / "run"
    assert read(root, run, inputs={"text": text_input()}).notes == []
    (note,) = read(root, tmp_path / "short", inputs={"text": text_input(max_length=4)}).notes
    assert note == (
        f"{root}/train.jsonl: 10 of 10 rows have a text that is longer than data.inputs.text.max_length = 4 tokens:"
        " its end is cut (the longest has 5)\n"
        "    set data.inputs.text.max_length to 5 for all, if the encoder has so many positions"
    )
    again = read(root, tmp_path / "short", training=False, inputs={"text": text_input(max_length=4)})
    assert again.notes == [], "who only tests cannot change it any more"


def test_data_that_does_not_serve_is_explained(tmp_path: Path) -> None:
    root, run = make_folder(tmp_path / "data"), tmp_path / "run"
    message = refused(root, run, batch_size=11)
    assert "data.batch_size = 11 is larger than the training split of 10 rows" in message
    assert "set data.batch_size=10 or less" in message
    assert "nothere does not exist" in refused(tmp_path / "nothere", run)
    (root / "train.jsonl").unlink()
    message = refused(root, run)
    assert "has no train table; it has val, test" in message and "add train.jsonl" in message
    message = refused(root, run, training=False)
    assert "holds no vocabulary" in message and "set run_dir to the folder of the training run" in message
    with pytest.raises(ConfigError, match=r"has no dev table; it has train, val, test\n    add dev\.jsonl"):
        read(make_folder(root), run).split("dev")


def attached(data: DataModule, *, rank: int = 0, ranks: int = 1, limit: int | float = 1.0) -> DataModule:
    device = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=rank, world_size=ranks, limit_train_batches=limit, strategy=device
    )
    return data


def test_a_training_step_is_a_list_of_micro_batches(tmp_path: Path) -> None:
    data = attached(read(make_folder(tmp_path / "data"), tmp_path / "run"))
    steps = list(data.train_dataloader())
    assert [[len(batch) for batch in step] for step in steps] == [[2, 2]] * 3
    assert sorted(name for step in steps for batch in step for name in batch.ids) == sorted(
        ["", "", *(f"r{n}" for n in range(10))]
    )


def test_ranks_share_a_step_and_a_resumed_loader_begins_where_it_should(tmp_path: Path) -> None:
    root, run = make_folder(tmp_path / "data"), tmp_path / "run"

    def names(rank: int, ranks: int, first_step: int = 0) -> list[set[str]]:
        data = attached(read(root, run), rank=rank, ranks=ranks)
        data.first_step = first_step
        return [{name for batch in step for name in batch.ids if name} for step in data.train_dataloader()]

    alone = names(0, 1)
    assert [a | b for a, b in zip(names(0, 2), names(1, 2), strict=True)] == alone
    assert names(0, 1, first_step=2) == alone[2:]


def test_evaluation_has_each_row_once_and_a_missing_split_is_no_loader(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data")
    data = attached(read(root, tmp_path / "run"))
    for loader in (data.test_dataloader(), data.predict_dataloader()):
        assert [name for (batch,) in loader for name in batch.ids if name] == [f"r{n}" for n in range(4, 9)]
    assert len(data.val_dataloader()) == 2
    (root / "val.jsonl").unlink()
    assert attached(read(root, tmp_path / "run")).val_dataloader() == []


def test_the_files_of_a_vocabulary_are_for_people_too(tmp_path: Path) -> None:
    read(make_folder(tmp_path / "data"), tmp_path / "run")
    known = json.loads((tmp_path / "run" / "classes_label.json").read_text())
    assert known == {"names": ["ant", "cat", "dog"], "counts": [3, 4, 3]}


def test_batches_can_be_made_of_rows_that_are_alike(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data", 12)
    data = read(root, tmp_path / "run", bucket=Buckets(by="label", window=3, max_tokens=None), num_micro_batches=1)
    batches = [batch for [batch] in attached(data).train_dataloader()]
    labels = [{int(label) for label in batch.targets["label"]} for batch in batches]
    assert sorted(map(len, labels)) == [1, 1, 1], "four cats, four dogs and four ants, each in a batch of their own"
    assert sorted(i for batch in batches for i in batch.ids) == sorted(f"r{n}" for n in range(12))


def test_a_step_can_have_a_budget_of_tokens(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data", 24)
    bucket = Buckets(by="text", window=4, max_tokens=12)
    data = read(root, tmp_path / "run", bucket=bucket, num_micro_batches=1, batch_size=24)
    batches = [batch for [batch] in attached(data).train_dataloader()]
    assert all(batch.inputs["text"].values.numel() <= 12 for batch in batches)
    assert sorted(i for batch in batches for i in batch.ids if i) == sorted(f"r{n}" for n in range(24))
    refusal = refused(root, tmp_path / "other", bucket=Buckets(by="text", window=4, max_tokens=2))
    assert "data.bucket.max_tokens = 2, but row" in refusal


# ------------------------------------------------------------------ what a resumed run compares


def rows_of(root: Path, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / f"{split}.jsonl").read_text().splitlines()]


def differing(one: Any, other: Any, prefix: str = "") -> set[str]:
    """Dotted keys whose values differ."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return set() if one == other else {prefix}
    keys = [*one, *(k for k in other if k not in one)]
    return set().union(*(differing(one.get(k), other.get(k), f"{prefix}.{k}".lstrip(".")) for k in keys))


def test_all_that_is_read_of_every_split_is_compared(tmp_path: Path) -> None:
    root, run = make_folder(tmp_path / "data"), tmp_path / "run"
    calm = read(root, run).row_facts()
    assert {split: facts["count"] for split, facts in calm.items()} == {"train": 10, "val": 4, "test": 5}
    assert set(calm["train"]["columns"]) == {"id", "image", "caption", "label"}
    assert calm["val"]["files"]["image"].startswith("4 of 4 files, ")
    for split in ("train", "val", "test"):
        for column in ("caption", "label", "id"):
            before = rows_of(root, split)
            write_rows(root / f"{split}.jsonl", [{**row, column: row[column] + "s"} for row in before])
            assert differing(calm, read(root, run).row_facts()) == {f"{split}.columns.{column}"}
            write_rows(root / f"{split}.jsonl", before)
    assert read(root, run).row_facts() == calm
    draw_pictures(root, 9)  # as they were
    (root / "9.png").write_bytes((root / "0.png").read_bytes())
    assert differing(calm, read(root, run).row_facts()) == {"train.files.image"}


def test_order_and_content_are_compared_without_ids_too(tmp_path: Path) -> None:
    root, run = make_folder(tmp_path / "data", id="name"), tmp_path / "run"
    calm = read(root, run).row_facts()
    before = rows_of(root, "train")
    write_rows(root / "train.jsonl", before[::-1])
    now = read(root, run).row_facts()
    assert differing(calm, now) >= {"train.columns.caption", "train.columns.label", "train.columns.image"}
    write_rows(root / "train.jsonl", [{**row, "label": "cat"} if n == 7 else row for n, row in enumerate(before)])
    assert differing(calm, read(root, run).row_facts()) == {"train.columns.label"}


def test_a_column_that_nothing_reads_is_not_compared_unless_batches_are_made_by_it(tmp_path: Path) -> None:
    root, run = make_folder(tmp_path / "data"), tmp_path / "run"
    plain, before = read(root, run).row_facts(), rows_of(root, "train")
    by = {"bucket": Buckets(by="kind", window=3, max_tokens=None)}
    write_rows(root / "train.jsonl", [{**row, "kind": "x"} for row in before])
    assert read(root, run).row_facts() == plain
    bucketed = read(root, run, **by).row_facts()
    write_rows(root / "train.jsonl", [{**row, "kind": f"{n % 2}"} for n, row in enumerate(before)])
    assert differing(bucketed, read(root, run, **by).row_facts()) == {"train.columns.kind"}
    without = {"inputs": {"text": text_input()}, "targets": {}}
    facts = read(root, tmp_path / "texts", **without).row_facts()
    assert set(facts["train"]["columns"]) == {"id", "caption"} and "files" not in facts["train"]


def test_several_columns_of_one_input_are_compared_each(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_rows(root / "train.jsonl", [{"age": n, "height": n / 2, "label": "ab"[n % 2]} for n in range(5)])
    parts = {"inputs": {"vector": VectorInput(scale="none")}, "columns": {"vector": ["age", "height"], "label": None}}
    calm = read(root, tmp_path / "run", **parts).row_facts()
    assert set(calm["train"]["columns"]) == {"age", "height", "label"}
    write_rows(root / "train.jsonl", [{"age": n, "height": n / 3, "label": "ab"[n % 2]} for n in range(5)])
    assert differing(calm, read(root, tmp_path / "run", **parts).row_facts()) == {"train.columns.height"}


def test_ids_are_still_compared_with_those_of_an_earlier_version(tmp_path: Path) -> None:
    root, run = make_folder(tmp_path / "data"), tmp_path / "run"
    assert read(root, run).id_digest("train") == "10 (270682b26315)"


def test_without_a_trainer_the_loaders_are_those_of_one_process(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data")
    alone, held = (loaders_of(data) for data in (read(root, tmp_path / "run"), attached(read(root, tmp_path / "run"))))
    for mine, its in zip(alone, held, strict=True):
        assert [batch.ids for step in mine for batch in step] == [batch.ids for step in its for batch in step]


def loaders_of(data: DataModule) -> list[Any]:
    return [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]


def test_data_without_tables_says_how_to_open_them(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data")
    read(root, tmp_path / "run")
    data = module(root)
    data.restore(str(tmp_path / "run"))
    uses = [data.example, data.train_dataloader, data.val_dataloader, data.test_dataloader, data.guessed_columns]
    for use in (*uses, lambda: data.epoch_size, lambda: data.steps_per_epoch):
        with pytest.raises(ConfigError, match=r"the data has no tables yet\n    call data\.read\(Path\(RUN_DIR\)"):
            use()


def test_if_no_row_can_be_read_the_fix_is_that_of_the_reason(tmp_path: Path) -> None:
    for content, fix in ((None, "fix the paths in the table"), (b"no picture", "change the rows as this says")):
        root = make_folder(tmp_path / fix)
        for path in root.glob("*.png"):
            path.unlink()
            if content is not None:
                path.write_bytes(content)
        if content is None:
            (root / "0.png").mkdir()  # one path is there, so that the table is not refused before
        with pytest.raises(ConfigError, match=rf"none of the first \d+ rows .* can be read, .*\n    {fix}"):
            read(root, tmp_path / f"run {fix}").example()
