"""Learning from preferences and rewards: DPO of pairs, SCST and GRPO of sentences that the model drew itself.

All are of log probabilities of tokens. Those of sentences that a row lacks, and of tokens behind an end mark, stand
under a False mask and may be anything. The sums are over rows, not tokens, so that `count` is known from masks alone,
before anything is drawn.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mmtrain.precision import full


def token_log_probabilities(logits: Tensor, ids: Tensor, counts: Tensor) -> Tensor:
    """Log probability of each token given those before it; 0 where none counts.

    Args:
        logits: (..., L, V), floating point, of the token at each place.
        ids: (..., L), int64; anything where none counts.
        counts: (..., L), bool.

    Returns:
        (..., L), float32 or float64.
    """
    logits = full(logits).masked_fill(~counts.unsqueeze(-1), 0.0)
    chosen = logits.gather(-1, ids.masked_fill(~counts, 0).unsqueeze(-1)).squeeze(-1)
    return (chosen - logits.logsumexp(dim=-1)).masked_fill(~counts, 0.0)


def token_divergence(policy: Tensor, reference: Tensor, counts: Tensor) -> Tensor:
    """KL(policy || reference) over all tokens of the vocabulary at each place; 0 where none counts.

    Summed over a sentence that the policy drew it is an estimate of the KL of whole sentences, without bias and with
    less variance than that of the tokens drawn.

    Args:
        policy: logits (..., L, V); -inf for a token that is never drawn, in both alike.
        reference: logits (..., L, V).
        counts: (..., L), bool.

    Returns:
        (..., L), float32 or float64, from 0.
    """
    unread = ~counts.unsqueeze(-1)
    mine = full(policy).masked_fill(unread, 0.0).log_softmax(dim=-1)
    theirs = full(reference).masked_fill(unread, 0.0).log_softmax(dim=-1)
    ratio = torch.where(mine.isinf() & theirs.isinf(), 0.0, mine - theirs)
    return (mine.exp() * ratio).sum(dim=-1).clamp(min=0.0)


def dpo(
    policy: Tensor, reference: Tensor, valid: Tensor, *, beta: float, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Direct preference optimization (2305.18290, eq. 7): the sum over the valid pairs, and their count.

    Args:
        policy: (B, 2), log probabilities of the chosen and of the rejected sentence.
        reference: (B, 2), those of the model that it started as; no gradient goes to it.
        valid: (B,), bool.
        beta: how much it costs to leave the reference.
        label_smoothing: share of pairs that may be the wrong way round (conservative DPO, eq. 3 of its note).
    """
    unread = ~valid.unsqueeze(1)
    ratios = full(policy).masked_fill(unread, 0.0) - full(reference).detach().masked_fill(unread, 0.0)
    margin = beta * (ratios[:, 0] - ratios[:, 1])
    costs = -(1.0 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
    return costs.masked_fill(~valid, 0.0).sum(), valid.sum()


def scst(log_probabilities: Tensor, advantages: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Self-critical sequence training (1612.00563, eq. 6): its gradient is that of the expected reward, negative.

    Args:
        log_probabilities: (B, G, L), of the tokens of G sentences a row, drawn; 0 where none counts.
        advantages: (B, G), reward of each over that of the sentence written without a draw; no gradient goes to it.
        valid: (B,), bool.

    Returns:
        The sum over the valid rows of the mean over their sentences of -advantage * log p(sentence), and their count.
    """
    costs = -advantages.detach().to(log_probabilities.dtype) * log_probabilities.sum(dim=2)
    return costs.masked_fill(~valid.unsqueeze(1), 0.0).mean(dim=1).sum(), valid.sum()


def group_advantages(rewards: Tensor) -> Tensor:
    """Rewards (B, G) over the mean of their row, in its standard deviations (2402.03300, section 4.1.2).

    A row whose rewards are all the same teaches nothing: its advantages are 0.
    """
    deviation = rewards.std(dim=1, keepdim=True)
    return (rewards - rewards.mean(dim=1, keepdim=True)) / (deviation + 1e-4)


def grpo(
    log_probabilities: Tensor,
    old: Tensor,
    reference: Tensor,
    advantages: Tensor,
    counts: Tensor,
    valid: Tensor,
    *,
    clip: float,
    kl_weight: float,
) -> tuple[Tensor, Tensor]:
    """Group relative policy optimization (2402.03300, eq. 3 and 4), negative.

    Args:
        log_probabilities: (B, G, L), of the tokens of G sentences a row, drawn.
        old: (B, G, L), those of the model that drew them; no gradient goes to it.
        reference: (B, G, L), those of the model that training started from, likewise.
        advantages: (B, G), likewise.
        counts: (B, G, L), bool, the tokens of the sentences.
        valid: (B,), bool.
        clip: how far the ratio to `old` may be from 1.
        kl_weight: of the estimate of KL to the reference, r - log r - 1 of r = reference / policy.

    Returns:
        The sum over the valid rows of the mean over their sentences of the mean over tokens, and the count of rows.
    """
    counts = counts & valid[:, None, None]
    mine = log_probabilities.masked_fill(~counts, 0.0)
    ratio = (mine - old.detach().masked_fill(~counts, 0.0)).exp()
    gain = advantages.detach().to(mine.dtype).masked_fill(~valid.unsqueeze(1), 0.0).unsqueeze(2)
    gained = torch.minimum(ratio * gain, ratio.clamp(1.0 - clip, 1.0 + clip) * gain)
    away = reference.detach().masked_fill(~counts, 0.0) - mine
    costs = (kl_weight * (away.exp() - away - 1.0) - gained).masked_fill(~counts, 0.0)
    return (costs.sum(dim=2) / counts.sum(dim=2).clamp(min=1)).mean(dim=1).sum(), valid.sum()
