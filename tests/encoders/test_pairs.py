"""Pretrained pairs: from files and sentences to the similarities, the loss and the gradients of their own library."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from transformers import AutoModel, AutoProcessor
from transformers.image_utils import load_image

from mmtrain.build import build_data, build_model, compose
from mmtrain.data.dataset import Collate
from mmtrain.errors import ConfigError
from mmtrain.layers.transformers_pair import FAMILIES
from mmtrain.model import MultimodalModel
from mmtrain.modes.search.towers import Towers
from mmtrain.types import Batch
from tests.pairs import TEXTS, WRITERS, write_clip, write_pictures, write_siglip

KINDS = [*WRITERS, "siglip with a mask"]
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs by kind, and tables of odd pictures and texts."""
    root = tmp_path_factory.mktemp("pairs")
    for kind, write in WRITERS.items():
        write(root / kind)
    write_siglip(root / "siglip with a mask", masks_padding=True)
    rows = [
        {"image": file.name, "text": text or "a blank", "label": "ab"[number % 2]}
        for number, (file, text) in enumerate(zip(write_pictures(root), TEXTS, strict=True))
    ]
    for split in ("train", "val", "test"):
        (root / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def composed(folder: Path, kind: str, *overrides: str) -> DictConfig:
    given = ["encoder=clip", f"encoder.pretrained='{folder / kind}'", "data=files", f"data.root={folder}"]
    given += [f"run_dir={folder / 'run'}", "data.batch_size=5", "task=[contrastive]"]
    return compose([*given, *overrides])


def built(cfg: DictConfig) -> tuple[MultimodalModel, Any]:
    data = build_data(cfg)
    data.read(Path(cfg.run_dir), training=True)
    return build_model(cfg, data), data


class Theirs:
    """The library's model, and its processor's tensors of the pictures and texts of the test."""

    def __init__(self, folder: Path, kind: str) -> None:
        place = str(folder / kind)
        self.model: Any = AutoModel.from_pretrained(place).eval()
        self.processor: Any = AutoProcessor.from_pretrained(place)
        self.padding = "max_length" if kind.startswith("siglip") else True

    def tensors(self, pictures: list[Path], texts: list[str]) -> Any:
        images = [load_image(str(file)) for file in pictures]
        options = {"padding": self.padding, "truncation": True, "max_length": 12}
        return self.processor(text=texts, images=images, return_tensors="pt", **options)


def distance(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


def logits(model: MultimodalModel, images: Tensor, texts: Tensor) -> Tensor:
    task: Any = model.tasks["contrastive"]
    return task.scale * images @ texts.T + (0.0 if task.bias is None else task.bias)


@every_kind
@torch.no_grad()
def test_similarities_before_the_first_step(kind: str, folder: Path) -> None:
    model, data = built(composed(folder, kind))
    towers = Towers(model, data.inputs, where="test")
    pictures = write_pictures(folder)
    ours = logits(model, towers.encode("image", [str(file) for file in pictures]), towers.encode("text", TEXTS))
    theirs = Theirs(folder, kind)
    expected = theirs.model(**theirs.tensors(pictures, TEXTS)).logits_per_image
    assert expected.std() > 0.1
    assert distance(ours, expected) < 1e-5


def their_names(model: MultimodalModel, kind: str) -> dict[str, str]:
    """By name of a parameter of ours, that of theirs."""
    family = FAMILIES[kind.split()[0]]
    names: dict[str, str] = {"tasks.contrastive.log_scale": "logit_scale", "tasks.contrastive.bias": "logit_bias"}
    for modality, parts in family.towers.items():
        inside = "net" if modality == "image" else "net.model"
        names[f"encoders.{modality}.{inside}."] = f"{parts.model}."
        names |= {f"encoders.{modality}.projection.head.{i}.": f"{name}." for i, name in enumerate(parts.head)}
    found = {}
    for name, _ in model.named_parameters():
        start = max((prefix for prefix in names if name.startswith(prefix)), key=len)
        found[name] = names[start] + name.removeprefix(start)
    return found


@every_kind
def test_loss_and_gradients_of_the_first_step(kind: str, folder: Path) -> None:
    """The library's loss has one caption per picture, so the rows are different."""
    model, data = built(composed(folder, kind))
    model.double().eval()  # the library's models have dropout, too
    model.tasks["contrastive"].train()
    batch = double(batch_of(data))
    pictures = [folder / json.loads(line)["image"] for line in (folder / "val.jsonl").read_text().splitlines()]
    texts = [json.loads(line)["text"] for line in (folder / "val.jsonl").read_text().splitlines()]
    (total, count) = model.losses(batch)["contrastive"]
    (total / count).backward()
    theirs = Theirs(folder, kind)
    tensors = theirs.tensors(pictures, texts)
    tensors["pixel_values"] = tensors["pixel_values"].double()
    theirs.model.double()
    loss = theirs.model(**tensors, return_loss=True).loss
    loss.backward()
    assert float(total / count) == pytest.approx(float(loss), rel=1e-6)
    expected = dict(theirs.model.named_parameters())
    largest = max(float(p.grad.norm()) for p in expected.values() if p.grad is not None)
    used = their_names(model, kind)
    for name, parameter in model.named_parameters():
        gradient = expected[used[name]].grad
        assert parameter.grad is not None and gradient is not None, name
        error = (parameter.grad.reshape(gradient.shape) - gradient).norm()
        assert error <= 1e-5 * gradient.norm() + 1e-8 * largest, name
    rest = [n for n, p in expected.items() if n not in used.values() and p.grad is not None and p.grad.any()]
    assert rest == []


def batch_of(data: Any) -> Batch:
    """The rows of the validation split, without filler rows."""
    split = data.split("val")
    samples = [split[(0, row)] for row in range(len(TEXTS))]
    return Collate(inputs=data.inputs, targets=data.targets).batch(samples)


def double(batch: Batch) -> Batch:
    return batch.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


@every_kind
def test_towers_feed_any_fusion_and_every_parameter_learns(kind: str, folder: Path) -> None:
    model, data = built(composed(folder, kind, "task=[contrastive,classification]", "dim=16"))
    alone, _ = built(composed(folder, kind, "task=[classification]", "dim=16"))
    for network in (model, alone):
        batch = batch_of(data)
        losses = network.losses(batch)
        sum((total for total, _ in losses.values()), torch.zeros(())).backward()
        assert [n for n, p in network.named_parameters() if p.grad is None] == []
    assert not [name for name, _ in alone.named_parameters() if "projection" in name and "encoders" in name]


def test_a_third_modality_learns_to_the_space_of_a_frozen_pair(folder: Path) -> None:
    """Two towers are frozen with their projections, and the third has a projection of its own."""
    frozen = ["encoder.image.freeze=true", "encoder.text.freeze=true"]
    mix = ["task.contrastive.modalities=[image,text,vector]", "+data.columns.vector=[size]"]
    for split in ("train", "val", "test"):
        lines = (folder / f"{split}.jsonl").read_text().splitlines()
        rows = [json.loads(line) | {"size": number / 7} for number, line in enumerate(lines)]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model, data = built(composed(folder, "clip", *frozen, *mix))
    total, count = model.losses(batch_of(data))["contrastive"]
    (total / count).backward()
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning and all(n.startswith(("encoders.vector.", "tasks.contrastive.")) for n in learning)
    assert set(model.tasks["contrastive"].projections) == {"vector"}


def test_new_projections_on_request(folder: Path) -> None:
    model, _ = built(composed(folder, "clip", "task.contrastive.projection=new", "task.contrastive.embed_dim=8"))
    task: Any = model.tasks["contrastive"]
    assert set(task.projections) == {"image", "text"} and task.scale.item() == pytest.approx(10.0)
    assert isinstance(model.encoders["image"], nn.Module) and model.encoders["image"].projection is None


def write_other(folder: Path, kind: str) -> Path:
    """A folder with a fault, and what the message says of it."""
    place = folder / f"fault {kind}"
    write_clip(place)
    config = json.loads((place / "config.json").read_text())
    if kind == "vocabulary":
        write_clip(place, vocab_size=100)
    elif kind == "end":
        write_clip(place, eos_token_id=7)
    elif kind == "no pair":
        (place / "config.json").write_text(json.dumps(config["vision_config"] | {"model_type": "vit"}))
    return place


@pytest.mark.parametrize(
    ("kind", "overrides", "message"),
    [
        ("vocabulary", (), r"encoder\.text: .*its tokenizer has ids up to 520, but its text tower has 100 tokens"),
        ("end", (), r"encoder\.text: .*is id 520 for its tokenizer, but id 7 for its text tower"),
        ("no pair", (), r"encoder\.image: the model type of pretrained = .* is vit; this encoder accepts clip, siglip"),
        ("", ("data.inputs.text.max_length=40",), r"max_length = 40, but .* has positions for 12 tokens"),
        ("", ("task.contrastive.embed_dim=64",), r"embed_dim = 64, but encoder\.image projects to 20 dimensions"),
    ],
)
def test_faults_are_explained_before_data_is_read(
    kind: str, overrides: tuple[str, ...], message: str, folder: Path
) -> None:
    place = write_other(folder, kind) if kind else folder / "clip"
    given = ["encoder=clip", f"encoder.pretrained='{place}'", "data=files", "data.root=there/is/none"]
    with pytest.raises(ConfigError, match=message):
        build_data(compose([*given, "task=[contrastive]", *overrides]))


def test_towers_of_two_pairs_have_no_common_projection(folder: Path) -> None:
    other = folder / "other"
    write_clip(other)
    cfg = composed(folder, "clip", f"encoder.text.pretrained={other}")
    with pytest.raises(
        ConfigError, match=r"projection=auto: the towers are of different pairs: encoder\.image \(\S+clip\)"
    ):
        build_data(cfg)
    with pytest.raises(ConfigError, match=r"there is no such folder"):
        build_data(composed(folder, "nothing"))
