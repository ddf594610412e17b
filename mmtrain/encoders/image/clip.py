"""The image tower of a pretrained pair (CLIP, SigLIP and others), with its projection into the shared space."""

from collections.abc import Mapping
from typing import Any

from mmtrain.annotations import Size
from mmtrain.encoders.image.huggingface import HuggingFaceImage
from mmtrain.layers.image_processor import image_settings
from mmtrain.layers.pair_projection import SharedSpace
from mmtrain.layers.transformers_pair import load_tower, pair_config, shared_space


class CLIPImage(HuggingFaceImage):
    """The image tower of a pair; its last hidden states are the tokens.

    Args:
        pretrained: a folder or a name on the hub, with the complete pair; None for random weights.
        config: for random weights, model_type and sizes as in the library's config.json; None if `pretrained` is set.
        image_size: height and width of the image in pixels; positions of a checkpoint are interpolated to it.

    Attributes:
        complete_config: configuration of the complete pair.
        projection: maps `Features` to vectors in the shared space; None if no task reads them.

    Raises:
        ValueError: if the checkpoint cannot be read or is not a pair with images, or for an unsupported image size.
    """

    def __init__(self, *, pretrained: str | None, config: Mapping[str, Any] | None, image_size: Size) -> None:
        complete = pair_config(pretrained, config, modality="image")
        tower = load_tower(pretrained, complete, modality="image")
        self._adopt(tower.model, complete.vision_config, image_size)
        self.projection = tower.projection
        self.complete_config = complete

    @property
    def library_model(self) -> Any:
        """The tower as its library has it, without the modules of the projection."""
        return self.net

    @classmethod
    def shared_space(cls, *, pretrained: str | None, config: Mapping[str, Any] | None) -> SharedSpace:
        """Return the width of the shared space and the loss of the pair; no weights are read."""
        return shared_space(pair_config(pretrained, config, modality="image"))

    @classmethod
    def preprocessing(cls, *, pretrained: str | None) -> dict[str, Any]:
        """Return the image preprocessing of the weights, from their image processor; {} without weights."""
        if pretrained is None:
            return {}
        pair_config(pretrained, None, modality="image")  # reports a folder that is no pair
        return image_settings(pretrained)
