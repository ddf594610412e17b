"""Group relative policy optimization (2402.03300): a sampled sentence is rewarded relative to others of its row.

It starts from a run that learned to generate text. Sentences are sampled anew in every step, so the ratio to the
sampling policy is 1, and only its gradient matters.
"""

from typing import Annotated, Any

from annotated_types import Ge, Le
from torch import Tensor

from mmtrain.annotations import Flattened, NonNegativeFloat
from mmtrain.losses.preference import group_advantages, grpo
from mmtrain.metrics.rewards import RewardName
from mmtrain.tasks.policy import TrainedPolicy
from mmtrain.tasks.rewarded import Rewarded, RewardedSamples


class Grpo(Rewarded):
    """GRPO; see `Rewarded`.

    Args:
        trained: see `Rewarded`.
        reward: see `Rewarded`.
        num_samples: see `Rewarded`; 2 or more.
        kl_weight: weight of the KL penalty to the reference.

    Raises:
        ValueError: as in `Rewarded`, or for a number out of range.
    """

    def __init__(
        self,
        *,
        trained: Flattened[TrainedPolicy],
        reward: RewardName,
        num_samples: Annotated[int, Ge(2), Le(2**20)],
        kl_weight: NonNegativeFloat,
    ) -> None:
        super().__init__(trained=trained, reward=reward, num_samples=num_samples)
        if num_samples < 2 or kl_weight < 0.0:
            raise ValueError(
                f"num_samples = {num_samples} and kl_weight = {kl_weight}; set num_samples to 2 or more, such as 8, and"
                " kl_weight to 0 or more"
            )
        self.kl_weight = kl_weight

    def _advantages(self, rewards: Tensor, prompts: Any, draws: Tensor, right: list[list[str]]) -> Tensor:
        return group_advantages(rewards)

    def _loss(self, predictions: RewardedSamples) -> tuple[Tensor, Tensor]:
        drawn = predictions.drawn
        return grpo(
            drawn.log_probabilities,
            drawn.log_probabilities,
            drawn.reference,
            predictions.advantages,
            drawn.counts,
            predictions.valid,
            clip=0.2,  # has no effect at a ratio of 1
            kl_weight=self.kl_weight,
        )
