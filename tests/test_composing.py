"""What is composed in parts is what Hydra composes in one go."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

from mmtrain.command import config_dir
from mmtrain.composing import Composing

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
def composing() -> Composing:
    return Composing(create_config_search_path(str(config_dir())))


@pytest.mark.parametrize("overrides", LINES, ids=" ".join)
def test_composes_what_hydra_composes(composing: Composing, overrides: list[str]) -> None:
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


def test_values_of_one_line_are_not_those_of_the_next(composing: Composing) -> None:
    assert composing.compose(["seed=11"]).seed == 11
    with pytest.raises(HydraException):
        composing.compose(["seed=12", "no_such_key=1"])
    assert composing.compose([]).seed == 0


def test_several_values_are_no_single_run(composing: Composing) -> None:
    with pytest.raises(HydraException, match="multirun"):
        composing.compose(["seed=1,2"])


def test_files_speak_in_order_and_are_read_once(composing: Composing, monkeypatch: pytest.MonkeyPatch) -> None:
    files = composing.files(["encoder/text=bert", "seed=4"])
    names = [path for path, _ in files]
    assert ("encoder/text/bert", "encoder.text") in files and names[0] == "train" and "hydra/config" not in names
    monkeypatch.setattr(Path, "open", None)
    file = composing.file("encoder/text/bert")
    assert file.folder == str(config_dir()) and "defaults" not in file.content and "_target_" in file.content


def test_folders_of_hydras_search_path_are_read(composing: Composing, tmp_path: Path) -> None:
    (tmp_path / "fusion").mkdir()
    (tmp_path / "fusion" / "own.yaml").write_text("_target_: own.Fusion\nwidth: 4\n")
    overrides = [f"hydra.searchpath=[file://{tmp_path}]", "fusion=own", "fusion.width=5"]
    cfg = composing.compose(overrides)
    assert dict(cfg.fusion) == {"_target_": "own.Fusion", "width": 5}
    assert composing.file("fusion/own").folder == str(tmp_path)
