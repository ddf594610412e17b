"""The text tower of a pair of open_clip."""

from typing import Any

from mmtrain.annotations import TextLength
from mmtrain.layers.open_clip_pair import PREFIX, OpenCLIPTower, context_of, shared_space_of
from mmtrain.layers.pair_projection import SharedSpace


class OpenCLIPText(OpenCLIPTower):
    """The text tower of a pair; its only token is the vector in the shared space.

    Args:
        name: of an architecture of open_clip, or hf-hub:NAME, or local-dir:FOLDER.
        pretrained: a tag, or a file; None for random weights, and where the name has weights.
        max_length: length in tokens: the context of the pair.

    Raises:
        ValueError: if open_clip is not installed or cannot load it, or for another length.
    """

    def __init__(self, *, name: str, pretrained: str | None, max_length: TextLength) -> None:
        _check_length(name, max_length)
        super().__init__(name=name, pretrained=pretrained, side="text")

    @classmethod
    def shared_space(cls, *, name: str, pretrained: str | None) -> SharedSpace:
        """Return the width of the shared space and the loss of the pair; no weights are read."""
        return shared_space_of(name, pretrained)

    @classmethod
    def preprocessing(cls, *, name: str, max_length: TextLength | str) -> dict[str, Any]:
        """Return the tokenizer and the context of the pair.

        Raises:
            ValueError: for another length.
        """
        if isinstance(max_length, int):
            _check_length(name, max_length)
        return {"tokenizer": PREFIX + name, "max_length": context_of(name), "word_dropout": 0.0}


def _check_length(name: str, max_length: int) -> None:
    context = context_of(name)
    if max_length != context:
        raise ValueError(
            f"max_length = {max_length}, but texts of {name} have {context} tokens;"
            " set data.inputs.text.max_length to auto"
        )
