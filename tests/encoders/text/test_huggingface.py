"""Text models against the library's own on each text alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
    PreTrainedTokenizerFast,
    Siglip2TextModel,
    SiglipTextModel,
)

from mmtrain.encoders.text.huggingface import HuggingFaceText
from mmtrain.layers.finetuning import Tuning, tune
from mmtrain.layers.transformers_text import FAMILIES
from tests.batches import assert_same_bits, gradients

BLOCKS = {
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 12,
}
T5 = {"vocab_size": 30, "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
V3 = {
    "relative_attention": True,
    "position_biased_input": False,
    "share_att_key": True,
    "position_buckets": 4,
    "norm_rel_ebd": "layer_norm",
    "pos_att_type": ["p2c", "c2p"],
    "type_vocab_size": 0,
    "conv_kernel_size": 3,
}
MARKS = {"bos_token_id": 2, "eos_token_id": 3}
CONFIGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "data2vec-text", "mpnet"), BLOCKS),
    "electra": {**BLOCKS, "embedding_size": 6},
    "distilbert": {
        "vocab_size": 30, "dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 12, "max_position_embeddings": 12,
    },
    "deberta-v2": {**BLOCKS, **V3, "conv_act": "gelu"},
    "modernbert": {**BLOCKS, "pad_token_id": 0, "local_attention": 4, "global_attn_every_n_layers": 2},
    **dict.fromkeys(("t5", "mt5", "umt5"), T5),
    "clip_text_model": {**BLOCKS, **MARKS},
    "siglip_text_model": {**BLOCKS, **MARKS, "projection_size": 8},
    "siglip2_text_model": {**BLOCKS, **MARKS, "projection_size": 8},
}  # fmt: skip
LENGTHS = [7, 3, 1, 0]
MASK = torch.arange(7) < torch.tensor(LENGTHS)[:, None]
IDS = torch.randint(4, 30, (4, 7), generator=torch.Generator().manual_seed(0)).masked_fill(~MASK, 0)
every_model = pytest.mark.parametrize("name", CONFIGS)


def config_of(name: str) -> dict[str, Any]:
    return {"model_type": name, **CONFIGS[name]}


def make_encoder(name: str, max_length: int = 10, pooling: str = "auto") -> HuggingFaceText:
    """Return a float64 encoder without zero weights."""
    torch.manual_seed(0)
    encoder = HuggingFaceText(pretrained=None, config=config_of(name), max_length=max_length, pooling=pooling).double()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder


def reference(encoder: HuggingFaceText, name: str) -> nn.Module:
    """Return the library's model with the same weights."""
    config = AutoConfig.for_model(**config_of(name))
    towers = {"siglip_text_model": SiglipTextModel, "siglip2_text_model": Siglip2TextModel}
    if name in towers:
        model = towers[name](config)
    else:
        of_text = name == "clip_text_model" or "t5" in name
        model = (AutoModelForTextEncoding if of_text else AutoModel).from_config(config)
    state = encoder.net.model.state_dict()
    model.double().eval()
    missing = model.load_state_dict(state, strict=False)
    assert missing.unexpected_keys == [] and all(key.startswith(("pooler.", "head.")) for key in missing.missing_keys)
    return model


def alone(model: nn.Module, name: str, ids: Tensor) -> Tensor:
    """Return the tokens (T, dim) of one text (T,)."""
    if "siglip" in name:  # trained on texts padded to the maximum length
        padded = F.pad(ids, (0, 12 - len(ids)), value=model.config.pad_token_id or 0)
        return model(input_ids=padded[None]).last_hidden_state[0, : len(ids)]
    return model(input_ids=ids[None]).last_hidden_state[0]


@every_model
def test_values_and_gradients_are_those_of_the_library_on_each_text_by_itself(name: str) -> None:
    encoder = make_encoder(name).eval()
    model = reference(encoder, name)
    tokens, mask = encoder(IDS, MASK)
    assert torch.equal(mask, MASK) and not tokens[~MASK].any() and tokens.shape == (4, 7, encoder.dim)
    weight = torch.randn_like(tokens)
    (tokens * weight).sum().backward()
    for row, length in enumerate(LENGTHS[:3]):
        expected = alone(model, name, IDS[row, :length])
        torch.testing.assert_close(tokens[row, :length], expected, rtol=0, atol=1e-10)
        (expected * weight[row, :length]).sum().backward()
    mine = gradients(encoder.net.model)
    theirs = {n: p.grad for n, p in model.named_parameters()}
    for key in mine:
        torch.testing.assert_close(mine[key], theirs[key], rtol=1e-7, atol=1e-9)


