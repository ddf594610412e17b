"""The video Transformers against plain implementations on each video alone."""

import math

import pytest
import torch
from torch import Tensor, nn

from mmtrain.encoders.video.video_vit import VideoViT
from mmtrain.layers.attention import SelfAttention
from mmtrain.layers.block import Block
from tests.batches import assert_same_bits, gradients

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]).bool()
SHAPE = {
    "num_frames": 5,
    "image_size": 8,
    "patch_size": 4,
    "dim": 6,
    "depth": 2,
    "temporal_depth": 2,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "dropout": 0.0,
    "drop_path": 0.0,
}
both = pytest.mark.parametrize("attention", ["divided", "factorised"])


def make_encoder(attention: str, **options: float) -> VideoViT:
    torch.manual_seed(0)
    encoder = VideoViT(**{**SHAPE, **options}, attention=attention).double()
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    return encoder


def films() -> Tensor:
    return torch.randn(4, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def attention_of(module: SelfAttention, x: Tensor) -> Tensor:
    """Compute attention for (T, D), head by head."""
    query, key, value = torch.einsum("td,ed->te", x, module.qkv.weight).add(module.qkv.bias).chunk(3, dim=1)
    heads = []
    for head in range(2):
        part = slice(3 * head, 3 * head + 3)
        weights = torch.softmax(torch.einsum("td,sd->ts", query[:, part], key[:, part]) / math.sqrt(3), dim=1)
        heads.append(torch.einsum("ts,sd->td", weights, value[:, part]))
    return torch.cat(heads, dim=1) @ module.proj.weight.T + module.proj.bias


def norm_of(module: nn.LayerNorm, x: Tensor) -> Tensor:
    centered = x - x.mean(dim=-1, keepdim=True)
    return centered / (centered.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * module.weight + module.bias


def block_of(block: Block, x: Tensor) -> Tensor:
    """Compute a block for (T, D)."""
    x = x + attention_of(block.attn, norm_of(block.norm1, x))
    inner = norm_of(block.norm2, x) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
    return x + (inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))) @ block.mlp.fc2.weight.T + block.mlp.fc2.bias


def plainly(encoder: VideoViT, film: Tensor, places: list[int]) -> Tensor:
    """Return the tokens (T, dim) of one video (F, 3, 8, 8) with frames at these positions."""
    rows = []
    for picture in film:
        patches = [picture[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] for i in range(2) for j in range(2)]
        tokens = [
            torch.einsum("dchw,chw->d", encoder.patch_embed.weight, p) + encoder.patch_embed.bias for p in patches
        ]
        rows.append(torch.stack(tokens) + encoder.space_embed[0])
    time = encoder.time_embed[0, places]  # (F, D)
    if encoder.divided:
        x = torch.stack(rows) + time[:, None]  # (F, P, D)
        for block in encoder.blocks:
            lines = [x[:, p] + attention_of(block.time_attn, norm_of(block.time_norm, x[:, p])) for p in range(4)]
            x = torch.stack([block_of(block.space, frame) for frame in torch.stack(lines, dim=1)])
        return norm_of(encoder.norm, x.reshape(-1, 6))
    frames = []
    for row in rows:
        for block in encoder.blocks:
            row = block_of(block, row)
        frames.append(norm_of(encoder.frame_norm, row).mean(dim=0))
    x = torch.stack(frames) + time
    for block in encoder.time_blocks:
        x = block_of(block, x)
    return norm_of(encoder.norm, x)


@both
def test_values_and_gradients_are_those_of_each_film_by_itself(attention: str) -> None:
    encoder, values = make_encoder(attention), films()
    tokens, mask = encoder(values, MASK)
    patches = 4 if attention == "divided" else 1
    assert tokens.shape == (4, 4 * patches, 6) and torch.equal(mask, MASK.repeat_interleave(patches, dim=1))
    weight = torch.randn_like(tokens)
    (tokens * weight)[mask].sum().backward()
    result = gradients(encoder)
    encoder.zero_grad()
    for row in range(3):
        expected = plainly(encoder, values[row, MASK[row]], MASK[row].nonzero().squeeze(1).tolist())
        torch.testing.assert_close(tokens[row, mask[row]], expected, rtol=0, atol=1e-11)
        (expected * weight[row, mask[row]]).sum().backward()
    for name, gradient in gradients(encoder).items():
        torch.testing.assert_close(result[name], gradient, rtol=0, atol=1e-10)


