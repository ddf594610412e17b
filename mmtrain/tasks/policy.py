"""A task that generates text as a policy: its samples, and their divergence from the reference model.

The reference is the model of another run, or the policy itself without its adapters. It is not part of this model's
parameters, checkpoints or weight averages.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mmtrain.annotations import NonNegativeFloat
from mmtrain.layers.decoder import Decoding
from mmtrain.losses.preference import token_divergence, token_log_probabilities
from mmtrain.tasks.generation import up_to_end
from mmtrain.tasks.task import InitializesPolicy, Task
from mmtrain.types import Batch, ReportItem, View

ADAPTERS_OFF = "adapters_off"


class Prompts(Protocol):
    """The input from which the sentences of some rows are generated."""

    def take(self, rows: Tensor) -> Any:
        """Select rows (N,), int64, which may repeat."""
        ...


@runtime_checkable
class Policy(Task, Protocol):
    """A task that generates sentences: `Generation`, `LanguageModel`.

    Attributes:
        known: the vocabulary, special tokens and stored references: a `TokenTarget` or a `DialogueTarget`.
        decoding: decoding options for evaluation.
        generate_every: validation generates for every n-th row; 0 for none.
        tokenize: sacrebleu's tokenizer for BLEU.
        never: ids that are never generated.
    """

    known: Any
    decoding: Decoding
    generate_every: int
    tokenize: str
    never: list[int]

    def on_evaluation_start(self, stage: str) -> None:
        """Called before val or test."""
        ...

    def answerable(self, batch: Batch) -> Tensor:
        """Return (B,), bool: rows with a reference sentence and its input."""
        ...

    def to_write(self, batch: Batch) -> Tensor:
        """Return (B,), bool: rows for which evaluation generates."""
        ...

    def given(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the target sentences: ids (B, S, L), int64, and which of them count, bool; False in other rows.

        S is 1, or 2 for a target with a chosen and a rejected sentence.
        """
        ...

    def right(self, batch: Batch, rows: Tensor) -> list[list[str]]:
        """Return the references of some rows (N,), int64."""
        ...

    def prompts(self, view: View) -> Any:
        """Return the input for generation of every row, as `Prompts`."""
        ...

    def logits(self, prompts: Any, ids: Tensor, counts: Tensor) -> Tensor:
        """Return logits (N, L, V) for each token of sentences (N, L), given those before it; arbitrary for padding."""
        ...

    def generate(self, prompts: Any, draws: Tensor, decoding: Decoding) -> Tensor:
        """Generate one sentence per row, (N, L), int64; ids after an end token are meaningless.

        Args:
            prompts: input of N rows.
            draws: (N,), int64, seeds of the rows.
            decoding: decoding options.
        """
        ...

    def sentence(self, ids: list[int]) -> str:
        """Decode ids to readable text."""
        ...

    def write(self, predictions: Any, batch: Batch, rows: Tensor) -> list[str]:
        """Generate the sentences of some rows (N,), int64, for evaluation."""
        ...

    def judge(self, metrics: Any, predictions: Any, batch: Batch, rows: Tensor, sentences: list[str]) -> None:
        """Add tokens, and the generated sentences `sentences` of some rows."""
        ...


class Reference:
    """The generation task of a trained model.

    Args:
        model: in evaluation mode; None if there is none.
        of: name of the task.
        like: the policy.

    Raises:
        ValueError: if there is no model, it has no such task, or its vocabulary differs.
    """

    def __init__(self, model: nn.Module | None, *, of: str, like: Policy) -> None:
        if model is None:
            raise ValueError("reference = null, but the task needs a model that generates sentences; set init_from=RUN")
        tasks: Any = model.get_submodule("tasks")
        writing = {name: p for name, task in tasks.items() if type(p := writer_of(task)) is type(like)}
        if of not in writing:
            raise ValueError(
                f"init_policy_from = {of}, but the reference's generation tasks are {', '.join(writing) or 'none'};"
                f" set one"
            )
        self.policy: Any = writing[of]
        if self.policy.known.names != like.known.names:
            raise ValueError(
                f"{of} of the reference has {len(self.policy.known.names)} tokens, from other sentences than the"
                f" {len(like.known.names)} here; train both on the same rows"
            )
        self._model: Any = model
        self._target = like.targets[0]

    @torch.no_grad()
    def prompts(self, view: View) -> Any:
        """Return the reference's input for generation, for the same batch."""
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
        """Return the reference's logits; see `Policy`."""
        return self.policy.logits(prompts, ids, counts)


class WithoutAdapters:
    """The policy without its adapters as the reference; only the adapters remain trainable.

    Args:
        policy: with adapters of peft.
        encoders: by modality, all frozen.

    Raises:
        ValueError: if there are no adapters, or an encoder that the policy reads is trainable.
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
                f"reference = {ADAPTERS_OFF} equals the initial model only while nothing but adapters is trained, but"
                f" encoder.{learning[0]} is; set encoder.{learning[0]}.freeze=true, or reference to a run"
            )
        own = {id(p) for layer in self._layers for n in layer.adapter_layer_names for p in _of(layer, n)}
        for parameter in policy.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in own)
        self._policy: Any = policy

    @torch.no_grad()
    def prompts(self, view: View) -> Any:
        """Return the policy's input for generation, which does not depend on adapters."""
        return self._policy.prompts(view)

    @torch.no_grad()
    def logits(self, prompts: Any, ids: Tensor, counts: Tensor) -> Tensor:
        """Return the policy's logits without adapters; see `Policy`."""
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
    """Return the generation task: the policy of a task that continues from another one, else the task itself."""
    return task.policy if isinstance(task, InitializesPolicy) else task