@every_model
def test_what_stands_under_a_false_mask_changes_no_bit(name: str) -> None:
    encoder = make_encoder(name).eval()

    def run(garbage: int) -> dict[str, Tensor]:
        encoder.zero_grad()
        tokens, mask = encoder(IDS.masked_fill(~MASK, garbage), MASK)
        tokens.square().sum().backward()
        return {"tokens": tokens.detach(), "mask": mask, **gradients(encoder)}

    clean = run(0)
    assert all(value.isfinite().all() for value in clean.values())
    assert_same_bits(clean, run(10**9))


@every_model
def test_every_weight_gets_a_gradient_and_is_in_one_layer_or_the_top(name: str) -> None:
    encoder = make_encoder(name)
    tokens = encoder(IDS, MASK).tokens
    (tokens * torch.randn_like(tokens)).sum().backward()
    assert [n for n, g in gradients(encoder).items() if not g.any()] == []
    layers = encoder.layers()
    parameters = [id(p) for layer in layers for part in layer for p in part.parameters()]
    assert len(layers) == 3 and len(parameters) == len(set(parameters))
    top = {n for n, p in encoder.named_parameters() if id(p) not in parameters}
    assert all(n.rpartition(".")[0].endswith(("final_layer_norm", "final_norm")) for n in top)


@every_model
def test_blocks_can_be_computed_again(name: str) -> None:
    """Blocks are called as modules, with the forward changed by `tune`."""
    plain, again = make_encoder(name), make_encoder(name)
    tune(again, Tuning(checkpointing=True))
    for encoder in (plain, again):
        for module in encoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        encoder.train()
        encoder(IDS, MASK).tokens.square().sum().backward()
    one, other = gradients(plain), gradients(again)
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-10, atol=1e-12)


