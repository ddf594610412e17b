"""A language model as a policy: losses against loops over tokens, samples per row, adapters off as reference."""

import math
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn

from mmtrain.config.instantiate import construct
from mmtrain.metrics.text_generation import CiderD
from mmtrain.model import MultimodalModel
from mmtrain.tasks.dpo import Dpo
from mmtrain.tasks.grpo import Grpo
from mmtrain.tasks.policy import ADAPTERS_OFF
from mmtrain.tasks.scst import Scst
from mmtrain.types import Batch, DialoguePairTarget
from tests.batches import gradients
from tests.dialogues import ANSWERED, END, IMAGE, KNOWN, PAD, PICTURES, ROWS, batch_of, make_model, make_task, source_of
from tests.tasks.test_generation import make_model as make_captioner

PAIR = DialoguePairTarget(**vars(KNOWN))
KEPT = replace(KNOWN, sentences=[["b c"], ["f f g"], ["h i"], ["b"]])
# rejected last answers; the second row has none
REJECTED: list[list[int]] = [[8, 1], [], [5, 5, 5, 1], [], [], [9, 7, 1]]
PAIRS = [0, 2, 5]
KINDS: dict[str, Any] = {"dpo": Dpo, "scst": Scst, "grpo": Grpo}
OPTIONS: dict[str, dict[str, Any]] = {
    "dpo": {"beta": 0.2, "label_smoothing": 0.0},
    "scst": {"reward": "cider", "num_samples": 3},
    "grpo": {"reward": "rouge_l", "num_samples": 4, "kl_weight": 0.1},
}
each = pytest.mark.parametrize("name", KINDS)


def make_policy(
    name: str, kind: str = "llama", *, moved: float = 0.1, reference: Any = "copy", **options: Any
) -> MultimodalModel:
    """Return a float64 model; its weights are those of the reference plus, if trainable, `moved` times noise."""
    base = make_model(kind).requires_grad_(False)
    known = {"chat": PAIR if name == "dpo" else KEPT}
    writer = make_task(kind, known_targets=known, **options)
    shared = {"target": "chat", "modalities": ["image"], "weight": 1.0, "init_policy_from": "answers"}
    weights = {k: v.clone() for k, v in base.tasks["answers"].state_dict().items()}
    named = {k.replace(".base_layer", ""): k for k in writer.state_dict()}
    missing = writer.load_state_dict({named[k]: v for k, v in weights.items()}, strict=False).missing_keys
    assert all("lora" in key for key in missing)
    encoders = dict(deepcopy(base).encoders.items())
    adapted = "lm" in options
    if not adapted:
        encoders["image"].requires_grad_()
    before = base if reference == "copy" else reference
    task = construct(KINDS[name], policy=writer, encoders=encoders, reference=before, **shared, **OPTIONS[name])
    model = MultimodalModel(encoders=encoders, fusion=None, tasks={name: task}).double()
    torch.manual_seed(1)
    for key, parameter in model.named_parameters():
        if "lora" in key or not adapted:
            parameter.data += moved * torch.randn_like(parameter)
    return model.train()


def rows_for(name: str, rows: slice = slice(None)) -> Batch:
    batch = batch_of(ROWS[rows], PICTURES[rows], first=rows.start or 0)
    if name != "dpo":
        return batch
    values = torch.tensor([PAD, -1]).expand(len(batch), 2, 12, 2).clone()
    for at, ((ids, flags), rejected) in enumerate(zip(ROWS[rows], REJECTED[rows], strict=True)):
        requested = asked_of(ids, flags)
        other = (requested + rejected, [*flags[: len(requested)], *([1] * len(rejected))]) if rejected else ([], [])
        for side, (i, f) in enumerate(((ids, flags), other)):
            values[at, side, : len(i)] = torch.tensor([i, f]).T if i else torch.zeros(0, 2).long()
    return replace(batch, targets={"chat": values})


def asked_of(ids: list[int], flags: list[int]) -> list[int]:
    """Return the tokens before the last answer."""
    end = len(ids)
    while end and flags[end - 1] > 0:
        end -= 1
    return ids[:end]


