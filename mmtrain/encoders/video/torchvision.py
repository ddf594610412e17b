"""Other video models of torchvision, without their classifier: S3D (1712.04851) and Video Swin (2106.13230).

The last features are averaged over space: one token per time step. The models need a fixed number of frames. A shorter
video repeats its last frame, so there is no padding, and all tokens are valid.
"""

from typing import Any, Literal, get_args

from torch import Tensor, nn
from torchvision.models import get_model

from mmtrain.annotations import Size
from mmtrain.layers.pretrained import load_weights
from mmtrain.layers.still_frames import still_frames
from mmtrain.layers.torchvision_model import torchvision_preprocessing, torchvision_weights
from mmtrain.types import Features

Name = Literal["s3d", "swin3d_t", "swin3d_s", "swin3d_b"]
NAMES: tuple[Name, ...] = get_args(Name)


class TorchvisionVideo(nn.Module):
    """A torchvision video model; the time steps of its last features are the tokens.

    Args:
        name: s3d, swin3d_t, swin3d_s or swin3d_b.
        num_frames: number of frames; a shorter video repeats its last one.
        image_size: height and width of a frame in pixels.
        pretrained: None for random weights; True for torchvision's Kinetics-400 weights; or the path of a weights file.

    Raises:
        ValueError: for an unknown name, videos too small for S3D, or weights that cannot be loaded or do not fit.
    """

    def __init__(self, *, name: Name, num_frames: Size, image_size: Size, pretrained: bool | str | None) -> None:
        super().__init__()
        if name not in NAMES:
            raise ValueError(f"name = {name}; set it to {', '.join(NAMES[:-1])} or {NAMES[-1]}")
        self.num_frames = num_frames
        self.is_swin = name != "s3d"
        if not self.is_swin:
            _check_s3d(num_frames, image_size)
        net: Any = get_model(name, weights=None)
        self.dim: int = net.num_features if self.is_swin else net.classifier[1].in_channels
        head = "head" if self.is_swin else "classifier"
        setattr(net, head, nn.Identity())
        self.net = net
        if pretrained:
            load_weights(net, torchvision_weights(name, pretrained), name=str(pretrained), ignore=(f"{head}.",))

    @classmethod
    def preprocessing(cls, *, name: Name, pretrained: bool | str | None) -> dict[str, Any]:
        """Return the video preprocessing of the weights; {} without weights."""
        return torchvision_preprocessing(name, pretrained) if name in NAMES else {}

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """Return the stem, then the blocks; a patch merging of Video Swin belongs to the block after it."""
        net = self.net
        if not self.is_swin:
            stem, *others = (part for part in net.features if not isinstance(part, nn.MaxPool3d))
            return [(stem,), *((part,) for part in others)]
        results: list[tuple[nn.Module, ...]] = [(net.patch_embed,)]
        merging: tuple[nn.Module, ...] = ()
        for part in net.features:
            if not isinstance(part, nn.Sequential):
                merging = (part,)
                continue
            results += [(*merging, part[0]), *((block,) for block in part[1:])]
        return results

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode videos.

        Args:
            values: (B, F, 3, image_size, image_size), floating point, normalized; values under a False mask are
                ignored. F is at most `num_frames`.
            mask: (B, F), bool, True where a frame is valid; None if all are.

        Returns:
            tokens (B, T, dim), zeros for a video without a valid frame; mask (B, T), True for all tokens of any other
            video. T is half of `num_frames`, or an eighth for S3D.

        Raises:
            ValueError: if the batch has more frames than `num_frames`.
        """
        if mask is None:
            mask = values.new_ones(values.shape[:2]).bool()
        films = still_frames(values, mask, self.num_frames).transpose(1, 2)  # (B, 3, F, H, W)
        tokens = self._run(films)
        return Features(tokens, mask.any(dim=1, keepdim=True).expand(-1, tokens.shape[1])).cleared()

    def _run(self, films: Tensor) -> Tensor:
        """Map (B, 3, F, H, W) to (B, T, dim)."""
        net = self.net
        if self.is_swin:
            return net.norm(net.features(net.pos_drop(net.patch_embed(films)))).mean(dim=(2, 3))
        return net.features(films).mean(dim=(3, 4)).transpose(1, 2)


def _check_s3d(num_frames: int, image_size: int) -> None:
    for name, value, least in (("num_frames", num_frames, 5), ("size", image_size, 17)):
        if value < least:
            raise ValueError(
                f"{name} = {value} is too small for the pooling layers of S3D;"
                f" set data.inputs.video.{name} to at least {least}"
            )
