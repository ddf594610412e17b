"""Recall at k, median rank and mean average precision in both directions between modalities, over all ranks.

Unusual here: items are told apart by content, so that a caption shared by several pictures is one query with several
right answers; and equal similarities share their rank: a score is the expectation over every order of the tied items,
so that collapsed features score what chance does (torchmetrics and most public scripts give them 0 or 1).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

MOST = 2**26  # similarities that stand in memory at once
ROUNDING = 1e-6  # of a product of two unit vectors in float32


class RetrievalMetric(Metric):
    """Collects embeddings; `compute` gives recalls, their chance level and some queries with what they found.

    Args:
        modalities: the two, or more, of which every two are a pair.
        at: the k of recall at k.
        num_shown: how many nearest items to give of each of sixteen queries.
        chunk: queries at once, fewer where the gallery is large.

    Attributes:
        asking: rows whose contents ask, among all; None: every row. A content is that of the first row that has it.
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
            vectors: by modality (B, D), unit length.
            present: by modality (B,), bool.
            keys: by modality (B,), int64, content keys; 0 for none.
            rows: (B,), int64, numbers of the rows.

        Raises:
            FloatingPointError: when a vector is not finite: it must not score.
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
        """Scalars `A_to_B_R@k`, `A_to_B_median_rank`, `A_to_B_mAP`, their `/chance`, `recall` (the mean of all R@k).

        The rank is that of a query's first right answer. `A_to_B/shown_*` is for a report.

        Empty when the split has no pair of which both sides are there: there is nothing to score.
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
        """(P, 2), int64: the keys of rows that know both."""
        known = torch.stack([dim_zero_cat(self._state(m, "known")) for m in (left, right)], dim=1)
        return known[(known != 0).all(dim=1)]

    def _items(self, modality: str) -> tuple[Tensor, Tensor, Tensor]:
        """Distinct contents in the order of their rows: vectors (N, D), keys (N,), rows (N,)."""
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
        asked = torch.zeros(len(q_keys), dtype=torch.bool, device=q_keys.device)
        asked[q_of_pair] = True  # a query without any right answer in the gallery asks nothing
        if self.asking is not None:
            asked &= torch.isin(q_rows, self.asking.to(q_rows.device))
            if not asked.any():
                return {}
        shown_of = asked.nonzero().squeeze(1)
        step = max(len(shown_of) // self.num_queries_shown, 1)
        shown_of = shown_of[::step][: self.num_queries_shown]
        by_name: dict[str, list[Tensor]] = {}
        shown: list[tuple[Tensor, Tensor, Tensor]] = []
        chunk = max(min(self.chunk, MOST // max(len(g_keys), 1)), 1)
        for start in range(0, len(q_keys), chunk):
            stop = min(start + chunk, len(q_keys))
            similarity = q_vectors[start:stop] @ g_vectors.T
            mine = (q_of_pair >= start) & (q_of_pair < stop)
            positive = torch.zeros_like(similarity, dtype=torch.bool)
            positive[q_of_pair[mine] - start, g_of_pair[mine]] = True
            some = asked[start:stop]
            of_some = {f"R@{k}": expected_hits(similarity[some], positive[some], k) for k in self.at}
            of_some["median_rank"] = expected_ranks(similarity[some], positive[some])
            of_some["mAP"] = expected_precisions(similarity[some], positive[some])
            for name, both in of_some.items():
                for kind, values in zip(("", "/chance"), both, strict=True):
                    by_name.setdefault(f"{query}_to_{gallery}_{name}{kind}", []).append(values)
            of_chunk = shown_of[(shown_of >= start) & (shown_of < stop)] - start
            # of equals the first in the table, whatever rounding says
            nearest = (similarity[of_chunk] / (8 * ROUNDING)).round().sort(dim=1, descending=True, stable=True).indices
            nearest = nearest[:, : self.num_shown]
            scores, right = similarity[of_chunk].gather(1, nearest), positive[of_chunk].gather(1, nearest)
            shown.append((g_rows[nearest], scores, right))
        out = {}
        for name, found in by_name.items():
            values = torch.cat(found)  # (number of queries,), float64
            out[name] = (values.quantile(0.5) if "median" in name else values.mean()).float()
        prefix = f"{query}_to_{gallery}/shown"
        out[f"{prefix}_queries"] = q_rows[shown_of]
        for name, parts in zip(("rows", "scores", "right"), zip(*shown, strict=True), strict=True):
            out[f"{prefix}_{name}"] = torch.cat(parts)
        return out

    def _pair_indices(self, query: str, gallery: str, q_keys: Tensor, g_keys: Tensor) -> tuple[Tensor, Tensor]:
        """The known pairs whose two sides are both here, as indices into the queries and the gallery."""
        pairs = self._known(query, gallery).unique(dim=0)
        places = []
        for side, keys in ((0, q_keys), (1, g_keys)):
            order = keys.argsort()
            at = torch.searchsorted(keys[order], pairs[:, side].contiguous()).clamp(max=len(keys) - 1)
            places.append((order[at], keys[order[at]] == pairs[:, side]))
        here = places[0][1] & places[1][1]
        return places[0][0][here], places[1][0][here]


def expected_hits(similarity: Tensor, positive: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The chance that some right answer is among the first k, over every order of equally similar items.

    Equal is what differs by rounding alone: how a matrix product rounds depends on its size and on the machine.

    With `better` wrong items before the best right answer, m = k - better places are left for the tied group of `a`
    right and `b` wrong items: P = 1 - C(b, m) / C(a + b, m).

    Args:
        similarity: (Q, G), float.
        positive: (Q, G), bool, with a True in every row.
        k: at least 1.

    Returns:
        (Q,), float64: the expectation, and what a random ranking would score.
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
    """The rank of the first right answer, from 1, the mean over every order of equally similar items.

    The first of `a` right items among `a` + `b` in a random order stands at (a + b + 1) / (a + 1) on average.

    Args:
        similarity: (Q, G), float.
        positive: (Q, G), bool, with a True in every row.

    Returns:
        (Q,), float64: the expectation, and that of a random ranking.
    """
    best = similarity.masked_fill(~positive, float("-inf")).amax(dim=1, keepdim=True)
    better = (similarity > best + ROUNDING).sum(dim=1)
    tied = (similarity - best).abs() <= ROUNDING
    right, count = (tied & positive).sum(dim=1).double(), tied.sum(dim=1)
    everywhere = positive.sum(dim=1).double()
    return better + (count + 1) / (right + 1), (positive.shape[1] + 1) / (everywhere + 1)


def expected_precisions(similarity: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Average precision, the mean over every order of equally similar items.

    For a right item with s better items, R of them right, in a group of n equal ones, r of them right, the precision at
    its place i of n is on average (R + 1 + (i - 1) (r - 1) / (n - 1)) / (s + i), and every i is as likely.

    Args:
        similarity: (Q, G), float.
        positive: (Q, G), bool, with a True in every row.

    Returns:
        (Q,), float64: the expectation, and that of a random ranking.
    """
    queries, items = positive.nonzero(as_tuple=True)
    parts = []
    for q, g in zip(*(index.split(max(MOST // positive.shape[1], 1)) for index in (queries, items)), strict=True):
        rows, mine = similarity[q], similarity[q, g].unsqueeze(1)
        better, tied, right = rows > mine + ROUNDING, (rows - mine).abs() <= ROUNDING, positive[q]
        counts = (better.sum(1), (better & right).sum(1), tied.sum(1), (tied & right).sum(1))
        parts.append(_precision(*(count.double() for count in counts)))
    every = positive.sum(dim=1).double()
    sums = torch.zeros_like(every).index_add(0, queries, torch.cat(parts) if parts else every[:0])
    nothing = torch.zeros_like(every)
    return sums / every, _precision(nothing, nothing, torch.full_like(every, positive.shape[1]), every)


def _precision(better: Tensor, right_better: Tensor, tied: Tensor, right_tied: Tensor) -> Tensor:
    """The mean over the places 1 to `tied` of the precision there, all float64."""
    harmonic = torch.digamma(better + tied + 1) - torch.digamma(better + 1)  # the sum of 1 / (better + i)
    others = (right_tied - 1) / (tied - 1).clamp(min=1)
    return ((right_better + 1) * harmonic + others * (tied - (better + 1) * harmonic)) / tied


def _probability(right: Tensor, wrong: Tensor, places: Tensor) -> Tensor:
    """1 - C(wrong, places) / C(right + wrong, places), 0 without a place, 1 where the wrong cannot fill them."""
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