def plain_log_probabilities(model: Any, writer: Any, row: int, answer: list[int], *, drawn: bool) -> Tensor:
    """Return (L,), for the tokens of an answer, through the library's own model on one row."""
    requested = asked_of(*ROWS[row])
    tokens, mask = model.view(batch_of()).encoded("image")
    results = []
    for place, token in enumerate(answer):
        parts = []
        for number in [*requested, *answer[:place]]:
            if number == IMAGE:
                parts += [writer.connectors["image"].mlp(each) for each in tokens[row][mask[row]]]
            else:
                parts.append(writer.lm.model.get_input_embeddings().weight[number])
        logits = writer.lm.model(inputs_embeds=torch.stack(parts).unsqueeze(0)).logits[0, -1]
        if drawn:
            logits = logits.index_fill(0, torch.tensor(writer.never), -math.inf)
        results.append(logits.log_softmax(dim=0)[token])
    return torch.stack(results)


def own_tokens(ids: list[int]) -> list[int]:
    return ids[: ids.index(END) + 1] if END in ids else ids


def assert_gradients(model: nn.Module, total: Tensor, expected: Tensor) -> None:
    assert total.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    total.backward()
    result = gradients(model)
    model.zero_grad()
    expected.backward()
    for key, gradient in gradients(model).items():  # float32, because the loss takes logits
        torch.testing.assert_close(result[key], gradient, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: key + text)


@pytest.mark.parametrize(("kind", "pack"), [("llama", None), ("llama", 40), ("gpt2", None)])
def test_dpo_is_a_loop_over_tokens(kind: str, pack: int | None) -> None:
    model, batch = make_policy("dpo", kind, pack=pack), rows_for("dpo")
    task: Any = model.tasks["dpo"]
    total, count = model.losses(batch)["dpo"]
    expected = torch.zeros((), dtype=torch.float64)
    for row in PAIRS:
        chosen = ROWS[row][0][len(asked_of(*ROWS[row])) :]
        margins = []
        for answer in (chosen, REJECTED[row]):
            mine = plain_log_probabilities(model, task.policy, row, answer, drawn=False).sum()
            old = plain_log_probabilities(task.reference._model, task.reference.policy, row, answer, drawn=False).sum()
            margins.append(mine - old)
        expected = expected - (1 / (1 + (-0.2 * (margins[0] - margins[1])).exp())).log()
    assert count == task.count(batch) == len(PAIRS)
    assert_gradients(model, total, expected)


@pytest.mark.parametrize("name", ["scst", "grpo"])
def test_what_is_drawn_is_learned_as_in_a_loop(name: str) -> None:
    model, batch = make_policy(name), rows_for(name)
    task: Any = model.tasks[name]
    predictions = model.view(batch).predictions(name)
    total, count = task.loss(predictions, batch)
    expected = torch.zeros((), dtype=torch.float64)
    worth = CiderD(KEPT.sentences).score if name == "scst" else task.reward
    for at, row in enumerate(ANSWERED):
        right = batch.references["chat"][row]
        group = [own_tokens(ids) for ids in predictions.drawn.ids[at].tolist()]
        rewards = torch.tensor([worth(KNOWN.write(ids), right) for ids in group], dtype=torch.float64)
        if name == "scst":
            advantages = rewards - worth(KNOWN.write(greedily(model, task.policy, row)), right)
        else:
            advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        for ids, advantage in zip(group, advantages, strict=True):
            mine = plain_log_probabilities(model, task.policy, row, ids, drawn=True)
            if name == "scst":
                expected = expected - advantage * mine.sum() / len(group)
                continue
            before = task.reference
            away = plain_log_probabilities(before._model, before.policy, row, ids, drawn=True).detach() - mine
            costs = 0.1 * (away.exp() - away - 1) - (mine - mine.detach()).exp() * advantage
            expected = expected + costs.mean() / len(group)
    assert count == task.count(batch) == len(ANSWERED) and expected != 0
    assert_gradients(model, total, expected)


def greedily(model: Any, writer: Any, row: int) -> list[int]:
    ids: list[int] = []
    while len(ids) < 6 and END not in ids:
        every = [plain_log_probabilities(model, writer, row, [*ids, i], drawn=True)[-1].item() for i in range(21)]
        ids.append(max(range(21), key=lambda i: every[i]))
    return ids


