"""A run of the language model from tables to answers: trained, tested, used without its tables, resumed in stages."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mmtrain.errors import ConfigError, SampleError
from mmtrain.modes.chat.pipeline import ChatPipeline
from tests.runs import run_tiny, weights_of
from tests.tiny import make_tables

TASK = (
    "task=[language_model]",
    "data.columns.chat=[caption,label]",
    "data.targets.chat.column_roles=[answer,kind]",
    "data.targets.chat.vocab_size=300",
    "task.language_model.lm.config.num_hidden_layers=1",
    "task.language_model.lm.config.num_attention_heads=2",
    "task.language_model.lm.config.intermediate_size=16",
    "task.language_model.decoding.max_new_tokens=6",
    "task.language_model.generate_every=0",
    "trainer.max_epochs=1",
)


def test_it_trains_answers_and_goes_on_in_stages(tmp_path: Path) -> None:
    """The connector alone, then adapters in the language model from the weights of the first stage."""
    tables = make_tables(tmp_path / "data")
    frozen = ("task.language_model.lm.freeze=true", "encoder.image.freeze=true")
    assert run_tiny(tables, tmp_path / "one", *TASK, *frozen) == 0
    result = json.loads((tmp_path / "one" / "summary.json").read_text())["test"]
    assert {"language_model/token_accuracy", "language_model/bar_bleu"} <= result.keys()
    adapted = ("+peft@task.language_model.lm.peft=lora", "init_from=" + str(tmp_path / "one/checkpoints/best.ckpt"))
    assert run_tiny(tables, tmp_path / "two", *TASK, *adapted) == 0
    first, second = weights_of(tmp_path / "one", "best"), weights_of(tmp_path / "two")
    table = "model.tasks.language_model.lm.model.model.embed_tokens.weight"
    torch.testing.assert_close(first[table], second[table])  # a moving average of one value is not that to the bit
    moved = [n for n in second if "lora_B" in n and second[n].any()]
    assert len(moved) == 7
    shutil.rmtree(tables / "images")
    for split in ("train", "val", "test"):
        (tables / f"{split}.jsonl").unlink()
    _ask(tmp_path / "two")


def _ask(run: Path) -> None:
    """Of a run whose tables are gone."""
    answers = ChatPipeline(run)
    picture: Any = torch.zeros(20, 20, 3, dtype=torch.uint8).numpy()
    said = answers("<image>", image=picture)
    assert said == answers([{"role": "user", "content": "<image>"}], image=picture)
    assert isinstance(answers("what?"), str)
    with pytest.raises(SampleError, match="mentions <image> 0 times, but the row has 1 of image"):
        answers("what?", image=picture)
    with pytest.raises(ConfigError, match="audio: not read by this run, which reads image"):
        answers("<audio>", audio="a.wav")
    with pytest.raises(ConfigError, match="task=matching: not a language model"):
        ChatPipeline(run, task="matching")


def test_a_folder_without_a_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        ChatPipeline(tmp_path)
