"""The table of parts says what is there, and looking changes nothing."""

import io

import pytest
import torch
from rich.console import Console
from torch import nn

from mmtrain.model import MultimodalModel
from mmtrain.training.callbacks.parts import log_model_summary, model_summary
from mmtrain.types import Batch
from tests.batches import CLASSES, DIM, make_batch, make_model, random_batch

TASKS = ("contrastive", "classification", "matching")


def test_each_part_says_its_name_its_class_and_what_comes_out() -> None:
    parts = log_model_summary(make_model(tasks=TASKS), make_batch([1, 2], [3, 4]))
    assert [(p["part"], p["what"], p["output"]) for p in parts] == [
        ("encoder.image", "ViT", f"(B, 5, {DIM})"),
        ("encoder.text", "TextTransformer", f"(B, 5, {DIM})"),
        ("fusion", "CrossAttn", f"(B, 10, {DIM})"),
        ("task.contrastive", "Contrastive", f"image (B, {DIM}), text (B, {DIM})"),
        ("task.classification", "Classification", f"(B, {len(CLASSES)})"),
        ("task.matching", "Matching", "(B, 2)"),
    ]


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(make_batch([1], [2]), id="one row"),
        pytest.param(random_batch(0, size=DIM), id="as many rows as the width"),
        pytest.param(make_batch([1, 1, 1], [0, 2, 2]), id="a row has no text"),
        pytest.param(make_batch([1, 1], [0, 0]), id="no row has a text"),
    ],
)
@pytest.mark.parametrize("fusion", ["concat", "cross_attn"])
def test_only_the_rows_are_b(fusion: str, example: Batch) -> None:
    """For any example: an encoder that sees fewer rows than the batch has still makes B of them."""
    output = {p["part"]: p["output"] for p in log_model_summary(make_model(tasks=TASKS, fusion=fusion), example)}
    assert output["encoder.image"] == output["encoder.text"] == f"(B, 5, {DIM})"
    assert output["fusion"] == f"(B, {1 if fusion == 'concat' else 10}, {DIM})"


def test_parameters_are_counted_and_frozen_ones_are_not_trainable() -> None:
    model = make_model(tasks=TASKS)
    frozen = model.encoders["text"].requires_grad_(False)
    model.fusion.norm.bias.requires_grad_(False)
    parts = {p["part"]: p for p in log_model_summary(model, random_batch(0))}
    assert sum(p["parameters"] for p in parts.values()) == sum(p.numel() for p in model.parameters())
    assert sum(p["trainable"] for p in parts.values()) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert parts["encoder.text"]["parameters"] == sum(p.numel() for p in frozen.parameters())
    assert parts["encoder.text"]["trainable"] == 0
    assert parts["fusion"]["parameters"] - parts["fusion"]["trainable"] == DIM


@pytest.mark.parametrize("training", [True, False])
def test_looking_changes_nothing(training: bool) -> None:
    model = make_model(tasks=TASKS).train(training)
    model.encoders["image"].norm.train(not training)  # such as a norm that is kept frozen
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    log_model_summary(model, random_batch(0))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module._forward_hooks for module in model.modules())


def test_parts_that_are_not_built_are_not_listed() -> None:
    image = make_model().encoders["image"]
    model = MultimodalModel(encoders={"image": image}, fusion=None, tasks={"none": NoTask()})
    assert [p["part"] for p in log_model_summary(model, random_batch(0))] == ["encoder.image", "task.none"]


class NoTask(nn.Module):
    def forward(self, view: object) -> torch.Tensor:
        return torch.zeros(8, 3, 4)


def test_a_part_that_the_example_does_not_reach_has_no_shape() -> None:
    model = make_model()
    model = MultimodalModel(encoders=dict(model.encoders.items()), fusion=None, tasks={"none": NoTask()})
    assert [p["output"] for p in log_model_summary(model, random_batch(0, size=8))] == ["", "", "(B, 3, 4)"]


def test_the_table_for_the_terminal_ends_with_the_sum() -> None:
    parts = [
        {"part": "encoder.image", "what": "ViT", "output": "(B, 5, 8)", "parameters": 12000, "trainable": 0},
        {"part": "task.a", "what": "Task", "output": "image (B, 8)", "parameters": 345, "trainable": 345},
    ]
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as capture:
        console.print(model_summary(parts))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if "│" in line]
    assert rows == [
        ["encoder.image", "ViT", "(B, 5, 8)", "12,000", "0"],
        ["task.a", "Task", "image (B, 8)", "345", "345"],
        ["sum", "", "", "12,345", "345"],
    ]
