"""Pairs of open_clip: similarities of raw files, loss and gradients, and the way back, against open_clip itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from PIL import Image, ImageOps
from torch import Tensor

from mmtrain.build import build_data, build_model, compose
from mmtrain.data.dataset import Collate
from mmtrain.errors import ConfigError
from mmtrain.layers.finetuning import Tuning, tune
from mmtrain.modes.export.pair import export_pair
from mmtrain.modes.search.towers import Towers
from tests.pairs import OPEN_CLIP, TEXTS, write_open_clip, write_pictures

VISION, TEXT = OPEN_CLIP["vision_cfg"], OPEN_CLIP["text_cfg"]
OF_TIMM = {"image_size": 224, "timm_model_name": "resnet18", "timm_pool": "avg", "timm_proj": "linear"}
OF_SIGLIP = {
    "vocab_size": 400,
    "hf_tokenizer_name": ".",
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
}
POOLED = {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 8, "output_tokens": True}
DECODER = {"context_length": 15, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2, "attn_pooler_heads": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "vit": OPEN_CLIP,
    "resnet": {"embed_dim": 20, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}, "text_cfg": TEXT},
    "siglip": {
        "embed_dim": 24,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": OF_TIMM,
        "text_cfg": {**TEXT, **OF_SIGLIP, "tokenizer_kwargs": {"clean": "canonicalize"}},
    },
    "coca": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": {**VISION, **POOLED},
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True, "context_length": 15},
        "multimodal_cfg": DECODER,
    },
}
every_kind = pytest.mark.parametrize("kind", CONFIGS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of open_clip by kind, and a table of odd pictures."""
    place = tmp_path_factory.mktemp("open_clip")
    for kind, config in CONFIGS.items():
        size, mode = (224, "squash") if kind == "siglip" else (32, "shortest")
        write_open_clip(place / kind, config, size=size, mode=mode)
    rows = [json.dumps({"image": f.name, "text": t or "x"}) for f, t in zip(write_pictures(place), TEXTS, strict=True)]
    for split in ("train", "val", "test"):
        (place / f"{split}.jsonl").write_text("\n".join(rows))
    return place


def built(root: Path, kind: str, *overrides: str) -> tuple[Any, Any]:
    given = ["encoder=open_clip", f"encoder.name='local-dir:{root / kind}'", "encoder.pretrained=null", "data=files"]
    given += [f"data.root={root}", "task=[contrastive]", "data.batch_size=5", f"run_dir={root / 'run' / kind}"]
    cfg = compose([*given, *overrides])
    data = build_data(cfg)
    data.read(Path(cfg.run_dir), training=True)
    return build_model(cfg, data), data


class Theirs:
    """The pair in open_clip, with its transforms and its tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.model, self.transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
        self.tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")

    def vectors(self, files: list[Path], texts: list[str]) -> tuple[Tensor, Tensor]:
        pixels = torch.stack([self.transform(ImageOps.exif_transpose(Image.open(file))) for file in files])
        images = self.model.encode_image(pixels.to(self.model.logit_scale.dtype), normalize=True)
        return images, self.model.encode_text(self.tokenizer(texts), normalize=True)

    def logits(self, files: list[Path], texts: list[str]) -> Tensor:
        images, texts_ = self.vectors(files, texts)
        bias = getattr(self.model, "logit_bias", None)
        result: Tensor = self.model.logit_scale.exp() * images @ texts_.T + (0.0 if bias is None else bias)
        return result


@every_kind
@torch.no_grad()
def test_similarities_before_the_first_step_and_after_an_export(kind: str, root: Path, tmp_path: Path) -> None:
    model, data = built(root, kind)
    towers, task, files = Towers(model, data.inputs, where="test"), model.tasks["contrastive"], write_pictures(root)
    images, texts = towers.encode("image", [str(file) for file in files]), towers.encode("text", TEXTS)
    ours = task.scale * images @ texts.T + (0.0 if task.bias is None else task.bias)
    theirs = Theirs(root / kind)
    theirs.model.eval()
    expected = theirs.logits(files, TEXTS)
    assert (ours - expected).norm() < 1e-5 * expected.norm()
    export_pair(model, data.inputs, tmp_path / "out", library="open_clip")
    again = Theirs(tmp_path / "out")
    again.model.eval()
    assert torch.equal(again.logits(files, TEXTS), expected)


@pytest.mark.parametrize(("kind", "loss"), [("vit", ClipLoss()), ("siglip", SigLipLoss())])
def test_loss_and_gradients_of_the_first_step(kind: str, loss: Callable[..., Tensor], root: Path) -> None:
    model, data = built(root, kind)
    split = data.split("val")
    batch = Collate(inputs=data.inputs, targets=data.targets).batch([split[(0, row)] for row in range(len(TEXTS))])
    batch = batch.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    model.double().encoders.eval()
    total, count = model.losses(batch)["contrastive"]
    (total / count).backward()
    theirs = Theirs(root / kind)
    theirs.model.double().eval()
    images, texts = theirs.vectors(write_pictures(root), [text or "x" for text in TEXTS])
    scale = theirs.model.logit_scale.exp()
    options = {} if kind == "vit" else {"logit_bias": theirs.model.logit_bias}
    expected = loss(images, texts, scale, **options)
    expected.backward()
    assert float(total / count) == pytest.approx(float(expected), rel=1e-6)
    gradients = {name: p.grad for name, p in theirs.model.named_parameters() if p.grad is not None}
    compared = set()
    for name, parameter in model.named_parameters():
        own = {"tasks.contrastive.log_scale": "logit_scale", "tasks.contrastive.bias": "logit_bias"}
        key = own.get(name, name.split(".net.")[-1])
        wanted, got = gradients[key], parameter.grad
        assert got is not None and (got.reshape(wanted.shape) - wanted).norm() <= 1e-6 * wanted.norm() + 1e-9, name
        compared.add(key)
    assert compared == set(gradients)


def test_layers_can_be_frozen(root: Path) -> None:
    model, _ = built(root, "vit")
    tower = model.encoders["text"]
    tune(tower, Tuning(freeze=1))
    frozen = {name for name, p in tower.named_parameters() if not p.requires_grad}
    assert {"net.token_embedding.weight", "net.positional_embedding"} <= frozen
    assert all(".resblocks.0." in n or "embedding" in n for n in frozen)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("encoder.name=ViT-B-23",), r"name = ViT-B-23 is no architecture of open_clip; set it to ViT-B-32"),
        (("encoder.name=ViT-B-32", "encoder.pretrained=mine"), r"neither a file nor a tag of ViT-B-32; .*openai"),
        (("data.inputs.text.max_length=9",), r"texts of local-dir:\S+ have 16 tokens; set .*max_length to auto"),
        (("data.inputs.image.size=48",), r"was trained with 32; set it to 32"),
    ],
)
def test_faults(overrides: tuple[str, ...], message: str, root: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        built(root, "vit", *overrides)
