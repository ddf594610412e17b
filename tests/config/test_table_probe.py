"""A user's folder with faults: the messages, and that they come before anything heavy."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmtrain.config.compose import config_dir
from mmtrain.config.validate import faults_of

ROOT = Path(__file__).resolve().parents[2]
ANIMALS = ("cat", "dog", "cow")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a folder `mine` of forty pictures and a table of unusual column names."""
    (tmp_path / "mine" / "photos").mkdir(parents=True)
    for number in range(40):
        (tmp_path / "mine" / "photos" / f"{number}.jpg").touch()
    monkeypatch.chdir(tmp_path)
    write("path,headline,animal", lambda n: f"photos/{n}.jpg,a picture with the number {n},{ANIMALS[n % 3]}")
    return tmp_path


def write(head: str, row: object, *, name: str = "mine/train.csv", count: int = 40) -> None:
    assert callable(row)
    Path(name).write_text("\n".join([head, *(row(number) for number in range(count))]) + "\n")


def faults(*overrides: str) -> list[str]:
    return faults_of(
        config_dir(), None, ["data=files", "data.root=mine", "data.batch_size=8", *overrides], multirun=False
    )


ALL = "data.columns.image=path data.columns.text=headline data.columns.label=animal"


def test_a_good_folder_has_no_fault(home: Path) -> None:
    assert faults(*ALL.split()) == []
    assert faults("data.columns.image=path", "data.columns.label=animal", "task=[classification]") == []


def test_a_misspelt_key_of_turns_is_named_when_a_task_lacks_what_it_would_hold(home: Path) -> None:
    write_turns("image")
    task = ("task=[classification]", "task.classification.input=image")
    assert faults(*task) == []
    write_turns("imgae")
    *_, said = faults(*task)
    assert "turns have the key imgae, which nothing reads" in said and "data.columns.image=imgae" in said


def write_turns(key: str) -> None:
    """A table of dialogues of one turn."""
    Path("mine/train.csv").unlink(missing_ok=True)
    turn = {"text": "look", key: "photos/3.jpg"}
    lines = [json.dumps({"turns": [turn], "label": ANIMALS[number % 3]}) for number in range(40)]
    Path("mine/train.jsonl").write_text("\n".join(lines))


def test_columns_of_which_none_is_known_are_all_named(home: Path) -> None:
    assert faults() == [
        "mine/train.csv: no column is known as an input; the table has path, headline, animal"
        f" (override data.root=mine)\n    set {ALL}"
    ]


def test_a_column_that_is_not_there_is_answered_with_the_whole_line(home: Path) -> None:
    assert faults("data.columns.image=filename") == [
        "data.columns.image = filename, but mine/train.csv has the columns path, headline, animal"
        f" (override data.columns.image=filename)\n    set {ALL}"
    ]
    result = faults("data.columns.image=path", "data.columns.text=headlines", "data.columns.label=animals")
    assert len(result) == 2
    assert all(fault.endswith("    set data.columns.text=headline data.columns.label=animal") for fault in result)


def test_tasks_that_lack_something_say_which_remain(home: Path) -> None:
    missing = "text: the data has only image; the columns are path, headline, animal"
    fix = "fix: set data.columns.text=headline, or remove what reads it: task=[classification]"
    assert faults("data.columns.image=path", "data.columns.label=animal") == [
        f"task.{name}.modalities={missing}\n    {fix}" for name in ("contrastive", "matching")
    ]
    result = faults("data.columns.image=null", "data.columns.text=headline", "data.columns.label=animal")
    assert [fault.splitlines()[1] for fault in result] == [
        "    fix: set data.columns.image=path, or remove what reads it: task=[classification]"
    ] * 2
    (result,) = faults("data.columns.image=path", "data.columns.text=headline")
    assert result.endswith(
        "    fix: set data.columns.label=animal, or remove what learns it: task=[contrastive,matching]"
    )
    write("image,id", lambda n: f"photos/{n}.jpg,{n}")
    assert [fault.splitlines()[1] for fault in faults()] == [
        "    fix: choose task=[masked_image], or set data.columns.text=NAME, if a column contains it",
        "    fix: choose task=[masked_image], or set data.columns.text=NAME, if a column contains it",
        "    fix: choose task=[masked_image], or set data.columns.label=NAME, if a column contains it",
    ]
    assert faults("task=[masked_image]") == []


