"""Small models that continue from a captioning model, their training rows, and their steps on real ranks."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmtrain.config.instantiate import construct
from mmtrain.distributed import all_reduce_sum
from mmtrain.layers.decoder import DecoderShape
from mmtrain.model import MultimodalModel
from mmtrain.tasks.dpo import Dpo
from mmtrain.tasks.generation import Generation, sentence
from mmtrain.tasks.grpo import Grpo
from mmtrain.tasks.scst import Scst
from mmtrain.types import Batch, Features, PairTarget, TokenTarget
from tests.batches import DIM, gradients
from tests.tasks.test_generation import IMAGE, KNOWN, NAMES, SENTENCES, TEXT, batch_of, decoding_of, make_model
from tests.test_distributed import Step

# for the rows of test_generation; the second and the fifth have none
REJECTED: list[list[int]] = [[2, 6, 3], [], [2, 5, 3], [2, 5, 6, 3], [2, 3], [2, 7, 8, 5, 9, 3]]
PAIRS = [0, 5]  # rows with both sentences and an image
MARKS = {"max_length": 7, "pad": 0, "start": 2, "end": 3}
PAIR = PairTarget(names=NAMES, **MARKS)
KEPT = TokenTarget(names=NAMES, **MARKS, sentences=[[sentence(s, KNOWN)] for s in SENTENCES if s] + [["a run"]])
KINDS: dict[str, Any] = {"dpo": Dpo, "scst": Scst, "grpo": Grpo}
OPTIONS: dict[str, dict[str, Any]] = {
    "dpo": {"beta": 0.2, "label_smoothing": 0.0},
    "scst": {"reward": "cider", "num_samples": 3},
    "grpo": {"reward": "rouge_l", "num_samples": 4, "kl_weight": 0.1},
}


def make_writer(name: str, **options: Any) -> Generation:
    """Return a policy with a decoder."""
    shape = DecoderShape(dim=8, depth=1, num_heads=2, mlp_ratio=2.0, dropout=0.0, pretrained=None)
    known = {"caption": PAIR if name == "dpo" else KEPT}
    facts = {"dims": {"image": DIM}, "known_targets": known, "target": "caption", "input": "image", "weight": 1.0}
    knobs = {"label_smoothing": 0.0, "decoder": shape, "decoding": decoding_of(), "generate_every": 1}
    return Generation(**{**facts, **knobs, "tokenize": "13a", **options})


def make_task(name: str, reference: nn.Module | str | None, policy: Any = None, **options: Any) -> Any:
    shared = {
        "encoders": {},
        "target": "caption",
        "modalities": ["image"],
        "weight": 1.0,
        "init_policy_from": "captioning",
    }
    return construct(
        KINDS[name], policy=policy or make_writer(name), reference=reference, **shared | OPTIONS[name] | options
    )


def make_policy(name: str, *, moved: float = 0.0, **options: Any) -> MultimodalModel:
    """Return a float64 model; its weights are those of the reference plus `moved` times fixed noise."""
    torch.manual_seed(3)
    reference = make_model("image").requires_grad_(False)
    task = make_task(name, reference, **options)
    base = deepcopy(reference)
    model = MultimodalModel(encoders=dict(base.encoders.items()), fusion=None, tasks={name: task}).double()
    task.policy.decoder = base.tasks["captioning"].decoder
    for parameter in model.requires_grad_().parameters():
        parameter.data += moved * torch.randn_like(parameter)
    return model.train()


def rows_for(name: str, rows: slice = slice(None)) -> Batch:
    """Return the rows of test_generation with the targets of the task."""
    batch = batch_of(IMAGE[rows], TEXT[rows], SENTENCES[rows], first=rows.start or 0)
    if name != "dpo":
        return batch
    chosen = batch.targets["caption"]
    sides = [
        [s + [0] * (7 - len(s)) for s in (list(c), r)] for c, r in zip(chosen.tolist(), REJECTED[rows], strict=True)
    ]
    return replace(batch, targets={"caption": torch.tensor(sides)})


def plain_log_probability(task: Any, decoder: Any, ids: list[int], read: Features, *, drawn: bool) -> Tensor:
    """Log probability of ids after the start token, token by token; for samples, under the sampling distribution."""
    result = torch.zeros((), dtype=torch.float64)
    for place, token in enumerate(ids):
        logits = decoder(torch.tensor([[2, *ids[:place]]]), read)[0, -1]
        allowed = [i for i in range(len(NAMES)) if not drawn or i not in task.policy.never]
        result = result + logits[token] - logits[allowed].exp().sum().log()
    return result


def own_tokens(ids: list[int]) -> list[int]:
    """Cut ids after the end token."""
    return ids[: ids.index(3) + 1] if 3 in ids else ids


def reference_of(task: Any) -> Generation:
    writer: Generation = task.reference.policy
    return writer


def step_on_rank(mine: int, name: str, parts: list[slice]) -> dict[str, Tensor]:
    """Run two steps on a rank's rows, because DDP reports a parameter without gradient at the second."""
    model, batch = make_policy(name, moved=0.05), rows_for(name, parts[mine])
    wrapped = DistributedDataParallel(Step(model))
    counts = {n: all_reduce_sum(task.count(batch)) for n, task in model.named_tasks().items()}
    for _ in range(2):
        model.zero_grad()
        wrapped(batch, counts).backward()
    return gradients(model)


def step_alone(name: str) -> dict[str, Tensor]:
    """Return the gradients of one process with all rows together."""
    model = make_policy(name, moved=0.05)
    ((loss, count),) = model.losses(rows_for(name)).values()
    (loss / count).backward()
    return gradients(model)
