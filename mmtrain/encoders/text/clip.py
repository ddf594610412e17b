"""The text tower of a pretrained pair (CLIP, SigLIP and others), with its projection into the shared space."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmtrain.annotations import TextLength
from mmtrain.layers.pair_projection import SharedSpace
from mmtrain.layers.transformers_pair import load_tower, pair_config, shared_space, text_preprocessing
from mmtrain.layers.transformers_text import TransformersText, expanded
from mmtrain.types import Features


class CLIPText(nn.Module):
    """The text tower of a pair; its last hidden states are the tokens.

    SigLIP was trained on texts that are padded to its context, without a mask (2303.15343). Its tokens include the
    padding, whose last place is projected.

    Args:
        pretrained: a folder or a name on the hub, with the complete pair; None for random weights.
        config: for random weights, model_type and sizes as in the library's config.json; None if `pretrained` is set.
        max_length: maximum length in tokens, at most the context of the pair.

    Attributes:
        complete_config: configuration of the complete pair.
        projection: maps `Features` to vectors in the shared space; None if no task reads them.

    Raises:
        ValueError: if the checkpoint cannot be read or is not a pair with texts, or its context is shorter.
    """

    def __init__(self, *, pretrained: str | None, config: Mapping[str, Any] | None, max_length: TextLength) -> None:
        super().__init__()
        name = expanded(pretrained)
        complete = pair_config(name, config, modality="text")
        tower = load_tower(name, complete, modality="text")
        self.net = TransformersText(
            pretrained=name,
            config=complete.get_text_config(),
            max_length=max_length,
            pooling="tokens",
            model=tower.model,
            keeps_padding=True,
        )
        self.dim = self.net.dim
        self.projection = tower.projection
        self.complete_config = complete

    @property
    def library_model(self) -> Any:
        """The tower as its library has it, without the modules of the projection."""
        return self.net.model

    @classmethod
    def shared_space(cls, *, pretrained: str | None, config: Mapping[str, Any] | None) -> SharedSpace:
        """Return the width of the shared space and the loss of the pair; no weights are read."""
        return shared_space(pair_config(expanded(pretrained), config, modality="text"))

    @classmethod
    def preprocessing(
        cls, *, pretrained: str | None, config: Mapping[str, Any] | None, max_length: TextLength | str
    ) -> dict[str, Any]:
        """Return the tokenizer and the context of the weights; only the context for random weights.

        Raises:
            ValueError: as the constructor, and if the tokenizer is not that of the weights.
        """
        return text_preprocessing(expanded(pretrained), config, max_length=max_length)

    def export(self, folder: Path) -> str:
        """Write the tower in the format of transformers, and return code that loads it."""
        return self.net.export(folder)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return the embeddings, then the blocks."""
        return self.net.layers()

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode token ids.

        Args:
            values: (B, L), int64, L at most max_length; values under a False mask are ignored.
            mask: (B, L), bool, True where a token is valid; None if all are.

        Returns:
            tokens (B, L, dim), zeros under a False mask, and mask (B, L). For SigLIP, L is its context and all tokens
            of a text are valid.
        """
        return self.net(values, mask)
