"""Preferences: values and gradients against plain loops, and against trl if it is installed."""

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmtrain.losses.preference import (
    dpo,
    group_advantages,
    grpo,
    scst,
    token_divergence,
    token_log_probabilities,
)

B, G, L, V = 3, 4, 5, 7
generator = torch.Generator().manual_seed(0)
LENGTHS = torch.tensor([[5, 1, 3, 2], [2, 2, 4, 5], [1, 3, 5, 4]])
COUNTS = torch.arange(L) < LENGTHS.unsqueeze(2)
VALID = torch.tensor([True, False, True])


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def with_garbage(x: Tensor, counts: Tensor) -> Tensor:
    return x.masked_fill(~counts, math.nan)


def gradient_of(loss: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(loss, x)[0]


def test_log_probabilities_are_a_loop_over_tokens() -> None:
    logits, ids = numbers(B, G, L, V).requires_grad_(), torch.randint(V, (B, G, L), generator=generator)
    result = token_log_probabilities(with_garbage(logits, COUNTS.unsqueeze(3)), ids.masked_fill(~COUNTS, 99), COUNTS)
    for place in torch.cartesian_prod(*map(torch.arange, (B, G, L))).tolist():
        b, g, at = place
        expected = logits[b, g, at].log_softmax(dim=0)[ids[b, g, at]] if COUNTS[b, g, at] else torch.tensor(0.0)
        assert result[b, g, at].item() == pytest.approx(expected.item())
    gradient = gradient_of(result.sum(), logits)
    one_hot = torch.nn.functional.one_hot(ids, V)
    torch.testing.assert_close(gradient, ((one_hot - logits.softmax(dim=3)) * COUNTS.unsqueeze(3)).detach())


def test_the_divergence_is_that_of_distributions() -> None:
    mine, theirs = numbers(G, L, V), numbers(G, L, V)
    for logits in (mine, theirs):
        logits[..., 2] = -math.inf  # a token that is never sampled
    result = token_divergence(mine, theirs, COUNTS[0])
    kept = [0, 1, 3, 4, 5, 6]
    for g, at in torch.cartesian_prod(torch.arange(G), torch.arange(L)).tolist():
        p, q = (torch.distributions.Categorical(logits=x[g, at, kept]) for x in (mine, theirs))
        expected = torch.distributions.kl_divergence(p, q).item() if COUNTS[0, g, at] else 0.0
        assert result[g, at].item() == pytest.approx(expected)
    assert not token_divergence(mine, mine, COUNTS[0]).any()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_dpo_is_its_formula(label_smoothing: float) -> None:
    policy, reference = numbers(B, 2).requires_grad_(), numbers(B, 2).requires_grad_()
    given = (with_garbage(x, VALID.unsqueeze(1)) for x in (policy, reference))
    total, count = dpo(*given, VALID, beta=0.3, label_smoothing=label_smoothing)
    expected = torch.zeros((), dtype=torch.float64)
    for row in (0, 2):
        chosen, rejected = (policy - reference.detach())[row]
        right = 1 / (1 + torch.exp(-0.3 * (chosen - rejected)))
        expected = expected - (1 - label_smoothing) * right.log() - label_smoothing * (1 - right).log()
    assert count == 2
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(gradient_of(total, policy), gradient_of(expected, policy))
    again, _ = dpo(policy, reference, VALID, beta=0.3)
    assert not again.requires_grad or torch.autograd.grad(again, reference, allow_unused=True)[0] is None


def test_scst_is_its_formula() -> None:
    logs, advantages = numbers(B, G, L).requires_grad_(), numbers(B, G)
    total, count = scst(logs * COUNTS, advantages, VALID)
    rows = [sum(advantages[b, g] * logs[b, g, : LENGTHS[b, g]].sum() for g in range(G)) / G for b in (0, 2)]
    expected = -torch.stack([torch.as_tensor(row) for row in rows]).sum()
    assert count == 2
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(gradient_of(total, logs), gradient_of(expected, logs))


def test_scst_has_the_gradient_of_the_expected_reward() -> None:
    """Over all sentences of one token, weighted by their probability (eq. 6): the baseline has no effect."""
    logits, rewards = numbers(V).requires_grad_(), numbers(V)
    expected = gradient_of(-(logits.softmax(dim=0) * rewards).sum(), logits)
    for baseline in (0.0, 1.5):
        result = torch.zeros(V, dtype=torch.float64)
        for token in range(V):
            log_probability = logits.log_softmax(dim=0)[token].view(1, 1, 1)
            advantage = (rewards[token] - baseline).view(1, 1)
            loss, _ = scst(log_probability, advantage, torch.tensor([True]))
            result += logits.softmax(dim=0)[token].detach() * gradient_of(loss, logits)
        torch.testing.assert_close(result, expected)


def test_a_group_is_compared_with_itself() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0]], dtype=torch.float64)
    result = group_advantages(rewards)
    deviation = math.sqrt(((1 - 7 / 3) ** 2 + (2 - 7 / 3) ** 2 + (4 - 7 / 3) ** 2) / 2)
    assert result[0].tolist() == pytest.approx([(r - 7 / 3) / (deviation + 1e-4) for r in (1, 2, 4)])
    assert not result[1].any()