def test_faults_of_the_data_stand_beside_those_of_the_configuration(home: Path) -> None:
    result = faults("data.columns.image=headline", "data.columns.text=path", "trainer.max_epochs=ten", "dim=0")
    assert [re.split("[= ]", fault)[0] for fault in result] == [
        "dim",
        "trainer.max_epochs",
        "mine/train.csv:",
        "task.classification.target",
    ]
    assert result[2] == (
        "mine/train.csv: of the column headline none of the first 32 files is there, such as"
        " mine/a picture with the number 0 (override data.columns.image=headline)\n"
        "    correct the paths, which start from mine, or name the column of pictures by data.columns.image=path"
    )


def test_what_is_wrong_with_another_key_is_left_to_its_rule(home: Path) -> None:
    for override in ("data.columns=3", "data.batch_size=big", "data.split.fractions.train=7", "~data.split", "task=[]"):
        assert all(
            "mine/" not in fault for fault in faults(*[a for a in ALL.split() if "=3" not in override], override)
        )
    (result,) = faults(*ALL.split(), "task=[classification]", "task.classification.target=kind")
    assert result.startswith("task.classification.target=kind: data.targets has only ")


def test_files_in_a_folder_below_are_found(home: Path) -> None:
    write("image,caption,label", lambda n: f"{n}.jpg,number {n},{ANIMALS[n % 3]}")
    assert faults() == []


def test_paths_that_start_elsewhere_are_shown_as_they_should_be(home: Path) -> None:
    write("image,caption,label", lambda n: f"old/{n}.jpg,number {n},{ANIMALS[n % 3]}")
    assert faults() == [
        "mine/train.csv: of the column image none of the first 32 files is there, such as mine/old/0.jpg\n"
        "    write the paths from mine on: photos/0.jpg in place of old/0.jpg"
    ]


def test_paths_of_windows_are_shown_as_they_should_be(home: Path) -> None:
    write("image,caption,label", lambda n: f"photos\\{n}.jpg,number {n},{ANIMALS[n % 3]}")
    assert faults()[0].endswith("write the paths from mine on: photos/0.jpg in place of photos\\0.jpg")


def test_a_table_without_names_is_told_from_one_with_others(home: Path) -> None:
    write("photos/0.jpg,a picture,cat", lambda n: f"photos/{n}.jpg,number {n},{ANIMALS[n % 3]}")
    assert faults()[0].splitlines() == [
        "mine/train.csv: the first line names no columns, but holds photos/0.jpg, a picture, cat"
        " (override data.root=mine)",
        "    write a line of names above it, such as image,caption,label",
    ]


def test_another_kind_of_target_that_is_there_is_offered(home: Path) -> None:
    write("image,caption,price", lambda n: f"photos/{n}.jpg,number {n},{n}.5")
    (result,) = faults()
    assert result.endswith("or learn another target: task=[contrastive,matching,regression]")
    assert faults("task=[contrastive,matching,regression]") == []


def test_what_all_rows_say_is_said_where_all_are_known(home: Path) -> None:
    write("image,caption,label", lambda n: f"photos/{n}.jpg,number {n},cat")
    assert faults() == [
        "mine/train.csv: the column label holds one class alone, 'cat', in 32 rows\n"
        "    name another column by data.columns.label, add rows of another class,"
        " or leave out what learns it: task=[contrastive,matching]"
    ]
    write("id,image,caption,label", lambda n: f"{n % 39},photos/{n}.jpg,,{ANIMALS[n % 3]}")
    assert [fault.splitlines()[0] for fault in faults()] == [
        "mine/train.csv: the column caption is empty in every row",
        "mine/train.csv: the rows 1 and 32 have the same id '0' (override data.root=mine)",
    ]


def test_a_long_table_is_judged_by_its_first_rows_alone(home: Path) -> None:
    write(
        "image,caption,label", lambda n: f"photos/{n % 40}.jpg,number {n},{'dog' if n == 1500 else 'cat'}", count=2000
    )
    assert faults() == []
    Path("mine/train.csv").rename("mine/all.csv")
    assert faults() == [], "a truncated one"
    assert "data.split.column = fold" in faults("data.split.column=fold")[0]


