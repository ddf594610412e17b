"""Packing rows of a batch into sequences of a language model: the same loss, and the speed-up.

    OMP_NUM_THREADS=1 python scripts/benchmark_packing.py [--steps 5]

Dialogues of 16 to 512 tokens, most of them short, in a small model of each type, forward and backward. Tokens are
counted without padding. Seconds are the median of the steps, alternately with and without packing.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from torch import Tensor

from mmtrain.layers.causal_lm import CausalLM, CausalLMSource
from mmtrain.layers.splice import lay_out, splice, within_rows
from mmtrain.losses.cross_entropy import cross_entropy
from mmtrain.types import DialogueTarget

VOCABULARY, ROWS, LONGEST = 1000, 32, 512
SIZES = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "max_position_embeddings": LONGEST}
TYPES: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 384},
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "qwen2": {"intermediate_size": 384, "num_key_value_heads": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    known = DialogueTarget([str(i) for i in range(VOCABULARY)], LONGEST, 0, 1, {}, frozenset(), [""], str)
    values = dialogues()
    tokens = int((values[..., 1] >= 0).sum())
    print(f"{ROWS} dialogues, {tokens} tokens; one row per sequence has {ROWS * values.shape[1]} places")
    for kind, more in TYPES.items():
        torch.manual_seed(0)
        config = {"model_type": kind, **SIZES, **more}
        source = CausalLMSource(name=None, config=config, bits=None, freeze=False, checkpointing=False, peft=None)
        lm = CausalLM(source=source, known=known)
        seconds: dict[int | None, list[float]] = {None: [], LONGEST: []}
        losses: dict[int | None, float] = {}
        for _ in range(arguments.steps):
            for pack, taken in seconds.items():
                start = time.process_time()
                loss = loss_of(lm, values, pack)
                loss.backward()
                taken.append(time.process_time() - start)
                losses[pack] = float(loss.detach())
        apart = abs(losses[None] - losses[LONGEST])
        rates = [tokens / statistics.median(taken) for taken in seconds.values()]
        print(
            f"{kind:6} apart {rates[0]:7.0f} tokens/s, packed {rates[1]:7.0f}, {rates[1] / rates[0]:.2f} times;"
            f" loss {losses[None]:.6f}, packed {apart:.1e} off"
        )


def dialogues() -> Tensor:
    """(ROWS, L, 2): the second half of each is an answer."""
    generator = torch.Generator().manual_seed(0)
    lengths = (16 * (LONGEST / 16) ** torch.rand(ROWS, generator=generator).square()).long()
    lengths[0] = LONGEST
    values = torch.tensor([0, -1]).expand(ROWS, LONGEST, 2).clone()
    for row, length in zip(values, lengths.tolist(), strict=True):
        row[:length, 0] = torch.randint(2, VOCABULARY, (length,), generator=generator)
        row[:length, 1] = (torch.arange(length) >= length // 2).long()
    return values


def loss_of(lm: CausalLM, values: Tensor, pack: int | None) -> Tensor:
    """The mean over the tokens of answers, as in the task."""
    spliced = splice(values, values[..., 1] >= 0, lm.embed, {}, inserted=True)
    lines = lay_out(spliced, room=pack)
    answers = (spliced.flags > 0).nonzero().squeeze(1)
    mask = None if lines.rank is None else within_rows(lines.put(spliced.row, -1), spliced.embeds.dtype)
    logits = lm(lines.put(spliced.embeds, 0.0), lines.put(spliced.position, 0), mask, lines.slot[answers - 1])
    total, count = cross_entropy(logits, spliced.ids[answers], torch.ones_like(answers, dtype=torch.bool))
    return total / count


if __name__ == "__main__":
    main()