@each
def test_cutting_a_batch_takes_the_same_step(name: str) -> None:
    """Samples of a row depend on its own id."""
    model = make_policy(name)
    full, count = model.losses(rows_for(name))[name]
    for cut in (1, 4):
        sums = [model.losses(rows_for(name, part))[name] for part in (slice(0, cut), slice(cut, 6))]
        torch.testing.assert_close(sums[0][0] + sums[1][0], full)
        assert sums[0][1] + sums[1][1] == count


@each
def test_without_a_row_that_counts_every_gradient_is_zero(name: str) -> None:
    model = make_policy(name)
    total, count = model.losses(rows_for(name, slice(3, 5)))[name]
    total.backward()
    assert (total.item(), count) == (0.0, 0)
    assert not any(p.grad is None or p.grad.any() for p in model.parameters() if p.requires_grad)


@each
def test_evaluation_tells_rewards_kl_and_length_beside_the_scores_of_answers(name: str) -> None:
    model, batch = make_policy(name, moved=0.0).eval(), rows_for(name)
    task: Any = model.tasks[name]
    metrics = task.metrics()
    task.update(metrics, model.view(batch).predictions(name), batch)
    values = metrics.compute()
    assert values["kl"] == pytest.approx(0.0, abs=1e-9) and values["length"] >= 1
    assert {"token_accuracy", "bleu", "short_cider"} <= set(values)
    predictions = [row.get("chat") for row in task.rows(model.view(batch).predictions(name), batch)]
    if name == "dpo":
        assert values["reward_margin"] == pytest.approx(0.0, abs=1e-9)
    else:
        expected = [task.reward(predictions[row], batch.references["chat"][row]) for row in ANSWERED]
        assert values["reward"].item() == pytest.approx(sum(expected) / len(expected))


# ------------------------------------------------------------------- adapters off


@each
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_adapters_off_are_the_frozen_copy(name: str, kind: str) -> None:
    results: list[dict[str, Tensor]] = []
    for reference in ("copy", ADAPTERS_OFF):
        model = make_policy(name, kind, moved=0.5, reference=reference, lm=source_of(kind, peft=LoraConfig(r=2)))
        model.tasks[name].policy.connectors.requires_grad_(False)
        total, count = model.losses(rows_for(name))[name]
        total.backward()
        learned = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
        assert any(gradient.any() for gradient in learned.values())
        assert all(p.requires_grad == (key in learned) == ("lora" in key) for key, p in model.named_parameters())
        told: Any = model.tasks[name]
        results.append({"loss": total, "count": count, **learned} | {k: v for k, (v, _) in told.step_metrics().items()})
    assert not torch.isclose(results[0]["loss"], torch.tensor(math.log(2) * len(PAIRS), dtype=torch.float64))
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, msg=lambda text, key=key: key + text)


def test_what_else_learns_is_refused() -> None:
    with pytest.raises(ValueError, match=r"adapters_off, but the policy has no adapters; add some, such as \+peft@"):
        make_policy("dpo", reference=ADAPTERS_OFF)
    adapted = make_task(known_targets={"chat": PAIR}, lm=source_of(peft=LoraConfig(r=2)))
    facts = {"target": "chat", "modalities": ["image"], "weight": 1.0, "init_policy_from": "answers", **OPTIONS["dpo"]}
    with pytest.raises(ValueError, match=r"encoder.image is; set encoder.image.freeze=true, or reference to a run"):
        construct(Dpo, policy=adapted, encoders={"image": nn.Linear(2, 2)}, reference=ADAPTERS_OFF, **facts)


def test_a_decoder_is_no_reference_of_a_language_model() -> None:
    with pytest.raises(
        ValueError, match=r"init_policy_from = answers, but the reference's generation tasks are none; set one"
    ):
        make_policy("scst", reference=make_captioner("image"))
    facts = {"target": "chat", "modalities": ["image"], "weight": 1.0, "init_policy_from": "answers", **OPTIONS["dpo"]}
    with pytest.raises(ValueError, match=r"chat has one sentence per row; .*=chat_preference data.columns.chat=\["):
        construct(Dpo, policy=make_task(), encoders={}, reference=make_model(), **facts)
