"""The decoder: generation against loops without a cache, inputs, and pretrained weights."""

import itertools
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from mmtrain.layers.decoder import Decoder, DecoderShape, Decoding
from mmtrain.types import Features, TokenTarget
from tests.batches import assert_same_bits, gradients

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
KNOWN = TokenTarget(names=[*MARKS, "a", "dog", "runs", "##s", "."], max_length=8, pad=0, start=2, end=3)
WORDS = [3, 5, 6, 7, 8, 9]  # ids that can be generated, the end token first
READ_DIM, ROWS = 6, torch.arange(5)


def shape_of(**options: Any) -> DecoderShape:
    sizes = {"dim": 8, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0, "dropout": 0.0, "pretrained": None}
    return DecoderShape(**{**sizes, **options})


def decoding_of(method: str = "greedy", **options: Any) -> Decoding:
    plain = {"num_beams": 3, "max_new_tokens": None, "top_p": 1.0, "temperature": 1.0, "length_penalty": 1.0}
    return Decoding(method=method, **{**plain, "no_repeat_ngram_size": 0, "seed": 0, **options})


def make_decoder(known: TokenTarget = KNOWN, **options: Any) -> Decoder:
    """Return a float64 decoder with weights that generate sentences of several lengths."""
    decoder = Decoder(read_dim=READ_DIM, shape=shape_of(**options), known=known)
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.5)
    nn.init.normal_(decoder.model.transformer.wpe.weight, std=2.0)  # otherwise a word repeats itself
    return decoder.double()


def make_read() -> Features:
    """Return five rows: with four tokens, three, one, none, and one in the middle."""
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]], dtype=torch.bool)
    return Features(torch.randn(5, 4, READ_DIM, dtype=torch.float64), mask)


def cut(said: Tensor) -> list[list[int]]:
    """Cut each row after its end token."""
    return [row[: row.index(KNOWN.end) + 1] if KNOWN.end in row else row for row in said.tolist()]


def loop(decoder: Decoder, read: Features, *, longest: int = 7) -> Tensor:
    """Append the best token one at a time, recomputing everything."""
    ids = torch.full((len(read.tokens), 1), KNOWN.start)
    over = torch.zeros(len(ids), dtype=torch.bool)
    for _ in range(longest):
        logits = decoder(ids, read)[:, -1]
        best = torch.tensor(WORDS)[logits[:, WORDS].argmax(dim=1)]
        ids = torch.cat([ids, best.masked_fill(over, KNOWN.pad).unsqueeze(1)], dim=1)
        over |= best == KNOWN.end
        if over.all():
            break
    return ids[:, 1:]


def test_greedy_is_the_best_token_again_and_again() -> None:
    lengths = set()
    for seed in range(16):
        torch.manual_seed(seed)
        decoder, read = make_decoder(), make_read()
        generated = decoder.generate(read, ROWS, decoding_of())
        assert cut(generated) == cut(loop(decoder, read))
        assert set(generated.flatten().tolist()) <= {KNOWN.pad, *WORDS}
        assert decoder.generate(read, ROWS, decoding_of("beam", num_beams=1)).tolist() == generated.tolist()
        lengths |= set(map(len, cut(generated)))
    assert len(lengths) > 3


def test_no_more_tokens_than_asked_for() -> None:
    decoder, read = make_decoder(), make_read()
    generated = decoder.generate(read, ROWS, decoding_of(max_new_tokens=2))
    assert generated.tolist() == loop(decoder, read, longest=2).tolist()


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 3.0])
def test_beams_enough_for_all_find_the_best_of_all_sentences(length_penalty: float) -> None:
    results = set()
    for seed in range(6):
        torch.manual_seed(seed)
        decoder, read = make_decoder(), make_read()
        wide = decoding_of("beam", num_beams=5, max_new_tokens=2, length_penalty=length_penalty)
        generated = decoder.generate(read, ROWS, wide)
        sentences = [(3,), *((a, b) for a, b in itertools.product(WORDS[1:], WORDS))]
        scores = torch.stack([score(decoder, read, s, length_penalty) for s in sentences], dim=1)
        best = [sentences[i] for i in scores.argmax(dim=1).tolist()]
        assert list(map(tuple, cut(generated))) == best
        results |= set(best)
    assert len(results) > 2


def score(decoder: Decoder, read: Features, sentence: tuple[int, ...], length_penalty: float) -> Tensor:
    """Return (B,): log probability / length ** penalty; excluded tokens keep their probability mass."""
    ids = torch.tensor([[KNOWN.start, *sentence]]).expand(len(read.tokens), -1)
    log_probability = decoder(ids[:, :-1], read).log_softmax(dim=-1)
    return log_probability.gather(2, ids[:, 1:, None]).sum(dim=(1, 2)) / len(sentence) ** length_penalty


