"""BERT (1810.04805), the library's: with published weights or from scratch, without the pooler."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmtrain.layers.attention import check_heads
from mmtrain.layers.transformers_model import transformers_config
from mmtrain.layers.transformers_text import TransformersText, expanded
from mmtrain.types import Features

PUBLISHED = "bert-base-uncased"


class BERT(nn.Module):
    """A BertModel whose last hidden states are the tokens, or one token made of them.

    Args:
        pretrained: a folder of the transformers library, or a name of the hub; true for bert-base-uncased; None for
            random weights of the sizes below, which weights have of their own.
        pooling: tokens, class, mean, last or auto, as `TransformersText` has it.
        vocab_size: number of token ids.
        max_length: the longest text in tokens; the positions of weights are repeated when they are fewer.
        dim: width of the tokens.
        depth: number of blocks.
        num_heads: attention heads, divides `dim`.
        mlp_ratio: hidden width of a block's MLP over `dim`.
        dropout: of embeddings, attention weights, and what attention and MLP add; holds for weights, too.

    Raises:
        ValueError: for weights that cannot be read or are of another model, and heads that do not divide `dim`.
    """

    def __init__(
        self,
        *,
        pretrained: bool | str | None,
        pooling: str,
        vocab_size: int,
        max_length: int,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        dropout: float,
    ) -> None:
        super().__init__()
        name = expanded(_name(pretrained))
        sizes: dict[str, Any] | None = None
        if name is None:
            check_heads(dim, num_heads)
            sizes = {
                "model_type": "bert",
                "vocab_size": vocab_size,
                "max_position_embeddings": max_length,
                "hidden_size": dim,
                "num_hidden_layers": depth,
                "num_attention_heads": num_heads,
                "intermediate_size": int(dim * mlp_ratio),
            }
        config = transformers_config(name, sizes, model_types=("bert",))
        config.update({"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout})
        self.net = TransformersText(pretrained=name, config=config, max_length=max_length, pooling=pooling)
        self.dim = self.net.dim

    @classmethod
    def preprocessing(cls, *, pretrained: bool | str | None) -> dict[str, Any]:
        """The tokenizer of the weights, which lies beside them; {} without weights."""
        name = _name(pretrained)
        return {} if name is None else {"tokenizer": name}

    def export(self, folder: Path) -> str:
        """Write it as transformers does; the code that loads it."""
        return self.net.export(folder)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Embeddings with their norm, then the blocks."""
        return self.net.layers()

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode token ids.

        Args:
            values: (B, L), int64, L at most max_length; what stands under a False mask is ignored.
            mask: (B, L), bool, True where a token is valid; None when all are.

        Returns:
            tokens (B, L, dim), zeros under a False mask, and mask (B, L); of a pooling (B, 1, dim) and (B, 1).
        """
        return self.net(values, mask)


def _name(pretrained: bool | str | None) -> str | None:
    if isinstance(pretrained, bool):
        return PUBLISHED if pretrained else None
    return pretrained
