"""Paths and patterns of shards."""

from pathlib import Path

import pytest

from mmtrain.data.sources.shard_files import paths_of


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("set [v1]/train-*.tar", ["set [v1]/train-0.tar", "set [v1]/train-1.tar"]),
        ("set [v1]/train-{0..1}.tar", ["set [v1]/train-0.tar", "set [v1]/train-1.tar"]),
        ("set [v1]/train-0.tar", ["set [v1]/train-0.tar"]),
        ("set*/train-0.tar", ["set [v1]/train-0.tar", "set v/train-0.tar"]),
        ("set [v]/train-0.tar", ["set v/train-0.tar"]),
        ("**/train-1.tar", ["set [v1]/train-1.tar"]),
        ("what?/a.tar", ["what?/a.tar"]),
    ],
)
def test_a_folder_that_is_there_is_meant_whatever_marks_its_name_has(
    tmp_path: Path, pattern: str, found: list[str]
) -> None:
    for name in ("set [v1]/train-0.tar", "set [v1]/train-1.tar", "set v/train-0.tar", "what?/a.tar", "whats/a.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert paths_of(str(tmp_path / pattern), "data.train") == [str(tmp_path / name) for name in found]
