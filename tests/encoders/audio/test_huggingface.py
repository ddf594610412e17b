"""Speech models against the library's own on each clip alone."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from mmtrain.encoders.audio.huggingface import HuggingFaceAudio
from tests.batches import assert_same_bits, gradients

CONVOLUTIONS = {
    "conv_dim": [6, 8, 8],
    "conv_kernel": [10, 3, 2],
    "conv_stride": [5, 2, 2],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
BLOCKS = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
CONFIGS: dict[str, dict[str, Any]] = {
    "wav2vec2": {"model_type": "wav2vec2", **CONVOLUTIONS, **BLOCKS},
    "wav2vec2 (large)": {"model_type": "wav2vec2", **CONVOLUTIONS, **BLOCKS, **LARGE},
    "hubert": {"model_type": "hubert", **CONVOLUTIONS, **BLOCKS},
    "hubert (batch norm)": {"model_type": "hubert", **CONVOLUTIONS, **BLOCKS, "conv_pos_batch_norm": True},
    "wavlm": {"model_type": "wavlm", **CONVOLUTIONS, **BLOCKS},
    "wavlm (large)": {"model_type": "wavlm", **CONVOLUTIONS, **BLOCKS, **LARGE},
    "data2vec": {"model_type": "data2vec-audio", **CONVOLUTIONS, **BLOCKS, "conv_pos_kernel_size": 3},
    "whisper": {
        "model_type": "whisper",
        "d_model": 8,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 12,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 12,
        "num_mel_bins": 8,
        "vocab_size": 30,
        "max_source_positions": 20,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
    },
}
LENGTHS = [3100, 3100, 1203, 500, 9, 0]
MASK = torch.arange(3100) < torch.tensor(LENGTHS)[:, None]
every_model = pytest.mark.parametrize("name", CONFIGS)


def make_encoder(name: str) -> HuggingFaceAudio:
    torch.manual_seed(0)
    encoder = HuggingFaceAudio(pretrained=None, config=CONFIGS[name], sample_rate=16000).double()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder


def sounds() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(6, 3100, generator=generator, dtype=torch.float64) + 0.02


def reference(encoder: HuggingFaceAudio, name: str) -> nn.Module:
    """Return the library's model with the same weights."""
    model = AutoModel.from_config(AutoConfig.for_model(**{**CONFIGS[name], "mask_time_prob": 0.0})).double()
    model = model.encoder if name == "whisper" else model
    if name == "whisper":
        positions = {"embed_positions.weight": encoder.net.positions}
        model.load_state_dict({**encoder.net.encoder.state_dict(), **positions})
    else:
        model.load_state_dict(encoder.net.model.state_dict())
    return model.eval()


