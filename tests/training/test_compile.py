"""Compiled regions: values, gradients and draws are those of what is not compiled, and a line says what is not."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._inductor import config as inductor

from mmtrain.layers.block import Block
from mmtrain.layers.finetuning import Tuning, tune
from mmtrain.model import MultimodalModel
from mmtrain.training.compile import compile_regions, regions_of
from mmtrain.training.nonfinite import explain
from mmtrain.types import Batch
from tests import test_distributed
from tests.batches import assert_same_bits, gradients, make_batch, make_model, random_batch
from tests.ranks import on_ranks
from tests.test_distributed import IMAGE_ONLY, MIXED, TEXT_ONLY, Rows, train_alone, train_on_rank
from tests.training.fsdp import test_shard as test_sharding
from tests.training.fsdp.test_shard import train_shared

TASKS = ("contrastive", "classification", "masked_text")
SEVERAL = [make_batch(*TEXT_ONLY), make_batch(*IMAGE_ONLY), make_batch(*MIXED), random_batch(0, 7), random_batch(1, 2)]


@pytest.fixture(autouse=True)
def _forgetting() -> Iterator[None]:
    """What one test compiles is of no use to the next."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled(model: MultimodalModel, backend: Any = "aot_eager") -> tuple[MultimodalModel, list[str]]:
    """A copy, and what it will say."""
    said: list[str] = []
    copy = deepcopy(model)
    compile_regions(copy, backend=backend, tell=said.append)
    return copy, said


def step(model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
    """Losses and gradients."""
    model.zero_grad()
    torch.manual_seed(0)
    losses = {name: loss for name, (loss, _) in model.losses(batch).items()}
    torch.stack(list(losses.values())).sum().backward()
    return {name: loss.detach() for name, loss in losses.items()} | gradients(model)


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], **tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def test_regions_are_lists_of_blocks_and_parts_without_any() -> None:
    assert {name: len(blocks) for name, blocks in regions_of(make_model(tasks=[*TASKS, "masked_image"])).items()} == {
        "encoders.image.blocks": 1,
        "encoders.text.blocks": 1,
        "fusion.layers": 2,
        "tasks.masked_image.blocks": 1,
    }
    assert list(regions_of(make_model(fusion="concat"))) == ["encoders.image.blocks", "encoders.text.blocks", "fusion"]


def test_values_and_gradients_whatever_the_rows_have() -> None:
    plain = make_model(tasks=TASKS, fusion="merged_attn")
    for module in plain.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.3
    model, said = compiled(plain)
    tune(plain.encoders["text"], Tuning(checkpointing=True))
    checkpointed, said_too = compiled(plain)
    assert model.state_dict().keys() == plain.state_dict().keys()
    for batch in SEVERAL[:4]:
        expected = step(plain, batch)
        assert_close(step(model, batch), expected)
        assert_close(step(checkpointed, batch), expected)
    plain.eval(), model.eval()
    with torch.no_grad():
        assert_close(dict(model(SEVERAL[3])), dict(plain(SEVERAL[3])))
    assert said == said_too == []


def test_gradients_of_several_losses_can_be_taken_from_one_forward_pass() -> None:
    """As a balance does that compares them."""
    plain = make_model(tasks=TASKS[:2])
    model, said = compiled(plain)
    results = []
    for one in (plain, model):
        shared = list(one.encoders.parameters())
        losses = [loss for loss, _ in one.losses(SEVERAL[3]).values()]
        results.append([torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses])
    torch.testing.assert_close(results[1], results[0])
    assert said == []


