"""Dialogues small enough to check by hand, and a language model of each type that reads them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from mmtrain.fusion.connectors.mlp import MLPConnector
from mmtrain.layers.causal_lm import CausalLMSource
from mmtrain.layers.decoder import Decoding
from mmtrain.model import MultimodalModel
from mmtrain.tasks.language_model import LanguageModel
from mmtrain.types import Batch, DialogueTarget
from tests.batches import DIM, make_batch, make_encoders

IMAGE, AUDIO, PAD, END = 2, 3, 0, 1
NAMES = ["<pad>", "</s>", "<image>", "<audio>", *"abcdefghijklmnopq"]


def spell(ids: Sequence[int]) -> str:
    ids = list(ids)
    return " ".join(NAMES[i] for i in (ids[: ids.index(END)] if END in ids else ids) if i > AUDIO)


KNOWN = DialogueTarget(
    names=NAMES,
    max_length=16,
    pad=PAD,
    end=END,
    places={"image": IMAGE, "audio": AUDIO},
    used=frozenset({"image"}),
    kinds=["", "short"],
    write=spell,
)
_SHARED = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8, "max_position_embeddings": 64}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "intermediate_size": 16, **_SHARED},
    "gpt2": {"model_type": "gpt2", "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, **_SHARED},
    "qwen2": {"model_type": "qwen2", "intermediate_size": 16, "num_key_value_heads": 1, **_SHARED},
}
# (ids, flags) of six rows: an answer; a longer one of the second kind; two turns; none; unanswered; without a place
ROWS: list[tuple[list[int], list[int]]] = [
    ([4, 2, 5, 6, 7, 1], [0, 0, 0, 1, 1, 1]),
    ([2, 8, 4, 9, 9, 10, 6, 1], [0, 0, 0, 2, 2, 2, 2, 2]),
    ([2, 5, 6, 1, 11, 5, 8, 12, 1], [0, 0, 1, 1, 0, 0, 1, 1, 1]),
    ([], []),
    ([2, 5, 6], [0, 0, 0]),
    ([4, 5, 6, 1], [0, 0, 1, 1]),
]
PICTURES = [1, 2, 0, 3, 4, 0]  # content keys; the third row does not have the picture that it mentions
ANSWERED = [0, 1, 2, 5]


def decoding_of(method: str = "greedy", **options: Any) -> Decoding:
    plain = {"num_beams": 3, "max_new_tokens": 6, "top_p": 1.0, "temperature": 1.0, "length_penalty": 1.0}
    return Decoding(method=method, **{**plain, "no_repeat_ngram_size": 0, "seed": 0, **options})


def source_of(kind: str = "llama", **options: Any) -> CausalLMSource:
    plain = {"name": None, "config": CONFIGS[kind], "bits": None, "freeze": False, "checkpointing": False, "peft": None}
    return CausalLMSource(**{**plain, **options})


def make_task(kind: str = "llama", **options: Any) -> LanguageModel:
    facts = {
        "dims": {"image": DIM},
        "known_targets": {"chat": KNOWN},
        "encoders": {"image": nn.Identity()},
        "target": "chat",
    }
    knobs = {"target": "chat", "modalities": ["image"], "weight": 1.0, "label_smoothing": 0.0, "generate_every": 1}
    parts = {"lm": source_of(kind), "connector": partial(MLPConnector), "pack": None, "decoding": decoding_of()}
    parts["tokenize"] = "13a"
    return LanguageModel(**{**facts, **knobs, **parts, **options})


def make_model(kind: str = "llama", **options: Any) -> MultimodalModel:
    """In float64, with weights that answer unlike things; in evaluation mode."""
    torch.manual_seed(0)
    image = make_encoders()["image"]
    model = MultimodalModel(encoders={"image": image}, fusion=None, tasks={"answers": make_task(kind, **options)})
    for name, parameter in model.tasks.named_parameters():
        if parameter.requires_grad and "norm" not in name and "ln_" not in name:
            nn.init.normal_(parameter, std=0.5)
    return model.double().eval()


def batch_of(
    rows: list[tuple[list[int], list[int]]] = ROWS, pictures: list[int] = PICTURES, *, first: int = 0
) -> Batch:
    length = max([1, *(len(ids) for ids, _ in rows)])
    values = torch.tensor([PAD, -1]).expand(len(rows), length, 2).clone()
    for row, (ids, flags) in zip(values, rows, strict=True):
        if ids:
            row[: len(ids)] = torch.tensor([ids, flags]).T
    batch = make_batch(pictures, [0] * len(rows), first=first)
    inputs = {"image": batch.inputs["image"]}
    return replace(
        batch,
        inputs=inputs,
        present={"image": batch.present["image"]},
        targets={"chat": values},
        labelled={"chat": torch.tensor([bool(ids) for ids, _ in rows])},
        references={"chat": [[spell(_last(ids, flags))] if ids and flags[-1] else [] for ids, flags in rows]},
    )


def _last(ids: list[int], flags: list[int]) -> list[int]:
    place = len(flags)
    while place and flags[place - 1] > 0:
        place -= 1
    return ids[place:]
