"""3D ResNets of torchvision (1711.11248): R3D, MC3 and R(2+1)D, without their classifier.

The last feature map is averaged over space: one token per time step. Convolutions cross frames, so videos with equally
many frames run together, and there is no padding. In training, batch norm statistics are those of the videos of one
length. If all videos have the same number of frames, they are those of the batch.
"""

from typing import Any, Literal, get_args

from torch import Tensor, nn
from torchvision.models import get_model

from mmtrain.layers.by_length import by_length
from mmtrain.layers.pretrained import load_weights
from mmtrain.layers.torchvision_model import torchvision_preprocessing, torchvision_weights
from mmtrain.types import Features

Name = Literal["r3d_18", "mc3_18", "r2plus1d_18"]
NAMES: tuple[Name, ...] = get_args(Name)


class R3D(nn.Module):
    """A torchvision video ResNet; the time steps of its last feature map are the tokens.

    Args:
        name: r3d_18 keeps one eighth of the frames; mc3_18 keeps all (3D convolutions only in the first layers);
            r2plus1d_18 keeps one eighth (separate convolutions over space and time).
        pretrained: None for random weights; True for torchvision's Kinetics-400 weights; or the path of a weights file.

    Raises:
        ValueError: for an unknown name, or if the weights cannot be loaded or do not fit.
    """

    def __init__(self, *, name: Name, pretrained: bool | str | None) -> None:
        super().__init__()
        if name not in NAMES:
            raise ValueError(f"name = {name}; set it to {', '.join(NAMES[:-1])} or {NAMES[-1]}")
        net: Any = get_model(name, weights=None)
        self.dim: int = net.fc.in_features
        net.fc = nn.Identity()
        self.net = net
        if pretrained:
            load_weights(net, torchvision_weights(name, pretrained), name=str(pretrained), ignore=("fc.",))

    @classmethod
    def preprocessing(cls, *, name: Name, pretrained: bool | str | None) -> dict[str, Any]:
        """Return the video preprocessing of the weights; {} without weights."""
        return torchvision_preprocessing(name, pretrained) if name in NAMES else {}

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """Return the stem, then the residual blocks."""
        net = self.net
        stages = (net.layer1, net.layer2, net.layer3, net.layer4)
        return [(net.stem,), *((block,) for stage in stages for block in stage)]

    def forward(self, values: Tensor, mask: Tensor | None) -> Features:
        """Encode videos.

        Args:
            values: (B, F, 3, H, W), floating point, normalized; values under a False mask are ignored.
            mask: (B, F), bool, True where a frame is valid; None if all are. At least one in the batch must be.

        Returns:
            tokens (B, T, dim), zeros under a False mask; mask (B, T). For F frames, T = ceil(F / 8), or F for mc3_18.
        """
        if mask is None:
            mask = values.new_ones(values.shape[:2]).bool()
        return by_length(values, mask, self._run)

    def _run(self, films: Tensor) -> Tensor:
        """Map (N, F, 3, H, W) to (N, T, dim)."""
        net = self.net
        x = net.layer1(net.stem(films.transpose(1, 2)))
        x = net.layer4(net.layer3(net.layer2(x)))  # (N, dim, T, H', W')
        return x.mean(dim=(3, 4)).transpose(1, 2)
