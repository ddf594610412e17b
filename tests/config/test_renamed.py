"""Old names of keys and values: on the command line, in sweeps, in YAML files, in run folders and in checkpoints."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from mmtrain.build import compose
from mmtrain.config import renamed
from mmtrain.config.compose import config_dir
from mmtrain.config.renamed import RENAMED_KEYS, RENAMED_PATHS, RenamedKey, current_override, update_keys
from mmtrain.config.run_config import load_run_config, recorded_overrides
from mmtrain.config.validate import Validator, faults_of, help_text, with_current_keys
from mmtrain.training.checkpoint.resume import check_same_run, config_fingerprint, facts_to_compare

CONTRASTIVE = "mmtrain.tasks.contrastive.Contrastive"
KEYS = (
    RenamedKey("heat", "temperature", targets=(CONTRASTIVE,)),
    RenamedKey("loss", "loss", targets=(CONTRASTIVE,), values={"siglip": "sigmoid"}),
    RenamedKey("decay", "layer_decay", sibling="freeze_until"),
)
PATHS = {"test.splits": "test.subsets", "resume.except": "resume_allow"}
OLD = ["task.contrastive.heat=0.2", "task.contrastive.loss=siglip", "encoder.image.decay=0.9", "test.splits=none"]
NEW = [
    "task.contrastive.temperature=0.2",
    "task.contrastive.loss=sigmoid",
    "encoder.image.layer_decay=0.9",
    "test.subsets=none",
]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A table of names that no version had."""
    monkeypatch.setattr(renamed, "RENAMED_KEYS", KEYS)
    monkeypatch.setattr(renamed, "RENAMED_PATHS", PATHS)
    renamed._old_words.cache_clear()
    yield
    renamed._old_words.cache_clear()


def current(*overrides: str, extra: Path | None = None) -> tuple[list[str], list[str]]:
    return with_current_keys(config_dir(), None if extra is None else str(extra), list(overrides))


def faults(*overrides: str, extra: Path | None = None, multirun: bool = False) -> list[str]:
    return faults_of(config_dir(), None if extra is None else str(extra), list(overrides), multirun=multirun)


# ------------------------------------------------------------- the mechanism


def test_old_names_on_the_command_line_are_taken_and_reported(table: None) -> None:
    overrides, notes = current("seed=3", *OLD)
    assert overrides == ["seed=3", *NEW]
    assert notes[0] == (
        "task.contrastive.heat=0.2: the name is now task.contrastive.temperature=0.2\n"
        "    fix: write the new name; the next release no longer accepts the old one"
    )
    assert len(notes) == 4
    assert faults(*OLD) == []
    assert compose(OLD) == compose(NEW)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("+task.contrastive.heat=0.2", "+task.contrastive.temperature=0.2"),
        ("~task.contrastive.heat", "~task.contrastive.temperature"),
        ("task.contrastive={heat: 0.2, loss: siglip}", "task.contrastive={temperature: 0.2, loss: sigmoid}"),
        ("resume.except=[seed]", "resume_allow=[seed]"),
        ("task.contrastive.temperature=0.2", "task.contrastive.temperature=0.2"),
        ("task.matching.heat=0.2", "task.matching.heat=0.2"),
        ("seed=heat", "seed=heat"),
    ],
)
def test_each_way_to_write_an_override(old: str, new: str, table: None) -> None:
    overrides, notes = current(old)
    assert overrides == [new]
    assert len(notes) == (old != new)


def test_a_key_below_another_name_is_found_by_its_component(table: None) -> None:
    overrides, _ = current("task@task.pull=contrastive", "task.pull.heat=0.2")
    assert overrides[1] == "task.pull.heat=0.2"  # the file puts its content below task.contrastive
    plain = {"task": {"pull": {"_target_": CONTRASTIVE}}}
    assert current_override("task.pull.heat=0.2", plain) == "task.pull.temperature=0.2"
    assert current_override("task.pull.heat=0.2", {"task": {"pull": {"_target_": "mine.Pull"}}}).endswith("heat=0.2")


def test_of_both_names_the_last_counts(table: None) -> None:
    overrides, _ = current("task.contrastive.heat=0.2", "task.contrastive.temperature=0.3")
    assert overrides == ["task.contrastive.temperature=0.3"]
    overrides, _ = current("task.contrastive.temperature=0.3", "task.contrastive.heat=0.2")
    assert overrides == ["task.contrastive.temperature=0.2"]


def test_a_sweep_over_an_old_name(table: None) -> None:
    overrides, notes = current("task.contrastive.heat=0.1,0.2", "task.contrastive.loss=choice(siglip,info_nce)")
    assert overrides == ["task.contrastive.temperature=0.1,0.2", "task.contrastive.loss=choice(sigmoid,info_nce)"]
    assert len(notes) == 2
    assert faults("task.contrastive.heat=0.1,0.2", multirun=True) == []


def test_an_option_of_a_sweep_that_has_the_key(table: None) -> None:
    overrides, _ = current("task=[matching],[contrastive]", "fusion=concat,sum", "task.contrastive.heat=0.1,0.2")
    assert overrides[2] == "task.contrastive.temperature=0.1,0.2"


