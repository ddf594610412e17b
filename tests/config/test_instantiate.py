"""What a run folder may name: every component that a shipped file has, and the packages that the user trusts."""

import sys
from pathlib import Path

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from mmtrain.annotations import Flattened
from mmtrain.config.compose import config_dir
from mmtrain.config.instantiate import (
    LIBRARY_CLASSES,
    ONLY_BELOW,
    add_working_folder,
    check_trust,
    components,
    construct,
    get_object,
    is_component,
    is_trusted,
    make,
    refused_targets,
    signature_of,
)
from mmtrain.config.validate import faults_of
from mmtrain.errors import ConfigError

FILES = sorted(config_dir().rglob("*.yaml"))


def targets_in(node: object) -> set[str]:
    if isinstance(node, dict):
        here = {node["_target_"]} if "_target_" in node else set()
        return here.union(*map(targets_in, node.values()))
    return set().union(*map(targets_in, node)) if isinstance(node, list) else set()


def test_components_are_what_shipped_files_name() -> None:
    named = set().union(*(targets_in(yaml.safe_load(file.read_text())) for file in FILES))
    assert components() == {name for name in named if name.startswith(("mmtrain.", "peft."))}
    assert len(components()) > 100
    for name in components():
        thing = get_object(name)
        assert f"{thing.__module__}.{thing.__qualname__}" == name or name.startswith("peft."), name  # no re-export


# Where the options of a group go; of the others it is the group's own key. `sweep` and `hydra` are no part of a record.
GOES_TO = {
    "input": ["data.inputs.mine"],
    "target": ["data.targets.mine"],
    "part": ["data.parts.mine"],
    "peft": ["encoder.image.peft", "task.language_model.lm.peft"],
    "policy": ["task.dpo.policy"],
    "connector": ["task.language_model.connector"],
    "tables": ["data"],
    "tuning": ["encoder.image"],
    "experiment": [""],
    ".": [""],
}


@pytest.mark.parametrize("file", [f for f in FILES if f.relative_to(config_dir()).parts[0] not in ("hydra", "sweep")])
def test_every_shipped_option_may_stand_in_a_record(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    group = file.parent.relative_to(config_dir()).as_posix()
    for key in GOES_TO.get(group, [group.replace("/", ".")]):
        parts = {name: part for name, part in content.items() if name != "hydra"}
        assert list(refused_targets(parts, key, [])) == []


def test_a_pruner_of_a_sweep_may_stand_in_a_record() -> None:
    pruner = yaml.safe_load((config_dir() / "hydra" / "sweeper" / "optuna.yaml").read_text())["pruner"]
    assert list(refused_targets({"trial": {"pruner": pruner}}, "", [])) == []
    assert list(refused_targets({"fusion": pruner}, "", [])) == [("fusion", "optuna.pruners.MedianPruner")]


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "LBFGS", "Muon"])
def test_classes_of_torch_optim_stand_at_their_key_alone(name: str) -> None:
    assert is_component(f"torch.optim.{name}", "optimizer")
    assert not is_component(f"torch.optim.{name}", "fusion") and not is_component(
        f"torch.optim.{name}.load", "optimizer"
    )


def test_what_has_an_effect_when_it_is_built_stands_at_its_key_alone() -> None:
    for prefix, key in ONLY_BELOW.items():
        for name in [name for name in components() if name.startswith(prefix)]:
            assert is_component(name, key) and is_component(name, f"{key}.x") and is_component(name, f"{key}[0]")
            assert not is_component(name, "encoder.image") and not is_component(name, f"{key}s")
    assert set(LIBRARY_CLASSES) == {"optimizer", "callbacks", "trial"}


