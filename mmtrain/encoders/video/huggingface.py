"""Video models of transformers: VideoMAE (2203.12602), TimeSformer (2102.05095), ViViT (2103.15691).

They need a fixed number of frames and have no mask. A shorter video repeats its last frame, as in the authors' loaders,
so there is no padding, and all tokens are valid. The number of frames may differ from that of the weights for VideoMAE,
whose positions are sinusoids, and for TimeSformer, whose time positions are interpolated.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from mmtrain.annotations import Size
from mmtrain.layers.image_processor import video_settings
from mmtrain.layers.pretrained import resized_grid, resized_line
from mmtrain.layers.still_frames import still_frames
from mmtrain.layers.transformers_model import export_transformers, transformers_config, transformers_model
from mmtrain.types import Features

MODEL_TYPES = ("videomae", "timesformer", "vivit")


class HuggingFaceVideo(nn.Module):
    """A video model of transformers; its last hidden states are the tokens.

    Args:
        pretrained: a folder or a name on the hub; None for random weights.
        config: for random weights, model_type and sizes as in the library's config.json, without num_frames and
            image_size; None if `pretrained` is set.
        num_frames: number of frames; a shorter video repeats its last one.
        image_size: height and width of a frame in pixels.

    Raises:
        ValueError: if the checkpoint cannot be read, or for an unsupported model type, number of frames or image size.
    """

    def __init__(
        self,
        *,
        pretrained: str | None,
        config: Mapping[str, Any] | None,
        num_frames: Size,
        image_size: Size,
    ) -> None:
        super().__init__()
        sizes = None if config is None else {**config, "num_frames": num_frames, "image_size": image_size}
        result: Any = transformers_config(pretrained, sizes, model_types=MODEL_TYPES)
        if result.model_type != "timesformer":
            _check_size(result, image_size, str(pretrained))
        _check_frames(result, num_frames, str(pretrained))
        if result.model_type == "videomae":
            result.num_frames = num_frames  # its positions are computed from it
        net: Any = transformers_model(pretrained, result, unused=("pooler.",))
        if result.model_type == "timesformer":
            _resize(net, num_frames, image_size)
        if result.model_type == "vivit":
            net.pooler = None
        self.net = net
        self.num_frames = num_frames
        self.dim: int = result.hidden_size

    @classmethod
    def preprocessing(cls, *, pretrained: str | None) -> dict[str, Any]:
        """Return the video preprocessing of the weights, from their processor; {} without weights."""
        return {} if pretrained is None else video_settings(pretrained)

    def export(self, folder: Path) -> str:
        """Write the model in the format of transformers, and return code that loads it, for videos of `num_frames`."""
        return export_transformers(self.net, "pixel_values=values", folder)

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """Return patches with their positions, then the blocks."""
        blocks = self.net.layers if self.net.config.model_type == "vivit" else self.net.encoder.layer
        return [(self.net.embeddings,), *((block,) for block in blocks)]

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode videos.

        Args:
            values: (B, F, 3, image_size, image_size), floating point, normalized; values under a False mask are
                ignored. F is at most `num_frames`.
            mask: (B, F), bool, True where a frame is valid; None if all are.

        Returns:
            tokens (B, T, dim), in the library's order (TimeSformer and ViViT have a class token first), zeros for a
            video without a valid frame; mask (B, T), True for all tokens of any other video.

        Raises:
            ValueError: if the batch has more frames than `num_frames`.
        """
        if mask is None:
            mask = values.new_ones(values.shape[:2]).bool()
        tokens = self.net(still_frames(values, mask, self.num_frames)).last_hidden_state
        return Features(tokens, mask.any(dim=1, keepdim=True).expand(-1, tokens.shape[1])).cleared()


def _check_size(config: PretrainedConfig, image_size: int, pretrained: str) -> None:
    trained: Any = config
    if trained.image_size not in (image_size, [image_size, image_size]):
        raise ValueError(
            f"image_size = {image_size}, but pretrained = {pretrained} needs {trained.image_size};"
            f" set data.inputs.video.size to {trained.image_size}"
        )


def _check_frames(config: PretrainedConfig, num_frames: int, pretrained: str) -> None:
    trained: Any = config
    if trained.model_type == "vivit" and trained.num_frames != num_frames:
        raise ValueError(
            f"num_frames = {num_frames}, but pretrained = {pretrained} needs {trained.num_frames};"
            f" set data.inputs.video.num_frames to {trained.num_frames}"
        )
    tubelet = trained.to_dict().get("tubelet_size", 1)
    step = tubelet if isinstance(tubelet, int) else tubelet[0]
    if num_frames % step:
        raise ValueError(
            f"num_frames = {num_frames} is not divisible by {step}, the frames of a token;"
            f" set data.inputs.video.num_frames to {-(-num_frames // step) * step}"
        )


def _resize(net: Any, num_frames: int, image_size: int) -> None:
    """Resize TimeSformer's positions to other frames and pixels; set both sizes in the config, which its blocks use."""
    rows = image_size // net.config.patch_size
    embeddings = net.embeddings
    with torch.no_grad():
        embeddings.position_embeddings = nn.Parameter(
            resized_grid(embeddings.position_embeddings, (rows, rows), num_prefix=1).clone()
        )
        if net.config.attention_type != "space_only":
            embeddings.time_embeddings = nn.Parameter(resized_line(embeddings.time_embeddings, num_frames).clone())
    net.config.num_frames, net.config.image_size = num_frames, image_size
