"""Weights of one run into another: by name, by word, by class, by place; and a table that says so."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from mmtrain.errors import ConfigError
from mmtrain.layers.finetuning import Tuning, tune
from mmtrain.layers.pretrained import resized_grid, resized_line
from mmtrain.training.checkpoint.transfer import load_pretrained
from tests.batches import make_model
from tests.steps import make_lit
from tests.training.checkpoint.test_load import COMMAND, Trained, checkpoint_of


def take(checkpoint: dict[str, Any], module: nn.Module, **names: list[str]) -> dict[str, list[str]]:
    """The table by part, and the weights in the module."""
    table = load_pretrained(checkpoint, module, Path("a.ckpt"), names=names, pictures=["image"])
    return {row[0]: row[1:] for row in shown(table)}


def shown(table: Any) -> list[list[str]]:
    """The cells of a table, row by row."""
    screen = io.StringIO()
    Console(file=screen, width=200).print(table)
    return [
        [cell.strip() for cell in line.strip("│").split("│")] for line in screen.getvalue().splitlines() if "│" in line
    ]


def test_weights_that_fit_are_taken_and_the_table_says_which() -> None:
    torch.manual_seed(1)
    source, target = Trained(), Trained(task="classification")
    target.model.encoders["text"] = nn.Embedding(12, 6)
    before = {n: t.clone() for n, t in target.state_dict().items()}
    rows = take(checkpoint_of(source), target)
    after = target.state_dict()
    for name in after:
        fits = name.startswith(("model.encoders.image", "model.fusion"))
        assert torch.equal(after[name], (source.state_dict() if fits else before)[name]), name
    assert rows == {
        "encoders.image": ["2", "0", "0", "0", ""],
        "encoders.text": ["0", "0", "1", "1", "weight is (9, 6) there, (12, 6) here"],
        "fusion": ["2", "0", "0", "0", ""],
        "tasks.classification": ["0", "0", "2", "0", "not in the checkpoint"],
        "tasks.contrastive": ["0", "0", "0", "2", "not in this model"],
    }


def test_a_task_takes_the_weights_of_the_one_that_it_continues() -> None:
    torch.manual_seed(1)
    source, target, last = Trained(), Trained(task="dpo"), Trained(task="scst")
    for module, name, continued in ((target, "dpo", "contrastive"), (last, "scst", "dpo")):
        around = nn.Module()
        around.policy, around.init_policy_from = module.model.tasks[name], continued
        module.model.tasks[name] = around
    for before, after, name in ((source, target, "dpo"), (target, last, "scst")):
        rows = take(checkpoint_of(before), after)
        assert rows[f"tasks.{name}"] == ["2", "0", "0", "0", ""] and len(rows) == 4
        for mine, theirs in zip(after.parameters(), source.parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_a_checkpoint_without_any_weight_that_fits_is_refused() -> None:
    target = nn.Module()
    target.other = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"init_from=a\.ckpt: no weight has the name and shape") as caught:
        take(checkpoint_of(Trained()), target)
    assert COMMAND in str(caught.value)


def checkpoint_with(names: dict[str, list[str]], **options: Any) -> tuple[dict[str, Any], nn.Module]:
    """A checkpoint of the tests' model with other weights than it starts with, and such a model."""
    source, target = make_lit(**options), make_lit(**options)
    torch.manual_seed(1)
    for p in source.parameters():
        nn.init.normal_(p)
    checkpoint = checkpoint_of(source)
    checkpoint["mmtrain"]["names"] = names
    return checkpoint, target


def test_words_are_found_by_name_and_not_by_number() -> None:
    checkpoint, target = checkpoint_with({"inputs.text": ["[PAD]", "a", "dog", "cat"]})
    name = next(n for n, m in target.named_modules() if isinstance(m, nn.Embedding)) + ".weight"
    theirs, before = checkpoint["state_dict"][name], target.state_dict()[name].clone()
    rows = take(checkpoint, target, **{"inputs.text": ["[PAD]", "cat", "bird", "a"]})
    after = target.state_dict()[name]
    for now, then in ((0, 0), (1, 3), (3, 1)):
        assert torch.equal(after[now], theirs[then])
    assert torch.equal(after[2], before[2])
    assert rows["encoders.text"][1] == "1" and rows["encoders.text"][4] == "3 of 4 rows by name"


