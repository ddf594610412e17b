"""Text encoders of transformers, from BERT to ModernBERT, the encoder of T5, and the text towers of CLIP and SigLIP.

`FAMILIES` in mmtrain/layers/transformers_text.py lists them. Poolers, projections and decoders are dropped, because the
output is tokens. Positions are repeated for longer texts. SigLIP pads its texts, as in pretraining.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmtrain.annotations import TextLength
from mmtrain.layers.transformers_model import transformers_config
from mmtrain.layers.transformers_text import FAMILIES, TOWERS, Pooling, TransformersText, expanded
from mmtrain.types import Features


class HuggingFaceText(nn.Module):
    """A text model whose last hidden states are the tokens, optionally pooled to one token.

    Args:
        pretrained: a folder or a name on the hub; None for random weights.
        config: for random weights, model_type and sizes as in the library's config.json; None if `pretrained` is set.
        max_length: maximum length in tokens; learned positions are repeated if there are fewer.
        pooling: tokens, class, mean, last or auto, see `TransformersText`.

    Raises:
        ValueError: if the checkpoint cannot be read, or for an unsupported model type or pooling.
    """

    def __init__(
        self,
        *,
        pretrained: str | None,
        config: Mapping[str, Any] | None,
        max_length: TextLength,
        pooling: Pooling,
    ) -> None:
        super().__init__()
        name = expanded(pretrained)
        result = transformers_config(name, config, model_types=(*FAMILIES, *TOWERS))
        self.net = TransformersText(pretrained=name, config=result, max_length=max_length, pooling=pooling)
        self.dim = self.net.dim

    @classmethod
    def preprocessing(cls, *, pretrained: str | None) -> dict[str, Any]:
        """Return the tokenizer, which is stored with the weights; {} without weights."""
        return {} if pretrained is None else {"tokenizer": pretrained}

    def export(self, folder: Path) -> str:
        """Write the model in the format of transformers, and return code that loads it."""
        return self.net.export(folder)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return the embeddings and shared parts, then the blocks."""
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
