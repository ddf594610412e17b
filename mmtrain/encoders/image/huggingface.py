"""Picture models of transformers: the towers of CLIP and SigLIP, ViT (DINO's too), DeiT, DINOv2 and v3, BEiT, more.

They are 2103.00020, 2303.15343, 2010.11929, 2104.14294, 2012.12877, 2304.07193, 2508.10104, 2106.08254, 2202.03555,
2201.03545, 2301.00808, 2103.14030 and 2111.09883.

Of a checkpoint of CLIP or SigLIP the text tower is not read. Unusual here: what has no part in the last hidden states
(a pooling head, the norm of the pooled token of CLIP and ConvNeXt, the token of a masked patch) is dropped, so that
every parameter gets a gradient.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmtrain.layers.foreign_model import drop, stem_and_blocks, unreached
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
# what a checkpoint may lack: no part in the last hidden states
MAY_LACK = ("pooler.", "embeddings.mask_token")


class HuggingFaceImage(nn.Module):
    """A picture model of transformers; its last hidden states are the tokens.

    Args:
        pretrained: a folder, or a name of the hub; None for random weights.
        config: for random weights, model_type and sizes as in the library's config.json, without image_size; None
            beside `pretrained`.
        image_size: height and width of the picture in pixels; positions of a checkpoint are interpolated to it.

    Raises:
        ValueError: for a checkpoint that cannot be read, a model of another type, and pictures that it cannot take.
    """

    def __init__(self, *, pretrained: str | None, config: Mapping[str, Any] | None, image_size: int) -> None:
        super().__init__()
        sizes = None if config is None else {**config, "image_size": image_size}
        found: Any = transformers_config(pretrained, sizes, model_types=MODEL_TYPES)
        if found.model_type in TWO_TOWERS:
            found = found.vision_config
        self.net: Any = transformers_model(pretrained, found, unused=MAY_LACK).eval()
        # the others resize their positions without being told, or have none
        sized = "interpolate_pos_encoding" in inspect.signature(self.net.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if sized else {}
        try:
            hidden = self._hidden(torch.zeros(1, 3, image_size, image_size))
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"{found.model_type} cannot read pictures of image_size = {image_size}: {error}\n"
                f"    set data.inputs.image.size to {found.image_size}, as it was trained, or more"
            ) from error
        self.dim: int = hidden.shape[-1]
        drop(self.net, unreached(self.net, hidden))
        self.net.train()

    @classmethod
    def preprocessing(cls, *, pretrained: str | None) -> dict[str, Any]:
        """How the weights want their pictures, from their image processor; {} without weights."""
        return {} if pretrained is None else image_settings(pretrained)

    def export(self, folder: Path) -> str:
        """Write it as transformers does; the code that loads it."""
        options = "".join(f", {name}={value}" for name, value in self.options.items())
        return export_transformers(self.net, f"pixel_values=values{options}", folder)

    def layers(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """The embedding with class token and positions, then the blocks, or stages of ConvNeXt and Swin."""
        return stem_and_blocks(self.net)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Features:
        """Encode pictures.

        Args:
            values: (B, 3, H, W), floating point, normalised; H and W are image_size.
            mask: unused; a picture has no padding.

        Returns:
            tokens (B, T, dim): class and register tokens first, where there are any, then row by row; all are valid.
        """
        x = self._hidden(values)
        return Features(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))

    def _hidden(self, values: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, T, D), of a feature map too."""
        hidden = self.net(values, **self.options).last_hidden_state
        return hidden if hidden.ndim == 3 else map_tokens(hidden)
