"""Self-critical sequence training (1612.00563): a sampled sentence is rewarded relative to the greedy one.

It starts from a run that learned to generate text. In contrast to the paper, several sentences per row can be sampled.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor

from mmtrain.losses.preference import scst
from mmtrain.tasks.rewarded import Rewarded, RewardedSamples


class Scst(Rewarded):
    """SCST; see `Rewarded`."""

    def _advantages(self, rewards: Tensor, prompts: Any, draws: Tensor, right: list[list[str]]) -> Tensor:
        greedy = replace(self.policy.decoding, method="greedy", no_repeat_ngram_size=0)
        return rewards - self._scores(self.policy.generate(prompts, draws, greedy).unsqueeze(1), right)

    def _loss(self, predictions: RewardedSamples) -> tuple[Tensor, Tensor]:
        return scst(predictions.drawn.log_probabilities, predictions.advantages, predictions.valid)
