"""A decoder as a policy: what it draws, and how far it has gone from the model that it started as.

That model, the reference, is the one of another run. It is no part of this model: not of its parameters, its
checkpoints or its averages, and is loaded anew by whoever builds the model.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmtrain.layers.decoder import Decoder, Decoding
from mmtrain.losses.preference import token_divergence, token_log_probabilities
from mmtrain.tasks.generation import Generation, up_to_end
from mmtrain.types import Batch, Features, TokenTarget


class Reference:
    """A task of sentences of a trained model.

    Args:
        model: in evaluation mode; None where there is none.
        of: name of the task.
        known: the vocabulary of this run's sentences.

    Raises:
        ValueError: when there is no model, or it has no such task, or one of another vocabulary.
    """

    def __init__(self, model: nn.Module | None, *, of: str, known: TokenTarget) -> None:
        if model is None:
            raise ValueError("reference = null, but this goes on from a model that writes sentences; set init_from=RUN")
        tasks: Any = model.get_submodule("tasks")
        writing = [name for name, task in tasks.items() if isinstance(task, Generation)]
        if of not in writing:
            raise ValueError(
                f"continues = {of}, but of sentences the reference has {', '.join(writing) or 'none'}; name one"
            )
        if tasks[of].known.names != known.names:
            raise ValueError(
                f"{of} of the reference has {len(tasks[of].known.names)} tokens, made of other sentences than the"
                f" {len(known.names)} here; train both on the same rows"
            )
        self._model: Any = model
        self._task = tasks[of]

    @torch.no_grad()
    def read(self, batch: Batch) -> Features:
        """What it reads of a batch."""
        if next(self._model.parameters()).device != batch.rows.device:
            self._model.to(batch.rows.device)
        return self._model.view(batch).features(self._task.reads[0])

    @torch.no_grad()
    def logits(self, ids: Tensor, read: Features) -> Tensor:
        """As a `Decoder`."""
        return self._task.decoder(ids, read)


class Drawn(NamedTuple):
    """G sentences a row.

    Attributes:
        ids: (N, G, L), int64, without the start mark.
        counts: (N, G, L), bool, their tokens, end marks among them.
        log_probabilities: (N, G, L), under what they were drawn from: marks that are never written have none.
        reference: (N, G, L), those of the reference.
        divergence: (N, G), the estimate of the KL to the reference that each sentence gives.
    """

    ids: Tensor
    counts: Tensor
    log_probabilities: Tensor
    reference: Tensor
    divergence: Tensor

    def lengths(self) -> Tensor:
        """(N, G), tokens of each."""
        return self.counts.sum(dim=2)


def plain_draws(decoding: Decoding) -> Decoding:
    """Draws from the policy itself, as long as sentences are written, without a cut or a temperature."""
    return Decoding(
        method="sample",
        num_beams=1,
        max_new_tokens=decoding.max_new_tokens,
        top_p=1.0,
        temperature=1.0,
        length_penalty=1.0,
        no_repeat_ngram_size=0,
        seed=decoding.seed,
    )


def draw(
    decoder: Decoder, read: Features, reference: Reference, theirs: Features, draws: Tensor, *, num: int, how: Decoding
) -> Drawn:
    """Draw sentences and compare.

    Args:
        decoder: the policy.
        read: what it reads of N rows.
        reference: what it started as.
        theirs: what that reads of them.
        draws: (N,), int64, what each row's draws follow from.
        num: G, sentences a row.
        how: of `plain_draws`.
    """
    every = torch.arange(len(draws), device=draws.device).repeat_interleave(num)
    of_each = (draws * num).repeat_interleave(num) + torch.arange(num, device=draws.device).repeat(len(draws))
    read, theirs = read.take(every), theirs.take(every)
    ids = decoder.generate(read, of_each, how)
    counts = up_to_end(ids, decoder.known)
    before = torch.cat([torch.full_like(ids[:, :1], decoder.known.start), ids[:, :-1]], dim=1)
    mine = _allowed(decoder(before, read), decoder)
    old = _allowed(reference.logits(before, theirs), decoder)
    with torch.no_grad():
        divergence = token_divergence(mine, old, counts).sum(dim=1)
    parts = (ids, counts, token_log_probabilities(mine, ids, counts), token_log_probabilities(old, ids, counts))
    return Drawn(*(part.unflatten(0, (-1, num)) for part in (*parts, divergence)))


def _allowed(logits: Tensor, decoder: Decoder) -> Tensor:
    never = torch.tensor(decoder.never, dtype=torch.long, device=logits.device)
    return logits.index_fill(-1, never, float("-inf"))