def test_grpo_is_its_formula() -> None:
    logs = numbers(B, G, L).requires_grad_()
    old, reference, advantages = logs.detach() + 0.3 * numbers(B, G, L), numbers(B, G, L), numbers(B, G)
    there = COUNTS & VALID[:, None, None]
    given = (with_garbage(x, there) for x in (logs, old, reference))
    total, count = grpo(*given, advantages, COUNTS, VALID, clip=0.2, kl_weight=0.04)
    expected = torch.zeros((), dtype=torch.float64)
    for b in (0, 2):
        for g in range(G):
            for at in range(int(LENGTHS[b, g])):
                ratio = (logs[b, g, at] - old[b, g, at]).exp()
                gain = torch.min(ratio * advantages[b, g], ratio.clamp(0.8, 1.2) * advantages[b, g])
                r = (reference[b, g, at] - logs[b, g, at]).exp()
                expected = expected - (gain - 0.04 * (r - r.log() - 1)) / LENGTHS[b, g] / G
    assert count == 2
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(gradient_of(total, logs), gradient_of(expected, logs))


# ------------------------------------------------------------------------- trl


def largest_difference(*pairs: tuple[Tensor, Tensor]) -> float:
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)


def trl_trainer(name: str, **options: Any) -> Any:
    """Return a trl trainer with only what its loss needs; `options` replace its models' forward passes."""
    module = pytest.importorskip(f"trl.trainer.{name}_trainer", reason="trl is no dependency of this project")
    alone = SimpleNamespace(
        device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x, reduce=lambda x, reduction: x
    )
    metrics: Any = {mode: defaultdict(list) for mode in ("train", "eval")}
    shared = {"accelerator": alone, "aux_loss_enabled": False, "_metrics": metrics, "beta": 0.1}
    trainer = SimpleNamespace(model=SimpleNamespace(training=True), **shared | options)
    loss = getattr(module, f"{name.upper()}Trainer")._compute_loss
    return lambda *given: loss(trainer, *given)


def test_dpo_is_that_of_trl() -> None:
    """From the same logits of two sentences; trl orders chosen rows before rejected ones."""
    logits, old = numbers(2 * B, L + 1, V).requires_grad_(), numbers(2 * B, L + 1, V)
    ids = torch.randint(V, (2 * B, L + 1), generator=generator)
    counts = torch.arange(L) < torch.tensor([5, 2, 3, 1, 4, 5]).unsqueeze(1)
    completion = torch.nn.functional.pad(counts, (1, 0)).long()

    def model(input_ids: Tensor, labels: Tensor, **options: Any) -> SimpleNamespace:
        of_each = -torch.nn.functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none"
        )
        return SimpleNamespace(log_probs=of_each, entropy=of_each, mean_logits=of_each, is_top1=of_each > 0)

    wanted = ids[:, 1:]
    policy, reference = (
        token_log_probabilities(x[:, :-1], wanted, counts).sum(dim=1).view(2, B).T for x in (logits, old)
    )
    options = {"ld_alpha": None, "precompute_ref_logps": True, "f_divergence_type": "reverse_kl", "_tp_size": 1}
    options |= {"loss_types": ["sigmoid"], "loss_weights": [1.0], "use_weighting": False, "_total_train_tokens": 0}
    inputs = {"input_ids": ids, "completion_mask": completion, "attention_mask": completion}
    inputs |= {"ref_chosen_logps": reference[:, 0], "ref_rejected_logps": reference[:, 1]}
    theirs = trl_trainer("dpo", **options)(model, inputs, False)
    total, count = dpo(policy, reference, torch.ones(B, dtype=torch.bool), beta=0.1)
    assert_equal("dpo", total / count, theirs, logits)


def test_grpo_is_that_of_trl() -> None:
    """From the same log probabilities; trl flattens the sentences of all rows."""
    logs = numbers(B, G, L).requires_grad_()
    old, reference, rewards = logs.detach() + 0.3 * numbers(B, G, L), numbers(B, G, L), numbers(B, G)
    options = {"top_entropy_quantile": 1.0, "off_policy_mask_threshold": None, "importance_sampling_level": "token"}
    options |= {"loss_type": "grpo", "epsilon_low": 0.2, "epsilon_high": 0.2, "use_vllm": False}
    options |= {"args": SimpleNamespace(use_bias_correction_kl=False, delta=None), "_entropy_bonus_enabled": False}
    options |= {"current_gradient_accumulation_steps": 1}
    options["_get_per_token_logps_and_entropies"] = lambda *_, **__: (logs.flatten(0, 1), torch.zeros(B * G, L), None)
    advantages = group_advantages(rewards)
    inputs = {"prompt_ids": torch.zeros(B * G, 1), "prompt_mask": torch.ones(B * G, 1)}
    inputs |= {"completion_ids": torch.zeros(B * G, L), "completion_mask": COUNTS.flatten(0, 1).double()}
    inputs |= {"advantages": advantages.flatten(), "old_per_token_logps": old.flatten(0, 1)}
    theirs = trl_trainer("grpo", **options)(None, inputs | {"ref_per_token_logps": reference.flatten(0, 1)})
    everyone = torch.ones(B, dtype=torch.bool)
    total, count = grpo(logs, old, reference, advantages, COUNTS, everyone, clip=0.2, kl_weight=0.1)
    assert_equal("grpo", total / count, theirs, logs)


def assert_equal(name: str, mine: Tensor, theirs: Tensor, x: Tensor) -> None:
    pairs = ((mine, theirs), (gradient_of(mine, x), gradient_of(theirs, x)))
    largest = max((a - b).abs().max().item() for a, b in pairs)
    print(f"{name}: loss and gradients differ by {largest:.1e} at most")
    assert largest < 1e-12
