"""Batches and models small enough to check by hand. What a row holds is a function of its content key."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmtrain.config.instantiate import construct
from mmtrain.encoders.image.vit import ViT
from mmtrain.encoders.text.transformer import TextTransformer
from mmtrain.model import MultimodalModel
from mmtrain.tasks.classification import Classification
from mmtrain.tasks.contrastive import Contrastive
from mmtrain.tasks.masked_image import MaskedImage
from mmtrain.tasks.masked_text import MaskedText
from mmtrain.tasks.matching import Matching
from mmtrain.types import Batch, ClassTarget, Padded, Vocabulary
from tests.fusions import FUSED_DIM, FUSIONS

IMAGE_SIZE, LENGTH, VOCABULARY, DIM = 8, 5, 20, FUSED_DIM
CLASSES = ["a", "b", "c"]

IDS = Vocabulary(names=[str(i) for i in range(VOCABULARY)], special=frozenset({0}), mask=VOCABULARY - 1)
CONTRASTIVE: dict[str, Any] = {
    "embed_dim": DIM,
    "temperature": 0.2,
    "min_temperature": 0.01,
    "dropout": 0.0,
    "loss": "info_nce",
    "bias": -10.0,
    "queue_size": 0,
    "chunk_size": 1024,
    "exchange": "gather",
}


def make_batch(image: Sequence[int], text: Sequence[int], label: Sequence[int] | None = None, first: int = 0) -> Batch:
    """One row for each place of the lists.

    Args:
        image: content keys; 0 for none, -k for a row that knows content k and does not carry it.
        text: the same.
        label: classes; -1 for none.
        first: number of the first row.
    """
    size = len(image)
    labels = torch.tensor(label if label is not None else [-1] * size)
    ids = torch.stack([_ids(key) for key in text])
    return Batch(
        ids=[f"row-{first + i}" for i in range(size)],
        rows=torch.arange(first, first + size),
        inputs={
            "image": Padded(torch.stack([_picture(key) for key in image]), None),
            "text": Padded(ids, ids > 0),
        },
        present={"image": torch.tensor(image) > 0, "text": torch.tensor(text) > 0},
        targets={"label": labels.clamp(min=0)},
        labelled={"label": labels >= 0},
        keys={"image": torch.tensor(image).abs(), "text": torch.tensor(text).abs()},
        draws=torch.arange(first, first + size) * 7919 + 17,
    )


def random_batch(seed: int, size: int = 8, first: int = 0, contents: int = 6) -> Batch:
    """Rows with random gaps and shared contents; about half of them have both sides."""
    draw = random.Random(seed)

    def side() -> list[int]:
        return [draw.choice((1, 1, 1, 1, 0, -1)) * draw.randint(1, contents) for _ in range(size)]

    return make_batch(side(), side(), [draw.randint(-1, len(CLASSES) - 1) for _ in range(size)], first)


def _picture(key: int) -> Tensor:
    if key <= 0:
        return torch.zeros(3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.float64)
    generator = torch.Generator().manual_seed(key)
    return torch.randn(3, IMAGE_SIZE, IMAGE_SIZE, generator=generator, dtype=torch.float64)


def _ids(key: int) -> Tensor:
    """1 to LENGTH ids, padded with 0."""
    ids = torch.zeros(LENGTH, dtype=torch.long)
    if key > 0:
        generator = torch.Generator().manual_seed(1000 + key)
        length = 1 + key % LENGTH
        ids[:length] = torch.randint(1, VOCABULARY, (length,), generator=generator)
    return ids


def make_encoders() -> dict[str, nn.Module]:
    """A ViT and a text Transformer of one block each."""
    shape = {"dim": DIM, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0, "dropout": 0.0, "layer_scale": None}
    return {
        "image": ViT(image_size=IMAGE_SIZE, patch_size=4, drop_path=0.0, color_features=0, pretrained=None, **shape),
        "text": TextTransformer(vocab_size=VOCABULARY, max_length=LENGTH, **shape),
    }


def make_fusion(name: str, dims: Mapping[str, int]) -> nn.Module:
    """A fusion by its name on the command line."""
    return FUSIONS[name](dims=dict(dims))


def make_tasks(names: Sequence[str], **contrastive: Any) -> dict[str, nn.Module]:
    """Tasks by their names on the command line; `image_class` is a classification that reads the image alone."""
    dims = {"image": DIM, "text": DIM, "fused": DIM}
    known = {"label": ClassTarget(names=CLASSES, counts=[3, 2, 1])}
    head = {"dims": dims, "known_targets": known, "target": "label", "weight": 0.5, "dropout": 0.0}
    head |= {"loss": "cross_entropy", "focal_gamma": 2.0, "class_weights": None, "mixup": 0.0, "cutmix": 0.0}
    pair = {"dims": dims, "modalities": ["image", "text"], "weight": 1.0}
    masked: dict[str, Any] = {"dims": dims, "vocabularies": {"text": IDS}, "modality": "text"}
    masked |= {"mask_ratio": 0.3, "num_heads": 2, "weight": 1.0}
    makers = {
        "contrastive": lambda: Contrastive(**CONTRASTIVE | contrastive, **pair),
        "classification": lambda: construct(Classification, input="fused", label_smoothing=0.1, **head),
        "image_class": lambda: construct(Classification, input="image", label_smoothing=0.0, **head),
        "masked_text": lambda: MaskedText(input="text", **masked),
        "masked_fusion": lambda: MaskedText(input="fused", **masked),
        "masked_image": lambda: MaskedImage(
            dims=dims,
            encoders=make_encoders(),
            input="image",
            mask_ratio=0.5,
            decoder_dim=8,
            decoder_depth=1,
            decoder_num_heads=2,
            weight=1.0,
        ),
        "matching": lambda: Matching(
            hard_negatives_from="contrastive", hard_negative_ratio=0.5, negatives="global", dropout=0.0, **pair
        ),
    }
    return {name: makers[name]() for name in names}


def make_model(
    *, tasks: Sequence[str] = ("contrastive", "classification", "matching"), fusion: str | None = "cross_attn"
) -> MultimodalModel:
    """A float64 model without dropout, in training mode, with weights that depend on nothing that ran before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoders = make_encoders()
        fuse = None if fusion is None else make_fusion(fusion, dict.fromkeys(encoders, DIM))
        model = MultimodalModel(encoders=encoders, fusion=fuse, tasks=make_tasks(tasks))
        for parameter in model.parameters():  # an exact zero (biases, class token) would hide what depends on it
            nn.init.normal_(parameter, std=0.3)
    return model.double()


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter's gradient by name; a parameter without one fails."""
    missing = [name for name, p in module.named_parameters() if p.grad is None]
    assert missing == []
    return {name: p.grad.clone() for name, p in module.named_parameters()}


def assert_same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Equal to the last bit, by name."""
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
