"""Recall at k, median rank and mean average precision in both directions between modalities, over all ranks.

Items are identified by content, so a caption of several images is one query with several positives. Equal similarities
share their rank: a score is the expectation over all orders of tied items. So collapsed features give the chance level
(torchmetrics and most public scripts give them 0 or 1).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

MAX_RANK = 2**26  # maximum number of similarities in memory at once
ROUNDING = 1e-6  # rounding error of a product of two unit vectors in float32


class RetrievalMetric(Metric):
    """Collects embeddings. `compute` returns recalls, their chance levels and example queries with their results.

    Args:
        modalities: two or more; every two form a pair.
        at: the k of recall at k.
        num_shown: number of nearest items to return for each of sixteen queries.
        chunk: number of queries at once, less if the gallery is large.

    Attributes:
        asking: ids of the rows whose contents are queries; None for every row. A content belongs to the first row that
            has it.
    """

    full_state_update = False
    num_queries_shown = 16

    def __init__(self, *, modalities: Sequence[str], at: Sequence[int], num_shown: int, chunk: int = 1024) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.at = tuple(at)
        self.num_shown = num_shown
        self.chunk = chunk
        self.asking: Tensor | None = None
        for modality in self.modalities:
            for kind in ("vectors", "keys", "rows", "known"):
                self.add_state(f"{modality}_{kind}", default=[], dist_reduce_fx="cat")

    def update(
        self, *, vectors: Mapping[str, Tensor], present: Mapping[str, Tensor], keys: Mapping[str, Tensor], rows: Tensor
    ) -> None:
        """Add a batch.

        Args:
            vectors: (B, D) by modality, unit length.
            present: (B,), bool, by modality.
            keys: (B,), int64, by modality: content keys; 0 for none.
            rows: (B,), int64, row ids.

        Raises:
            FloatingPointError: if a vector is not finite, because it must not contribute to a score.
        """
        known = torch.stack([keys[m] != 0 for m in self.modalities]).sum(dim=0) >= 2
        for m in self.modalities:
            mine = vectors[m][present[m]].detach().float()
            if not mine.isfinite().all():
                raise FloatingPointError(f"retrieval: an embedding of {m} is not finite")
            self._state(m, "vectors").append(mine)
            self._state(m, "keys").append(keys[m][present[m]])
            self._state(m, "rows").append(rows[present[m]])
            self._state(m, "known").append(keys[m][known])

    def _state(self, modality: str, kind: str) -> list[Tensor]:
        return getattr(self, f"{modality}_{kind}")

    def compute(self) -> dict[str, Tensor]:
        """Return scalars `A_to_B_R@k`, `A_to_B_median_rank`, `A_to_B_mAP`, each with `/chance`, and `recall`.

        `recall` is the mean of all R@k. The rank is that of a query's first positive. `A_to_B/shown_*` are examples for
        the report. The result is empty if no pair of the split has both sides.
        """
        out: dict[str, Tensor] = {}
        for left, right in combinations(self.modalities, 2):
            known = self._known(left, right)
            here = [torch.isin(known[:, n], dim_zero_cat(self._state(m, "keys"))) for n, m in enumerate((left, right))]
            if (here[0] & here[1]).any():
                out |= self._direction(left, right) | self._direction(right, left)
        if not out:
            return {}
        recalls = {name: v for name, v in out.items() if "_R@" in name}
        out["recall"] = torch.stack([v for n, v in recalls.items() if not n.endswith("/chance")]).mean()
        out["recall/chance"] = torch.stack([v for n, v in recalls.items() if n.endswith("/chance")]).mean()
        return out

    def _known(self, left: str, right: str) -> Tensor:
        """Return (P, 2), int64: the keys of rows that have both modalities."""
        known = torch.stack([dim_zero_cat(self._state(m, "known")) for m in (left, right)], dim=1)
        return known[(known != 0).all(dim=1)]

    def _items(self, modality: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return distinct contents in the order of their rows: vectors (N, D), keys (N,), rows (N,)."""
        vectors, keys, rows = (dim_zero_cat(self._state(modality, k)) for k in ("vectors", "keys", "rows"))
        order = rows.argsort(stable=True)
        vectors, keys, rows = vectors[order], keys[order], rows[order]
        unique, inverse = keys.unique(return_inverse=True)
        first = torch.full_like(unique, len(keys)).scatter_reduce(
            0, inverse, torch.arange(len(keys), device=keys.device), reduce="amin"
        )
        first = first.sort().values
        return vectors[first], keys[first], rows[first]

    def _direction(self, query: str, gallery: str) -> dict[str, Tensor]:
        q_vectors, q_keys, q_rows = self._items(query)
        g_vectors, g_keys, g_rows = self._items(gallery)
        q_of_pair, g_of_pair = self._pair_indices(query, gallery, q_keys, g_keys)
        is_query = torch.zeros(len(q_keys), dtype=torch.bool, device=q_keys.device)
        is_query[q_of_pair] = True  # a query without any positive in the gallery is not evaluated
        if self.asking is not None:
            is_query &= torch.isin(q_rows, self.asking.to(q_rows.device))
            if not is_query.any():
                return {}
        shown_of = is_query.nonzero().squeeze(1)
        step = max(len(shown_of) // self.num_queries_shown, 1)
        shown_of = shown_of[::step][: self.num_queries_shown]
        by_name: dict[str, list[Tensor]] = {}
        shown: list[tuple[Tensor, Tensor, Tensor]] = []
        chunk = max(min(self.chunk, MAX_RANK // max(len(g_keys), 1)), 1)
        for start in range(0, len(q_keys), chunk):
            stop = min(start + chunk, len(q_keys))
            similarity = q_vectors[start:stop] @ g_vectors.T
            mine = (q_of_pair >= start) & (q_of_pair < stop)
            positive = torch.zeros_like(similarity, dtype=torch.bool)
            positive[q_of_pair[mine] - start, g_of_pair[mine]] = True
            some = is_query[start:stop]
            of_some = {f"R@{k}": expected_hits(similarity[some], positive[some], k) for k in self.at}
            of_some["median_rank"] = expected_ranks(similarity[some], positive[some])
            of_some["mAP"] = expected_precisions(similarity[some], positive[some])
            for name, both in of_some.items():
                for kind, values in zip(("", "/chance"), both, strict=True):
                    by_name.setdefault(f"{query}_to_{gallery}_{name}{kind}", []).append(values)
            of_chunk = shown_of[(shown_of >= start) & (shown_of < stop)] - start
            # among equal similarities, the first row of the table wins, independent of rounding
            nearest = (similarity[of_chunk] / (8 * ROUNDING)).round().sort(dim=1, descending=True, stable=True).indices
            nearest = nearest[:, : self.num_shown]
            scores, right = similarity[of_chunk].gather(1, nearest), positive[of_chunk].gather(1, nearest)
            shown.append((g_rows[nearest], scores, right))
        out = {}
        for name, result in by_name.items():
            values = torch.cat(result)  # (number of queries,), float64
            out[name] = (values.quantile(0.5) if "median" in name else values.mean()).float()
        prefix = f"{query}_to_{gallery}/shown"
        out[f"{prefix}_queries"] = q_rows[shown_of]
        for name, parts in zip(("rows", "scores", "right"), zip(*shown, strict=True), strict=True):
            out[f"{prefix}_{name}"] = torch.cat(parts)
        return out

    def _pair_indices(self, query: str, gallery: str, q_keys: Tensor, g_keys: Tensor) -> tuple[Tensor, Tensor]:
        """Return the known pairs with both sides present, as indices into the queries and the gallery."""
        pairs = self._known(query, gallery).unique(dim=0)
        places = []
        for side, keys in ((0, q_keys), (1, g_keys)):
            order = keys.argsort()
            at = torch.searchsorted(keys[order], pairs[:, side].contiguous()).clamp(max=len(keys) - 1)
            places.append((order[at], keys[order[at]] == pairs[:, side]))
        here = places[0][1] & places[1][1]
        return places[0][0][here], places[1][0][here]


def expected_hits(similarity: Tensor, positive: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the probability that a positive is among the first k, over all orders of tied items.

    Similarities that differ only by rounding are ties, because rounding of a matrix product depends on its size and on
    the machine.

    With `better` negatives before the best positive, m = k - better positions remain for the tied group of `a`
    positives and `b` negatives: P = 1 - C(b, m) / C(a + b, m).

    Args:
        similarity: (Q, G), float.
        positive: (Q, G), bool, with a True in every row.
        k: at least 1.

    Returns:
        (Q,), float64: the expectation, and the value for a random ranking.
    """
    best = similarity.masked_fill(~positive, float("-inf")).amax(dim=1, keepdim=True)
    better = (similarity > best + ROUNDING).sum(dim=1)
    tied = (similarity - best).abs() <= ROUNDING
    right, wrong = (tied & positive).sum(dim=1), (tied & ~positive).sum(dim=1)
    everywhere = positive.sum(dim=1)
    return _probability(right, wrong, k - better), _probability(
        everywhere, positive.shape[1] - everywhere, torch.full_like(better, k)
    )


def expected_ranks(similarity: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rank of the first positive, from 1, as the mean over all orders of tied items.

    In a random order of `a` positives and `b` negatives, the mean position of the first positive is
    (a + b + 1) / (a + 1).

    Args:
        similarity: (Q, G), float.
        positive: (Q, G), bool, with a True in every row.

    Returns:
        (Q,), float64: the expectation, and the value for a random ranking.
    """
    best = similarity.masked_fill(~positive, float("-inf")).amax(dim=1, keepdim=True)
    better = (similarity > best + ROUNDING).sum(dim=1)
    tied = (similarity - best).abs() <= ROUNDING
    right, count = (tied & positive).sum(dim=1).double(), tied.sum(dim=1)
    everywhere = positive.sum(dim=1).double()
    return better + (count + 1) / (right + 1), (positive.shape[1] + 1) / (everywhere + 1)


def expected_precisions(similarity: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Return the average precision, as the mean over all orders of tied items.

    Consider a positive with s better items, R of them positive, in a group of n tied items, r of them positive. The
    mean precision at its position i of n is (R + 1 + (i - 1) (r - 1) / (n - 1)) / (s + i), and every i is equally
    likely.

    Args:
        similarity: (Q, G), float.
        positive: (Q, G), bool, with a True in every row.

    Returns:
        (Q,), float64: the expectation, and the value for a random ranking.
    """
    queries, items = positive.nonzero(as_tuple=True)
    parts = []
    for q, g in zip(*(index.split(max(MAX_RANK // positive.shape[1], 1)) for index in (queries, items)), strict=True):
        rows, mine = similarity[q], similarity[q, g].unsqueeze(1)
        better, tied, right = rows > mine + ROUNDING, (rows - mine).abs() <= ROUNDING, positive[q]
        counts = (better.sum(1), (better & right).sum(1), tied.sum(1), (tied & right).sum(1))
        parts.append(_precision(*(count.double() for count in counts)))
    every = positive.sum(dim=1).double()
    sums = torch.zeros_like(every).index_add(0, queries, torch.cat(parts) if parts else every[:0])
    nothing = torch.zeros_like(every)
    return sums / every, _precision(nothing, nothing, torch.full_like(every, positive.shape[1]), every)


def _precision(better: Tensor, right_better: Tensor, tied: Tensor, right_tied: Tensor) -> Tensor:
    """Return the mean of the precision over the positions 1 to `tied`; all values are float64."""
    harmonic = torch.digamma(better + tied + 1) - torch.digamma(better + 1)  # the sum of 1 / (better + i)
    others = (right_tied - 1) / (tied - 1).clamp(min=1)
    return ((right_better + 1) * harmonic + others * (tied - (better + 1) * harmonic)) / tied


def _probability(right: Tensor, wrong: Tensor, places: Tensor) -> Tensor:
    """Return 1 - C(wrong, places) / C(right + wrong, places); 0 without positions, 1 if negatives cannot fill them."""
    right, wrong, places = right.double(), wrong.double(), places.double()
    fits = places.clamp(min=0).minimum(wrong)
    log_none = (
        torch.lgamma(wrong + 1)
        - torch.lgamma(wrong - fits + 1)
        - torch.lgamma(right + wrong + 1)
        + torch.lgamma(right + wrong - fits + 1)
    )
    value = 1.0 - log_none.exp()
    value = torch.where(places > wrong, 1.0, value)
    return torch.where(places <= 0, 0.0, value)
