"""The image tower of a pretrained pair (CLIP, SigLIP and others), with its projection into the shared space."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmtrain.annotations import Size
from mmtrain.data.decoding.patches import EXTRA, grid_of
from mmtrain.encoders.image.huggingface import HuggingFaceImage
from mmtrain.layers.image_processor import image_settings, naflex_settings
from mmtrain.layers.pair_projection import SharedSpace
from mmtrain.layers.transformers_pair import NAFLEX, load_tower, pair_config, shared_space
from mmtrain.types import Features


class CLIPImage(HuggingFaceImage):
    """The image tower of a pair; its last hidden states are the tokens.

    That of SigLIP 2 with variable resolution (NaFlex) encodes patches of images of any shape.

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
        complete: Any = pair_config(pretrained, config, modality="image")
        tower = load_tower(pretrained, complete, modality="image")
        if complete.model_type == NAFLEX:
            nn.Module.__init__(self)
            self.net: Any = tower.model
            self.dim: int = complete.vision_config.hidden_size
        else:
            self._adopt(tower.model, complete.vision_config, image_size)
        self.is_naflex = complete.model_type == NAFLEX
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
        kind = pair_config(pretrained, None, modality="image").model_type  # reports a folder that is no pair
        return naflex_settings(pretrained) if kind == NAFLEX else image_settings(pretrained)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Features:
        """Encode images.

        Args:
            values: (B, 3, H, W), floating point, normalized; for SigLIP 2 with variable resolution patches (B, N, P) of
                `mmtrain.data.decoding.patches`.
            mask: (B, N), bool, of patches; None for an image of one size.

        Returns:
            tokens (B, T, dim) and mask (B, T), all valid for an image of one size.
        """
        if not self.is_naflex:
            return super().forward(values)
        if mask is None:
            mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        values = values.masked_fill(~mask.unsqueeze(-1), 0.0)
        attended = mask | ~mask.any(dim=1, keepdim=True)  # an empty row attends to all patches; it is zeroed later
        hidden = self.net(
            pixel_values=values[..., :-EXTRA],
            pixel_attention_mask=attended.long(),
            spatial_shapes=grid_of(values, mask),
        ).last_hidden_state
        return Features(hidden, mask).cleared()
