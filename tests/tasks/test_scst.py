"""SCST: the loss against loops over samples; the split into batches changes nothing; errors."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmtrain.metrics.text_generation import CiderD
from mmtrain.tasks.generation import sentence
from mmtrain.types import Batch
from tests.batches import gradients
from tests.ranks import on_ranks
from tests.runs import assert_same_run, rows_of, run_tiny, stop_and_resume
from tests.steps import loader, make_lit, make_trainer
from tests.tasks.preferences import (
    KEPT,
    make_policy,
    make_task,
    make_writer,
    own_tokens,
    plain_log_probability,
    reference_of,
    rows_for,
    step_alone,
    step_on_rank,
)
from tests.tasks.test_generation import COUNTED, KNOWN
from tests.tasks.test_generation import make_model as make_captioner
from tests.tiny import make_tables

both = pytest.mark.parametrize("name", ["scst", "grpo"])


def test_the_loss_is_a_loop_over_what_was_drawn() -> None:
    model, batch = make_policy("scst", moved=0.1), rows_for("scst")
    task: Any = model.tasks["scst"]
    predictions = model.view(batch).predictions("scst")
    total, count = task.loss(predictions, batch)
    total.backward()
    result = gradients(model)
    model.zero_grad()
    expected = torch.zeros((), dtype=torch.float64)
    worth = CiderD(KEPT.sentences).score
    divergence = []
    for at, row in enumerate(COUNTED["image"]):
        read = model.view(batch).features("image").take(torch.tensor([row]))
        before = task.reference.prompts(model.view(batch)).take(torch.tensor([row]))
        best = sentence(greedily(task, read), KNOWN)
        right = batch.references["caption"][row]
        for ids in predictions.drawn.ids[at].tolist():
            ids = own_tokens(ids)
            advantage = worth(sentence(ids, KNOWN), right) - worth(best, right)
            mine = plain_log_probability(task, task.policy.decoder, ids, read, drawn=True)
            old = plain_log_probability(task, reference_of(task).decoder, ids, before, drawn=True)
            expected = expected - advantage * mine / task.num_samples
            divergence.append((float(mine - old), ids))
    assert count == task.count(batch) == len(COUNTED["image"])
    assert total.item() == pytest.approx(expected.item(), rel=1e-6) and expected != 0
    expected.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(
            result[name], gradient, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: name + text
        )
    told = (predictions.drawn.log_probabilities - predictions.drawn.reference).sum(dim=2).flatten().tolist()
    assert told == pytest.approx([one for one, _ in divergence], rel=1e-5, abs=1e-6)
    assert predictions.drawn.lengths().flatten().tolist() == [len(ids) for _, ids in divergence]


def greedily(task: Any, read: Any) -> list[int]:
    ids: list[int] = []
    while len(ids) < 6 and 3 not in ids:
        logits = task.policy.decoder(torch.tensor([[2, *ids]]), read)[0, -1]
        ids.append(
            max((i for i in range(len(logits)) if i not in task.policy.decoder.never), key=lambda i: logits[i].item())
        )
    return ids


@both
def test_cutting_a_batch_draws_the_same(name: str) -> None:
    model = make_policy(name, moved=0.1)
    full, count = model.losses(rows_for(name))[name]
    for cut in (1, 3, 5):
        sums = [model.losses(rows_for(name, part))[name] for part in (slice(0, cut), slice(cut, 6))]
        torch.testing.assert_close(sums[0][0] + sums[1][0], full)
        assert sums[0][1] + sums[1][1] == count
    other = replace(rows_for(name), draws=rows_for(name).draws + 1)
    assert not torch.isclose(model.losses(other)[name][0], full)


@both
def test_two_ranks_take_the_step_of_one_process(name: str) -> None:
    """No row of the second rank is valid in the first batch."""
    expected = step_alone(name)
    for parts in ([slice(0, 2), slice(2, 6)], [slice(0, 6), slice(2, 5)]):
        for result in on_ranks(2, step_on_rank, name, parts):
            for key, value in expected.items():
                torch.testing.assert_close(result[key], value, rtol=1e-6, atol=1e-6)


@both
def test_accumulation_takes_the_same_step_and_tells_the_same(name: str, tmp_path: Path) -> None:
    """Through the LightningModule, whose steps log reward, KL and length."""

    def trained(window: list[Batch]) -> tuple[dict[str, Tensor], dict[str, float]]:
        lit = make_lit(model=make_policy(name, moved=0.05), optimizer=partial(torch.optim.SGD, lr=0.01))
        logged: dict[str, float] = {}
        lit._log = lambda values: logged.update({k: float(v) for k, v in values.items()})  # type: ignore[method-assign]
        make_trainer(tmp_path, max_epochs=1).fit(lit, loader([window]))
        return dict(lit.model.named_parameters()), logged

    full, said = trained([rows_for(name)])
    parts, said_of_parts = trained([rows_for(name, slice(0, 3)), rows_for(name, slice(3, 6))])
    for key, value in full.items():
        torch.testing.assert_close(parts[key], value)
    for told in ("reward", "kl", "length"):
        key = f"train/{name}/{told}"
        assert said_of_parts[key] == pytest.approx(said[key])
    assert said[f"train/{name}/kl"] > 0


@both
def test_the_reward_rises_and_the_reference_stays(name: str) -> None:
    model, batch = make_policy(name, reward="rouge_l", num_samples=8), rows_for(name)
    task: Any = model.tasks[name]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    rewards = []
    for step in range(30):
        optimizer.zero_grad()
        rows = replace(batch, draws=batch.draws + 1000 * step)
        total, count = model.losses(rows)[name]
        (total / count).backward()
        optimizer.step()
        value, number = task.step_metrics()["reward"]
        rewards.append(float(value / number))
    assert sum(rewards[-5:]) > 1.5 * sum(rewards[:5])
    values = scored(model.eval(), batch, name)
    assert values["reward_of_draws"] > 0.25 and values["kl"] > 0
    assert not [key for key in model.state_dict() if "reference" in key]


def scored(model: Any, batch: Batch, name: str) -> dict[str, Tensor]:
    task: Any = model.tasks[name]
    metrics = task.metrics()
    task.update(metrics, model.view(batch).predictions(name), batch)
    return metrics.compute()


@both
def test_evaluation_judges_what_is_written_and_what_is_drawn(name: str) -> None:
    model, batch = make_policy(name).eval(), rows_for(name)
    values = scored(model, batch, name)
    task: Any = model.tasks[name]
    predictions = [row.get("caption") for row in task.rows(model.view(batch).predictions(name), batch)]
    rows = COUNTED["image"]
    expected = [task.reward(predictions[row], batch.references["caption"][row]) for row in rows]
    assert values["reward"].item() == pytest.approx(sum(expected) / len(rows))
    assert values["kl"] == 0 and values["length"] >= 1 and "reward_of_draws" in values and "bleu" in values
    task.on_evaluation_start("val")
    task.policy.generate_every = 5
    assert model.losses(batch)[name][1] == 2  # rows 0 and 5


@both
def test_without_a_row_that_counts_every_gradient_is_zero(name: str) -> None:
    model = make_policy(name)
    total, count = model.losses(rows_for(name, slice(2, 5)))[name]
    total.backward()
    assert (total.item(), count) == (0.0, 0)
    assert not any(p.grad is None or p.grad.any() for p in model.parameters())


@pytest.mark.slow
def test_a_run_goes_on_from_one_of_captioning_and_from_where_it_was_stopped(tmp_path: Path) -> None:
    tables = make_tables(tmp_path / "data")
    plain = ["data.num_workers=0", "callbacks=[]", "test.subsets=none", "trainer.max_epochs=1"]
    assert run_tiny(tables, tmp_path / "captions", *plain, "task=[captioning]") == 0
    start = f"init_from={tmp_path / 'captions' / 'checkpoints' / 'best.ckpt'}"
    requested = [*plain, "task=[scst]", start, "data.targets.caption.keep_references=true", "task.scst.reward=rouge_l"]
    assert run_tiny(tables, tmp_path / "complete", *requested) == 0
    first, *_, last = rows_of(tmp_path / "complete")
    assert float(first["train/scst/length"]) > 0 and float(first["train/scst/kl"]) < 0.1
    assert {"test/scst/reward", "test/scst/kl", "test/scst/cider"} <= {key for key, value in last.items() if value}
    stop_and_resume(3, tables, tmp_path / "stopped", *requested)
    assert_same_run(tmp_path / "complete", tmp_path / "stopped")
    again = [o.replace("init_from=", "task.scst.reference=") for o in requested]
    assert run_tiny(tables, tmp_path / "complete", *again, "mode=test") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": None}, r"reference = null, .* set init_from=RUN"),
        (
            {"policy": make_writer("scst", known_targets={"caption": KNOWN})},
            r"keeps no training sentences, .* data.targets.caption.keep_references=true",
        ),
        ({"reward": "meteor"}, r"reward = meteor; set it to cider, bleu"),
        ({"num_samples": 0}, r"num_samples = 0 is below 1"),
        ({"policy": make_writer("scst", generate_every=0)}, r"policy.generate_every = 0 gives validation no sentence"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task("scst", **{"reference": make_captioner("image")} | options)