class SampledSentences(NamedTuple):
    """G sampled sentences per row.

    Attributes:
        ids: (N, G, L), int64, without start token.
        counts: (N, G, L), bool, True for tokens of a sentence, including the end token.
        log_probabilities: (N, G, L), under the sampling distribution, in which excluded tokens have probability 0.
        reference: (N, G, L), the same for the reference.
        divergence: (N, G), the estimate of the KL to the reference from each sentence.
    """

    ids: Tensor
    counts: Tensor
    log_probabilities: Tensor
    reference: Tensor
    divergence: Tensor

    def lengths(self) -> Tensor:
        """Return (N, G), the number of tokens of each sentence."""
        return self.counts.sum(dim=2)


def plain_samples(decoding: Decoding) -> Decoding:
    """Return decoding options for samples of the policy itself, without truncation or temperature."""
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


def sample_sentences(
    policy: Policy, prompts: Any, reference: Reference | WithoutAdapters, theirs: Any, draws: Tensor, *, num: int
) -> SampledSentences:
    """Sample sentences and compare them with the reference.

    Args:
        policy: sampled with `plain_samples`.
        prompts: its input, of N rows.
        reference: the initial model.
        theirs: the reference's input.
        draws: (N,), int64, seeds of the rows.
        num: G, number of sentences per row.
    """
    every = torch.arange(len(draws), device=draws.device).repeat_interleave(num)
    of_each = (draws * num).repeat_interleave(num) + torch.arange(num, device=draws.device).repeat(len(draws))
    prompts, theirs = prompts.take(every), theirs.take(every)
    ids = policy.generate(prompts, of_each, plain_samples(policy.decoding))
    counts = up_to_end(ids, policy.known)
    mine = _allowed(policy.logits(prompts, ids, counts), policy.never)
    old = _allowed(reference.logits(theirs, ids, counts), policy.never)
    with torch.no_grad():
        divergence = token_divergence(mine, old, counts).sum(dim=1)
    parts = (ids, counts, token_log_probabilities(mine, ids, counts), token_log_probabilities(old, ids, counts))
    return SampledSentences(*(part.unflatten(0, (-1, num)) for part in (*parts, divergence)))


def _allowed(logits: Tensor, never: list[int]) -> Tensor:
    return logits.index_fill(-1, torch.tensor(never, dtype=torch.long, device=logits.device), float("-inf"))


class TrainedPolicy:
    """A policy and the model that it starts from. Its arguments are part of the configuration of DPO, SCST and GRPO.

    Dropout of the policy is off, so that both models are compared without noise, and the sampling distribution is the
    one that is trained.

    Args:
        policy: the generation task.
        encoders: the run's encoders, by modality.
        reference: the trained model that this run starts from, or `ADAPTERS_OFF` for the policy without its adapters.
        init_policy_from: name of the task of that model whose weights initialize the policy.
        target: name of the policy's target.
        modalities: features that the policy reads: "fused" or modalities.
        weight: see `Task`.

    Raises:
        ValueError: if there is no reference, it has no such task, or its vocabulary differs.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        encoders: Mapping[str, nn.Module],
        reference: nn.Module | str | None,
        init_policy_from: str,
        target: str,
        modalities: list[str],
        weight: NonNegativeFloat,
    ) -> None:
        assert isinstance(policy, nn.Module)
        self.reads = tuple(modalities)
        self.target = target
        self.weight = weight
        self.init_policy_from = init_policy_from
        self.reference: Reference | WithoutAdapters
        if isinstance(reference, str):
            self.reference = WithoutAdapters(policy, {m: encoders[m] for m in policy.reads if m in encoders})
        else:
            self.reference = Reference(reference, of=init_policy_from, like=policy)
        for module in policy.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.task: Any = policy


class ContinuedTask(nn.Module):
    """Base of DPO, SCST and GRPO.

    Args:
        trained: the policy and its reference.
    """

    def __init__(self, trained: TrainedPolicy) -> None:
        super().__init__()
        self.reads = trained.reads
        self.needs = trained.task.needs
        self.targets = (trained.target,)
        self.weight = trained.weight
        self.init_policy_from = trained.init_policy_from
        self.reference = trained.reference
        self.policy: Any = trained.task

    def on_evaluation_start(self, stage: str) -> None:
        """Called before val or test; validation generates only for some rows."""
        self.policy.on_evaluation_start(stage)

    def chance(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Return the policy's chance levels."""
        return self.policy.chance(values)

    def report_items(self, values: dict[str, Tensor], name: Callable[[int], str]) -> Sequence[ReportItem]:
        """Return the policy's examples."""
        return self.policy.report_items(values, name)

    def rows(self, predictions: Any, batch: Batch) -> list[dict[str, Any]]:
        """Return the sentence, for rows with a modality to read."""
        return self.policy.rows(predictions.written, batch)
