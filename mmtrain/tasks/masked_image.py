"""Masked image modelling: predict masked patches from the visible ones (MAE, 2111.06377).

The encoder gets only the visible patches. A small decoder gets its tokens, a learned token for each masked patch, and
fixed positions (section 3). The loss is the squared error of the pixels of masked patches, each patch normalized by its
own mean and variance. The score is R2: a normalized patch has mean 0 and variance 1, so predicting its mean gives 0. A
patch of one colour is all zeros.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn
from torchmetrics import Metric

from mmtrain.annotations import NonNegativeFloat, PositiveDepth, Size
from mmtrain.layers.block import Block
from mmtrain.layers.masking import hidden_places, num_hidden, steady_noise
from mmtrain.tasks.names import check_names
from mmtrain.types import Batch, Features, Padded, ReportItem, View

EPS = 1e-6


@runtime_checkable
class PatchEncoder(Protocol):
    """An encoder that accepts, as the mask of an image, which patches are visible: (B, num_patches), bool.

    It returns a class token and one token per visible patch, in order, with the same number in each row.
    """

    patch_size: int
    num_patches: int


class MaskedImageOutput(NamedTuple):
    """Predicted patches of a view.

    Attributes:
        pixels: (N, patch_size ** 2 * 3), predictions for the masked patches.
        wanted: true pixels, same shape.
    """

    pixels: Tensor
    wanted: Tensor


class MaskedImage(nn.Module):
    """Predicts masked patches.

    Args:
        dims: feature width per modality.
        encoders: by modality.
        input: the image modality.
        mask_ratio: fraction of the patches that are masked.
        decoder_dim: width of the decoder.
        decoder_depth: number of decoder blocks.
        decoder_num_heads: number of attention heads of the decoder.
        weight: see `Task`.

    Raises:
        ValueError: if the encoder cannot omit patches, or the decoder's sizes do not fit.
    """

    monitor = "r2"
    targets: tuple[str, ...] = ()
    positions: Tensor

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        encoders: Mapping[str, nn.Module],
        input: str,
        mask_ratio: Annotated[float, Gt(0), Lt(1)],
        decoder_dim: Size,
        decoder_depth: PositiveDepth,
        decoder_num_heads: Size,
        weight: NonNegativeFloat,
    ) -> None:
        super().__init__()
        check_names(("input", input, encoders))
        encoder = encoders[input]
        if not isinstance(encoder, PatchEncoder):
            raise ValueError(
                f"masked_image hides patches from the encoder, but encoder.{input} cannot omit patches;"
                f" set encoder/{input}=vit"
            )
        if not 0.0 < mask_ratio < 1.0:
            raise ValueError(f"mask_ratio = {mask_ratio}; set it between 0 and 1, to 0.75, for example")
        if decoder_dim % 4:
            raise ValueError(f"decoder_dim = {decoder_dim} is not divisible by 4; set it to {decoder_dim // 4 * 4 + 4}")
        self.reads = self.needs = (input,)
        self.weight = weight
        self.mask_ratio = mask_ratio
        self.patch_size = encoder.patch_size
        self.embed = nn.Linear(dims[input], decoder_dim)
        self.hidden = nn.Parameter(torch.empty(decoder_dim).normal_(std=0.02))
        side = round(encoder.num_patches**0.5)
        self.register_buffer("positions", sine_positions(side, decoder_dim), persistent=False)
        self.blocks = nn.ModuleList(Block(dim=decoder_dim, num_heads=decoder_num_heads) for _ in range(decoder_depth))
        self.norm = nn.LayerNorm(decoder_dim, eps=1e-6)
        self.paint = nn.Linear(decoder_dim, 3 * encoder.patch_size**2)

    def forward(self, view: View) -> MaskedImageOutput:
        """Mask patches of a view and predict them."""
        (modality,) = self.reads
        batch: Batch = view.batch
        pictures = batch.inputs[modality].values
        here = batch.present[modality]
        hidden = self._hidden(batch)
        seen: Features = view.with_inputs({modality: Padded(pictures, ~hidden)}).encoded(modality)
        hidden, tokens = hidden[here], self.embed(seen.tokens[here])
        visible = (~hidden).nonzero()  # row by row, as the encoder gives them
        canvas = self.hidden.to(tokens.dtype).expand(*hidden.shape, -1)
        canvas = canvas.index_put((visible[:, 0], visible[:, 1]), tokens[:, 1:][:, : hidden.shape[1]].flatten(0, 1))
        x = torch.cat([tokens[:, :1], canvas + self.positions.to(tokens.dtype)], dim=1)
        for block in self.blocks:
            x = block(x)
        pixels = self.paint(self.norm(x[:, 1:][hidden]))
        return MaskedImageOutput(pixels.float(), normalised_patches(pictures[here].float(), self.patch_size)[hidden])

    def _hidden(self, batch: Batch) -> Tensor:
        """Return (B, num_patches), bool, with the same number in each row."""
        noise = steady_noise(batch.draws, len(self.positions), 1)
        return hidden_places(torch.ones_like(noise, dtype=torch.bool), self.mask_ratio, noise)

    def count(self, batch: Batch) -> Tensor:
        """Count the masked patches."""
        here = batch.present[self.reads[0]]
        return num_hidden(here.unsqueeze(1).expand(-1, len(self.positions)), self.mask_ratio).sum()

    def loss(self, predictions: MaskedImageOutput, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the squared error, its mean over the numbers of a patch: (sum over masked patches, count)."""
        costs = (predictions.pixels - predictions.wanted).square().mean(dim=1)
        return costs.sum(), torch.tensor(len(costs), device=costs.device)

    def metrics(self) -> "R2":
        """Return R2 of the normalized pixels."""
        return R2()

    def update(self, metrics: "R2", predictions: MaskedImageOutput, batch: Batch) -> None:
        """Add the masked patches.

        Raises:
            FloatingPointError: if a pixel is not finite, because it must not contribute to a score.
        """
        if not predictions.pixels.isfinite().all():
            raise FloatingPointError(f"masked image of {self.reads[0]}: a painted pixel is not finite")
        metrics.update(predictions.pixels, predictions.wanted)

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Score predicting the mean of each patch."""
        return {"r2": 0.0}

    def report_items(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[ReportItem]:
        """Return []: there is nothing to draw."""
        return []

    def rows(self, predictions: MaskedImageOutput, batch: Batch) -> list[dict[str, Any]]:
        """Return an empty dict per row."""
        return [{} for _ in range(len(batch))]


class R2(Metric):
    """The explained fraction of the variance of normalized pixels; states are sums."""

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
        """Return `r2`; empty if the targets have no variance."""
        return {"r2": 1.0 - self.errors / self.squares} if self.squares > 0 else {}


def normalised_patches(pictures: Tensor, patch_size: int) -> Tensor:
    """Map (B, 3, H, W) to (B, num_patches, patch_size ** 2 * 3), each patch with mean 0 and variance 1."""
    patches = pictures.unflatten(2, (-1, patch_size)).unflatten(4, (-1, patch_size))  # (B, 3, h, p, w, p)
    patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + EPS).sqrt()


def sine_positions(side: int, dim: int) -> Tensor:
    """Return fixed positions of a square of patches, (side ** 2, dim): sines and cosines of row, then column."""
    frequencies = 10000.0 ** -(torch.arange(dim // 4) / (dim // 4))
    angles = torch.arange(side).unsqueeze(1) * frequencies  # (side, dim / 4)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, dim / 2)
    rows = waves.unsqueeze(1).expand(-1, side, -1)
    return torch.cat([rows, rows.transpose(0, 1)], dim=2).flatten(0, 1)
