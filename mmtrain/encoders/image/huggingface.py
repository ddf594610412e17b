"""Image models of transformers: the towers of CLIP and SigLIP, ViT (also DINO), DeiT, DINOv2 and v3, BEiT and others.

Papers: 2103.00020, 2303.15343, 2010.11929, 2104.14294, 2012.12877, 2304.07193, 2508.10104, 2106.08254, 2202.03555,
2201.03545, 2301.00808, 2103.14030 and 2111.09883.

The text tower of CLIP or SigLIP is not loaded. Parts that do not affect the last hidden states are dropped, so that
every parameter gets a gradient: a pooling head, the norm of the pooled token of CLIP and ConvNeXt, the mask token.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from mmtrain.annotations import Size
from mmtrain.layers.foreign_model import drop, stem_and_blocks, unused_parameters
from mmtrain.layers.image_processor import image_settings
from mmtrain.layers.map_tokens import map_tokens
from mmtrain.layers.transformers_model import export_transformers, transformers_config, transformers_model
from mmtrain.types import Features

TWO_TOWERS = ("clip", "siglip")
MODEL_TYPES = (
    *TWO_TOWERS,
    *("clip_vision_model", "siglip_vision_model", "vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit"),
    *("beit", "data2vec-vision", "convnext", "convnextv2", "swin", "swinv2"),
)
# weights that may be missing from a checkpoint, because they do not affect the last hidden states
MAY_LACK = ("pooler.", "embeddings.mask_token")


class HuggingFaceImage(nn.Module):
    """An image model of transformers; its last hidden states are the tokens.

    Args:
        pretrained: a folder or a name on the hub; None for random weights.
        config: for random weights, model_type and sizes as in the library's config.json, without image_size; None if
            `pretrained` is set.
        image_size: height and width of the image in pixels; positions of a checkpoint are interpolated to it.

    Raises:
        ValueError: if the checkpoint cannot be read, or for an unsupported model type or image size.
    """

    def __init__(self, *, pretrained: str | None, config: Mapping[str, Any] | None, image_size: Size) -> None:
        sizes = None if config is None else {**config, "image_size": image_size}
        result: Any = transformers_config(pretrained, sizes, model_types=MODEL_TYPES)
        if result.model_type in TWO_TOWERS:
            result = result.vision_config
        self._adopt(transformers_model(pretrained, result, unused=MAY_LACK), result, image_size)

    def _adopt(self, model: nn.Module, config: PretrainedConfig, image_size: int) -> None:
        """Take a model of the library, without the parts that do not affect its last hidden states."""
        super().__init__()
        self.net: Any = model.eval()
        # other models resize their positions automatically, or have none
        sized = "interpolate_pos_encoding" in inspect.signature(self.net.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if sized else {}
        try:
            with torch.enable_grad():  # gradients tell which parts are used
                hidden = self._hidden(torch.zeros(1, 3, image_size, image_size))
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"{config.model_type} does not accept image_size = {image_size}: {error}\n"
                f"    set data.inputs.image.size to {config.to_dict()['image_size']}, as it was trained, or more"
            ) from error
        self.dim: int = hidden.shape[-1]
        drop(self.net, unused_parameters(self.net, hidden))
        self.net.train()

    @classmethod
    def preprocessing(cls, *, pretrained: str | None) -> dict[str, Any]:
        """Return the image preprocessing of the weights, from their image processor; {} without weights."""
        return {} if pretrained is None else image_settings(pretrained)

    def export(self, folder: Path) -> str:
        """Write the model in the format of transformers, and return code that loads it."""
        options = "".join(f", {name}={value}" for name, value in self.options.items())
        return export_transformers(self.net, f"pixel_values=values{options}", folder)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """Return the embedding with class token and positions, then the blocks, or the stages of ConvNeXt and Swin."""
        return stem_and_blocks(self.net)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Features:
        """Encode images.

        Args:
            values: (B, 3, H, W), floating point, normalized; H and W are image_size.
            mask: unused; an image has no padding.

        Returns:
            tokens (B, T, dim): class and register tokens first, if any, then patches row by row; all are valid.
        """
        x = self._hidden(values)
        return Features(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))

    def _hidden(self, values: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, T, D); a feature map is flattened."""
        hidden = self.net(values, **self.options).last_hidden_state
        return hidden if hidden.ndim == 3 else map_tokens(hidden)
