"""Text encoders of transformers, from BERT to ModernBERT, the encoder of T5, the text towers of CLIP and SigLIP.

`FAMILIES` in mmtrain/layers/transformers_text.py lists them. Unusual here: nothing but tokens comes out, so
poolers, projections and decoders are dropped; positions are repeated for longer texts; and SigLIP pads texts by
itself, as it was trained.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmtrain.layers.transformers_model import transformers_config
from mmtrain.layers.transformers_text import FAMILIES, TOWERS, TransformersText, expanded
from mmtrain.types import Features


class HuggingFaceText(nn.Module):
    """A text model whose last hidden states are the tokens, or one token made of them.

    Args:
        pretrained: a folder, or a name of the hub; None for random weights.
        config: for random weights, model_type and sizes as in the library's config.json; None beside `pretrained`.
        max_length: the longest text in tokens; learned positions are repeated when they are fewer.
        pooling: tokens, class, mean, last or auto, as `TransformersText` has it.

    Raises:
        ValueError: for a checkpoint that cannot be read, a model of another type and an unknown pooling.
    """

    def __init__(
        self, *, pretrained: str | None, config: Mapping[str, Any] | None, max_length: int, pooling: str
    ) -> None:
        super().__init__()
        name = expanded(pretrained)
        found = transformers_config(name, config, model_types=(*FAMILIES, *TOWERS))
        self.net = TransformersText(pretrained=name, config=found, max_length=max_length, pooling=pooling)
        self.dim = self.net.dim

    @classmethod
    def preprocessing(cls, *, pretrained: str | None) -> dict[str, Any]:
        """The tokenizer of the weights, which lies beside them; {} without weights."""
        return {} if pretrained is None else {"tokenizer": pretrained}

    def export(self, folder: Path) -> str:
        """Write it as transformers does; the code that loads it."""
        return self.net.export(folder)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Embeddings and what all blocks read, then the blocks."""
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
