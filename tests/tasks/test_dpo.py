"""DPO: the loss against loops over tokens, counts, logged values and errors; the reference is not part of the model."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.batches import assert_same_bits, gradients
from tests.ranks import on_ranks
from tests.tasks.preferences import (
    PAIR,
    PAIRS,
    REJECTED,
    make_policy,
    make_task,
    make_writer,
    plain_log_probability,
    reference_of,
    rows_for,
    step_alone,
    step_on_rank,
)
from tests.tasks.test_generation import KNOWN, SENTENCES
from tests.tasks.test_generation import make_model as make_captioner


def test_the_loss_is_a_loop_over_tokens() -> None:
    model, batch = make_policy("dpo", moved=0.1), rows_for("dpo")
    task: Any = model.tasks["dpo"]
    total, count = model.losses(batch)["dpo"]
    total.backward()
    result = gradients(model)
    model.zero_grad()
    expected = torch.zeros((), dtype=torch.float64)
    for row in PAIRS:
        read = model.view(batch).features("image").take(torch.tensor([row]))
        before = task.reference.prompts(model.view(batch)).take(torch.tensor([row]))
        sides = [SENTENCES[row][1:], REJECTED[row][1:]]
        mine = [plain_log_probability(task, task.policy.decoder, s, read, drawn=False) for s in sides]
        old = [plain_log_probability(task, reference_of(task).decoder, s, before, drawn=False) for s in sides]
        margin = 0.2 * ((mine[0] - old[0]) - (mine[1] - old[1]))
        expected = expected - (1 / (1 + (-margin).exp())).log()
    assert count == task.count(batch) == len(PAIRS)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    expected.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(
            result[name], gradient, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: name + text
        )


def test_as_it_starts_nothing_is_preferred_and_nothing_is_learned_of_a_row_without_a_pair() -> None:
    model, batch = make_policy("dpo"), rows_for("dpo")
    total, count = model.losses(batch)["dpo"]
    assert (total / count).item() == pytest.approx(math.log(2))
    task: Any = model.eval().tasks["dpo"]
    metrics = task.metrics()
    task.update(metrics, model.view(batch).predictions("dpo"), batch)
    values = metrics.compute()
    assert values["kl"] == values["reward_margin"] == values["reward_chosen"] == 0
    assert {"bleu", "cider", "token_accuracy", "pair_accuracy", "length"} <= set(values)
    model.train()
    alone = rows_for("dpo", slice(1, 2))
    total, count = model.losses(alone)["dpo"]
    total.backward()
    assert (total.item(), count) == (0.0, 0)
    assert not any(p.grad is None or p.grad.any() for p in model.parameters())


def test_its_reference_is_no_part_of_it() -> None:
    model = make_policy("dpo")
    before = {n: p.clone() for n, p in model.tasks["dpo"].reference._model.named_parameters()}
    assert not [name for name in model.state_dict() if "reference" in name]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(10):
        optimizer.zero_grad()
        total, _ = model.losses(rows_for("dpo"))["dpo"]
        total.backward()
        optimizer.step()
    assert total.item() < 0.7 * len(PAIRS) * math.log(2)
    assert all(torch.equal(p, before[n]) for n, p in model.tasks["dpo"].reference._model.named_parameters())
    task: Any = model.eval().tasks["dpo"]
    metrics = task.metrics()
    task.update(metrics, model.view(rows_for("dpo")).predictions("dpo"), rows_for("dpo"))
    values = metrics.compute()
    assert values["pair_accuracy"] == 1 and values["reward_margin"] > 0 and values["kl"] > 0


def test_what_does_not_count_changes_no_bit() -> None:
    batch = rows_for("dpo")
    dirty = replace(batch, targets={"caption": batch.targets["caption"].clone()})
    dirty.targets["caption"][2:3] = 10**9
    dirty.targets["caption"][4] = 10**9
    dirty.targets["caption"][0, 1, 4:] = 9  # after the end token
    results = []
    for rows in (batch, dirty):
        model = make_policy("dpo", moved=0.1)
        total, count = model.losses(rows)["dpo"]
        total.backward()
        results.append({"loss": total.detach(), "count": count, **gradients(model)})
    assert_same_bits(*results)


def test_two_ranks_take_the_step_of_one_process() -> None:
    expected = step_alone("dpo")
    for result in on_ranks(2, step_on_rank, "dpo", [slice(0, 4), slice(4, 6)]):
        for name, value in expected.items():
            torch.testing.assert_close(result[name], value, rtol=1e-6, atol=1e-6)


def test_it_tells_rewards_and_lengths() -> None:
    model = make_policy("dpo", moved=0.1)
    model.losses(rows_for("dpo"))
    step_metrics = model.tasks["dpo"].step_metrics()
    assert step_metrics["reward_margin"][0] == pytest.approx(
        step_metrics["reward_chosen"][0] - step_metrics["reward_rejected"][0]
    )
    assert step_metrics["length_chosen"] == (3 + 6, 2) and step_metrics["length_rejected"] == (2 + 5, 2)
    assert model.tasks["dpo"].step_metrics()["reward_margin"] == (0, 0)  # values of the next step only


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": None}, r"reference = null, .* set init_from=RUN"),
        ({"init_policy_from": "caption"}, r"init_policy_from = caption, .* are captioning; set one"),
        (
            {"policy": make_writer("dpo", known_targets={"caption": KNOWN})},
            r"one sentence per row; .*=preference data.columns.caption=\[",
        ),
        ({"beta": 0.0}, r"beta = 0.0 .* set beta above 0"),
        ({"label_smoothing": 0.5}, r"label_smoothing = 0.5; .* below 0.5"),
        (
            {"policy": make_writer("dpo", known_targets={"caption": replace(PAIR, names=[*PAIR.names, "cat"])})},
            r"10 tokens, .* the 11 here",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task("dpo", **{"reference": make_captioner("image")} | options)
