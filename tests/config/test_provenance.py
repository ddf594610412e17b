"""Where a value was set, whose value it repeats, and what the first file says of it."""

import pytest
from omegaconf import DictConfig, OmegaConf

from mmtrain.config.provenance import ComposedConfig, Source

FILES = {
    "configs/train.yaml": ("", {"dim": 8, "encoder": {}, "size": "${dim}"}),
    "configs/encoder/vit.yaml": ("encoder", {}),
    "configs/encoder/image/vit.yaml": ("encoder.image", {"dim": "${dim}", "depth": 6, "shape": {"patch": 4}}),
    "conf/recipe.yaml": ("", {"encoder": {"image": {"depth": 2}}}),
}
RAW = {
    "dim": 8,
    "size": "${dim}",
    "encoder": {},
    "encoder.image": {},
    "encoder.image.dim": "${size}",
    "encoder.image.depth": 2,
    "encoder.image.shape": {},
    "encoder.image.shape.patch": "x${dim}",
    "a": "${b}",
    "b": "${a}",
}


def composed(*, set_by: list[str] | None = None, chosen_by: list[str] | None = None) -> ComposedConfig:
    return ComposedConfig(
        cfg=DictConfig({}),
        raw=RAW,
        sources=[Source(file=file, package=package, content=content) for file, (package, content) in FILES.items()],
        set_by={override.split("=")[0]: override for override in set_by or []},
        chosen_by={override.split("=")[0]: override for override in chosen_by or []},
    )


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("encoder.image", ({"dim": 1, "shape": {"patch": 4}},)),
        ("encoder.image.dim", (1,)),
        ("encoder.image.shape.patch", (4,)),
        ("encoder.image.shape.patch.x", None),
        ("encoder.image.depth", None),
        ("encoder.images", None),
        ("encoder", None),
        ("dim", None),
    ],
)
def test_a_file_speaks_of_the_keys_below_its_package(key: str, expected: tuple[object] | None) -> None:
    source = Source(file="a.yaml", package="encoder.image", content={"dim": 1, "shape": {"patch": 4}})
    assert source.get(key) == expected


@pytest.mark.parametrize(
    ("key", "root"),
    [
        ("dim", "dim"),
        ("size", "dim"),
        ("encoder.image.dim", "dim"),
        ("encoder.image.shape.patch", "encoder.image.shape.patch"),  # made of another value, and no copy of it
        ("not.there", "not.there"),
    ],
)
def test_the_root_of_a_value_is_where_it_is_written(key: str, root: str) -> None:
    assert composed().root(key) == root


def test_a_circle_has_no_root_and_ends_all_the_same() -> None:
    assert composed().root("a") in ("a", "b")


@pytest.mark.parametrize(
    ("key", "file"),
    [
        ("dim", "configs/train.yaml"),
        ("encoder.image.dim", "configs/train.yaml"),  # repeats dim
        ("encoder.image.depth", "conf/recipe.yaml"),  # the last file with it
        ("encoder.image.shape.patch", "configs/encoder/image/vit.yaml"),
        ("encoder.image.shape.new", "configs/encoder/image/vit.yaml"),  # where it would be
        ("encoder.image.new", "conf/recipe.yaml"),
        ("nowhere.at.all", "configs/train.yaml"),
    ],
)
def test_a_value_is_set_in_a_file(key: str, file: str) -> None:
    assert composed().where(key) == file


def test_an_override_comes_before_the_files() -> None:
    run = composed(set_by=["dim=4", "encoder.image.shape={patch:3}", "~encoder.image.depth"], chosen_by=["encoder=vit"])
    assert run.where("dim") == run.where("encoder.image.dim") == "override dim=4"
    assert run.where("encoder.image.shape.patch") == "override encoder.image.shape={patch:3}"
    assert run.where("encoder") == "override encoder=vit"
    assert run.where("encoder.image") == "conf/recipe.yaml", "what an option sets is in its file"
    assert run.where("encoder.image.shapes") == "conf/recipe.yaml", "a longer name is another key"


def test_the_nearest_of_two_overrides_sets_a_value() -> None:
    run = composed(set_by=["encoder.image={depth:1}", "encoder.image.shape.patch=2"])
    assert run.where("encoder.image.shape.patch") == "override encoder.image.shape.patch=2"
    assert run.where("encoder.image.shape") == "override encoder.image={depth:1}"


def test_of_several_keys_the_overrides_are_named_or_else_the_files_each_once() -> None:
    keys = ("encoder.image.dim", "encoder.image.depth", "dim")
    assert composed().where(*keys) == "configs/train.yaml, conf/recipe.yaml"
    assert composed(set_by=["dim=4"]).where(*keys) == "override dim=4"
    two = composed(set_by=["dim=4", "encoder.image.depth=3"])
    assert two.where(*keys) == "override dim=4, override encoder.image.depth=3"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dim", 8),
        ("encoder.image.dim", 8),  # a copy is of the kind of what it copies
        ("encoder.image.depth", 6),  # the recipe comes later
        ("encoder.image.shape", {"patch": 4}),
        ("encoder.image.new", None),
    ],
)
def test_the_default_is_what_the_first_file_says(key: str, value: object) -> None:
    assert composed(set_by=["dim=4"]).default(key) == value


def test_parts_are_the_nodes_that_become_objects() -> None:
    part = {"_target_": "a.B"}
    plain = {
        "data": part | {"source": part, "inputs": {"image": part}},
        "balance": part,
        "optimizer": part,
        "schedule": part,
        "encoder": {"image": part, "text": None},
        "task": {"contrastive": part},
        "callbacks": {},
        "logger": {"csv": {}},
    }
    run = ComposedConfig(cfg=OmegaConf.create(plain), raw={}, sources=[], set_by={}, chosen_by={})
    parts = dict(run.parts())
    assert list(parts) == [
        *("data", "data.source", "balance", "optimizer", "schedule"),
        *("encoder.image", "encoder.text", "task.contrastive", "data.inputs.image", "logger.csv"),
    ]
    assert parts["encoder.text"] is None and parts["encoder.image"] == part


def test_a_relative_interpolation_is_followed_from_its_key() -> None:
    raw = {"task.a.low": "${.high}", "task.a.high": "${..shared}", "task.shared": 3, "task.a.gone": "${.nothing}"}
    run = ComposedConfig(cfg=OmegaConf.create(), raw=raw, sources=[], set_by={}, chosen_by={})
    assert [run.root(key) for key in raw] == ["task.shared", "task.shared", "task.shared", "task.a.gone"]
