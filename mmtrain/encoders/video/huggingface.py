"""Film models of transformers: VideoMAE (2203.12602), TimeSformer (2102.05095), ViViT (2103.15691).

They take a fixed number of frames and no mask. A film with fewer repeats its last one, as their authors' loaders do, so
that padding is never seen; all its tokens are valid. Another number of frames than that of the weights is possible for
VideoMAE, whose positions are fixed waves, and for TimeSformer, whose positions in time are interpolated.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from mmtrain.layers.image_processor import video_settings
from mmtrain.layers.pretrained import resized_grid, resized_line
from mmtrain.layers.still_frames import still_frames
from mmtrain.layers.transformers_model import export_transformers, transformers_config, transformers_model
from mmtrain.types import Features

MODEL_TYPES = ("videomae", "timesformer", "vivit")


class HuggingFaceVideo(nn.Module):
    """A film model of transformers; its last hidden states are the tokens.

    Args:
        pretrained: a folder, or a name of the hub; None for random weights.
        config: for random weights, model_type and sizes as in the library's config.json, without num_frames and
            image_size; None beside `pretrained`.
        num_frames: of a film; one with fewer repeats its last.
        image_size: height and width of a frame in pixels.

    Raises:
        ValueError: for a checkpoint that cannot be read, a model of another type, and a number of frames or pixels that
            it cannot take.
    """

    def __init__(
        self, *, pretrained: str | None, config: Mapping[str, Any] | None, num_frames: int, image_size: int
    ) -> None:
        super().__init__()
        sizes = None if config is None else {**config, "num_frames": num_frames, "image_size": image_size}
        found: Any = transformers_config(pretrained, sizes, model_types=MODEL_TYPES)
        if found.model_type != "timesformer":
            _check_size(found, image_size, str(pretrained))
        _check_frames(found, num_frames, str(pretrained))
        if found.model_type == "videomae":
            found.num_frames = num_frames  # its positions follow from it
        net: Any = transformers_model(pretrained, found, unused=("pooler.",))
        if found.model_type == "timesformer":
            _resize(net, num_frames, image_size)
        if found.model_type == "vivit":
            net.pooler = None
        self.net = net
        self.num_frames = num_frames
        self.dim: int = found.hidden_size

    @classmethod
    def preprocessing(cls, *, pretrained: str | None) -> dict[str, Any]:
        """How the weights want their films, from their processor; {} without weights."""
        return {} if pretrained is None else video_settings(pretrained)

    def export(self, folder: Path) -> str:
        """Write it as transformers does; the code that loads it, for films of `num_frames`."""
        return export_transformers(self.net, "pixel_values=values", folder)

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """Patches with their positions, then the blocks."""
        blocks = self.net.layers if self.net.config.model_type == "vivit" else self.net.encoder.layer
        return [(self.net.embeddings,), *((block,) for block in blocks)]

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode films.

        Args:
            values: (B, F, 3, image_size, image_size), floating point, normalised; what stands under a False mask is
                ignored. F is at most `num_frames`.
            mask: (B, F), bool, True where a frame is valid; None when all are.

        Returns:
            tokens (B, T, dim), in the library's order (TimeSformer and ViViT have a class token in front), zeros for a
            film without a frame; mask (B, T), True for all tokens of a film with one.

        Raises:
            ValueError: for a batch with more than `num_frames`.
        """
        if mask is None:
            mask = values.new_ones(values.shape[:2]).bool()
        tokens = self.net(still_frames(values, mask, self.num_frames)).last_hidden_state
        return Features(tokens, mask.any(dim=1, keepdim=True).expand(-1, tokens.shape[1])).cleared()


def _check_size(config: PretrainedConfig, image_size: int, pretrained: str) -> None:
    trained: Any = config
    if trained.image_size not in (image_size, [image_size, image_size]):
        raise ValueError(
            f"image_size = {image_size}, but pretrained = {pretrained} takes {trained.image_size};"
            f" set data.inputs.video.size to {trained.image_size}"
        )


def _check_frames(config: PretrainedConfig, num_frames: int, pretrained: str) -> None:
    trained: Any = config
    if trained.model_type == "vivit" and trained.num_frames != num_frames:
        raise ValueError(
            f"num_frames = {num_frames}, but pretrained = {pretrained} takes {trained.num_frames};"
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
    """TimeSformer's positions for other frames and pixels; its blocks read both numbers from its configuration."""
    rows = image_size // net.config.patch_size
    embeddings = net.embeddings
    with torch.no_grad():
        embeddings.position_embeddings = nn.Parameter(
            resized_grid(embeddings.position_embeddings, (rows, rows), num_prefix=1).clone()
        )
        if net.config.attention_type != "space_only":
            embeddings.time_embeddings = nn.Parameter(resized_line(embeddings.time_embeddings, num_frames).clone())
    net.config.num_frames, net.config.image_size = num_frames, image_size
