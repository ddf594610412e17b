"""A cache that cannot be written is named as that, with the variable that names another; a broken table stays one."""

import errno
import os
from pathlib import Path
from typing import Any

import datasets
import pytest

from mmtrain.data.sources import openmoji
from mmtrain.data.sources.caches import datasets_cache_error, writing_cache
from mmtrain.data.sources.files import existing_folder, read_folder
from mmtrain.data.tables.splits import Split
from mmtrain.errors import ConfigError, WriteError

SPLIT = Split(column=None, fractions={"train": 0.8, "val": 0.1, "test": 0.1}, group=None)
ROWS = '{"image": "a.png", "caption": "a cat"}\n' * 9


def error_of(number: int, name: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), name) if name else OSError(number, os.strerror(number))


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_cache_that_cannot_be_made_is_not_the_table(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"train.{ending}").write_text(ROWS if ending == "jsonl" else "caption,label\na cat,cat\n")
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "huggingface" / "datasets"
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", str(cache.parent))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    with pytest.raises(WriteError) as caught:
        read_folder(existing_folder(tmp_path), SPLIT)
    message = str(caught.value)
    assert message.startswith(f"{cache}: this cache cannot be written: Not a directory\n    fix: set HF_HOME (or")
    assert "correct the table" not in message


def test_a_table_that_is_broken_is_still_the_table(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(ROWS + '{"image": \n' + ROWS)
    with pytest.raises(ConfigError, match=r"train\.jsonl cannot be read as jsonl: line 10") as caught:
        read_folder(existing_folder(tmp_path), SPLIT)
    assert not isinstance(caught.value, WriteError)


def test_errors_of_the_cache_are_told_from_those_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", "/home/ada/hf")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", Path("/disk/datasets"))
    table = Path("/disk/datasets/mine/train.csv")
    full: Any = datasets.exceptions.DatasetGenerationError("while generating")
    full.__cause__ = error_of(errno.ENOSPC)
    for error, words in (
        (error_of(errno.EACCES, "/disk/datasets/csv/0.lock"), "Permission denied"),
        (error_of(errno.ENOENT, "/home"), "No such file"),
        (error_of(errno.EROFS), "Read-only file system"),
        (error_of(errno.EDQUOT), "quota exceeded"),
        (OSError("Not enough disk space. Needed: 3 GB"), "Not enough disk space"),
        (full, "No space left on device"),
    ):
        result = datasets_cache_error(error, table)
        assert result is not None and words in str(result) and str(result).startswith("/disk/datasets: this cache")
    for other in (
        error_of(errno.EACCES, str(table)),
        error_of(errno.ENOENT, "/elsewhere/train.csv"),
        error_of(errno.EIO),
        ValueError("a column has a number and a text"),
    ):
        assert datasets_cache_error(other, table) is None


def test_a_cache_of_drawings_names_its_variable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options: dict[str, Any] = {"size": 16, "languages": ["en"], "split": {"train": 0.8, "val": 0.1, "test": 0.1}}
    with pytest.raises(WriteError, match=r"this cache cannot be written: .*\n    fix: set MMTRAIN_CACHE to a folder"):
        openmoji.prepare_openmoji(cache_dir=tmp_path / "file" / "cache", **options)


def test_what_is_no_fault_of_the_cache_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), writing_cache(tmp_path / "cache", "MMTRAIN_CACHE"):
        (tmp_path / "elsewhere").read_text()
    with pytest.raises(ConfigError, match="a language") as caught, writing_cache(tmp_path, "MMTRAIN_CACHE"):
        raise ConfigError("a language")
    assert not isinstance(caught.value, WriteError)
