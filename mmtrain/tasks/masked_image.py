"""Masked image: hidden patches are painted from the visible ones (MAE, 2111.06377).

The encoder sees the visible patches alone; a light decoder gets its tokens, with a learned token where a patch is
hidden and fixed positions (section 3), and the loss is the squared error of the pixels of hidden patches, each patch
normalised by its own mean and variance. The score is R2: as a normalised patch has mean 0 and variance 1, guessing its
mean gives 0. A patch of one colour is all zeros.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from mmtrain.layers.block import Block
from mmtrain.layers.masking import hidden_places, num_hidden, steady_noise
from mmtrain.tasks.names import check_names
from mmtrain.types import Batch, Exhibit, Features, Padded

EPS = 1e-6


@runtime_checkable
class PatchEncoder(Protocol):
    """An encoder that takes, as the mask of a picture, which patches are visible: (B, num_patches), bool.

    It then gives a class token and one token for each visible patch in order; each row has as many of them.
    """

    patch_size: int
    num_patches: int


class Painted(NamedTuple):
    """What a view paints.

    Attributes:
        pixels: (N, patch_size ** 2 * 3), of the hidden patches.
        wanted: as it should be.
    """

    pixels: Tensor
    wanted: Tensor


class MaskedImage(nn.Module):
    """Patches from their surroundings.

    Args:
        dims: width by modality.
        encoders: by modality.
        reads: the modality of pictures.
        share: of the patches that are hidden.
        decoder_dim: width of the decoder.
        decoder_depth: its blocks.
        decoder_num_heads: its attention heads.
        weight: see `Task`.

    Raises:
        ValueError: when the encoder cannot leave patches out, or the decoder's sizes do not fit.
    """

    monitor = "r2"
    targets: tuple[str, ...] = ()
    positions: Tensor

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        encoders: Mapping[str, nn.Module],
        reads: str,
        share: float,
        decoder_dim: int,
        decoder_depth: int,
        decoder_num_heads: int,
        weight: float,
    ) -> None:
        super().__init__()
        check_names(("reads", reads, encoders))
        encoder = encoders[reads]
        if not isinstance(encoder, PatchEncoder):
            raise ValueError(
                f"masked_image hides patches from the encoder, and encoder.{reads} has none that it can leave out;"
                f" set encoder/{reads}=vit"
            )
        if not 0.0 < share < 1.0:
            raise ValueError(f"share = {share}; set it between 0 and 1, to 0.75, say")
        if decoder_dim % 4:
            raise ValueError(f"decoder_dim = {decoder_dim} is not divisible by 4; set it to {decoder_dim // 4 * 4 + 4}")
        self.reads = self.needs = (reads,)
        self.weight = weight
        self.share = share
        self.patch_size = encoder.patch_size
        self.embed = nn.Linear(dims[reads], decoder_dim)
        self.hidden = nn.Parameter(torch.empty(decoder_dim).normal_(std=0.02))
        side = round(encoder.num_patches**0.5)
        self.register_buffer("positions", sine_positions(side, decoder_dim), persistent=False)
        self.blocks = nn.ModuleList(Block(dim=decoder_dim, num_heads=decoder_num_heads) for _ in range(decoder_depth))
        self.norm = nn.LayerNorm(decoder_dim, eps=1e-6)
        self.paint = nn.Linear(decoder_dim, 3 * encoder.patch_size**2)

    def forward(self, view: Any) -> Painted:
        """Hide patches of a view and paint them."""
        (modality,) = self.reads
        batch: Batch = view.batch
        pictures = batch.inputs[modality].values
        here = batch.present[modality]
        hidden = self._hidden(batch)
        seen: Features = view.replaced({modality: Padded(pictures, ~hidden)}).encoded(modality)
        hidden, tokens = hidden[here], self.embed(seen.tokens[here])
        visible = (~hidden).nonzero()  # row by row, as the encoder gives them
        canvas = self.hidden.to(tokens.dtype).expand(*hidden.shape, -1)
        canvas = canvas.index_put((visible[:, 0], visible[:, 1]), tokens[:, 1:][:, : hidden.shape[1]].flatten(0, 1))
        x = torch.cat([tokens[:, :1], canvas + self.positions.to(tokens.dtype)], dim=1)
        for block in self.blocks:
            x = block(x)
        pixels = self.paint(self.norm(x[:, 1:][hidden]))
        return Painted(pixels.float(), normalised_patches(pictures[here].float(), self.patch_size)[hidden])

    def _hidden(self, batch: Batch) -> Tensor:
        """(B, num_patches), bool, as many in each row."""
        noise = steady_noise(batch.draws, len(self.positions), 1)
        return hidden_places(torch.ones_like(noise, dtype=torch.bool), self.share, noise)

    def count(self, batch: Batch) -> Tensor:
        """Patches that are hidden."""
        here = batch.present[self.reads[0]]
        return num_hidden(here.unsqueeze(1).expand(-1, len(self.positions)), self.share).sum()

    def loss(self, predictions: Painted, batch: Batch) -> tuple[Tensor, Tensor]:
        """The squared error, its mean over a patch's numbers: (sum over hidden patches, count)."""
        costs = (predictions.pixels - predictions.wanted).square().mean(dim=1)
        return costs.sum(), torch.tensor(len(costs), device=costs.device)

    def metrics(self) -> "R2":
        """R2 of the normalised pixels."""
        return R2()

    def update(self, metrics: "R2", predictions: Painted, batch: Batch) -> None:
        """Count the hidden patches.

        Raises:
            FloatingPointError: when a pixel is not finite: it must not score.
        """
        if not predictions.pixels.isfinite().all():
            raise FloatingPointError(f"masked image of {self.reads[0]}: a painted pixel is not finite")
        metrics.update(predictions.pixels, predictions.wanted)

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Always the mean of the patch."""
        return {"r2": 0.0}

    def exhibits(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[Exhibit]:
        """Nothing to draw."""
        return []

    def rows(self, predictions: Painted, batch: Batch) -> list[dict[str, Any]]:
        """Nothing to say of a row."""
        return [{} for _ in range(len(batch))]


class R2(Metric):
    """The share of the variance of normalised pixels that is told; states are sums."""

    full_state_update = False
    errors: Tensor
    squares: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("errors", "squares"):
            self.add_state(name, default=torch.zeros((), dtype=torch.double), dist_reduce_fx="sum")

    def update(self, pixels: Tensor, wanted: Tensor) -> None:
        """Add patches (N, P)."""
        self.errors += (pixels - wanted).double().square().sum()
        self.squares += wanted.double().square().sum()

    def compute(self) -> dict[str, Tensor]:
        """`r2`; empty where nothing was shown that varies."""
        return {"r2": 1.0 - self.errors / self.squares} if self.squares > 0 else {}


def normalised_patches(pictures: Tensor, patch_size: int) -> Tensor:
    """Map (B, 3, H, W) to (B, num_patches, patch_size ** 2 * 3), each patch with mean 0 and variance 1."""
    patches = pictures.unflatten(2, (-1, patch_size)).unflatten(4, (-1, patch_size))  # (B, 3, h, p, w, p)
    patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + EPS).sqrt()


def sine_positions(side: int, dim: int) -> Tensor:
    """Fixed positions of a square of patches, (side ** 2, dim): sines and cosines of the row, then of the column."""
    frequencies = 10000.0 ** -(torch.arange(dim // 4) / (dim // 4))
    angles = torch.arange(side).unsqueeze(1) * frequencies  # (side, dim / 4)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, dim / 2)
    rows = waves.unsqueeze(1).expand(-1, side, -1)
    return torch.cat([rows, rows.transpose(0, 1)], dim=2).flatten(0, 1)