def test_no_ngram_comes_twice_where_that_is_asked() -> None:
    decoder, read = make_decoder(), make_read()
    with torch.no_grad():
        decoder.model.transformer.wte.weight[KNOWN.end] = 0.0  # makes sentences long
    for size in (1, 2):
        for row in decoder.generate(read, ROWS, decoding_of(no_repeat_ngram_size=size)).tolist():
            words = [t for t in row if t not in (KNOWN.pad, KNOWN.end)]
            ngrams = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
            assert len(set(ngrams)) == len(ngrams)


# ---------------------------------------------------------------- sampled sentences


def test_draws_follow_from_seed_and_row_alone() -> None:
    decoder, read = make_decoder(), make_read()
    before = torch.get_rng_state()
    generated = decoder.generate(read, ROWS, decoding_of("sample"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(77)
    order = torch.tensor([4, 1, 0])
    again = decoder.generate(read.take(order), ROWS[order], decoding_of("sample"))
    width = min(generated.shape[1], again.shape[1])
    assert again[:, :width].tolist() == generated[order, :width].tolist()
    others = [decoder.generate(read, ROWS, decoding_of("sample", seed=seed)).tolist() for seed in (1, 2)]
    assert generated.tolist() not in others
    assert decoder.generate(read, ROWS + 5, decoding_of("sample")).tolist() != generated.tolist()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (2.0, 1.0), (2.0, 0.7)])
def test_draws_come_as_often_as_they_are_likely(temperature: float, top_p: float) -> None:
    decoder, count = make_decoder(), 4000
    read = make_read().take(torch.zeros(count, dtype=torch.long))
    decoding = decoding_of("sample", temperature=temperature, top_p=top_p, max_new_tokens=1)
    generated = decoder.generate(read, torch.arange(count), decoding).flatten()
    logits = decoder(torch.full((1, 1), KNOWN.start), read.take(torch.tensor([0]))).detach()[0, 0, WORDS]
    expected = (logits / temperature).softmax(dim=0)
    order = expected.argsort(descending=True)
    kept = [i for n, i in enumerate(order.tolist()) if expected[order[:n]].sum() < top_p]
    assert (len(kept) < len(WORDS)) == (top_p < 1.0)
    for i, word in enumerate(WORDS):
        share = float(expected[i] / expected[kept].sum()) if i in kept else 0.0
        off = 4 * math.sqrt(share * (1 - share) / count)
        assert float((generated == word).float().mean()) == pytest.approx(share, abs=off + 1e-9)


def test_the_smallest_share_leaves_the_best_token() -> None:
    decoder, read = make_decoder(), make_read()
    generated = decoder.generate(read, ROWS, decoding_of("sample", top_p=1e-6))
    assert generated.tolist() == decoder.generate(read, ROWS, decoding_of()).tolist()


# ------------------------------------------------------------------ inputs


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_what_is_under_a_false_mask_changes_no_bit(garbage: float) -> None:
    decoder, read, ids = make_decoder(), make_read(), torch.randint(2, 10, (5, 4))
    results = []
    for tokens in (read.tokens, read.tokens.masked_fill(~read.mask.unsqueeze(-1), garbage)):
        tokens = tokens.clone().requires_grad_()
        decoder.zero_grad()
        logits = decoder(ids, Features(tokens, read.mask))
        (logits * torch.linspace(-1, 1, logits.numel(), dtype=torch.float64).view_as(logits)).sum().backward()
        generated = decoder.generate(Features(tokens.detach(), read.mask), ROWS, decoding_of("beam"))
        results.append({"logits": logits.detach(), "generated": generated, "tokens": tokens.grad, **gradients(decoder)})
        assert logits.isfinite().all()
        assert not tokens.grad[~read.mask].any()
    assert_same_bits(*results)


def test_a_row_is_the_same_alone_and_beside_longer_ones() -> None:
    decoder, read, ids = make_decoder(), make_read(), torch.randint(2, 10, (5, 6))
    together = decoder(ids, read)
    for row, (length, width) in enumerate([(6, 4), (3, 3), (1, 1), (2, 1), (4, 3)]):
        part = Features(read.tokens[row : row + 1, :width], read.mask[row : row + 1, :width])
        alone = decoder(ids[row : row + 1, :length], part)
        torch.testing.assert_close(alone[0], together[row, :length])