def test_one_folder_of_pictures_is_no_folder_a_class(home: Path) -> None:
    Path("mine/train.csv").unlink()
    result = faults("task=[classification]")
    assert result == [
        "mine: the column label holds one class alone, 'photos', in 32 rows\n"
        "    put the files of each class into a folder of their own, mine/CLASS"
    ]


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet", "arrow"])
def test_tables_of_every_format_are_looked_at(home: Path, ending: str) -> None:
    Path("mine/train.csv").unlink()
    rows = [{"path": f"photos/{n}.jpg", "headline": f"a picture of {n}", "animal": ANIMALS[n % 3]} for n in range(40)]
    path, table = Path(f"mine/train.{ending}"), pa.Table.from_pylist(rows)
    if ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif ending == "json":
        path.write_text(json.dumps(rows))
    elif ending == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    assert faults(*ALL.split()) == []
    (result,) = faults()
    assert result.startswith(f"mine/train.{ending}: no column is known as an input;") and result.endswith(f"set {ALL}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.csv", b"", "mine/train.csv has no rows: the train split is empty"),
        ("train.csv", b"image,caption\n", "mine/train.csv has no rows: the train split is empty"),
        (
            "train.csv",
            b"image,caption\na.jpg,b,c\n",
            "line 2 has 3 fields under 2 column names (override data.root=mine)\n    quote what holds a comma",
        ),
        (
            "train.csv",
            b"sep=,\nimage;caption\na.jpg;b\n",
            "mine/train.csv has one column, 'image;caption': its cells are sep",
        ),
        ("train.csv", "image,caption\na.jpg,é\n".encode("latin-1"), "save it as UTF-8"),
        (
            "train.jsonl",
            b'{"image": "a"}\n["b"]\n',
            "line 2 holds no object, but list (override data.root=mine)\n    write an object a line",
        ),
        ("train.jsonl", b'{"image": "a"}\n{"image": \n', "line 2 is not JSON"),
        ("train.parquet", b"PAR1 and no more", "mine/train.parquet cannot be read as parquet"),
        (
            "val.csv",
            b"caption\na\n",
            "mine has no train table; it has val (override data.root=mine)\n    add train.jsonl",
        ),
    ],
)
def test_a_broken_table_is_named(home: Path, name: str, content: bytes, message: str) -> None:
    Path("mine/train.csv").unlink()
    Path("mine", name).write_bytes(content)
    assert any(message in fault for fault in faults()), faults()


def test_a_cell_that_only_others_read_is_left_to_them(home: Path) -> None:
    write("image,caption,label", lambda n: f"photos/{n}.jpg,{'long ' * 40_000},{ANIMALS[n % 3]}")
    assert faults() == []


def test_a_run_that_is_tested_needs_its_inputs_alone(home: Path) -> None:
    write("path,headline", lambda n: f"photos/{n}.jpg,number {n}", name="mine/test.csv")
    Path("mine/train.csv").unlink()
    assert faults("mode=test", *ALL.split()[:2]) == []
    assert faults("mode=test", "data.columns.image=file")[0].startswith("data.columns.image = file, but mine/test.csv")


def test_a_batch_size_that_is_searched_for_need_not_fit_the_rows(home: Path) -> None:
    (fault,) = faults(*ALL.split(), "data.batch_size=128")
    assert fault.startswith("data.batch_size = 128 is larger than the training split of 32 rows")
    assert faults(*ALL.split(), "data.batch_size=128", "trainer.find_batch_size=true") == []


def test_rows_to_predict_may_lack_columns_of_inputs(home: Path) -> None:
    write("headline,age", lambda n: f"a picture,{n}")
    known = [*ALL.split()[:2], "data.columns.vector=[age,height]", "task=[classification]"]
    assert faults("mode=predict", *known) == []
    assert any("data.columns.vector = height, but" in fault for fault in faults(*known))
    (fault,) = faults("mode=predict", "data.columns.text=hedline", "task=[classification]")
    assert fault.startswith("data.columns.text = hedline, but mine/train.csv has the columns headline, age")


def test_nothing_heavy_is_imported(home: Path) -> None:
    program = (
        "import sys; from mmtrain.cli.main import config_dir; from mmtrain.config.validate import faults_of;"
        "said = faults_of(config_dir(), None, sys.argv[1:], multirun=False);"
        "print(len(said), [m for m in ('torch', 'pytorch_lightning', 'datasets', 'pandas') if m in sys.modules])"
    )
    call = [sys.executable, "-c", program, "data=files", "data.root=mine", "data.batch_size=80"]
    done = subprocess.run(call, cwd=home, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2 []"
