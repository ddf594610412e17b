"""Class names and templates: the sets of this project, files of a user, and labels in other spellings."""

from pathlib import Path

import pytest

from mmtrain.errors import ConfigError
from mmtrain.modes.search.classes import NAMES, TEMPLATES, load_class_names, load_templates, match_labels

SIZES = {"cifar10": 10, "cifar100": 100, "food101": 101, "flowers102": 102, "pets37": 37}


def test_sets_of_this_project() -> None:
    assert {file.stem for file in NAMES.glob("*.yaml")} == set(SIZES)
    assert {name: len(load_class_names(name)) for name in SIZES} == SIZES
    assert all(len(set(load_class_names(name).values())) == size for name, size in SIZES.items())
    sets = {file.stem: load_templates(file.stem) for file in TEMPLATES.glob("*.yaml")}
    assert len(set(sets["objects"])) == 80
    assert all(template.count("{}") == 1 for templates in sets.values() for template in templates)


def test_labels_of_tables_and_folders() -> None:
    """The labels of Flowers start at 1; those of CIFAR are positions."""
    assert match_labels(["1", "102", "Pink_Primrose"], load_class_names("flowers102")) == {
        "1": 0,
        "102": 101,
        "Pink_Primrose": 0,
    }
    assert match_labels(["0", "9", "Truck"], load_class_names("cifar10")) == {"0": 0, "9": 9, "Truck": 9}
    assert match_labels(["macaroni_and_cheese"], load_class_names("food101")) == {"macaroni_and_cheese": 62}
    assert match_labels(["saint_bernard"], load_class_names("pets37")) == {"saint_bernard": 28}


def test_files_of_a_user(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a cat\n\na dog\n")
    (tmp_path / "names.yaml").write_text("n01: tench\nn02: shark\n3: ray\n")
    (tmp_path / "templates.yaml").write_text("- a {}\n")
    assert load_class_names(str(tmp_path / "names.txt")) == {"a cat": "a cat", "a dog": "a dog"}
    assert match_labels(["3", "n02", "Tench"], load_class_names(str(tmp_path / "names.yaml"))) == {
        "3": 2,
        "n02": 1,
        "Tench": 0,
    }
    assert load_templates(str(tmp_path / "templates.yaml")) == ["a {}"]
    assert load_templates(["the {}"]) == ["the {}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- a\n", r"a name is listed twice"),
        ("- a\n", r"1 names"),
        ("a", r"neither a list of names nor label: name"),
        ("a: [", r"cannot be read"),
    ],
)
def test_faults_of_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "names.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_class_names(str(tmp_path / "names.yaml"))


def test_unknown_names_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"test\.class_names=birds: no such file.*\n    fix: name a file"):
        load_class_names("birds")
    with pytest.raises(ConfigError, match=r"2 labels are not among the 10 names, such as 'fish'"):
        match_labels(["cat", "fish", "10"], load_class_names("cifar10"))
    (tmp_path / "t.yaml").write_text("a: b")
    with pytest.raises(ConfigError, match=r"not a list of sentences"):
        load_templates(str(tmp_path / "t.yaml"))