def alone(model: nn.Module, encoder: HuggingFaceAudio, name: str, sound: Tensor) -> Tensor:
    """Return the library's tokens (T, dim) of one clip (L,)."""
    if name != "whisper":
        shortest = 10 + 5 * (3 - 1) + 10 * (2 - 1)
        sound = (sound - sound.mean()) / torch.sqrt(sound.var(correction=0) + 1e-7)
        sound = nn.functional.pad(sound, (0, max(0, shortest - len(sound))))
        return model(sound.unsqueeze(0)).last_hidden_state[0]
    sound = nn.functional.pad(sound, (0, -len(sound) % 320))  # the library needs an even number of frames
    frames = encoder.net.mel(sound.unsqueeze(0)).transpose(1, 2)  # compared in tests/layers/test_whisper_mel.py
    positions = model.embed_positions
    model.config.max_source_positions = frames.shape[2] // 2
    model.embed_positions = nn.Embedding.from_pretrained(positions.weight[: frames.shape[2] // 2])
    tokens = model(frames).last_hidden_state[0]
    model.embed_positions = positions
    return tokens


@every_model
def test_values_and_gradients_are_those_of_the_library_on_each_sound_by_itself(name: str) -> None:
    encoder = make_encoder(name).eval()
    model, values = reference(encoder, name), sounds()
    tokens, mask = encoder(values, MASK)
    weight = torch.randn_like(tokens)
    (tokens * weight).sum().backward()
    assert not mask[5].any() and mask[4].sum() == 1 and not tokens[~mask].any()
    for row, length in enumerate(LENGTHS[:5]):
        expected = alone(model, encoder, name, values[row, :length])
        torch.testing.assert_close(tokens[row, mask[row]], expected, rtol=0, atol=1e-10)
        (expected * weight[row, mask[row]]).sum().backward()
    ours = encoder.net.encoder if name == "whisper" else encoder.net.model
    mine = gradients(ours)
    theirs = {n: p.grad for n, p in model.named_parameters() if n != "embed_positions.weight"}  # fixed sinusoids
    assert mine.keys() == theirs.keys()
    for key in mine:
        torch.testing.assert_close(mine[key], theirs[key], rtol=1e-7, atol=1e-9)


@every_model
def test_what_stands_under_a_false_mask_changes_no_bit(name: str) -> None:
    encoder, values = make_encoder(name).eval(), sounds()

    def run(garbage: float) -> dict[str, Tensor]:
        encoder.zero_grad()
        leaf = values.masked_fill(~MASK, garbage).requires_grad_()
        tokens, mask = encoder(leaf, MASK)
        tokens.square().sum().backward()
        return {"tokens": tokens.detach(), "mask": mask, "input": leaf.grad, **gradients(encoder)}

    clean = run(0.0)
    assert all(value.isfinite().all() for value in clean.values()) and not clean["input"][~MASK].any()
    assert_same_bits(clean, run(math.nan))
    assert_same_bits(clean, run(1e30))


@every_model
def test_training_repeats_itself_and_every_weight_gets_a_gradient(name: str) -> None:
    """Apart from dropout, there is neither time masking nor layer drop."""
    encoder = make_encoder(name).train()
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    encoder.net.apply(_without_dropout)
    one, other = (encoder(sounds()[:4], MASK[:4]).tokens for _ in range(2))  # batch norm rejects a single frame
    assert torch.equal(one, other)
    (one * torch.randn_like(one)).sum().backward()
    assert [n for n, g in gradients(encoder).items() if not g.any()] == []


def _without_dropout(module: nn.Module) -> None:
    for name in ("dropout", "activation_dropout", "dropout_p"):
        if isinstance(vars(module).get(name), float):
            setattr(module, name, 0.0)


@every_model
def test_layers_are_stem_and_blocks(name: str) -> None:
    encoder = make_encoder(name)
    layers = encoder.layers()
    assert len(layers) == 3
    parameters = [id(p) for layer in layers for part in layer for p in part.parameters()]
    assert len(parameters) == len(set(parameters))
    top = {n for n, p in encoder.named_parameters() if id(p) not in parameters}
    norm = {"net.encoder.layer_norm"} if name == "whisper" else {"net.model.encoder.layer_norm"}
    assert {n.rpartition(".")[0] for n in top} == (norm if "large" in name or name == "whisper" else set())


@every_model
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_and_a_batch_of_one(name: str, autocast: bool) -> None:
    encoder = make_encoder(name).eval()
    values = sounds()[:1]
    exact = encoder(values, None).tokens
    dtype = torch.float32 if autocast else torch.bfloat16
    encoder.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        tokens, mask = encoder(values.to(dtype), None)
    assert mask.all()
    torch.testing.assert_close(tokens.double(), exact, rtol=0.1, atol=0.15 * exact.abs().max().item())


@pytest.mark.parametrize("name", ["wav2vec2", "hubert", "whisper"])
def test_a_checkpoint_is_taken_with_what_it_says_of_its_input(name: str, tmp_path: Path) -> None:
    model = AutoModel.from_config(AutoConfig.for_model(**CONFIGS[name]))
    model.save_pretrained(tmp_path)
    if name == "whisper":
        WhisperFeatureExtractor(feature_size=8, sampling_rate=16000).save_pretrained(tmp_path)
    else:
        Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=False).save_pretrained(tmp_path)
    rate = 16000 if name == "whisper" else 8000
    assert HuggingFaceAudio.preprocessing(pretrained=str(tmp_path)) == {"sample_rate": rate}
    encoder = HuggingFaceAudio(pretrained=str(tmp_path), config=None, sample_rate=rate).eval()
    values = sounds()[:1].float()
    if name == "whisper":
        for key, value in encoder.net.encoder.state_dict().items():
            assert torch.equal(value, model.encoder.state_dict()[key])
    else:
        expected = model.eval()(values).last_hidden_state
        torch.testing.assert_close(encoder(values, None).tokens, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=f"sample_rate = 44100, but pretrained = .* needs {rate} Hz; set data.inputs"):
        HuggingFaceAudio(pretrained=str(tmp_path), config=None, sample_rate=44100)


def test_from_scratch_nothing_is_wanted_of_the_input() -> None:
    assert HuggingFaceAudio.preprocessing(pretrained=None) == {}


def test_what_cannot_be_is_refused_with_advice(tmp_path: Path) -> None:
    def make(pretrained: str | None, config: dict[str, Any] | None) -> HuggingFaceAudio:
        return HuggingFaceAudio(pretrained=pretrained, config=config, sample_rate=16000)

    with pytest.raises(ValueError, match="are both null; set one of them"):
        make(None, None)
    with pytest.raises(ValueError, match="are both set; set one of them to null"):
        make("somewhere", CONFIGS["hubert"])
    with pytest.raises(ValueError, match=r"config.model_type is bert; this encoder accepts wav2vec2, hubert, wavlm"):
        make(None, {"model_type": "bert"})
    with pytest.raises(ValueError, match=r"pretrained = no/such-model cannot be loaded: (.|\n)*set pretrained to"):
        make("no/such-model", None)
    AutoModel.from_config(AutoConfig.for_model(**CONFIGS["hubert"])).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"cannot be loaded: (.|\n)*preprocessor_config.json"):
        make(str(tmp_path), None)
    message = "audio of 21 tokens, but Whisper has positions for 20; set data.inputs.audio.max_seconds to 0.4 or less"
    with pytest.raises(ValueError, match=message):
        make_encoder("whisper")(torch.randn(1, 41 * 160, dtype=torch.float64), None)
