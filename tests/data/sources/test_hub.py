"""Data sets of the hub: a local folder of that form is read as one, and each way to fail is reported with its fix."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from mmtrain.data.sources.hub import _explained, hub_tables
from mmtrain.data.tables.row_checks import check_rows
from mmtrain.data.tables.splits import Split
from mmtrain.errors import ConfigError
from tests.data.parts import draw_pictures, write_rows


def split() -> Split:
    return Split(column=None, fractions={"train": 0.8, "val": 0.2}, group=None)


def read(name: Path | str, config: str | None = None, revision: str | None = None) -> Any:
    return hub_tables(name=str(name), config=config, revision=revision, split=split())


def refused(name: Path | str, config: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read(name, config)
    what, _, fix = str(caught.value).partition("\n    ")
    assert what and fix
    return str(caught.value)


def two_configs(folder: Path) -> Path:
    configs = "".join(f"- config_name: {c}\n  data_files: {c}.jsonl\n" for c in ("en", "de"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    for config in ("en", "de"):
        write_rows(folder / f"{config}.jsonl", [{"caption": f"{config} {n}"} for n in range(5)])
    return folder


def test_a_folder_of_the_form_of_the_hub_gives_its_splits_by_our_names(tmp_path: Path) -> None:
    for name, count in (("train", 4), ("validation", 2), ("test", 3)):
        write_rows(tmp_path / f"{name}.jsonl", [{"caption": f"{name} {n}"} for n in range(count)])
    tables = read(tmp_path)
    assert {name: len(table) for name, table in tables.splits.items()} == {"train": 4, "val": 2, "test": 3}
    assert tables.splits["val"][1] == {"caption": "validation 1"}
    assert tables.order is None


def test_pictures_are_left_as_files_that_lie_in_the_folder_and_classes_have_their_names(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        (tmp_path / "train" / kind).mkdir(parents=True)
        draw_pictures(tmp_path / "train" / kind, 5)
    tables = read(tmp_path)
    table = tables.splits["train"]
    assert sorted(set(table["label"])) == ["cat", "dog"]
    assert table[0]["image"]["bytes"] is None
    assert Path(table[0]["image"]["path"]).is_file()
    check_rows(table, "train", {"image": "image"}, tables.folder, restrict_paths=True)


def test_a_train_split_that_stands_alone_is_cut(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [{"caption": str(n)} for n in range(10)])
    assert {name: len(table) for name, table in read(tmp_path).splits.items()} == {"train": 8, "val": 2}


def test_one_of_several_configurations_is_chosen_by_name(tmp_path: Path) -> None:
    folder = two_configs(tmp_path)
    assert {row["caption"][:2] for row in read(folder, "de").splits["train"]} == {"de"}
    assert "it has en, de" in refused(folder)
    assert "choose one: config=en" in refused(folder)
    assert "has no configuration fr" in refused(folder, "fr")


def test_a_name_that_cannot_be_reached_is_said_with_why() -> None:
    message = refused("user/nothing")  # conftest.py takes the network away
    assert "user/nothing is neither a folder nor in the cache" in message
    assert "HF_HUB_OFFLINE" in message


def test_a_program_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds" / "birds.py").write_text("raise SystemExit('I was run')")
    assert "is a program of its author" in refused(tmp_path / "birds")


@pytest.mark.parametrize("content", ["", "{broken"])
def test_a_folder_with_a_broken_or_empty_table_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "train.jsonl").write_text(content)
    assert f"{tmp_path} cannot be read" in refused(tmp_path)


def test_a_folder_without_tables_is_no_data_set(tmp_path: Path) -> None:
    assert "doesn't contain any data files" in refused(tmp_path)


def test_what_only_a_network_can_answer_has_its_mend_too() -> None:
    from datasets.exceptions import DatasetNotFoundError

    gated = DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub.")
    assert "hf auth login" in str(_explained(gated, "a/b", None, None))
    unknown = DatasetNotFoundError("Revision 'v9' doesn't exist for dataset 'a/b' on the Hub.")
    assert "has no revision v9" in str(_explained(unknown, "a/b", None, "v9"))
    absent = DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed.")
    assert "https://huggingface.co/datasets" in str(_explained(absent, "a/b", None, None))


def test_the_rows_are_those_of_the_files(tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "caption": f"c{n}"} for n in range(6)]
    write_rows(tmp_path / "test.jsonl", rows)
    assert [json.loads(json.dumps(row)) for row in read(tmp_path).splits["test"]] == rows


@pytest.mark.parametrize("named", ["../out/secret.csv", "{out}/secret.csv", "file://{out}/secret.csv", "link.csv"])
def test_a_readme_takes_no_table_from_elsewhere(named: str, tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    for folder in (root, out):
        folder.mkdir()
    (out / "secret.csv").write_text("caption\n" + "a secret\n" * 10)
    (root / "link.csv").symlink_to(out / "secret.csv")
    (root / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files: {named.format(out=out)}\n---\n"
    )
    message = refused(root)
    assert f"which is outside of the data folder {root}" in message and "data.restrict_paths=false" in message
    result = hub_tables(name=str(root), config=None, revision=None, split=split(), restrict_paths=False)
    assert result.splits["train"][0]["caption"] == "a secret"


def test_lists_of_pictures_are_left_as_files_too(tmp_path: Path) -> None:
    pictures = draw_pictures(tmp_path, 2)
    (tmp_path / "set").mkdir()
    features = datasets.Features({"images": datasets.List(datasets.Image()), "more": {"one": datasets.Image()}})
    cells = [str(tmp_path / name) for name in pictures]
    rows = {"images": [cells] * 5, "more": [{"one": cells[0]}] * 5}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / "train.parquet")
    row = read(tmp_path / "set").splits["train"][0]
    assert [set(picture) for picture in row["images"]] == [{"bytes", "path"}] * 2
    assert set(row["more"]["one"]) == {"bytes", "path"}
