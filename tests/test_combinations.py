"""Encoders by fusions by tasks: one training step each. A new file of any of them joins automatically.

One encoder of images, with one of text, meets every pair of a fusion and a task. Every other one gives `Features`
like theirs: it meets every fusion and every task, and another share of their pairs than its neighbour.
Those that need a trained model are left out: distillation, and what starts from a captioning run.

`pytest tests/test_combinations.py -s` prints how many there were and how long they took.
"""

import itertools
import time
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mmtrain.build import compose, inputs_of_task
from mmtrain.config.compose import config_dir
from mmtrain.config.instantiate import make
from mmtrain.errors import ConfigError
from mmtrain.layers.head import LateFusion
from mmtrain.model import MultimodalModel
from mmtrain.types import AnswerTarget, Batch, ClassTarget, MultiLabelTarget, NumberTarget, Padded, TokenTarget
from tests.batches import CLASSES, IDS, LENGTH, VOCABULARY, make_encoders
from tests.dialogues import KNOWN as DIALOGUES
from tests.encoders.test_encoders import MAKERS, make_inputs

FUSIONS = sorted(path.stem for path in (config_dir() / "fusion").glob("*.yaml"))
NEED_A_RUN = ("distillation", "dpo", "scst", "grpo")
TASKS = sorted(path.stem for path in (config_dir() / "task").glob("*.yaml") if path.stem not in NEED_A_RUN)
# decisions by one modality each say nothing of a pair, and write no sentence
REFUSED = {("late", "matching"), ("late", "generation"), ("late", "masked_fusion"), ("late", "vqa_generative")}
started = time.perf_counter()
SENTENCES = torch.tensor([[2, 4, 5, 3], [2, 5, 3, 0], [2, 4, 3, 0], [2, 4, 3, 0]])
KNOWN = {
    "label": ClassTarget(names=CLASSES, counts=[1, 1, 1]),
    "labels": MultiLabelTarget(names=CLASSES, counts=[1, 1, 1], num_rows=3),
    "number": NumberTarget(names=["0"], mean=[0.0], std=[1.0]),
    "answer": AnswerTarget(names=CLASSES, counts=[1, 1, 1]),
    "chat": replace(
        DIALOGUES,
        places={"image": 2, "text": 3, "audio": 17, "video": 18, "vector": 19, "sequence": 20},
        used=frozenset(),
    ),
}
# of every medium, then two tokens that answer
CHAT = torch.tensor([[[place, 0] for place in (2, 3, 17, 18, 19, 20)] + [[5, 1], [1, 1]]] * 4)
WORDS = TokenTarget(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"], max_length=5, pad=0, start=2, end=3)
# pairs, tokens; else rows
COUNTS = {"ranking": 3, "generation": 7, "captioning": 7, "vqa_generative": 7, "language_model": 6}
taken: list[tuple[str, str, str]] = []


@cache
def part(overrides: str) -> DictConfig:
    """A composed configuration of width 8."""
    return compose(["dim=8", *overrides.split()])


def partner(modality: str) -> tuple[str, nn.Module, Padded]:
    """The other side of a pair: texts, and pictures for texts."""
    encoders, generator = make_encoders(), torch.Generator().manual_seed(1)
    if modality == "text":
        return "image", encoders["image"], Padded(torch.randn(4, 3, 8, 8, generator=generator), None)
    ids = torch.randint(1, VOCABULARY, (4, LENGTH), generator=generator)
    return "text", encoders["text"], Padded(ids, torch.arange(LENGTH) < torch.tensor([[3], [2], [LENGTH], [1]]))


def batch_of(inputs: dict[str, Padded], lacking: str) -> Batch:
    """Four rows, the last without one modality and without a label."""
    there = torch.tensor([True, True, True, False])
    return Batch(
        ids=list("abcd"),
        rows=torch.arange(4),
        inputs=inputs,
        present={m: there if m == lacking else torch.ones_like(there) for m in inputs},
        targets={
            "label": torch.tensor([0, 1, 2, 0]),
            "labels": torch.eye(3)[[0, 1, 2, 0]],
            "number": torch.tensor([[0.0], [1.0], [2.0], [0.0]]),
            "answer": torch.eye(3)[[0, 1, 2, 0]],
            **dict.fromkeys(("sentence", "caption"), SENTENCES),
            "chat": CHAT,
        },
        labelled=dict.fromkeys(("label", "labels", "number", "answer", "sentence", "caption", "chat"), there),
        keys={m: torch.arange(1, 5) for m in inputs},
        draws=torch.arange(4),
    )


@pytest.mark.parametrize("name", MAKERS)
def test_one_training_step(name: str) -> None:
    take_steps(name, dealt(name), torch.device("cpu"))


def dealt(name: str) -> list[tuple[str, str]]:
    """All pairs for one encoder. For another one each fusion has one task that reads it."""
    if name == "image/vit":
        return fitting()
    fused, shift = reading_fused(), list(MAKERS).index(name)
    mine = {(fusion, fused[(place + shift) % len(fused)]) for place, fusion in enumerate(FUSIONS)}
    return [(fusion, task) for fusion, task in fitting() if task not in fused or (fusion, task) in mine]


def take_steps(name: str, pairs: list[tuple[str, str]], device: torch.device) -> None:
    """One step of an encoder, and of its partner, under each pair of a fusion and a task."""
    modality = name.split("/")[0]
    torch.manual_seed(0)
    values, mask = make_inputs(name)
    other, other_encoder, other_input = partner(modality)
    encoders = {modality: MAKERS[name](0.1), other: other_encoder.float()}  # made once: it goes on learning
    floats = values.float() if values.is_floating_point() else values
    for fusion, task in pairs:
        batch = batch_of({modality: Padded(floats, mask), other: other_input}, lacking=modality)
        if task == "ranking":
            batch = replace(batch, keys={m: torch.ones_like(k) for m, k in batch.keys.items()})
        if task == "vqa_generative":
            batch = replace(batch, targets=batch.targets | {"answer": SENTENCES})
        if (task == "masked_text" and modality != "text") or (task == "masked_image" and name != "image/vit"):
            continue  # of the other one of the pair, or of an encoder that cannot leave patches out
        model = model_of(encoders, fusion, task).to(device)
        before = [parameter.detach().clone() for parameter in model.encoders.parameters()]
        total, count = step(model, batch.to(device))
        assert total.isfinite() and count > 0, (fusion, task)
        assert task.startswith("masked") or count == COUNTS.get(task, 3), (fusion, task)
        still = [n for n, p in model.named_parameters() if p.grad is None]
        assert still == [], (fusion, task)
        assert any(not torch.equal(p, old) for p, old in zip(model.encoders.parameters(), before, strict=True))
        taken.append((name, fusion, task))


@cache
def reading_fused() -> list[str]:
    return [task for task in TASKS if "fused" in inputs_of_task(part(f"task=[{task}]").task[task])]


@cache
def fitting() -> list[tuple[str, str]]:
    """Fusions and tasks that go together; a task that reads nothing fused comes once."""
    fused = reading_fused()
    pairs = [pair for pair in itertools.product(FUSIONS, fused) if pair not in REFUSED]
    return pairs + [(FUSIONS[0], task) for task in TASKS if task not in fused]


@pytest.mark.parametrize(("fusion", "task"), sorted(REFUSED))
def test_what_does_not_fit_is_refused(fusion: str, task: str) -> None:
    encoders = make_encoders()
    with pytest.raises(ConfigError, match="choose another fusion, such as fusion="):
        model_of(encoders, fusion, task)


def model_of(encoders: dict[str, nn.Module], fusion: str, task: str) -> MultimodalModel:
    """As mmtrain.build makes one: an encoder that nothing reads is not part of it."""
    node = part(f"task=[{task}]").task[task].copy()
    if node.get("input") not in (None, "fused"):
        node.input = next(iter(encoders))
        encoders = {node.input: encoders[node.input]}
    if "modalities" in node:
        node.modalities = list(encoders)
    dims: dict[str, Any] = {m: encoder.dim for m, encoder in encoders.items()}
    fused = make(part(f"fusion={fusion}").fusion, "fusion", dims=dims) if "fused" in inputs_of_task(node) else None
    dims |= {} if fused is None else {"fused": fused.dim}
    if "group_by" in node:
        node.group_by = next(iter(encoders))
    known = dict.fromkeys((node.get("target"),), WORDS) if "decoder" in node else KNOWN
    facts = {"dims": dims} | ({"known_targets": known} if "target" in node else {})
    facts |= {"vocabularies": {"text": IDS}} if "masked_text" in node._target_ else {}
    facts |= {"encoders": encoders} if task in ("masked_image", "language_model") else {}
    if isinstance(fused, LateFusion):
        facts |= {"decides": fused}
    return MultimodalModel(encoders=encoders, fusion=fused, tasks={task: make(node, f"task.{task}", **facts)})


def step(model: MultimodalModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Plain gradient descent; the loss's sum and count before it."""
    model.zero_grad(set_to_none=True)
    ((total, count),) = model.losses(batch).values()
    (total / count).backward()
    torch.optim.SGD(model.parameters(), lr=0.001).step()
    return total, count


def test_they_were_all_taken() -> None:
    """Of this process: `pytest -n` deals them out."""
    seconds = time.perf_counter() - started
    print(f"\n{len(taken)} combinations in {seconds:.0f} s")
    assert len(set(taken)) == len(taken)
    for name in {name for name, _, _ in taken}:
        others = {("masked_text", not name.startswith("text/")), ("masked_image", name != "image/vit")}
        left_out = {task for task, is_left_out in others if is_left_out}
        mine = {(fusion, task) for other, fusion, task in taken if other == name}
        assert mine == {(fusion, task) for fusion, task in dealt(name) if task not in left_out}
        refused = {fusion for fusion, task in REFUSED if (fusion, task) not in fitting()}
        assert {fusion for fusion, _ in mine} >= set(FUSIONS) - refused
        assert {task for _, task in mine} == {task for _, task in fitting()} - left_out