def test_the_same_words_are_taken_as_they_are() -> None:
    words = ["[PAD]", "a", "dog"]
    checkpoint, target = checkpoint_with({"inputs.text": words})
    assert take(checkpoint, target, **{"inputs.text": words})["encoders.text"][1] == "0"
    assert all(torch.equal(w, checkpoint["state_dict"][n]) for n, w in target.state_dict().items())


def test_classes_of_another_order_are_put_in_this_one() -> None:
    checkpoint, target = checkpoint_with({"targets.label": ["cat", "dog", "owl"]})
    head = "model.tasks.classification.head.linear"
    theirs, before = checkpoint["state_dict"], {n: w.clone() for n, w in target.state_dict().items()}
    rows = take(checkpoint, target, **{"targets.label": ["owl", "cow", "cat"]})
    after = target.state_dict()
    for part in ("weight", "bias"):
        name = f"{head}.{part}"
        assert torch.equal(after[name][[0, 2]], theirs[name][[2, 0]])
        assert torch.equal(after[name][1], before[name][1])
    assert rows["tasks.classification"] == ["2", "2", "0", "0", "2 of 3 rows by name"]


def test_classes_that_have_nothing_in_common_are_new() -> None:
    checkpoint, target = checkpoint_with({"targets.label": ["cat", "dog", "owl"]})
    rows = take(checkpoint, target, **{"targets.label": ["red", "green", "blue"]})
    assert rows["tasks.classification"] == ["2", "0", "2", "2", "other words or classes"]


@pytest.mark.parametrize(("name", "modality", "grid"), [("image", "image", True), ("video.image", "video", True)])
def test_positions_of_pictures_are_resized_as_a_grid(name: str, modality: str, grid: bool) -> None:
    source, target = nn.Module(), nn.Module()
    for module, side in ((source, 2), (target, 3)):
        module.model = nn.Module()
        inner = nn.Module()
        inner.pos_embed = nn.Parameter(torch.randn(1, 1 + side * side, 4))
        outer = inner
        if "." in name:
            outer = nn.Module()
            outer.image = inner
        module.model.encoders = nn.ModuleDict({modality: outer})
    before = source.state_dict()[f"model.encoders.{name}.pos_embed"]
    rows = take(checkpoint_of(source), target)
    after = target.state_dict()[f"model.encoders.{name}.pos_embed"]
    assert torch.equal(after, resized_grid(before, (3, 3), num_prefix=1))
    assert rows[f"encoders.{modality}"] == ["0", "1", "0", "0", "5 positions to 10"]


def test_positions_of_a_sequence_are_resized_as_a_line() -> None:
    source, target = nn.Module(), nn.Module()
    for module, length in ((source, 4), (target, 9)):
        module.model = nn.Module()
        module.model.encoders = nn.ModuleDict({"text": nn.Module()})
        module.model.encoders["text"].pos_embed = nn.Parameter(torch.randn(1, length, 4))
    take(checkpoint_of(source), target)
    name = "model.encoders.text.pos_embed"
    assert torch.equal(target.state_dict()[name], resized_line(source.state_dict()[name], 9))


def test_adapters_are_put_on_the_weights_that_were_there_before() -> None:
    from peft import LoraConfig

    checkpoint, target = checkpoint_with({})
    plain = {n: w.clone() for n, w in checkpoint["state_dict"].items()}
    tune(target.model.encoders["text"], Tuning(peft=LoraConfig(r=2, target_modules=["fc1"])))
    rows = take(checkpoint, target)
    base = {n: w for n, w in target.state_dict().items() if ".base_layer." in n}
    assert base and all(torch.equal(w, plain[n.replace(".base_layer", "")]) for n, w in base.items())
    assert rows["encoders.text"][2] == "2"  # lora_A and lora_B
    back = make_lit(model=make_model(tasks=["classification"]))
    again = take(checkpoint_of(target), back)
    assert again["encoders.text"][3:] == ["2", "adapters: add the same peft here, or export first"]
