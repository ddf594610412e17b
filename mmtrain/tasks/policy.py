"""A task that writes as a policy: what it draws, and how far it has gone from the model that it started as.

That model, the reference, is the one of another run, or the policy itself without its adapters. It is no part of this
model: not of its parameters, its checkpoints or its averages.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mmtrain.layers.decoder import Decoding
from mmtrain.losses.preference import token_divergence, token_log_probabilities
from mmtrain.tasks.generation import up_to_end
from mmtrain.tasks.task import Continues, Task
from mmtrain.types import Batch, Exhibit

ADAPTERS_OFF = "adapters_off"


class Prompts(Protocol):
    """What sentences of some rows are written from."""

    def take(self, rows: Tensor) -> Any:
        """That of these rows (N,), int64, each as often as it is named."""
        ...


@runtime_checkable
class Policy(Task, Protocol):
    """A task that writes sentences: `Generation`, `LanguageModel`.

    Attributes:
        known: the vocabulary of its sentences, their marks and what is kept of them: a `TokenTarget`, `DialogueTarget`.
        decoding: how sentences are written in evaluation.
        generate_every: validation writes for each n-th row; 0: none.
        tokenize: how BLEU splits words.
        never: ids that no sentence holds.
    """

    known: Any
    decoding: Decoding
    generate_every: int
    tokenize: str
    never: list[int]

    def start_evaluation(self, stage: str) -> None:
        """What comes is val or test."""
        ...

    def answerable(self, batch: Batch) -> Tensor:
        """(B,), bool: rows with a right sentence, and with what it is written from."""
        ...

    def to_write(self, batch: Batch) -> Tensor:
        """(B,), bool: rows that evaluation writes for."""
        ...

    def given(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The sentences of the target: ids (B, S, L), int64, and which of them count, bool; none of others' rows.

        S is 1, and 2 of a target that gives a chosen and a rejected one.
        """
        ...

    def right(self, batch: Batch, rows: Tensor) -> list[list[str]]:
        """The sentences that are right for some rows (N,), int64."""
        ...

    def prompts(self, view: Any) -> Any:
        """What sentences are written from, of every row: `Prompts`."""
        ...

    def logits(self, prompts: Any, ids: Tensor, counts: Tensor) -> Tensor:
        """(N, L, V), of each token of sentences (N, L), given those before it; anything where none counts."""
        ...

    def generate(self, prompts: Any, draws: Tensor, decoding: Decoding) -> Tensor:
        """Write a sentence a row, (N, L), int64; what stands behind an end mark means nothing.

        Args:
            prompts: of N rows.
            draws: (N,), int64, what each row's draws follow from.
            decoding: how.
        """
        ...

    def sentence(self, ids: list[int]) -> str:
        """Ids as a person reads them."""
        ...

    def write(self, predictions: Any, batch: Batch, rows: Tensor) -> list[str]:
        """The sentences that evaluation writes for some rows (N,), int64."""
        ...

    def judge(self, metrics: Any, predictions: Any, batch: Batch, rows: Tensor, said: list[str]) -> None:
        """Count tokens, and score what was said of some rows."""
        ...


class Reference:
    """A task that writes, of a trained model.

    Args:
        model: in evaluation mode; None where there is none.
        of: name of the task.
        like: the policy.

    Raises:
        ValueError: when there is no model, or it has no such task, or one of another vocabulary.
    """

    def __init__(self, model: nn.Module | None, *, of: str, like: Policy) -> None:
        if model is None:
            raise ValueError("reference = null, but this goes on from a model that writes sentences; set init_from=RUN")
        tasks: Any = model.get_submodule("tasks")
        writing = {name: p for name, task in tasks.items() if type(p := writer_of(task)) is type(like)}
        if of not in writing:
            raise ValueError(
                f"continues = {of}, but of sentences the reference has {', '.join(writing) or 'none'}; name one"
            )
        self.policy: Any = writing[of]
        if self.policy.known.names != like.known.names:
            raise ValueError(
                f"{of} of the reference has {len(self.policy.known.names)} tokens, made of other sentences than the"
                f" {len(like.known.names)} here; train both on the same rows"
            )
        self._model: Any = model
        self._target = like.targets[0]

    @torch.no_grad()
    def prompts(self, view: Any) -> Any:
        """As a `Policy`, of the same batch."""
        batch, own = view.batch, self.policy.targets[0]
        if own != self._target:
            batch = replace(
                batch,
                targets={own: batch.targets[self._target]},
                labelled={own: batch.labelled[self._target]},
            )
        if next(self._model.parameters()).device != batch.rows.device:
            self._model.to(batch.rows.device)
        return self.policy.prompts(self._model.view(batch))

    @torch.no_grad()
    def logits(self, prompts: Any, ids: Tensor, counts: Tensor) -> Tensor:
        """As a `Policy`."""
        return self.policy.logits(prompts, ids, counts)