@both
@pytest.mark.parametrize("garbage", [math.nan, 1e30])
def test_what_stands_under_a_false_mask_changes_no_bit(attention: str, garbage: float) -> None:
    encoder = make_encoder(attention)

    def run(value: float) -> dict[str, Tensor]:
        encoder.zero_grad()
        leaf = films().masked_fill(~MASK[:, :, None, None, None], value).requires_grad_()
        out = encoder(leaf, MASK).cleared()
        (
            out.tokens * torch.linspace(-1, 1, out.tokens.numel(), dtype=torch.float64).view_as(out.tokens)
        ).sum().backward()
        return {"tokens": out.tokens.detach(), "mask": out.mask, "input": leaf.grad, **gradients(encoder)}

    clean = run(0.0)
    assert all(value.isfinite().all() for value in clean.values()) and not clean["input"][~MASK].any()
    assert_same_bits(clean, run(garbage))


@both
def test_no_frame_reads_one_that_is_not_there(attention: str) -> None:
    """Additional frames under a False mask change nothing, and without a mask all frames are valid."""
    encoder, values = make_encoder(attention), films()
    longer = torch.cat([values, torch.ones_like(values[:, :1])], dim=1)
    short = encoder(values, MASK)
    long = encoder(longer, nn.functional.pad(MASK, (0, 1)))
    torch.testing.assert_close(long.tokens[long.mask], short.tokens[short.mask], rtol=0, atol=1e-12)
    alone = encoder(values[:1], None)
    assert alone.mask.all()
    torch.testing.assert_close(alone.tokens[0], short.tokens[0], rtol=0, atol=1e-12)


def test_layers_are_patches_and_blocks() -> None:
    for attention, count in (("divided", 1 + 2), ("factorised", 1 + 2 + 2)):
        encoder = make_encoder(attention)
        layers = encoder.layers()
        assert len(layers) == count
        parts = [part for layer in layers for part in layer]
        parameters = [id(p) for part in parts for p in (part.parameters() if isinstance(part, nn.Module) else [part])]
        assert len(parameters) == len(set(parameters))
        top = [n for n, p in encoder.named_parameters() if id(p) not in parameters]
        assert top == ["norm.weight", "norm.bias"]


@both
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_runs(attention: str, autocast: bool) -> None:
    encoder = make_encoder(attention).eval()
    exact = encoder(films(), MASK).cleared().tokens
    dtype = torch.float32 if autocast else torch.bfloat16
    encoder.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        tokens = encoder(films().to(dtype), MASK).cleared().tokens
    torch.testing.assert_close(tokens.double(), exact, rtol=0.1, atol=0.1 * exact.abs().max().item())


def test_stochastic_depth_grows_with_depth() -> None:
    assert [b.drop_path.rate for b in make_encoder("divided", drop_path=0.3, depth=3).blocks] == [0.0, 0.15, 0.3]
    factorised = make_encoder("factorised", drop_path=0.3)
    rates = [block.drop_path.rate for block in [*factorised.blocks, *factorised.time_blocks]]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_what_cannot_be_is_refused_with_advice() -> None:
    with pytest.raises(ValueError, match="attention = joint; set it to divided or factorised"):
        make_encoder("joint")
    with pytest.raises(ValueError, match="image_size = 8 is not divisible by patch_size = 3; set patch_size to 2"):
        make_encoder("divided", patch_size=3)
    with pytest.raises(ValueError, match="temporal_depth = 0 is below 1; set it to at least 1"):
        make_encoder("factorised", temporal_depth=0)
    with pytest.raises(ValueError, match="dim = 6 is not divisible by num_heads = 4"):
        make_encoder("divided", num_heads=4)
    message = "a video has 4 frames, but num_frames = 3; use 3 of them, or set num_frames to 4"
    with pytest.raises(ValueError, match=message):
        make_encoder("factorised", num_frames=3)(films(), MASK)
