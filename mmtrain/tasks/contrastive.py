"""Contrastive learning of a shared embedding space (CLIP, 2103.00020; SigLIP, 2303.15343), with learned temperature.

Positives are found by content: a caption of several images is a positive for all of them. Rows without one side are in
no denominator. In training, the rows of every rank are negatives for all others, with gradients through the gather. In
evaluation, the loss uses only the batch, independent of the number of ranks. With more than two modalities, every two
are a pair (AudioCLIP, 2106.13043), over the rows that have both. A positive that is in the queue is neither a positive
nor a negative.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations, permutations
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmtrain.annotations import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Size
from mmtrain.distributed import gather, gather_rows, gather_with_gradient, rank, world_size
from mmtrain.layers.autocast import upcast
from mmtrain.layers.pair_projection import PairProjection
from mmtrain.layers.pooling import MeanPool
from mmtrain.layers.queue import Queue
from mmtrain.losses.contrastive import Related, by_chunks, info_nce, pairwise_sigmoid
from mmtrain.metrics.chance import chance_scores
from mmtrain.metrics.retrieval import RetrievalMetric
from mmtrain.types import Batch, Hit, ReportItem, Retrieval, View

Loss = Literal["info_nce", "sigmoid"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
Exchange = Literal["gather", "ring"]
EXCHANGES: tuple[Exchange, ...] = get_args(Exchange)
Projection = Literal["auto", "new", "pretrained"]
TEMPERATURE = 0.1  # of a new space
LOWEST_OF_PAIRS = 0.01  # temperature of pretrained pairs (2103.00020, 2.5), unless theirs is lower
BIAS = -10.0  # of a new space (2303.15343, 3.2)


class Contrastive(nn.Module):
    """Projects modalities to unit vectors and makes pairs similar.

    Args:
        dims: feature width per modality.
        modalities: the two that form a pair, or more, where every two form a pair.
        embed_dim: width of the shared space.
        temperature: initial value of the learned temperature; "auto": that of the pretrained pair, or 0.1.
        min_temperature: lower bound of the temperature. A low value penalizes only the hardest negatives, which
            separates similar rows (2012.09740). Millions of pairs allow 0.01 (CLIP, 2103.00020); a few thousand do not.
            "auto": 0.01 for a pretrained pair, or that of the pair if it is lower; otherwise `temperature`.
        weight: see `Task`.
        dropout: dropout probability before the projections, for all modalities or by modality.
        loss: info_nce or sigmoid; "auto": sigmoid for a pretrained pair with a bias, otherwise info_nce.
        bias: initial bias of sigmoid; "auto": that of the pretrained pair, or -10.
        queue_size: number of rows of past steps that are kept as additional negatives; unused in evaluation.
        chunk_size: number of queries compared with all rows at once. More queries than this cost a second forward pass.
        exchange: "gather": each rank holds the vectors of all ranks. "ring", for sigmoid only: each rank holds those of
            one other rank at a time (2303.15343, 3.3). The gradient is the same.
        projection: "new": a norm and a linear map, of the mean of the tokens. "pretrained": the projections that the
            encoders were trained with, with their temperature. "auto": pretrained for every encoder that has one, so
            that an encoder without one learns to map into the space of the others (2111.07991).
        encoders: by modality.

    Attributes:
        pretrained: modalities whose encoder projects.
    """

    targets: tuple[str, ...] = ()
    monitor = "recall"

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        modalities: Sequence[str],
        embed_dim: Size,
        temperature: PositiveFloat | Literal["auto"],
        min_temperature: PositiveFloat | Literal["auto"],
        weight: NonNegativeFloat,
        dropout: Fraction | Mapping[str, Fraction],
        loss: Loss | Literal["auto"],
        bias: float | Literal["auto"],
        queue_size: Annotated[int, Ge(0), Le(2**24)],
        chunk_size: PositiveInt,
        exchange: Exchange,
        projection: Projection = "new",  # of runs from before pretrained pairs
        encoders: Mapping[str, nn.Module] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        pairs = _pretrained_projections(projection, encoders, modalities, embed_dim)
        temperature, min_temperature, bias = _resolved(temperature, min_temperature, bias, list(pairs.values()))
        if len(modalities) < 2 or len(set(modalities)) < len(modalities):
            raise ValueError(
                f"modalities = {list(modalities)}; contrastive needs two or more different ones, such as [image, text]"
            )
        if not 0.0 < min_temperature <= temperature:
            raise ValueError(
                f"min_temperature = {min_temperature} is not above 0 and at most temperature = {temperature};"
                f" set it to {temperature}, or to 0.01"
            )
        if loss == "auto":
            loss = "sigmoid" if any(pair.logit_bias is not None for pair in pairs.values()) else "info_nce"
        if loss not in LOSSES:
            raise ValueError(f"loss = {loss}; set it to {' or '.join(LOSSES)}")
        if queue_size < 0 or chunk_size < 1:
            raise ValueError(
                f"queue_size = {queue_size} and chunk_size = {chunk_size}; set queue_size to 0 or more and chunk_size"
                f" to 1 or more"
            )
        if exchange not in EXCHANGES:
            raise ValueError(f"exchange = {exchange}; set it to {' or '.join(EXCHANGES)}")
        if exchange == "ring" and (loss != "sigmoid" or queue_size):
            what = (
                f"loss = {loss} compares a row with all others at once"
                if not queue_size
                else f"queue_size = {queue_size} is of all"
            )
            raise ValueError(
                f"exchange = ring, but {what}; set exchange to gather, or loss to sigmoid and queue_size to 0"
            )
        rates = _rates(dropout, modalities)
        self.reads = tuple(modalities)
        self.needs = self.reads if len(self.reads) == 2 else ()  # of more modalities, any two are enough
        self.weight = weight
        self.pretrained = tuple(pairs)
        self.pool = MeanPool()
        self.projections = nn.ModuleDict(
            {
                m: nn.Sequential(nn.LayerNorm(dims[m]), nn.Dropout(rates[m]), nn.Linear(dims[m], embed_dim, bias=False))
                for m in modalities
                if m not in pairs
            }
        )
        self.max_log_scale = -math.log(min_temperature)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1.0 / temperature)))
        self.bias = nn.Parameter(torch.tensor(float(bias))) if loss == "sigmoid" else None
        self.chunk_size = chunk_size
        self.exchange = exchange
        self.queue = Queue(size=queue_size, modalities=self.reads, dim=embed_dim)
        self._seen: dict[int, tuple[dict[str, Tensor], ...]] = {}  # rows of this step, by micro-batch

    @property
    def scale(self) -> Tensor:
        """Return the inverse temperature, scalar, float32 or float64."""
        return upcast(self.log_scale).exp()

    def forward(self, view: View) -> dict[str, Tensor]:
        """Return unit vectors (B, embed_dim), float32 or float64, by modality; meaningless where it is missing."""
        return {m: self.embed(view, m) for m in self.reads}

    def embed(self, view: View, modality: str) -> Tensor:
        """Like `forward`, for one modality; the encoders of the others do not run."""
        features = view.encoded(modality)
        if modality in self.pretrained:
            return F.normalize(upcast(view.model.encoders[modality].projection(features)), dim=-1)
        return F.normalize(upcast(self.projections[modality](self.pool(features))), dim=-1)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Return all pairs of modalities."""
        return list(combinations(self.reads, 2))

    def count(self, batch: Batch) -> Tensor:
        """Count the rows that have both sides; with more than two modalities, summed over their pairs."""
        return torch.stack([_both(batch, *pair).sum() for pair in self.pairs]).sum()

    def loss(self, predictions: dict[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean of the loss in both directions, over the rows that have both sides: (sum, count)."""
        together, together_keys = gather_with_gradient, gather
        if self.training:
            with torch.no_grad():  # clamp the parameter, because a clamped value has no gradient at the limit
                self.log_scale.clamp_(max=self.max_log_scale)
        else:
            together = together_keys = _alone
        present = {m: together_keys(batch.present[m]) for m in self.reads}
        keys = {m: together_keys(batch.keys[m]) for m in self.reads}
        if self.exchange == "ring" and self.training and world_size() > 1:
            return self._around(predictions, batch, present, keys)
        vectors = {m: together(predictions[m]) for m in self.reads}
        if self.queue.size and self.training:
            self._seen[id(batch)] = ({m: v.detach() for m, v in vectors.items()}, keys, present)
            self.queue.to(batch.rows.device)
            vectors, keys, present = (
                {m: torch.cat([new[m], old[m]]) for m in self.reads}
                for new, old in ((vectors, self.queue.vectors), (keys, self.queue.keys), (present, self.queue.present))
            )
        sums, counts = [], []
        for pair in self.pairs:
            for asks, answers in (pair, pair[::-1]):
                rows = (predictions[asks], batch.keys[asks], _both(batch, *pair))
                related = Related(keys[asks], keys[answers], keys[answers])
                loss, count = self._direction(rows, related, vectors[answers], present[answers])
                sums.append(loss)
            counts.append(count)
        return sum(sums[1:], sums[0]) / 2, sum(counts[1:], counts[0])

    def _around(
        self, predictions: dict[str, Tensor], batch: Batch, present: dict[str, Tensor], keys: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Like `loss`, with the vectors of one other rank at a time, which the backward pass requests again."""
        size, sums, counts = len(batch), [], []
        for pair in self.pairs:
            for asks, answers in (pair, pair[::-1]):
                rows = (predictions[asks], batch.keys[asks], _both(batch, *pair))
                for hop in range(world_size()):
                    indices = (rank() + hop) % world_size() * size + torch.arange(size, device=batch.rows.device)
                    related = Related(keys[asks], keys[answers], keys[answers][indices])
                    block = partial(self._with_those_of, rows, related, present[answers][indices], indices)
                    loss, count = checkpoint(block, predictions[answers], use_reentrant=False, preserve_rng_state=False)
                    sums.append(loss)
            counts.append(count)
        return sum(sums[1:], sums[0]) / 2, sum(counts[1:], counts[0])

    def _with_those_of(
        self,
        rows: tuple[Tensor, Tensor, Tensor],
        related: Related,
        valid: Tensor,
        indices: Tensor,
        mine: Tensor,
    ) -> tuple[Tensor, Tensor]:
        return self._direction(rows, related, gather_rows(mine, indices), valid)

    def loss_parameters(self) -> list[Tensor]:
        """Return the temperature, and the bias if there is one."""
        return [self.log_scale] if self.bias is None else [self.log_scale, self.bias]

    def _direction(
        self, rows: tuple[Tensor, Tensor, Tensor], related: Related, gallery: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return (sum, count) for query rows (vectors, keys, validity). The end of the gallery is the queue."""
        aged = torch.arange(len(gallery), device=gallery.device) >= len(gallery) - self._num_aged

        def block(queries: Tensor, keys: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
            positives = related(keys)
            options = {"scale": self.scale, "valid_queries": valid, "valid_keys": present}
            ignored = positives & aged if self._num_aged else None
            if self.bias is None:
                return info_nce(queries, gallery, positives, **options, ignored=ignored)
            return pairwise_sigmoid(queries, gallery, positives, **options, bias=self.bias, ignored=ignored)

        return by_chunks(block, rows, chunk=self.chunk_size)

    @property
    def _num_aged(self) -> int:
        return self.queue.size if self.training else 0

    def end_step(self) -> None:
        """Push the rows of the completed step into the queue."""
        for vectors, keys, present in self._seen.values():
            self.queue.push(vectors, keys, present)
        self._seen = {}

    def drop_step(self) -> None:
        """Discard the rows of the skipped step."""
        self._seen = {}

    def extra_state(self) -> dict[str, Tensor]:
        """Return the queue, for a resumed run; {} without a queue."""
        return self.queue.state_dict() if self.queue.size else {}

    def load_extra_state(self, memory: Mapping[str, Tensor]) -> None:
        """Restore the result of `extra_state`."""
        if memory:
            self.queue.load_state_dict(memory)

    def metrics(self) -> RetrievalMetric:
        """Return recall at 1, 5 and 10 and other ranks, in both directions of each pair, over the complete split."""
        return RetrievalMetric(modalities=self.reads, at=(1, 5, 10), num_shown=10)

    def update(self, metrics: RetrievalMetric, predictions: dict[str, Tensor], batch: Batch) -> None:
        """Add the embeddings of the rows that have them."""
        metrics.update(
            vectors=predictions,
            present={m: batch.present[m] for m in self.reads},
            keys={m: batch.keys[m] for m in self.reads},
            rows=batch.rows,
        )

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Return the scores of a random ranking."""
        return chance_scores(values)

    def report_items(self, values: dict[str, Tensor], name: Callable[[int], str]) -> list[ReportItem]:
        """Return for every direction sixteen queries spread over the split, with their nearest items."""
        directions = [(asks, answers) for answers, asks in permutations(self.reads, 2)]
        return [
            _shown(values, asks, answers, name)
            for asks, answers in directions
            if f"{asks}_to_{answers}/shown_queries" in values
        ]

    def rows(self, predictions: dict[str, Tensor], batch: Batch) -> list[dict[str, Any]]:
        """Return the similarity of the row's own pair; with more than two modalities, of each pair."""
        rows: list[dict[str, Any]] = [{} for _ in batch.ids]
        for left, right in self.pairs:
            name = "similarity" if len(self.reads) == 2 else f"{left}_{right}_similarity"
            similarity = (predictions[left] * predictions[right]).sum(dim=-1).tolist()
            for row, value, has in zip(rows, similarity, _both(batch, left, right).tolist(), strict=True):
                row |= {name: round(value, 6)} if has else {}
        return rows


def _pretrained_projections(
    projection: str, encoders: Mapping[str, Any], modalities: Sequence[str], embed_dim: int
) -> dict[str, PairProjection]:
    """Return the projections of the encoders that are used, by modality.

    Raises:
        ValueError: if they map into different spaces, or not into one of `embed_dim`, or there are none.
    """
    parts = {m: getattr(encoders.get(m), "projection", None) for m in modalities}
    found = {m: part for m, part in parts.items() if isinstance(part, PairProjection)}
    if projection == "new":
        return {}
    if projection == "pretrained" and len(found) < len(modalities):
        lacking = [m for m in modalities if m not in found]
        raise ValueError(
            f"projection = pretrained, but the encoder of {lacking[0]} has no projection; set projection to auto, or"
            f" encoder/{lacking[0]} to a tower of the pair, such as clip"
        )
    if len(checkpoints := {part.checkpoint for part in found.values()}) > 1:
        raise ValueError(
            f"projection = {projection}, but the encoders of {', '.join(found)} are from different pairs:"
            f" {' and '.join(sorted(checkpoints))}; set projection to new, or encoder.pretrained to one pair"
        )
    wrong = next((m for m, part in found.items() if part.dim != embed_dim), None)
    if wrong is not None:
        raise ValueError(
            f"embed_dim = {embed_dim}, but the encoder of {wrong} projects to {found[wrong].dim} dimensions;"
            " set embed_dim to auto, or projection to new"
        )
    return found


def _resolved(
    temperature: float | str, min_temperature: float | str, bias: float | str, pairs: Sequence[PairProjection]
) -> tuple[float, float, float]:
    """Return temperature, lower bound of the temperature and bias without "auto"."""
    pair = pairs[0] if pairs else None
    if isinstance(temperature, str):
        temperature = TEMPERATURE if pair is None else math.exp(-pair.logit_scale)
    if isinstance(min_temperature, str):
        min_temperature = temperature if pair is None else min(LOWEST_OF_PAIRS, temperature)
    if isinstance(bias, str):
        bias = BIAS if pair is None or pair.logit_bias is None else pair.logit_bias
    return temperature, min_temperature, bias


def _both(batch: Batch, left: str, right: str) -> Tensor:
    """Return (B,), bool: rows that have both sides of a pair."""
    return batch.present[left] & batch.present[right]


def _rates(dropout: float | Mapping[str, float], modalities: Sequence[str]) -> dict[str, float]:
    """Return one dropout probability per modality; 0 for modalities that are not listed.

    Raises:
        ValueError: for an unknown modality.
    """
    if not isinstance(dropout, Mapping):
        return dict.fromkeys(modalities, dropout)
    unexpected = [name for name in dropout if name not in modalities]
    if unexpected:
        raise ValueError(f"dropout lists {unexpected[0]}, but modalities has {', '.join(modalities)}; use one of them")
    return dict.fromkeys(modalities, 0.0) | dict(dropout)


def _alone(tensor: Tensor) -> Tensor:
    return tensor


def _shown(values: dict[str, Tensor], query: str, gallery: str, name: Callable[[int], str]) -> Retrieval:
    prefix = f"{query}_to_{gallery}/shown"
    queries = values[f"{prefix}_queries"].reshape(-1)  # torchmetrics turns one element into a scalar
    result = (values[f"{prefix}_{kind}"].reshape(len(queries), -1).tolist() for kind in ("rows", "scores", "right"))
    hits = [
        [Hit(name(row), score, bool(right)) for row, score, right in zip(*columns, strict=True)]
        for columns in zip(*result, strict=True)
    ]
    return Retrieval(query, gallery, [name(row) for row in queries.tolist()], hits)
