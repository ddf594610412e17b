"""Group relative policy optimization (2402.03300): a drawn sentence is praised as far as it beats others of its row.

It goes on from a run that learned to write. Unusual here: sentences are drawn anew in every step, so that the ratio to
the policy that drew them is 1 and what is left of it is its gradient.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmtrain.losses.preference import group_advantages, grpo
from mmtrain.tasks.policy import Policy
from mmtrain.tasks.rewarded import Rewarded, Scored


class Grpo(Rewarded):
    """See `Rewarded`.

    Args:
        policy: see `Rewarded`, and so are all that are not named here.
        encoders: see there.
        reference: see there.
        continues: see there.
        target: see there.
        modalities: see there.
        weight: see there.
        reward: see there.
        num_samples: see there; 2 or more.
        kl_weight: how much it costs to leave the reference.

    Raises:
        ValueError: as `Rewarded`, and when a number means nothing.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        encoders: Mapping[str, nn.Module],
        reference: nn.Module | str | None,
        continues: str,
        target: str,
        modalities: list[str],
        weight: float,
        reward: str,
        num_samples: int,
        kl_weight: float,
    ) -> None:
        super().__init__(
            policy=policy,
            encoders=encoders,
            reference=reference,
            continues=continues,
            target=target,
            modalities=modalities,
            weight=weight,
            reward=reward,
            num_samples=num_samples,
        )
        if num_samples < 2 or kl_weight < 0.0:
            raise ValueError(
                f"num_samples = {num_samples} and kl_weight = {kl_weight}; set num_samples to 2 or more, such as 8, and"
                " kl_weight to 0 or more"
            )
        self.kl_weight = kl_weight

    def _advantages(self, rewards: Tensor, prompts: Any, draws: Tensor, right: list[list[str]]) -> Tensor:
        return group_advantages(rewards)

    def _loss(self, predictions: Scored) -> tuple[Tensor, Tensor]:
        drawn = predictions.drawn
        return grpo(
            drawn.log_probabilities,
            drawn.log_probabilities,
            drawn.reference,
            predictions.advantages,
            drawn.counts,
            predictions.valid,
            clip=0.2,  # never reached at a ratio of 1
            kl_weight=self.kl_weight,
        )
