"""The image tower of a pair of open_clip."""

from collections.abc import Mapping
from typing import Any

from mmtrain.annotations import Size
from mmtrain.layers.open_clip_pair import OpenCLIPTower, preprocessing_of, shared_space_of
from mmtrain.layers.pair_projection import SharedSpace


class OpenCLIPImage(OpenCLIPTower):
    """The image tower of a pair; its only token is the vector in the shared space.

    Args:
        name: of an architecture of open_clip, or hf-hub:NAME, or local-dir:FOLDER.
        pretrained: a tag, or a file; None for random weights, and where the name has weights.
        image_size: height and width of the image in pixels: those of the weights.

    Raises:
        ValueError: if open_clip is not installed or cannot load it, or for another image size.
    """

    def __init__(self, *, name: str, pretrained: str | None, image_size: Size) -> None:
        size = preprocessing_of(name, pretrained)["size"]
        if image_size != size:
            raise ValueError(f"image_size = {image_size}, but {name} was trained with {size}; set it to {size}")
        super().__init__(name=name, pretrained=pretrained, side="image")

    @classmethod
    def shared_space(cls, *, name: str, pretrained: str | None) -> SharedSpace:
        """Return the width of the shared space and the loss of the pair; no weights are read."""
        return shared_space_of(name, pretrained)

    @classmethod
    def preprocessing(cls, *, name: str, pretrained: str | None) -> Mapping[str, Any]:
        """Return the image preprocessing of the pair; no weights are read."""
        return dict(preprocessing_of(name, pretrained))
