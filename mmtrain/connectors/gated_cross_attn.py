"""Media beside the text: blocks of the language model read them behind gates (Flamingo, 2204.14198, fig. 4).

Nothing but the mark of a medium stands in the text. In front of every `every`-th block, each token reads the tokens of
the last medium that was spoken of before it (the paper's 3.1.3), of each modality; the gates start at 0, so that the
language model is at first what it was. Here the medium's tokens are only projected; the paper resamples them before.
"""

from functools import partial

from torch import nn

from mmtrain.layers.gated_read import GatedRead
from mmtrain.layers.streams import check_counts
from mmtrain.types import Features


class GatedCrossAttnConnector(nn.Module):
    """A projection, and what reads it.

    Args:
        in_dim: width of the encoder's tokens.
        dim: width of the language model.
        every: blocks from one that reads to the next; the first does.
        num_heads: attention heads, divides `dim`.
        mlp_ratio: hidden width of an MLP over `dim`.
        dropout: of what attention and MLP add.

    Raises:
        ValueError: when `every` is no count.
    """

    def __init__(self, *, in_dim: int, dim: int, every: int, num_heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        check_counts({"every": every})
        self.proj = nn.Linear(in_dim, dim)
        self.every = every
        self.make = partial(GatedRead, dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout)

    def readers(self, num_blocks: int) -> nn.ModuleDict:
        """What stands in front of blocks, by their number; one set for all modalities."""
        return nn.ModuleDict({str(number): self.make() for number in range(0, num_blocks, self.every)})

    def forward(self, features: Features) -> Features:
        """Map tokens (B, T, in_dim), mask (B, T) to (B, T, dim), (B, T)."""
        tokens, mask = features.cleared()
        return Features(self.proj(tokens), mask)