@every_model
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_and_a_batch_of_one(name: str, autocast: bool) -> None:
    encoder = make_encoder(name).eval()
    exact = encoder(IDS[:1], None).tokens
    encoder.to(torch.float32 if autocast else torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        tokens, mask = encoder(IDS[:1], None)
    assert mask.all()
    torch.testing.assert_close(tokens.double(), exact, rtol=0.1, atol=0.15 * exact.abs().max().item())


@every_model
def test_a_text_may_be_longer_than_the_weights_positions(name: str) -> None:
    encoder = make_encoder(name, max_length=40).eval()
    ids = torch.randint(4, 30, (2, 40), generator=torch.Generator().manual_seed(1))
    assert encoder(ids, None).tokens.isfinite().all()


@pytest.mark.parametrize("name", [n for n, family in FAMILIES.items() if family.positions and not family.reads_padding])
def test_room_for_longer_texts_changes_no_short_one(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    kind = AutoModelForTextEncoding if name == "clip_text_model" else AutoModel
    kind.from_config(AutoConfig.for_model(**config_of(name))).save_pretrained(tmp_path)
    short, long = (
        HuggingFaceText(pretrained=str(tmp_path), config=None, max_length=length, pooling="tokens").eval()
        for length in (7, 40)
    )
    assert torch.equal(short(IDS, MASK).tokens, long(IDS, MASK).tokens)


def test_positions_of_roberta_are_repeated_behind_that_of_padding(tmp_path: Path) -> None:
    AutoModel.from_config(AutoConfig.for_model(**config_of("roberta"))).save_pretrained(tmp_path)
    short, long = (
        HuggingFaceText(pretrained=str(tmp_path), config=None, max_length=length, pooling="auto") for length in (10, 19)
    )
    before, after = (e.net.model.embeddings.position_embeddings.weight for e in (short, long))
    assert before.shape == (12, 8) and after.shape == (2 + 19, 8)
    assert torch.equal(after[:12], before) and torch.equal(after[12:], before[2:11])
    assert short.net.model.embeddings.position_embeddings.padding_idx == 1


@pytest.mark.parametrize("name", ["bert", "mpnet", "t5", "distilbert", "modernbert"])
def test_a_checkpoint_is_taken(name: str, tmp_path: Path) -> None:
    model = AutoModel.from_config(AutoConfig.for_model(**config_of(name))).eval()
    model.save_pretrained(tmp_path)
    encoder = HuggingFaceText(pretrained=str(tmp_path), config=None, max_length=10, pooling="auto").eval()
    inner = model.encoder if name == "t5" else model
    torch.testing.assert_close(encoder(IDS[:1], None).tokens, inner(input_ids=IDS[:1]).last_hidden_state)
    assert not any("decoder" in n or "pooler" in n for n, _ in encoder.named_parameters())


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_the_text_tower_of_a_checkpoint_is_taken(name: str, tmp_path: Path) -> None:
    """Its last token, before the projection, is what the library pools: CLIP's end token, SigLIP's last padding."""
    vision = {**BLOCKS, "image_size": 8, "patch_size": 4}
    model = AutoModel.from_config(
        AutoConfig.for_model(name, text_config=CONFIGS[f"{name}_text_model"], vision_config=vision)
    ).eval()
    model.save_pretrained(tmp_path)
    encoder = HuggingFaceText(pretrained=str(tmp_path), config=None, max_length=10, pooling="last").eval()
    ids = IDS.masked_fill(~MASK, model.config.text_config.pad_token_id or 0)
    ids[torch.arange(3), torch.tensor(LENGTHS[:3]) - 1] = 3  # the end token of a text
    tokens, mask = encoder(ids, MASK)
    assert mask.tolist() == [[True]] * 3 + [[False]] and not tokens[3].any()
    if name == "clip":
        expected = model.text_model(ids[:3], attention_mask=MASK[:3].long()).pooler_output
    else:
        model.text_model.head = nn.Identity()
        expected = model.text_model(F.pad(ids[:3], (0, 5), value=1)).pooler_output
    torch.testing.assert_close(tokens[:3, 0], expected)


@pytest.mark.parametrize("pooling", ["tokens", "last"])
@pytest.mark.parametrize("name", ["siglip", "siglip2"])
def test_padding_is_that_of_the_tokenizer_where_a_model_reads_it(name: str, pooling: str, tmp_path: Path) -> None:
    """For SigLIP 2, config.json has no pad_token_id; the default of its class, 1, is the end token."""
    vision = {**BLOCKS, "image_size": 8, "patch_size": 4, "num_patches": 4}
    sizes = {"text_config": CONFIGS[f"{name}_text_model"], "vision_config": vision}
    model = AutoModel.from_config(AutoConfig.for_model(name, **sizes)).eval()
    assert model.config.text_config.pad_token_id == 1
    model.save_pretrained(tmp_path)
    words = {word: number for number, word in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", *"abcdefgh"])}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    marks = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=plain, **marks).save_pretrained(tmp_path)
    encoder = HuggingFaceText(pretrained=str(tmp_path), config=None, max_length=10, pooling=pooling).eval()
    tokens, mask = encoder(IDS, MASK)
    expected = model.text_model(F.pad(IDS.masked_fill(~MASK, 0), (0, 5), value=0)).last_hidden_state
    if pooling == "last":
        torch.testing.assert_close(tokens[:3, 0], expected[:3, -1])
    else:
        torch.testing.assert_close(tokens[mask], expected[:, :7][MASK])


def test_the_tokenizer_comes_with_the_weights() -> None:
    assert HuggingFaceText.preprocessing(pretrained=None) == {}
    assert HuggingFaceText.preprocessing(pretrained="a/folder") == {"tokenizer": "a/folder"}


def test_every_family_is_tested() -> None:
    assert CONFIGS.keys() == FAMILIES.keys()


def test_what_cannot_be_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(pretrained: str | None, config: dict[str, Any] | None, pooling: str = "auto") -> HuggingFaceText:
        return HuggingFaceText(pretrained=pretrained, config=config, max_length=10, pooling=pooling)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="are both null; set one of them"):
        make(None, None)
    with pytest.raises(ValueError, match=r"config.model_type is gpt2; this encoder accepts bert, roberta, .*, siglip2"):
        make(None, {"model_type": "gpt2"})
    with pytest.raises(
        ValueError, match=r"pretrained = no/such-model cannot be loaded: (.|\n)*set pretrained to a folder"
    ):
        make("no/such-model", None)
    with pytest.raises(ValueError, match="pooling = max; set it to auto, tokens, class, mean, last"):
        make(None, config_of("bert"), "max")
