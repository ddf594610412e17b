"""Which language models are accepted: causal decoders only."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText

from mmtrain.layers.causal_lm import CausalLM
from tests.dialogues import CONFIGS, KNOWN, source_of

SIZES = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 32,
}
BIDIRECTIONAL = ("bert", "roberta", "electra", "camembert", "data2vec-text", "rembert", "megatron-bert", "xlm-roberta")
VISION = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
VISION |= {"image_size": 16, "patch_size": 8}


def made(kind: str, **more: Any) -> CausalLM:
    torch.manual_seed(0)
    return CausalLM(source=source_of(config={**SIZES, **more, "model_type": kind}), known=KNOWN).eval()


@pytest.mark.parametrize("kind", [*CONFIGS, *BIDIRECTIONAL])
def test_no_token_reads_those_behind_it(kind: str) -> None:
    model = CausalLM(
        source=source_of(config={"model_type": kind, **SIZES, **CONFIGS.get(kind, {})}), known=KNOWN
    ).eval()
    for name, parameter in model.named_parameters():
        if "orm" not in name:
            nn.init.normal_(parameter, std=0.5)
    ids = torch.tensor([[4, 5, 6, 7, 8], [4, 5, 6, 9, 10]])
    one, other = model(model.embed(ids), torch.arange(5).expand(2, -1), None, torch.tensor([0, 1, 2, 5, 6, 7])).chunk(2)
    assert one.std() > 0.01
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_model_that_reads_ahead_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmtrain.layers.causal_lm._causal", lambda config: config)
    with pytest.raises(ValueError, match=r"a bert attends to later tokens.*such as llama, qwen3 or gpt2"):
        made("bert")


def test_other_models_that_are_no_decoders_are_refused() -> None:
    config = {"model_type": "xlnet", "d_model": 8, "n_layer": 2, "n_head": 2, "d_inner": 12}
    with pytest.raises(ValueError, match=r"a xlnet attends to later tokens.*such as llama"):
        CausalLM(source=source_of(config=config), known=KNOWN)
    with pytest.raises(ValueError, match="is of type fuyu, a complete model with images"):
        made("fuyu")
    sizes = {"hidden_size": 8, "num_decoder_layers": 2, "num_decoder_attention_heads": 2, "decoder_ffn_dim": 12}
    with pytest.raises(ValueError, match=r"a prophetnet does not run on embeddings .*such as llama, qwen3 or gpt2"):
        CausalLM(source=source_of(config={"model_type": "prophetnet", **sizes}), known=KNOWN)


def test_published_weights_of_an_encoder_become_a_decoder(tmp_path: Path) -> None:
    AutoModelForCausalLM.from_config(AutoConfig.for_model("bert", vocab_size=30, **SIZES)).save_pretrained(tmp_path)
    model = CausalLM(source=source_of(name=str(tmp_path), config=None), known=KNOWN)
    assert model.model.config.is_decoder and model.training


@pytest.mark.parametrize("kind", ["llava", "gemma3", "clip"])
def test_a_complete_model_of_several_modalities_is_explained(kind: str, tmp_path: Path) -> None:
    text = {"gemma3": "gemma3_text", "clip": "clip_text_model"}.get(kind, "llama")
    vision = {"gemma3": "siglip_vision_model"}.get(kind, "clip_vision_model")
    sizes = {**SIZES, "model_type": text, "vocab_size": 40, "head_dim": 4, "num_key_value_heads": 1}
    if kind == "clip":
        sizes |= {"bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(kind, text_config=sizes, vision_config={"model_type": vision, **VISION})
    (AutoModel if kind == "clip" else AutoModelForImageTextToText).from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a complete model with") as caught:
        CausalLM(source=source_of(name=str(tmp_path), config=None), known=KNOWN)
    message = str(caught.value)
    assert f"a complete model with vision_config ({vision}). Fine-tuning a complete model" in message
    assert f"the language model ({text}) as lm.name" in message and len(message) < 700


def test_of_many_types_the_nearest_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"config.model_type is lama; it is none of the \d+ types .* nearest are llama"
    ):
        made("lama")
    AutoModel.from_config(AutoConfig.for_model("vit", **VISION)).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"is vit; it is none of the \d+ types that are supported; the nearest are .*"
    ) as caught:
        CausalLM(source=source_of(name=str(tmp_path), config=None), known=KNOWN)
    assert len(str(caught.value)) < 300