def test_a_token_reads_what_is_there_and_never_looks_ahead() -> None:
    decoder, read, ids = make_decoder(), make_read(), torch.randint(2, 10, (5, 6))
    logits = decoder(ids, read)
    other = Features(torch.randn_like(read.tokens), read.mask)
    assert (decoder(ids, other)[[0, 1, 2, 4]] != logits[[0, 1, 2, 4]]).any(dim=-1).all()
    later = ids.clone()
    later[:, 3:] = torch.randint(2, 10, (5, 3))
    torch.testing.assert_close(decoder(later, read)[:, :3], logits[:, :3])


def test_every_parameter_learns() -> None:
    decoder, read = make_decoder(dropout=0.1), make_read()
    decoder(torch.randint(2, 10, (5, 7)), read).log_softmax(dim=-1)[..., 5].sum().backward()
    assert [name for name, gradient in gradients(decoder).items() if not gradient.any()] == []
    assert decoder.model.lm_head.weight is decoder.model.transformer.wte.weight


def test_it_writes_in_evaluation_mode_and_goes_back() -> None:
    decoder, read = make_decoder(dropout=0.5), make_read()
    expected = decoder.eval().generate(read, ROWS, decoding_of())
    assert not decoder.training
    assert decoder.train().generate(read, ROWS, decoding_of()).tolist() == expected.tolist()
    assert all(module.training for module in decoder.modules())


def test_of_no_row_it_writes_nothing() -> None:
    read = make_read().take(torch.zeros(0, dtype=torch.long))
    assert make_decoder().generate(read, ROWS[:0], decoding_of()).shape == (0, 0)


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_the_library_has_nothing_to_warn_of(method: str, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    decoder, read = make_decoder(), make_read()
    decoder(torch.tensor([[2, 5, 0, 0]] * 5), read)
    decoder.generate(read, ROWS, decoding_of(method))
    logger.removeHandler(caplog.handler)
    assert caplog.records == []


# ---------------------------------------------------------------- pretrained weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Save a GPT-2 of width 12 whose generation config samples."""
    config = GPT2Config(vocab_size=10, n_positions=9, n_embd=12, n_layer=1, n_head=3)
    model = GPT2LMHeadModel(config)
    model.generation_config.do_sample = True
    model.generation_config.temperature = 3.0
    model.save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


def test_weights_are_taken_and_learn_to_read(weights: Path) -> None:
    decoder = Decoder(read_dim=READ_DIM, shape=shape_of(pretrained=str(weights), dropout=0.3), known=KNOWN)
    theirs = GPT2LMHeadModel.from_pretrained(weights).state_dict()
    mine = decoder.model.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in theirs.items())
    new = {name.split(".")[3] for name in mine.keys() - theirs.keys()}
    assert new == {"crossattention", "ln_cross_attn"}
    assert decoder.model.transformer.drop.p == 0.3
    read = Features(torch.randn(5, 4, READ_DIM), make_read().mask)
    generated = [decoder.generate(read, ROWS, decoding_of()).tolist() for _ in range(2)]
    assert generated[0] == generated[1]  # the generation config of the checkpoint has no effect


def test_weights_of_another_vocabulary_are_refused(weights: Path) -> None:
    known = TokenTarget(names=KNOWN.names[:-1], max_length=8, pad=0, start=2, end=3)
    with pytest.raises(ValueError, match=r"has 10 tokens, but the target has 9\n .*that of the weights"):
        Decoder(read_dim=READ_DIM, shape=shape_of(pretrained=str(weights)), known=known)


def test_weights_of_shorter_sentences_are_refused(weights: Path) -> None:
    known = TokenTarget(names=KNOWN.names, max_length=11, pad=0, start=2, end=3)
    with pytest.raises(ValueError, match=r"9 positions, but a target can have 10 tokens; set max_length .* to 10"):
        Decoder(read_dim=READ_DIM, shape=shape_of(pretrained=str(weights)), known=known)


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=10)
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is bert; .* accepts gpt2"):
        Decoder(read_dim=READ_DIM, shape=shape_of(pretrained=str(tmp_path)), known=KNOWN)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "best"}, "method = best; set it to greedy"),
        ({"num_beams": 0}, "num_beams = 0"),
        ({"max_new_tokens": 0}, "max_new_tokens = 0"),
        ({"top_p": 0.0}, "top_p = 0.0"),
        ({"temperature": 0.0}, "temperature = 0.0 .* method=greedy"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size = -1"),
    ],
)
def test_what_cannot_be_written_so_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decoding_of(**options)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dim = 9 is not divisible by decoder.num_heads = 2; set decoder.dim to 10"):
        shape_of(dim=9)
    with pytest.raises(ValueError, match="depth = 0"):
        shape_of(depth=0)