# ------------------------------------------------------------- the user's own


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {
        "mine.py": "import os\nfrom os import system\nfrom torch import nn\n\n\nclass Mine:\n    @classmethod\n"
        "    def made(cls): ...\n\n\ndef make(): ...\n\n\nalias = os.system\n",
        "mineral.py": "class Mine: ...\n",
        "pack/__init__.py": "from os import system\nfrom .inner import Part, Renamed as Other\n"
        "from pack.deep.more import Deep\n",
        "pack/inner.py": "import subprocess\nfrom subprocess import run\n\n\nclass Part: ...\n\n\nclass Renamed: ...\n",
        "pack/deep/__init__.py": "from ..inner import Part\nfrom ..inner import run\nfrom .loop import Loop\n",
        "pack/deep/more.py": "class Deep: ...\n",
        "pack/deep/loop.py": "from pack.deep import Loop\n",
        "broken.py": "class Mine(:\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "target",
    [
        *("mine.Mine", "mine.make", "mine.Mine.made", "pack.Part", "pack.Other", "pack.Deep", "pack.inner.Part"),
        *("pack.deep.more.Deep", "pack.deep.Part"),
    ],
)
def test_what_a_trusted_package_defines_may_be_named(target: str) -> None:
    package = target.split(".")[0]
    assert is_trusted(target, [package]) and is_trusted(target, ["other", package]) and is_trusted(target, [target])
    assert (
        not is_trusted(target, [])
        and not is_trusted(target, [package[:-1]])
        and not is_trusted(target, [f"{package}ral"])
    )
    assert package not in sys.modules


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "target",
    [
        *(
            "mine",
            "mine.os",
            "mine.os.system",
            "mine.system",
            "mine.alias",
            "mine.nn.Linear",
            "mine.Mine.mro",
            "mine.nothing",
        ),
        *("mineral.Mine", "pack.system", "pack.inner", "pack.inner.subprocess.run", "pack.inner.run", "pack.deep.run"),
        *("pack.inner.Part.__init__.__globals__", "pack.deep.Loop", "broken.Mine", "mine.", ".mine.Mine", "mine..Mine"),
    ],
)
def test_what_a_trusted_package_imports_may_not_be_named(target: str) -> None:
    assert not is_trusted(target, ["mine", "pack", "broken"])


@pytest.mark.parametrize(
    ("trust", "message"),
    [
        ("mine", None),
        (["mine", "pack.inner"], None),
        (None, None),
        (["os"], "trust=os: not a package of your own"),
        (["builtins"], "trust=builtins: not a package of your own"),
        (["mmtrain.modes.run"], "trust=mmtrain.modes.run: not a package of your own"),
        ([""], "trust=: not the name of a package"),
        (["mine/../x"], "trust=mine/../x: not the name of a package"),
        ([3], "trust=3: not the name of a package"),
    ],
)
def test_trust_names_packages_of_the_users_own(trust: object, message: str | None) -> None:
    if message is None:
        assert check_trust(trust) == ([trust] if trust == "mine" else trust or [])
        return
    with pytest.raises(ConfigError, match=f"^{message}"):
        check_trust(trust)


def test_what_cannot_be_trusted_is_explained_before_anything_is_built() -> None:
    (fault,) = faults_of(config_dir(), None, ["trust=[mine,os]"], multirun=False)
    assert fault.splitlines() == [
        "trust=os: not a package of your own; it can run any command (override trust=[mine,os])",
        "    fix: name the package that defines your classes, such as trust=[mine]",
    ]
    GlobalHydra.instance().clear()


def test_the_working_folder_shadows_nothing_and_a_run_folder_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    (run / "checkpoints" / "best.ckpt").touch()
    for folder, named, added in (
        (tmp_path, run, True),
        (tmp_path, None, True),
        (tmp_path, tmp_path, True),  # it holds no run yet
        (run, run, False),
        (run, Path(), False),
        (run / "checkpoints", run, False),
        (run, Path("checkpoints/best.ckpt"), False),
    ):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", ["a", "b"])
        add_working_folder(named)
        assert sys.path == ["a", "b", *([str(folder)] if added else [])], (folder, named)


class Part:
    def __init__(self, *, width: int, sizes: list[int], name: str = "part") -> None:
        if width < 1:
            raise ValueError(f"width = {width}; set it to 1 or more")
        self.values = (width, sizes, name)


class Composite:
    def __init__(self, *, part: Flattened[Part], depth: int) -> None:
        self.part, self.depth = part, depth


def test_arguments_of_a_flattened_class_are_next_to_the_others() -> None:
    cfg = OmegaConf.create({"_target_": f"{__name__}.Composite", "width": 3, "sizes": [1, 2], "depth": 4})
    built = make(cfg, "fusion", name="given")
    assert isinstance(built.part, Part) and built.part.values == (3, [1, 2], "given") and built.depth == 4
    assert construct(Composite, part=built.part, depth=5).part is built.part, "a finished part can be given"
    assert list(signature_of(Composite).parameters) == ["width", "sizes", "name", "depth"]
    assert list(signature_of(Part).parameters) == ["width", "sizes", "name"]


def test_errors_of_a_flattened_class_name_the_node() -> None:
    cfg = OmegaConf.create({"_target_": f"{__name__}.Composite", "width": 0, "sizes": [], "depth": 4})
    with pytest.raises(ConfigError, match="fusion: width = 0; set it to 1 or more"):
        make(cfg, "fusion")
    cfg.width, cfg.unknown = 1, 1
    with pytest.raises(ConfigError, match=r"Composite: cannot be called with these options: .*unknown"):
        make(cfg, "fusion")
