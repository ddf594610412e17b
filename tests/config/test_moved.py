"""Paths of components that moved: in YAML files and on the command line, in run folders, and in checkpoints."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

import mmtrain
from mmtrain.build import compose
from mmtrain.config.compose import config_dir
from mmtrain.config.instantiate import is_component, refused_targets
from mmtrain.config.moved import MOVED, current_path, update_targets
from mmtrain.config.renamed import update_keys
from mmtrain.config.run_config import load_run_config, recorded_overrides
from mmtrain.config.validate import faults_of
from mmtrain.training.checkpoint.resume import check_same_run, config_fingerprint, facts_to_compare

RUN = Path(__file__).parent / "run_of_0_1_0"  # written by mmtrain 0.1.0
OLD = "data.inputs.image._target_=mmtrain.data.image.ImageInput"


def targets_of(node: Any) -> list[str]:
    """Every `_target_` of mmtrain in plain lists and dicts."""
    parts = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    own = [node["_target_"]] if isinstance(node, dict) and "_target_" in node else []
    return [t for t in [*own, *(t for part in parts for t in targets_of(part))] if t.startswith("mmtrain.")]


def test_each_module_of_the_table_has_left_its_old_place_and_is_at_the_new_one() -> None:
    package = Path(mmtrain.__file__).parent.parent
    for old, new in MOVED.items():
        assert not (package / f"{old.replace('.', '/')}.py").exists(), old
        assert (package / f"{new.replace('.', '/')}.py").is_file(), new
        assert new not in MOVED


@pytest.mark.parametrize(
    "target", ["mmtrain.run.subprocess.run", "mmtrain.data.image.np.load", "mine.data.image.X", ""]
)
def test_what_is_no_component_that_moved_keeps_its_path(target: str) -> None:
    assert current_path(target) == target


def test_an_old_path_on_the_command_line_is_accepted() -> None:
    assert faults_of(config_dir(), None, [OLD], multirun=False) == []
    assert compose([OLD]).data.inputs.image._target_ == "mmtrain.data.inputs.image.ImageInput"


def test_an_old_path_in_a_file_of_the_user_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "schedule").mkdir()
    (tmp_path / "schedule" / "mine.yaml").write_text(
        "_target_: mmtrain.schedules.constant\n_partial_: true\nwarmup: 0.1\n"
    )
    assert faults_of(config_dir(), str(tmp_path), ["schedule=mine"], multirun=False) == []


def test_a_note_gives_the_new_path() -> None:
    cfg = OmegaConf.create(
        {"hydra": {"_target_": "mmtrain.schedules.x"}, "a": [{"_target_": "mmtrain.schedules.cosine"}]}
    )
    assert update_targets(cfg) == [
        "a[0]._target_=mmtrain.schedules.cosine: moved to mmtrain.training.optim.schedules.cosine\n"
        "    fix: write the new path; the next release no longer accepts the old one"
    ]
    assert cfg.a[0]._target_ == "mmtrain.training.optim.schedules.cosine"
    assert update_targets(cfg) == []


def test_a_run_folder_of_before_is_read_with_the_paths_of_today() -> None:
    recorded = OmegaConf.to_container(OmegaConf.load(RUN / "config.yaml"))
    before = targets_of(recorded)
    assert len([t for t in before if current_path(t) != t]) > 15
    cfg = OmegaConf.to_container(load_run_config(RUN, trust=[]))
    assert targets_of(cfg) == [current_path(t) for t in before]
    assert list(refused_targets(cfg, "", [])) == []


def test_an_override_of_before_is_repeated() -> None:
    cfg = OmegaConf.create({"overrides": [OLD]})
    assert recorded_overrides(cfg, RUN, requested=[], configs=[config_dir()], trust=[]) == ([OLD], [])
    cfg = OmegaConf.create({"overrides": ["data.inputs.image._target_=mmtrain.data.image.np.load"]})
    kept, faults = recorded_overrides(cfg, RUN, requested=[], configs=[config_dir()], trust=[])
    assert kept == [] and "may only name components" in faults[0]


def test_a_checkpoint_of_before_goes_on() -> None:
    recorded = OmegaConf.load(RUN / "config.yaml")
    assert isinstance(recorded, DictConfig)
    rows = {"train": {"count": 44}}
    today = recorded.copy()
    assert update_targets(today) != []
    update_keys(today)
    before = config_fingerprint(recorded, rows)
    before.pop("data.max_bad", None)  # no fact of the run, under the name that it had then
    facts, now, notes = facts_to_compare(before, config_fingerprint(today, rows), ids=str)
    assert check_same_run(facts, now, Path("last.ckpt")) == [] and notes == []
    assert all(is_component(t, k.removesuffix("._target_")) for k, t in facts.items() if k.endswith("_target_"))