def test_a_file_of_the_user_with_old_names(tmp_path: Path, table: None) -> None:
    (tmp_path / "experiment").mkdir()
    experiment = {"task": {"contrastive": {"heat": 0.2, "min_temperature": "${.heat}"}}, "test": {"splits": "none"}}
    experiment["encoder"] = {"image": {"decay": 0.8}, "text": {"layer_decay": "${encoder.image.decay}"}}
    text = "# @package _global_\n" + yaml.safe_dump(experiment)
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    assert faults("experiment=mine", extra=tmp_path) == []
    composer = Validator(config_dir(), str(tmp_path))
    cfg = composer.compose(["experiment=mine"])
    assert cfg.task.contrastive.temperature == cfg.task.contrastive.min_temperature == 0.2
    assert cfg.encoder.image.layer_decay == cfg.encoder.text.layer_decay == 0.8
    assert cfg.test.subsets == "none"
    assert "heat" not in cfg.task.contrastive and "splits" not in cfg.test
    above = composer.compose(["experiment=mine", "task.contrastive.temperature=0.5"])
    assert above.task.contrastive.temperature == 0.5


def test_a_search_space_of_a_file_with_old_names(tmp_path: Path, table: None) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      task.contrastive.heat: choice(0.1,0.2)\n"
    )
    assert faults("sweep=mine", extra=tmp_path, multirun=True) == []


def test_a_run_folder_with_old_names(tmp_path: Path, table: None) -> None:
    recorded = {
        "overrides": OLD,
        "task": {"contrastive": {"_target_": CONTRASTIVE, "heat": 0.2, "loss": "siglip"}},
        "encoder": {"image": {"_target_": "mmtrain.encoders.image.vit.ViT", "freeze_until": None, "decay": 0.9}},
        "test": {"splits": "none"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(recorded))
    cfg = load_run_config(tmp_path, trust=[])
    assert cfg.task.contrastive.temperature == 0.2 and cfg.task.contrastive.loss == "sigmoid"
    assert cfg.encoder.image.layer_decay == 0.9 and cfg.test.subsets == "none"
    kept, wrong = recorded_overrides(cfg, tmp_path, requested=[], configs=[config_dir()], trust=[])
    assert (kept, wrong) == (NEW, [])
    kept, _ = recorded_overrides(
        cfg, tmp_path, requested=["task.contrastive.temperature"], configs=[config_dir()], trust=[]
    )
    assert kept == NEW[1:]


def test_a_checkpoint_with_old_names_goes_on(table: None) -> None:
    today = compose(NEW)
    now = config_fingerprint(today, {"train": {"count": 44}})
    olds = {n.partition("=")[0]: o.partition("=")[0] for n, o in zip(NEW, OLD, strict=True)}
    before = {olds.get(key, key): value for key, value in now.items()} | {"task.contrastive.loss": "siglip"}
    assert "task.contrastive.heat" in before
    facts, now, notes = facts_to_compare(before, now, ids=str)
    assert check_same_run(facts, now, Path("last.ckpt")) == [] and notes == []
    passed = check_same_run(
        facts | {"task.contrastive.temperature": 0.7}, now, Path("x"), allow=["task.contrastive.heat"]
    )
    assert len(passed) == 1


def test_help_lists_only_groups_that_people_choose_from() -> None:
    text = help_text(config_dir(), None)
    groups = [line.partition(":")[0].strip() for line in text.splitlines()]
    assert not {"part", "tables", "tuning"} & set(groups)
    assert {"fusion", "input", "policy"} <= set(groups)


# ----------------------------------------------------------------- the table


def example(entry: RenamedKey) -> dict[str, Any]:
    """A node with the old name, as a run folder has it."""
    node: dict[str, Any] = {"_target_": entry.targets[0]} if entry.targets else {entry.sibling: None}
    return {"encoder": {"part": node | {entry.old: next(iter(entry.values), 7)}}}


@pytest.mark.parametrize("entry", RENAMED_KEYS, ids=lambda entry: f"{entry.old}-{entry.new}")
def test_each_renamed_key_is_taken_under_its_old_name(entry: RenamedKey) -> None:
    cfg = OmegaConf.create(example(entry))
    assert len(update_keys(cfg)) == 1
    old = next(iter(entry.values), 7)
    assert cfg.encoder.part[entry.new] == entry.values.get(str(old), old)
    assert entry.old == entry.new or entry.old not in cfg.encoder.part
    assert update_keys(cfg) == []
    override = current_override(f"encoder.part.{entry.old}={old}", example(entry))
    assert override == f"encoder.part.{entry.new}={entry.values.get(str(old), old)}"


@pytest.mark.parametrize("old", RENAMED_PATHS)
def test_each_renamed_path_is_taken(old: str) -> None:
    assert current_override(f"{old}=1", {}) == f"{RENAMED_PATHS[old]}=1"


def test_no_new_name_is_an_old_one_and_every_component_exists() -> None:
    from hydra.utils import get_object

    for entry in RENAMED_KEYS:
        for target in entry.targets:
            get_object(target)
            assert not any(other.old == entry.new != entry.old and target in other.targets for other in RENAMED_KEYS)