def test_a_copy_has_weights_of_its_own() -> None:
    model, _ = compiled(make_model(tasks=["classification"]), backend="eager")
    copy = deepcopy(model)
    for parameter in copy.encoders.parameters():
        nn.init.zeros_(parameter)
    batch = make_batch(*MIXED)
    assert not torch.equal(copy.losses(batch)["classification"][0], model.losses(batch)["classification"][0])


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so() -> None:
    plain = make_model(tasks=TASKS)

    def without_masks(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        if any(node.target == "masked_fill" for node in graph.graph.nodes):
            raise RuntimeError("no such instruction\nand much more")
        return graph.forward

    model, said = compiled(plain, backend=without_masks)
    for batch in SEVERAL[2:4]:
        assert_same_bits(step(model, batch), step(plain, batch))
    names = ("encoders.text.blocks", "fusion.layers")  # each of them once, for any depth
    assert said == [f"trainer.compile: {name} runs uncompiled: no such instruction" for name in names]


def test_a_graph_in_two_pieces_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun would be done again: a statistic of a batch norm, say."""
    plain = make_model(tasks=["classification"])
    forward, seen = Block.forward, []

    def broken(block: Block, x: Tensor, mask: Tensor | None = None) -> Tensor:
        seen.append(len(x))
        torch._dynamo.graph_break()
        return forward(block, x, mask)

    monkeypatch.setattr(Block, "forward", broken)
    model, said = compiled(plain, backend="eager")
    result = step(model, SEVERAL[2])
    here = len(seen)
    assert_same_bits(result, step(plain, SEVERAL[2]))
    assert seen[:here] == seen[here:]
    assert [line.split(": ")[1] for line in said] == [f"{name} runs uncompiled" for name in regions_of(plain)]


def test_a_tensor_that_is_not_finite_is_named_inside_of_a_region() -> None:
    plain = make_model(tasks=["classification"])
    model, said = compiled(plain, backend="eager")
    for one in (plain, model):
        with torch.no_grad():
            one.encoders["text"].blocks[0].mlp.fc1.bias.fill_(1e308).mul_(10)  # type: ignore[union-attr]
            one.encoders["text"].blocks[0].mlp.fc1.bias.clamp_(max=1.7e308)  # type: ignore[union-attr]
        step(one, SEVERAL[2])
    batch = SEVERAL[2]
    first, second = (explain(one, [batch], {"classification": float("nan")}) for one in (plain, model))
    assert first == second and "encoders.text.blocks.0.mlp" in first.first
    assert said == []


@pytest.mark.slow
def test_machine_code_draws_and_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inductor, "force_disable_caches", True)
    # setuptools, which the compiler asks, fails where another test has imported Python's own distutils before it
    monkeypatch.setenv("SETUPTOOLS_USE_DISTUTILS", "stdlib")
    plain = MultimodalModel(encoders={"a": Drops()}, fusion=None, tasks={})
    for there in (True, False):
        if not there:
            monkeypatch.setattr(inductor.cpp, "cxx", (None, "/no/compiler"))
            torch.compiler.reset()
        model, said = compiled(plain, backend="inductor")
        for rows in (2, 5, 1):
            for one in (plain, model):
                one.zero_grad()
                torch.manual_seed(rows)
                one.encoders["a"](torch.arange(3.0 * rows).view(rows, 3)).sum().backward()
            assert_close(gradients(model), gradients(plain))
        assert [line.partition(":")[2].partition("in torch")[0] for line in said] == (
            [] if there else [" encoders.a runs uncompiled: No working C++ compiler found "]
        )


class Drops(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 40)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.line(x).tanh(), 0.5, training=self.training)


def compiled_on_rank(mine: int, rows: list[Rows]) -> list[dict[str, Tensor]]:
    """Of ranks that keep everything, and of ranks that keep shares."""
    with pytest.MonkeyPatch.context() as patched:
        for module in (test_distributed, test_sharding):
            patched.setattr(module, "make_model", lambda **options: compiled(make_model(**options), "eager")[0])
        return [train_on_rank(mine, rows, "concat", TASKS[1:2]), train_shared(mine, rows, TASKS[1:2], 1)]


@pytest.mark.slow
def test_ranks_that_have_a_modality_each() -> None:
    rows = [TEXT_ONLY, IMAGE_ONLY]
    plain = [train_alone(rows, fusion, TASKS[1:2]) for fusion in ("concat", "cross_attn")]
    for full, shared in on_ranks(2, compiled_on_rank, rows):
        assert_close(full, plain[0], rtol=1e-6, atol=1e-6)
        norm = shared.pop("norm")
        halved = {name: value / 2 for name, value in plain[1].items() if not name.startswith("count of")}  # clipped
        assert_close(shared, halved, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(norm, torch.nn.utils.get_total_norm([2 * v for v in halved.values()]))
