"""Other film models of torchvision, without their classifier: S3D (1712.04851) and Video Swin (2106.13230).

The last features are averaged over space: a token a step of time. They take a fixed number of frames: a film with fewer
repeats its last one, so that padding is never seen, and all its tokens are valid.
"""

from typing import Any

from torch import Tensor, nn
from torchvision.models import get_model

from mmtrain.layers.pretrained import load_weights
from mmtrain.layers.still_frames import still_frames
from mmtrain.layers.torchvision_model import torchvision_preprocessing, torchvision_weights
from mmtrain.types import Features

NAMES = ("s3d", "swin3d_t", "swin3d_s", "swin3d_b")


class TorchvisionVideo(nn.Module):
    """A torchvision film model whose last features are read as tokens over time.

    Args:
        name: s3d, swin3d_t, swin3d_s or swin3d_b.
        num_frames: of a film; one with fewer repeats its last.
        image_size: height and width of a frame in pixels.
        pretrained: None for random weights; true for torchvision's of Kinetics-400; or a file of weights.

    Raises:
        ValueError: for an unknown name, films too small for S3D, and weights that cannot be had or do not fit.
    """

    def __init__(self, *, name: str, num_frames: int, image_size: int, pretrained: bool | str | None) -> None:
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
    def preprocessing(cls, *, name: str, pretrained: bool | str | None) -> dict[str, Any]:
        """How the weights want their films; {} without weights."""
        return torchvision_preprocessing(name, pretrained) if name in NAMES else {}

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """The stem, then the blocks; what merges patches of Video Swin comes with the block behind it."""
        net = self.net
        if not self.is_swin:
            stem, *others = (part for part in net.features if not isinstance(part, nn.MaxPool3d))
            return [(stem,), *((part,) for part in others)]
        found: list[tuple[nn.Module, ...]] = [(net.patch_embed,)]
        merging: tuple[nn.Module, ...] = ()
        for part in net.features:
            if not isinstance(part, nn.Sequential):
                merging = (part,)
                continue
            found += [(*merging, part[0]), *((block,) for block in part[1:])]
        return found

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode films.

        Args:
            values: (B, F, 3, image_size, image_size), floating point, normalised; what stands under a False mask is
                ignored. F is at most `num_frames`.
            mask: (B, F), bool, True where a frame is valid; None when all are.

        Returns:
            tokens (B, T, dim), zeros for a film without a frame; mask (B, T), True for all tokens of a film with one.
            T is half of `num_frames`; of S3D an eighth.

        Raises:
            ValueError: for a batch with more than `num_frames`.
        """
        if mask is None:
            mask = values.new_ones(values.shape[:2]).bool()
        films = still_frames(values, mask, self.num_frames).transpose(1, 2)  # (B, 3, F, H, W)
        tokens = self._run(films)
        return Features(tokens, mask.any(dim=1, keepdim=True).expand(-1, tokens.shape[1])).cleared()

    def _run(self, films: Tensor) -> Tensor:
        """(B, 3, F, H, W) to (B, T, dim)."""
        net = self.net
        if self.is_swin:
            return net.norm(net.features(net.pos_drop(net.patch_embed(films)))).mean(dim=(2, 3))
        return net.features(films).mean(dim=(3, 4)).transpose(1, 2)


def _check_s3d(num_frames: int, image_size: int) -> None:
    for name, value, least in (("num_frames", num_frames, 5), ("size", image_size, 17)):
        if value < least:
            raise ValueError(
                f"{name} = {value} leaves nothing of a film after S3D's pooling;"
                f" set data.inputs.video.{name} to at least {least}"
            )
