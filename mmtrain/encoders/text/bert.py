"""BERT (1810.04805) of transformers, without the pooler: with published weights or from scratch."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmtrain.annotations import Depth, Fraction, Size, TextLength, VocabSize, WidthRatio
from mmtrain.layers.attention import check_heads
from mmtrain.layers.transformers_model import transformers_config
from mmtrain.layers.transformers_text import Pooling, TransformersText, expanded
from mmtrain.types import Features

PUBLISHED = "bert-base-uncased"


class BERT(nn.Module):
    """A BertModel whose last hidden states are the tokens, optionally pooled to one token.

    Args:
        pretrained: a folder or a name on the hub; True for bert-base-uncased; None for random weights with the sizes
            below. Pretrained weights ignore these sizes.
        pooling: tokens, class, mean, last or auto, see `TransformersText`.
        vocab_size: number of token ids.
        max_length: maximum length in tokens; positions of the weights are repeated if there are fewer.
        dim: width of the tokens.
        depth: number of blocks.
        num_heads: number of attention heads; must divide `dim`.
        mlp_ratio: hidden width of the MLP of a block as a multiple of `dim`.
        dropout: dropout probability on embeddings, attention weights, and outputs of attention and MLP. It also applies
            to pretrained weights.

    Raises:
        ValueError: if the weights cannot be read or are of another model type, or if the heads do not divide `dim`.
    """

    def __init__(
        self,
        *,
        pretrained: bool | str | None,
        pooling: Pooling,
        vocab_size: VocabSize,
        max_length: TextLength,
        dim: Size,
        depth: Depth,
        num_heads: Size,
        mlp_ratio: WidthRatio,
        dropout: Fraction,
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
        """Return the tokenizer, which is stored with the weights; {} without weights."""
        name = _name(pretrained)
        return {} if name is None else {"tokenizer": name}

    def export(self, folder: Path) -> str:
        """Write the model in the format of transformers, and return code that loads it."""
        return self.net.export(folder)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return the embeddings with their norm, then the blocks."""
        return self.net.layers()

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode token ids.

        Args:
            values: (B, L), int64, L at most max_length; values under a False mask are ignored.
            mask: (B, L), bool, True where a token is valid; None if all are.

        Returns:
            tokens (B, L, dim), zeros under a False mask, and mask (B, L). With pooling, (B, 1, dim) and (B, 1).
        """
        return self.net(values, mask)


def _name(pretrained: bool | str | None) -> str | None:
    if isinstance(pretrained, bool):
        return PUBLISHED if pretrained else None
    return pretrained