class WithoutAdapters:
    """The policy as it is without its adapters, which alone learn: what else it has stops learning.

    Args:
        policy: with adapters of peft.
        encoders: by modality, none of which learns.

    Raises:
        ValueError: when it has no adapters, or an encoder that it reads learns.
    """

    def __init__(self, policy: nn.Module, encoders: Mapping[str, nn.Module]) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._layers = [m for m in policy.modules() if isinstance(m, BaseTunerLayer)]
        if not self._layers:
            raise ValueError(
                f"reference = {ADAPTERS_OFF}, but the policy has no adapters; add some, such as"
                " +peft@task.NAME.policy.lm.peft=lora with policy@task.NAME=language_model, or set reference to a run"
            )
        learning = [name for name, encoder in encoders.items() if any(p.requires_grad for p in encoder.parameters())]
        if learning:
            raise ValueError(
                f"reference = {ADAPTERS_OFF} is the model that it starts as only while adapters alone learn, but"
                f" encoder.{learning[0]} does; set encoder.{learning[0]}.freeze=true, or reference to a run"
            )
        own = {id(p) for layer in self._layers for n in layer.adapter_layer_names for p in _of(layer, n)}
        for parameter in policy.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in own)
        self._policy: Any = policy

    @torch.no_grad()
    def prompts(self, view: Any) -> Any:
        """As a `Policy`; adapters have no part in them."""
        return self._policy.prompts(view)

    @torch.no_grad()
    def logits(self, prompts: Any, ids: Tensor, counts: Tensor) -> Tensor:
        """As a `Policy`."""
        for layer in self._layers:
            layer.enable_adapters(False)
        try:
            return self._policy.logits(prompts, ids, counts)
        finally:
            for layer in self._layers:
                layer.enable_adapters(True)


def _of(layer: nn.Module, name: str) -> list[nn.Parameter]:
    return [p for n, p in layer.named_parameters() if n.split(".")[0] == name]


def writer_of(task: Any) -> Any:
    """The task that writes: of one that goes on from another, its policy."""
    return task.policy if isinstance(task, Continues) else task


class Drawn(NamedTuple):
    """G sentences a row.

    Attributes:
        ids: (N, G, L), int64, without a start mark.
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
    policy: Policy, prompts: Any, reference: Reference | WithoutAdapters, theirs: Any, draws: Tensor, *, num: int
) -> Drawn:
    """Draw sentences and compare.

    Args:
        policy: what is drawn from, as `plain_draws` says.
        prompts: what it writes from, of N rows.
        reference: what it started as.
        theirs: what that writes from.
        draws: (N,), int64, what each row's draws follow from.
        num: G, sentences a row.
    """
    every = torch.arange(len(draws), device=draws.device).repeat_interleave(num)
    of_each = (draws * num).repeat_interleave(num) + torch.arange(num, device=draws.device).repeat(len(draws))
    prompts, theirs = prompts.take(every), theirs.take(every)
    ids = policy.generate(prompts, of_each, plain_draws(policy.decoding))
    counts = up_to_end(ids, policy.known)
    mine = _allowed(policy.logits(prompts, ids, counts), policy.never)
    old = _allowed(reference.logits(theirs, ids, counts), policy.never)
    with torch.no_grad():
        divergence = token_divergence(mine, old, counts).sum(dim=1)
    parts = (ids, counts, token_log_probabilities(mine, ids, counts), token_log_probabilities(old, ids, counts))
    return Drawn(*(part.unflatten(0, (-1, num)) for part in (*parts, divergence)))


def _allowed(logits: Tensor, never: list[int]) -> Tensor:
    return logits.index_fill(-1, torch.tensor(never, dtype=torch.long, device=logits.device), float("-inf"))


class Continued(nn.Module):
    """What DPO, SCST and GRPO have in common: a policy, and what it started as.

    Its dropout is off: both models are compared as they are, and what is drawn from is what learns.

    Args:
        policy: the task that writes.
        encoders: by modality, those of the run.
        reference: the trained model that this run starts as, or `ADAPTERS_OFF`, the policy without its adapters.
        continues: name of the task of that model whose weights the policy takes.
        target: name of the policy's target.
        modalities: what the policy reads: "fused" or names.
        weight: see `Task`.

    Raises:
        ValueError: when there is nothing to compare with, or it has no such task, or one of another vocabulary.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        encoders: Mapping[str, nn.Module],
        reference: nn.Module | str | None,
        continues: str,
        target: str,
        modalities: list[str],
        weight: float,
    ) -> None:
        super().__init__()
        assert isinstance(policy, nn.Module)
        self.reads = tuple(modalities)
        self.needs = policy.needs
        self.targets = (target,)
        self.weight = weight
        self.continues = continues
        self.reference: Reference | WithoutAdapters
        if isinstance(reference, str):
            self.reference = WithoutAdapters(policy, {m: encoders[m] for m in policy.reads if m in encoders})
        else:
            self.reference = Reference(reference, of=continues, like=policy)
        for module in policy.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.policy: Any = policy

    def start_evaluation(self, stage: str) -> None:
        """What comes is val or test: validation writes for some rows alone."""
        self.policy.start_evaluation(stage)

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """As of the policy."""
        return self.policy.chance(values)

    def exhibits(self, values: dict[str, Tensor], name: Callable[[int], str]) -> Sequence[Exhibit]:
        """What the policy wrote."""
        return self.policy.exhibits(values, name)

    def rows(self, predictions: Any, batch: Batch) -> list[dict[str, Any]]:
        """The sentence, where there is something to read."""
        return self.policy.rows(predictions.written, batch)
