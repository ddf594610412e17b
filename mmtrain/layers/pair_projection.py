"""The projection of a pretrained tower into the space that it shares with the other tower of its pair."""

from typing import Literal, NamedTuple

from torch import Tensor, nn

from mmtrain.layers.pooling import make_pool
from mmtrain.types import Features


class SharedSpace(NamedTuple):
    """What the configuration of a pretrained pair says of its shared space.

    Attributes:
        dim: its width.
        loss: with which the pair was trained; see `mmtrain.tasks.contrastive.Contrastive`.
    """

    dim: int
    loss: Literal["info_nce", "sigmoid"]


class PairProjection(nn.Module):
    """From the tokens of a pretrained tower to its vectors in the shared space.

    Args:
        pooling: class or last: the valid token that is projected; None if the head pools the tokens.
        head: maps the pooled token (B, D), or all tokens (B, T, D), to (B, E).
        dim: E, the width of the shared space.
        logit_scale: the pretrained logarithm of the scale of the cosine similarities.
        logit_bias: the pretrained bias of the logits; None if the pair has none.
        takes_mask: whether the head pools the tokens with their mask.
        checkpoint: name of the checkpoint; towers with the same name share a space.
    """

    def __init__(
        self,
        *,
        pooling: str | None,
        head: nn.Module,
        dim: int,
        logit_scale: float,
        logit_bias: float | None,
        checkpoint: str,
        takes_mask: bool = False,
    ) -> None:
        super().__init__()
        self.pool = None if pooling is None else make_pool(pooling)
        self.head = head
        self.dim = dim
        self.logit_scale = logit_scale
        self.logit_bias = logit_bias
        self.checkpoint = checkpoint
        self.takes_mask = takes_mask

    def forward(self, features: Features) -> Tensor:
        """Map tokens (B, T, D), mask (B, T) to vectors (B, E), not normalized; meaningless for an empty mask."""
        if self.takes_mask:
            pooling, *rest = self.head.children()
            vectors: Tensor = pooling(features.cleared().tokens, features.mask)
            for module in rest:
                vectors = module(vectors)
            return vectors
        pooled: Tensor = features.cleared().tokens if self.pool is None else self.pool(features)
        projected: Tensor = self.head(pooled)
        return projected
