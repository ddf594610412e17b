"""Learning from preferences and rewards: DPO on pairs; SCST and GRPO on sentences that the model sampled.

All losses use token log probabilities. Missing sentences, and tokens after an end token, are under a False mask and may
have any value. Sums are over rows, not tokens, so `count` follows from the masks alone, before sampling.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mmtrain.layers.autocast import upcast


def token_log_probabilities(logits: Tensor, ids: Tensor, counts: Tensor) -> Tensor:
    """Return the log probability of each token given those before it; 0 where `counts` is False.

    Args:
        logits: (..., L, V), floating point, for the token at each position.
        ids: (..., L), int64; ignored where `counts` is False.
        counts: (..., L), bool.

    Returns:
        (..., L), float32 or float64.
    """
    logits = upcast(logits).masked_fill(~counts.unsqueeze(-1), 0.0)
    chosen = logits.gather(-1, ids.masked_fill(~counts, 0).unsqueeze(-1)).squeeze(-1)
    return (chosen - logits.logsumexp(dim=-1)).masked_fill(~counts, 0.0)


def token_divergence(policy: Tensor, reference: Tensor, counts: Tensor) -> Tensor:
    """Return KL(policy || reference) over the vocabulary at each position; 0 where `counts` is False.

    Summed over a sentence sampled from the policy, it is an unbiased estimate of the sentence-level KL, with less
    variance than the log ratio of the sampled tokens.

    Args:
        policy: logits (..., L, V); -inf for tokens that are never sampled, at the same ids as in `reference`.
        reference: logits (..., L, V).
        counts: (..., L), bool.

    Returns:
        (..., L), float32 or float64, at least 0.
    """
    unread = ~counts.unsqueeze(-1)
    mine = upcast(policy).masked_fill(unread, 0.0).log_softmax(dim=-1)
    theirs = upcast(reference).masked_fill(unread, 0.0).log_softmax(dim=-1)
    ratio = torch.where(mine.isinf() & theirs.isinf(), 0.0, mine - theirs)
    return (mine.exp() * ratio).sum(dim=-1).clamp(min=0.0)


def dpo(
    policy: Tensor, reference: Tensor, valid: Tensor, *, beta: float, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Direct preference optimization (2305.18290, eq. 7): the sum over valid pairs, and their number.

    Args:
        policy: (B, 2), log probabilities of the chosen and the rejected sentence.
        reference: (B, 2), the same for the reference model; gets no gradient.
        valid: (B,), bool.
        beta: strength of the penalty for deviation from the reference.
        label_smoothing: assumed fraction of flipped pairs (conservative DPO, eq. 3 of its note).
    """
    unread = ~valid.unsqueeze(1)
    ratios = upcast(policy).masked_fill(unread, 0.0) - upcast(reference).detach().masked_fill(unread, 0.0)
    margin = beta * (ratios[:, 0] - ratios[:, 1])
    costs = -(1.0 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
    return costs.masked_fill(~valid, 0.0).sum(), valid.sum()


def scst(log_probabilities: Tensor, advantages: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Self-critical sequence training (1612.00563, eq. 6): its gradient is that of the negative expected reward.

    Args:
        log_probabilities: (B, G, L), of the tokens of G sampled sentences per row; 0 for padding.
        advantages: (B, G), reward of each sentence minus that of the greedy sentence; gets no gradient.
        valid: (B,), bool.

    Returns:
        The sum over valid rows of the sentence mean of -advantage * log p(sentence), and the number of rows.
    """
    costs = -advantages.detach().to(log_probabilities.dtype) * log_probabilities.sum(dim=2)
    return costs.masked_fill(~valid.unsqueeze(1), 0.0).mean(dim=1).sum(), valid.sum()


def group_advantages(rewards: Tensor) -> Tensor:
    """Normalize rewards (B, G) to mean 0 and standard deviation 1 per row (2402.03300, section 4.1.2).

    If all rewards of a row are equal, its advantages are 0, so it has no effect.
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
    """Group relative policy optimization (2402.03300, eq. 3 and 4), with negative sign.

    Args:
        log_probabilities: (B, G, L), of the tokens of G sampled sentences per row.
        old: (B, G, L), the same for the model that sampled them; gets no gradient.
        reference: (B, G, L), the same for the model at the start of training; gets no gradient.
        advantages: (B, G); gets no gradient.
        counts: (B, G, L), bool, True for tokens of the sentences.
        valid: (B,), bool.
        clip: maximum distance from 1 of the ratio to `old`.
        kl_weight: weight of the KL estimate to the reference, r - log r - 1 with r = reference / policy.

    Returns:
        The sum over valid rows of the mean over sentences of the mean over tokens, and the number of rows.
    """
    counts = counts & valid[:, None, None]
    mine = log_probabilities.masked_fill(~counts, 0.0)
    ratio = (mine - old.detach().masked_fill(~counts, 0.0)).exp()
    gain = advantages.detach().to(mine.dtype).masked_fill(~valid.unsqueeze(1), 0.0).unsqueeze(2)
    gained = torch.minimum(ratio * gain, ratio.clamp(1.0 - clip, 1.0 + clip) * gain)
    away = reference.detach().masked_fill(~counts, 0.0) - mine
    costs = (kl_weight * (away.exp() - away - 1.0) - gained).masked_fill(~counts, 0.0)
    return (costs.sum(dim=2) / counts.sum(dim=2).clamp(min=1)).mean(dim=1).sum(), valid.sum()
