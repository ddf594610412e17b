"""GRPO: the loss against loops over samples; test_scst.py has the tests that it shares with SCST."""

import statistics
from typing import Any

import pytest
import torch

from mmtrain.tasks.generation import sentence
from tests.batches import gradients
from tests.tasks.preferences import (
    make_policy,
    make_task,
    own_tokens,
    plain_log_probability,
    reference_of,
    rows_for,
)
from tests.tasks.test_generation import COUNTED, KNOWN
from tests.tasks.test_generation import make_model as make_captioner


def test_the_loss_is_a_loop_over_what_was_drawn() -> None:
    model, batch = make_policy("grpo", moved=0.1), rows_for("grpo")
    task: Any = model.tasks["grpo"]
    predictions = model.view(batch).predictions("grpo")
    total, count = task.loss(predictions, batch)
    total.backward()
    result = gradients(model)
    model.zero_grad()
    expected = torch.zeros((), dtype=torch.float64)
    for at, row in enumerate(COUNTED["image"]):
        read = model.view(batch).features("image").take(torch.tensor([row]))
        before = task.reference.prompts(model.view(batch)).take(torch.tensor([row]))
        group = [own_tokens(ids) for ids in predictions.drawn.ids[at].tolist()]
        rewards = [task.reward(sentence(ids, KNOWN), batch.references["caption"][row]) for ids in group]
        for ids, reward in zip(group, rewards, strict=True):
            advantage = (reward - statistics.mean(rewards)) / (statistics.stdev(rewards) + 1e-4)
            for end in range(1, len(ids) + 1):
                mine, old = (
                    plain_log_probability(task, decoder, ids[:end], features, drawn=True)
                    - (plain_log_probability(task, decoder, ids[: end - 1], features, drawn=True) if end > 1 else 0.0)
                    for decoder, features in ((task.policy.decoder, read), (reference_of(task).decoder, before))
                )
                ratio, r = (mine - mine.detach()).exp(), (old.detach() - mine).exp()
                cost = 0.1 * (r - r.log() - 1) - ratio * advantage
                expected = expected + cost / len(ids) / len(group)
    assert count == len(COUNTED["image"])
    assert total.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    expected.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(
            result[name], gradient, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: name + text
        )


@pytest.mark.parametrize(("name", "value"), [("num_samples", 1), ("kl_weight", -0.1)])
def test_what_means_nothing_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} = {value}.*set num_samples to 2 or more"):
        make_task("grpo", make_captioner("image"), **{name: value})
