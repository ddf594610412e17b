"""Masked language modelling: predict masked tokens from the text (BERT, 1810.04805), or from the complete sample.

As in BERT, 15% of a text's tokens are predicted. 80% of these are replaced by the mask token, 10% by a random token,
and 10% are unchanged. With `input: text`, the text encoder alone predicts. With `input: fused`, all modalities together
predict, as in ViLT (2102.03334) and ALBEF (2107.07651), and only rows with another modality in addition to the text
count. Any fusion works, because each text position attends to the fused tokens by cross-attention. The number of masked
tokens follows from the length of a text, so the loss is a mean over all ranks and micro-batches.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn
from torchmetrics import MetricCollection

from mmtrain.annotations import NonNegativeFloat, Size
from mmtrain.layers.attention import CrossAttention
from mmtrain.layers.head import LateFusion
from mmtrain.layers.masking import hidden_places, num_hidden, steady_noise
from mmtrain.losses.cross_entropy import cross_entropy
from mmtrain.metrics.chance import chance_scores
from mmtrain.metrics.text_generation import TokenAccuracy
from mmtrain.types import Batch, Features, Padded, ReportItem, View, Vocabulary

MASKED, RANDOM = 0.8, 0.1
PLACES, KINDS, WORDS = 1, 2, 3  # salts


class MaskedTextOutput(NamedTuple):
    """Predictions for the masked tokens of a view.

    Attributes:
        logits: (N, V).
        wanted: (N,), int64, the original tokens.
    """

    logits: Tensor
    wanted: Tensor


class MaskedText(nn.Module):
    """Predicts masked tokens.

    Args:
        dims: width by feature source: "fused" and each modality.
        vocabularies: vocabulary of each text modality.
        modality: the text modality.
        input: that modality, or "fused".
        mask_ratio: fraction of a text's tokens that are masked.
        num_heads: number of heads of the attention to the fused tokens.
        weight: see `Task`.
        decides: the fusion, if it is a late fusion.

    Raises:
        ValueError: if there is no such text, its tokenizer has no mask token, or the parts do not fit each other.
    """

    monitor = "token_accuracy"
    targets: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        vocabularies: Mapping[str, Vocabulary],
        modality: str,
        input: str,
        mask_ratio: Annotated[float, Gt(0), Lt(1)],
        num_heads: Size,
        weight: NonNegativeFloat,
        decides: LateFusion | None = None,
    ) -> None:
        super().__init__()
        if modality not in vocabularies or modality not in dims:
            raise ValueError(f"modality = {modality} is not a text; there is {', '.join(vocabularies) or 'none'}")
        if input not in (modality, "fused"):
            raise ValueError(f"input = {input}; set it to {modality} or fused")
        if input == "fused" and decides is not None:
            raise ValueError(
                "masked words are predicted from all modalities together, but a late fusion predicts from each alone;"
                f" choose another fusion, such as fusion=cross_attn, or set input to {modality}"
            )
        known = vocabularies[modality]
        if known.mask is None:
            raise ValueError(
                f"the tokenizer of {modality} has no mask token; set data.inputs.{modality}.tokenizer to another one,"
                " or to auto"
            )
        if not 0.0 < mask_ratio < 1.0:
            raise ValueError(f"mask_ratio = {mask_ratio}; set it between 0 and 1, to 0.15, for example")
        self.modality = modality
        self.reads = (input,)
        self.needs = (modality,)
        self.weight = weight
        self.mask_ratio = mask_ratio
        self.mask_id = known.mask
        special = torch.zeros(len(known.names), dtype=torch.bool)
        special[list(known.special)] = True
        self.special: Tensor
        self.words: Tensor
        self.register_buffer("special", special, persistent=False)
        self.register_buffer("words", (~special).nonzero().squeeze(1), persistent=False)
        dim = dims[modality]
        self.ask = nn.ModuleDict()
        if input == "fused":
            self.ask["norm"] = nn.LayerNorm(dim)
            self.ask["norm_fused"] = nn.LayerNorm(dims["fused"])
            self.ask["attn"] = CrossAttention(dim=dim, num_heads=num_heads, context_dim=dims["fused"])
        self.head = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim), nn.Linear(dim, len(known.names))
        )

    def forward(self, view: View) -> MaskedTextOutput:
        """Mask tokens of a view and predict them."""
        batch: Batch = view.batch
        ids, mask = batch.inputs[self.modality]
        chosen = self._chosen(batch)
        part = view.with_inputs({self.modality: Padded(self._corrupted(ids, chosen, batch.draws), mask)})
        text: Features = part.encoded(self.modality)
        if text.tokens.shape[1] != ids.shape[1]:
            raise ValueError(
                f"masked text needs a token for each of the {ids.shape[1]} ids of {self.modality}, but its encoder"
                f" has {text.tokens.shape[1]}; set encoder.{self.modality}.pooling=tokens, or choose another encoder"
            )
        tokens = text.tokens
        if self.ask:
            fused, valid = part.fused().cleared()
            tokens = tokens + self.ask["attn"](self.ask["norm"](tokens), self.ask["norm_fused"](fused), valid)
        return MaskedTextOutput(self.head(tokens[chosen]), ids[chosen])

    def _allowed(self, batch: Batch) -> Tensor:
        """Return (B, L), bool: tokens of valid rows, without special tokens."""
        ids, mask = batch.inputs[self.modality]
        is_present = batch.present[self.modality]
        if self.ask:
            others = [present for m, present in batch.present.items() if m != self.modality]
            is_present = is_present & torch.stack([*others, torch.zeros_like(is_present)]).any(dim=0)
        valid = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        known = ids.clamp(min=0, max=len(self.special) - 1)  # ids under a False mask can have any value
        return valid & is_present.unsqueeze(1) & ~self.special[known]

    def _chosen(self, batch: Batch) -> Tensor:
        allowed = self._allowed(batch)
        return hidden_places(allowed, self.mask_ratio, steady_noise(batch.draws, allowed.shape[1], PLACES))

    def _corrupted(self, ids: Tensor, chosen: Tensor, draws: Tensor) -> Tensor:
        kinds, drawn = (steady_noise(draws, ids.shape[1], salt) for salt in (KINDS, WORDS))
        words = self.words[(drawn * len(self.words)).long().clamp(max=len(self.words) - 1)]
        out = torch.where(chosen & (kinds < MASKED), self.mask_id, ids)
        return torch.where(chosen & (kinds >= MASKED) & (kinds < MASKED + RANDOM), words, out)

    def count(self, batch: Batch) -> Tensor:
        """Count the masked tokens."""
        return num_hidden(self._allowed(batch), self.mask_ratio).sum()

    def loss(self, predictions: MaskedTextOutput, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the cross entropy over the masked tokens: (sum, count)."""
        everything = torch.ones_like(predictions.wanted, dtype=torch.bool)
        return cross_entropy(predictions.logits, predictions.wanted, everything)

    def metrics(self) -> MetricCollection:
        """Return the accuracy on masked tokens."""
        return MetricCollection({"tokens": TokenAccuracy(len(self.special))}, compute_groups=False)

    def update(self, metrics: MetricCollection, predictions: MaskedTextOutput, batch: Batch) -> None:
        """Add the masked tokens.

        Raises:
            FloatingPointError: if a logit is not finite, because it must not contribute to a score.
        """
        if not predictions.logits.isfinite().all():
            raise FloatingPointError(f"masked text of {self.modality}: a logit is not finite")
        metrics["tokens"].update(predictions.logits.argmax(dim=1), predictions.wanted)

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Score always predicting the most frequent of the masked tokens."""
        return chance_scores(values)

    def report_items(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[ReportItem]:
        """Return []: there is nothing to draw."""
        return []

    def rows(self, predictions: MaskedTextOutput, batch: Batch) -> list[dict[str, Any]]:
        """Return an empty dict per row."""
        return [{} for _ in range(len(batch))]
