"""Masked text: hidden words are told from what is left of the text (BERT, 1810.04805), or of the whole sample.

As there, 15% of a text's tokens are to be told; of these 80% stand as the mask token, 10% as a random one and 10% as
they are. What reads is the text's own encoder, `reads: text`; or all modalities together, `reads: fused`, as in ViLT
(2102.03334) and ALBEF (2107.07651), and then only rows that have another modality beside the text count. Unusual here:
any fusion will do, because each place of the text asks the fused tokens by cross-attention; and how many tokens of a
text are hidden follows from its length, so that the loss is a mean over all ranks and micro-batches.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from mmtrain.layers.attention import CrossAttention
from mmtrain.layers.head import Decides
from mmtrain.layers.masking import hidden_places, num_hidden, steady_noise
from mmtrain.losses.cross_entropy import cross_entropy
from mmtrain.metrics.chance import guessed
from mmtrain.metrics.text_generation import TokenAccuracy
from mmtrain.types import Batch, Exhibit, Features, Padded, Vocabulary

MASKED, RANDOM = 0.8, 0.1
PLACES, KINDS, WORDS = 1, 2, 3  # salts


class Told(NamedTuple):
    """What a view says of its hidden tokens.

    Attributes:
        logits: (N, V).
        wanted: (N,), int64, what stood there.
    """

    logits: Tensor
    wanted: Tensor


class MaskedText(nn.Module):
    """Tokens from their surroundings.

    Args:
        dims: width by what can be read: "fused" and each modality.
        vocabularies: what the data knows of each text, by modality.
        modality: the text.
        reads: that modality, or "fused".
        share: of a text's tokens that are hidden.
        num_heads: of the attention to the fused tokens.
        weight: see `Task`.
        decides: the fusion, when it is one of decisions.

    Raises:
        ValueError: when there is no such text, it has no mask token, or the parts do not fit.
    """

    monitor = "token_accuracy"
    targets: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        vocabularies: Mapping[str, Vocabulary],
        modality: str,
        reads: str,
        share: float,
        num_heads: int,
        weight: float,
        decides: Decides | None = None,
    ) -> None:
        super().__init__()
        if modality not in vocabularies or modality not in dims:
            raise ValueError(f"modality = {modality} is no text; there is {', '.join(vocabularies) or 'none'}")
        if reads not in (modality, "fused"):
            raise ValueError(f"reads = {reads}; set it to {modality} or fused")
        if reads == "fused" and decides is not None:
            raise ValueError(
                "a word is told from modalities together, but the fusion decides by each alone;"
                f" choose another, such as fusion=cross_attn, or set reads to {modality}"
            )
        known = vocabularies[modality]
        if known.mask is None:
            raise ValueError(
                f"the tokenizer of {modality} has no mask token; set data.inputs.{modality}.tokenizer to one that has,"
                " or to auto"
            )
        if not 0.0 < share < 1.0:
            raise ValueError(f"share = {share}; set it between 0 and 1, to 0.15, say")
        self.modality = modality
        self.reads = (reads,)
        self.needs = (modality,)
        self.weight = weight
        self.share = share
        self.mask_id = known.mask
        special = torch.zeros(len(known.names), dtype=torch.bool)
        special[list(known.special)] = True
        self.special: Tensor
        self.words: Tensor
        self.register_buffer("special", special, persistent=False)
        self.register_buffer("words", (~special).nonzero().squeeze(1), persistent=False)
        dim = dims[modality]
        self.ask = nn.ModuleDict()
        if reads == "fused":
            self.ask["norm"] = nn.LayerNorm(dim)
            self.ask["norm_fused"] = nn.LayerNorm(dims["fused"])
            self.ask["attn"] = CrossAttention(dim=dim, num_heads=num_heads, context_dim=dims["fused"])
        self.head = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim), nn.Linear(dim, len(known.names))
        )

    def forward(self, view: Any) -> Told:
        """Hide tokens of a view and tell them."""
        batch: Batch = view.batch
        ids, mask = batch.inputs[self.modality]
        chosen = self._chosen(batch)
        part = view.replaced({self.modality: Padded(self._corrupted(ids, chosen, batch.draws), mask)})
        text: Features = part.encoded(self.modality)
        if text.tokens.shape[1] != ids.shape[1]:
            raise ValueError(
                f"masked text needs a token for each of the {ids.shape[1]} ids of {self.modality}, but its encoder"
                f" gives {text.tokens.shape[1]}; set encoder.{self.modality}.pooling=tokens, or choose another encoder"
            )
        tokens = text.tokens
        if self.ask:
            fused, valid = part.fused().cleared()
            tokens = tokens + self.ask["attn"](self.ask["norm"](tokens), self.ask["norm_fused"](fused), valid)
        return Told(self.head(tokens[chosen]), ids[chosen])

    def _allowed(self, batch: Batch) -> Tensor:
        """(B, L), bool: tokens of rows that count, but for marks."""
        ids, mask = batch.inputs[self.modality]
        there = batch.present[self.modality]
        if self.ask:
            others = [present for m, present in batch.present.items() if m != self.modality]
            there = there & torch.stack([*others, torch.zeros_like(there)]).any(dim=0)
        valid = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        known = ids.clamp(min=0, max=len(self.special) - 1)  # under a False mask stands anything
        return valid & there.unsqueeze(1) & ~self.special[known]

    def _chosen(self, batch: Batch) -> Tensor:
        allowed = self._allowed(batch)
        return hidden_places(allowed, self.share, steady_noise(batch.draws, allowed.shape[1], PLACES))

    def _corrupted(self, ids: Tensor, chosen: Tensor, draws: Tensor) -> Tensor:
        kinds, drawn = (steady_noise(draws, ids.shape[1], salt) for salt in (KINDS, WORDS))
        words = self.words[(drawn * len(self.words)).long().clamp(max=len(self.words) - 1)]
        out = torch.where(chosen & (kinds < MASKED), self.mask_id, ids)
        return torch.where(chosen & (kinds >= MASKED) & (kinds < MASKED + RANDOM), words, out)

    def count(self, batch: Batch) -> Tensor:
        """Tokens that are hidden."""
        return num_hidden(self._allowed(batch), self.share).sum()

    def loss(self, predictions: Told, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross entropy over the hidden tokens: (sum, count)."""
        everything = torch.ones_like(predictions.wanted, dtype=torch.bool)
        return cross_entropy(predictions.logits, predictions.wanted, everything)

    def metrics(self) -> MetricCollection:
        """The share of hidden tokens that are told."""
        return MetricCollection({"tokens": TokenAccuracy(len(self.special))}, compute_groups=False)

    def update(self, metrics: MetricCollection, predictions: Told, batch: Batch) -> None:
        """Count the hidden tokens.

        Raises:
            FloatingPointError: when a logit is not finite: it must not score.
        """
        if not predictions.logits.isfinite().all():
            raise FloatingPointError(f"masked text of {self.modality}: a logit is not finite")
        metrics["tokens"].update(predictions.logits.argmax(dim=1), predictions.wanted)

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Always the most frequent of the hidden tokens."""
        return guessed(values)

    def exhibits(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[Exhibit]:
        """Nothing to draw."""
        return []

    def rows(self, predictions: Told, batch: Batch) -> list[dict[str, Any]]:
        """Nothing to say of a row."""
        return [{} for _ in range(len(batch))]
