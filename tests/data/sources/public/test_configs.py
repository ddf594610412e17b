"""Every YAML file of a public set composes with a folder, and gives its tables when they are read."""

import inspect
import tarfile
from pathlib import Path

import pytest

from mmtrain.build import build_data, compose
from mmtrain.config.compose import config_dir
from mmtrain.config.validate import faults_of
from mmtrain.data.sources import public
from mmtrain.errors import ConfigError
from tests.data.sources.public.parts import picture, write

OWN = sorted(path.stem for path in Path(inspect.getfile(public)).parent.glob("*.py"))
NAMES = [name for name in OWN if name not in ("__init__", "layout", "coco_pictures")]


@pytest.mark.parametrize("name", [*NAMES, "cc3m"])
def test_it_composes_and_is_built(name: str, tmp_path: Path) -> None:
    overrides = [f"data={name}", f"data.root={tmp_path}"]
    assert faults_of(config_dir(), None, overrides, multirun=False) == []
    cfg = compose(overrides)
    assert cfg.data.restrict_paths is True
    assert build_data(cfg).tables == {}
    [fault] = faults_of(config_dir(), None, [f"data={name}"], multirun=False)
    assert fault.startswith("data.root: not set")


@pytest.mark.parametrize("linked", ["meta/train.txt", "images"])
def test_a_part_of_a_public_set_that_is_a_link_out_is_refused(linked: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in range(10):
        picture(root / f"images/waffles/{number}.jpg")
    for split in ("train", "test"):
        write(root / f"meta/{split}.txt", "\n".join(f"waffles/{number}" for number in range(10)))
    (root / linked).rename(tmp_path / "elsewhere")
    (root / linked).symlink_to(tmp_path / "elsewhere")
    requested = ["data=food101", f"data.root={root}", "data.source.val=0.2", "data.batch_size=2", "task=[contrastive]"]
    with pytest.raises(ConfigError) as caught:
        build_data(compose(requested)).read(tmp_path / "run", training=True)
    assert str(caught.value).startswith(f"{root}/{linked} leads to {tmp_path}/elsewhere, which is outside")
    allowed = build_data(compose([*requested, "data.restrict_paths=false"]))
    allowed.read(tmp_path / "run", training=True)
    assert "image" in allowed.split("test")[(0, 0)].inputs


def test_food101_is_read(tmp_path: Path) -> None:
    names = [f"{dish}/{number}" for dish in ("apple_pie", "waffles") for number in range(5)]
    for name in names:
        picture(tmp_path / f"images/{name}.jpg")
    write(tmp_path / "meta/train.txt", "\n".join(names[:-1]))
    write(tmp_path / "meta/test.txt", names[-1])
    small = ["data.batch_size=2", "data.source.val=0.2", "task=[classification]"]
    data = build_data(compose(["data=food101", f"data.root={tmp_path}", *small]))
    data.read(tmp_path / "run", training=True)
    assert list(data.inputs) == ["image"] and data.known_targets["label"].names == ["apple_pie", "waffles"]
    assert data.example().inputs["image"].values.shape == (2, 3, 64, 64)


def test_cc3m_is_read(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "a red picture")
    write(tmp_path / "a.json", {"caption": "a red picture", "url": "x", "key": "a", "status": "success"})
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        with tarfile.open(tmp_path / split / "00000.tar", "w") as shard:
            for key in ("000000000", "000000001"):
                for ending in ("jpg", "txt", "json"):
                    shard.add(tmp_path / f"a.{ending}", f"{key}.{ending}")
    overrides = [f"data.root={tmp_path}", f"data.source.cache_dir={tmp_path / 'cache'}", "data.batch_size=2"]
    data = build_data(compose(["data=cc3m", *overrides, "task=[contrastive]"]))
    data.read(tmp_path / "run", training=True)
    assert {split: len(table) for split, table in data.tables.items()} == {"train": 2, "val": 2}
    assert data.example().present.keys() == {"image", "text"}
