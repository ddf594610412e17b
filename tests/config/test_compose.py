"""What is composed in parts is what Hydra composes in one go."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict

from mmtrain.config.compose import ConfigComposer, config_dir, fill_auto

LINES = [
    [],
    ["encoder=vit", "fusion=cross_attn"],
    ["encoder.text.depth=3", "encoder/text=bert", "seed=7"],
    ["task=[classification,contrastive]", "task.contrastive.weight=0.5", "balance=pcgrad"],
    ["data=stamps", "~encoder.audio", "+optimizer.extra=1", "++seed=3"],
    ["data=moving", "~encoder.text", "schedule=cosine", "trainer=ddp"],
    ["experiment=stamps_retrieval", "trainer.max_epochs=2"],
    ["callbacks=[early_stopping]", "callbacks.early_stopping.patience=4"],
    ["dim=64", "dim=96"],
    ["optimizer.betas=[0.9,0.95]", "data.augment={}"],
    ["trainer.max_epochs=${seed}", "seed=5"],
]


def of_hydra(overrides: list[str]) -> Any:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return OmegaConf.to_container(compose("train", overrides), resolve=False)


@pytest.fixture(scope="module")
def composing() -> ConfigComposer:
    return ConfigComposer(create_config_search_path(str(config_dir())))


@pytest.mark.parametrize("overrides", LINES, ids=" ".join)
def test_composes_what_hydra_composes(composing: ConfigComposer, overrides: list[str]) -> None:
    try:
        cfg = composing.compose(overrides)
    except HydraException:
        with pytest.raises(HydraException):
            of_hydra(overrides)
        return
    own = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(own, dict)
    assert own.pop("hydra")["overrides"]["task"] == overrides
    assert own == of_hydra(overrides)


def test_values_of_one_line_are_not_those_of_the_next(composing: ConfigComposer) -> None:
    assert composing.compose(["seed=11"]).seed == 11
    with pytest.raises(HydraException):
        composing.compose(["seed=12", "no_such_key=1"])
    assert composing.compose([]).seed == 0


def test_several_values_are_no_single_run(composing: ConfigComposer) -> None:
    with pytest.raises(HydraException, match="multirun"):
        composing.compose(["seed=1,2"])


def test_files_speak_in_order_and_are_read_once(composing: ConfigComposer, monkeypatch: pytest.MonkeyPatch) -> None:
    files = composing.files(["encoder/text=bert", "seed=4"])
    names = [path for path, _ in files]
    assert ("encoder/text/bert", "encoder.text") in files and names[0] == "train" and "hydra/config" not in names
    monkeypatch.setattr(Path, "open", None)
    file = composing.file("encoder/text/bert")
    assert file.folder == str(config_dir()) and "defaults" not in file.content and "_target_" in file.content


def test_folders_of_hydras_search_path_are_read(composing: ConfigComposer, tmp_path: Path) -> None:
    (tmp_path / "fusion").mkdir()
    (tmp_path / "fusion" / "own.yaml").write_text("_target_: own.Fusion\nwidth: 4\n")
    overrides = [f"hydra.searchpath=[file://{tmp_path}]", "fusion=own", "fusion.width=5"]
    cfg = composing.compose(overrides)
    assert dict(cfg.fusion) == {"_target_": "own.Fusion", "width": 5}
    assert composing.file("fusion/own").folder == str(tmp_path)


def of_folders(*folders: Path) -> ConfigComposer:
    """What the command composes with `--config-dir`."""
    path = create_config_search_path(str(config_dir()))
    for folder in folders:
        path.prepend(provider="command-line", path=f"file://{folder}", anchor=SearchPathQuery(provider="schema"))
    return ConfigComposer(path)


def test_a_file_that_changes_between_two_readings_is_read_anew(tmp_path: Path) -> None:
    (tmp_path / "fusion").mkdir()
    own = tmp_path / "fusion" / "own.yaml"
    for written, read in [("4", 4), ("5", 5), ("123", 123)]:  # 4 and 5: the size of the file stays
        own.write_text(f"_target_: own.Fusion\nwidth: {written}\n")
        composing = of_folders(tmp_path)
        assert composing.compose(["fusion=own"]).fusion.width == read
        assert composing.file("fusion/own").content["width"] == read
    own.unlink()
    with pytest.raises(HydraException):
        of_folders(tmp_path).compose(["fusion=own"])
    own.write_text("defaults: [sum]\nwidth: 6\n")
    assert of_folders(tmp_path).compose(["fusion=own"]).fusion.width == 6


def test_a_file_that_comes_first_is_read_as_soon_as_it_is_there(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "fusion").mkdir(parents=True)
    (second / "fusion" / "own.yaml").write_text("_target_: own.Fusion\nwidth: 2\n")
    assert of_folders(first, second).compose(["fusion=own"]).fusion.width == 2
    (first / "fusion" / "own.yaml").write_text("_target_: own.Fusion\nwidth: 1\n")
    assert of_folders(first, second).compose(["fusion=own"]).fusion.width == 1


def test_what_is_composed_again_is_not_what_somebody_changed() -> None:
    def composing() -> ConfigComposer:
        return ConfigComposer(create_config_search_path(str(config_dir())))

    with open_dict(cfg := composing().compose([])):
        cfg.dim = -1
        del cfg.encoder
    assert composing().compose([]).dim > 0 and "encoder" in composing().compose([])


def test_a_defaults_list_may_refer_to_what_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("defaults: [_self_, fusion: sum, head: '${fusion}']\n")
    for group in ("fusion", "head"):
        (tmp_path / group).mkdir()
        for option in ("sum", "concat"):
            (tmp_path / group / f"{option}.yaml").write_text(f"name: {group} {option}\n")
    composing = ConfigComposer(create_config_search_path(str(tmp_path)))
    assert composing.compose([]).head.name == "head sum"
    assert composing.compose(["fusion=concat"]).head.name == "head concat"


def test_the_tokenizer_of_dialogues_is_that_of_the_language_model() -> None:
    """Of any task that has one, under any name."""
    named = {"lm": {"name": "gpt", "config": None}}
    tasks: list[dict[str, Any]] = [{}, {"mine": named}, {"mine": {"policy": named}}, {"mine": {"lm": {"name": None}}}]
    results = []
    for task in tasks:
        cfg = OmegaConf.create({"data": {"targets": {"chat": {"tokenizer": "auto"}}}, "task": task})
        fill_auto(cfg)
        results.append(cfg.data.targets.chat.tokenizer)
    assert results == [None, "gpt", "gpt", None]
