"""BERT against the library's own on each text alone: cached published weights if available, else small random ones."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertModel, RobertaConfig, RobertaModel

from mmtrain.data.inputs.text import TextInput
from mmtrain.encoders.text.bert import BERT
from tests.batches import assert_same_bits, gradients

MINILM = Path(os.environ.get("MMTRAIN_CACHE", "~/.cache/mmtrain")).expanduser() / "weights" / "minilm_l6"
CAPTIONS = [
    "A man rides a horse along the beach at sunset.",
    "two cats",
    "Skateboarder jumping over some stairs; crowd.",
]
SIZES: dict[str, Any] = {"vocab_size": 30, "max_length": 12, "dim": 8, "depth": 2, "num_heads": 2, "mlp_ratio": 1.5}
IDS = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 0, 0, 0], [8, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])


def make_encoder(pretrained: bool | str | None = None, pooling: str = "auto", **changed: Any) -> BERT:
    return BERT(**{"pretrained": pretrained, "pooling": pooling, "dropout": 0.0} | SIZES | changed)


def random_bert(folder: Path) -> BertModel:
    """Save a small checkpoint without zero weights."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=12,
    )  # fmt: skip
    model = BertModel(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return model.eval()


def assert_equal_to(model: nn.Module, encoder: BERT, ids: Tensor, mask: Tensor, rtol: float) -> None:
    """Compare tokens of valid positions and gradients of all weights; the library gets one text at a time."""
    tokens, valid = encoder(ids, mask)
    assert torch.equal(valid, mask) and not tokens[~mask].any()
    weight = torch.randn_like(tokens)
    (tokens * weight).sum().backward()
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        if length:
            expected = model(input_ids=ids[row : row + 1, :length]).last_hidden_state[0]
            torch.testing.assert_close(
                tokens[row, :length], expected, rtol=rtol, atol=rtol * expected.abs().max().item()
            )
            (expected * weight[row, :length]).sum().backward()
    mine, theirs = gradients(encoder.net.model), dict(model.named_parameters())
    assert mine.keys() == {name for name in theirs if not name.startswith("pooler")}
    for name, gradient in mine.items():
        wanted = theirs[name].grad
        assert wanted is not None
        scale = max(wanted.abs().max().item(), 1.0)  # the bias of keys has no gradient except rounding errors
        torch.testing.assert_close(gradient, wanted, rtol=rtol, atol=rtol * scale)


def test_a_checkpoint_gives_the_librarys_values_and_gradients(tmp_path: Path) -> None:
    model = random_bert(tmp_path).double()
    encoder = make_encoder(str(tmp_path)).double().eval()
    assert encoder.dim == 8 and encoder.net.pool is None
    assert_equal_to(model, encoder, IDS, IDS > 0, rtol=1e-10)


@pytest.mark.skipif(not MINILM.is_dir(), reason="python scripts/fetch_weights.py brings it")
def test_published_weights_give_the_librarys_values_and_gradients() -> None:
    reader = TextInput(
        tokenizer=str(MINILM), vocab_size=100, max_length=32, lowercase=False, algorithm="bpe", word_dropout=0.0
    )
    reader.fit(CAPTIONS, Path())
    ids, mask = reader.pad([reader.load(text, Path(), seed=0, train=False)[0] for text in CAPTIONS])
    assert mask is not None and mask.sum(dim=1).unique().numel() == 3
    encoder = make_encoder(str(MINILM), "tokens", max_length=32).eval()
    assert encoder.dim == 384 and len(encoder.layers()) == 7
    model = BertModel.from_pretrained(MINILM, dtype=torch.float32).eval()
    assert_equal_to(model, encoder, ids, mask, rtol=1e-5)


@pytest.mark.skipif(not MINILM.is_dir(), reason="python scripts/fetch_weights.py brings it")
def test_published_weights_are_pooled_as_they_were_trained() -> None:
    tokens, mask = make_encoder(str(MINILM)).eval()(IDS, IDS > 0)
    assert tokens.shape == (4, 1, 384) and mask.tolist() == [[True]] * 3 + [[False]]
    full = make_encoder(str(MINILM), "tokens").eval()(IDS, IDS > 0).tokens
    torch.testing.assert_close(tokens[1, 0], full[1, :3].mean(dim=0))


@pytest.mark.parametrize(("pooling", "place"), [("class", 0), ("last", 2)])
def test_one_token_of_many(pooling: str, place: int) -> None:
    torch.manual_seed(0)
    encoder = make_encoder(pooling=pooling)
    tokens, mask = encoder(IDS, IDS > 0)
    encoder.net.pool = None
    full = encoder(IDS, IDS > 0).tokens
    assert torch.equal(tokens[1, 0], full[1, place]) and mask.tolist() == [[True]] * 3 + [[False]]
    assert not tokens[3].any()


@pytest.mark.parametrize(
    ("message", "pooling"),
    [
        ('{"pooling_mode_cls_token": true}', "FirstPool"),
        ('{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}', "MeanPool"),
        ('{"pooling_mode_lasttoken": true}', "LastPool"),
        (None, "NoneType"),
    ],
)
def test_auto_reads_what_sentence_transformers_wrote(tmp_path: Path, message: str | None, pooling: str) -> None:
    random_bert(tmp_path)
    if message is not None:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(message)
    assert type(make_encoder(str(tmp_path)).net.pool).__name__ == pooling


def test_from_scratch_it_has_the_sizes_that_are_asked_for() -> None:
    encoder = make_encoder()
    config = encoder.net.model.config
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (8, 12, 2)
    assert encoder.net.model.embeddings.position_embeddings.weight.shape == (12, 8) and encoder.net.pool is None
    encoder(IDS, IDS > 0).tokens.square().sum().backward()
    gradients(encoder)


def test_what_stands_under_a_false_mask_changes_no_bit() -> None:
    torch.manual_seed(0)
    encoder, mask = make_encoder().train(), IDS > 0

    def run(garbage: int) -> dict[str, Tensor]:
        encoder.zero_grad()
        tokens, valid = encoder(IDS.masked_fill(~mask, garbage), mask)
        tokens.square().sum().backward()
        return {"tokens": tokens.detach(), "mask": valid, **gradients(encoder)}

    assert_same_bits(run(0), run(10**9))


@pytest.mark.parametrize("max_length", [5, 12, 40])
def test_positions_are_as_many_as_the_data_may_need(tmp_path: Path, max_length: int) -> None:
    model = random_bert(tmp_path)
    encoder = make_encoder(str(tmp_path), max_length=max_length).eval()
    positions = encoder.net.model.embeddings.position_embeddings.weight
    before = model.embeddings.position_embeddings.weight
    if max_length <= 12:
        assert torch.equal(positions, before)
        return
    expected = before[torch.arange(40) % 12]
    torch.testing.assert_close(positions, expected)
    ids = torch.randint(1, 30, (1, 40))
    with torch.no_grad():
        model.embeddings.position_embeddings = nn.Embedding.from_pretrained(expected)
        wanted = model(ids, position_ids=torch.arange(40)[None], token_type_ids=torch.zeros_like(ids)).last_hidden_state
    torch.testing.assert_close(encoder(ids, None).tokens, wanted)


def test_weights_of_a_language_model_lack_a_pooler_and_serve(tmp_path: Path) -> None:
    model = BertForMaskedLM(random_bert(tmp_path).config)
    model.save_pretrained(tmp_path)
    encoder = make_encoder(str(tmp_path)).eval()
    expected = model.eval().bert(IDS[:1]).last_hidden_state
    torch.testing.assert_close(encoder(IDS[:1], None).tokens, expected)


def test_layers_are_embeddings_and_blocks() -> None:
    encoder = make_encoder()
    parameters = [p for layer in encoder.layers() for part in layer for p in part.parameters()]
    assert len(encoder.layers()) == 3 and len({id(p) for p in parameters}) == len(parameters)
    assert {id(p) for p in parameters} == {id(p) for p in encoder.parameters()}


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_and_a_batch_of_one(autocast: bool) -> None:
    torch.manual_seed(0)
    encoder = make_encoder().eval()
    exact = encoder(IDS[:1], None).tokens
    encoder.to(torch.float32 if autocast else torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        tokens, mask = encoder(IDS[:1], None)
    assert mask.all()
    torch.testing.assert_close(tokens.float(), exact, rtol=0.1, atol=0.05 * exact.abs().max().item())


def test_dropout_holds_for_weights_too(tmp_path: Path) -> None:
    random_bert(tmp_path)
    for dropout in (0.0, 0.3):
        encoder = make_encoder(str(tmp_path), dropout=dropout)
        assert {m.p for m in encoder.modules() if isinstance(m, nn.Dropout)} == {dropout}


def test_the_tokenizer_comes_with_the_weights() -> None:
    assert BERT.preprocessing(pretrained=None) == BERT.preprocessing(pretrained=False) == {}
    assert BERT.preprocessing(pretrained=True) == {"tokenizer": "bert-base-uncased"}
    assert BERT.preprocessing(pretrained="a/folder") == {"tokenizer": "a/folder"}


def test_what_cannot_be_is_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="pooling = max; set it to auto, tokens, class, mean, last"):
        make_encoder(pooling="max")
    with pytest.raises(ValueError, match="dim = 8 is not divisible by num_heads = 3; set num_heads to 2 or 4"):
        make_encoder(num_heads=3)
    with pytest.raises(
        ValueError, match=r"pretrained = no/such-model cannot be loaded: (.|\n)*set pretrained to a folder"
    ):
        make_encoder("no/such-model")
    with pytest.raises(ValueError, match=r"pretrained = bert-base-uncased cannot be loaded"):
        make_encoder(True)
    RobertaModel(
        RobertaConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)
    ).save_pretrained(tmp_path / "roberta")
    with pytest.raises(ValueError, match=r"the model type of pretrained = .* is roberta; this encoder accepts bert"):
        make_encoder(str(tmp_path / "roberta"))
    random_bert(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    message = "trained with pooling_mode_max_tokens; set pooling to tokens, class, mean, last"
    with pytest.raises(ValueError, match=message):
        make_encoder(str(tmp_path))
