"""From a file to the encoder: pretrained models get the pixels of their own library's processor."""

import copy
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from omegaconf import DictConfig
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from mmtrain.build import build_data, build_model, compose
from mmtrain.config.instantiate import make
from mmtrain.data.dataset import Collate
from mmtrain.data.module import DataModule
from mmtrain.errors import ConfigError
from mmtrain.layers.image_processor import image_settings

SHAPES = ((260, 260), (320, 240), (389, 219), (216, 384), (150, 113))  # square, 4:3, 16:9, portrait, smaller
CLOSE = 0.01  # relative difference between the resize methods of Pillow and torchvision
BLOCKS = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
VIT = {**BLOCKS, "image_size": 224, "patch_size": 32}
STAGES = {"hidden_sizes": [4, 8], "depths": [1, 1], "num_stages": 2, "image_size": 224}
TOWERS = {"vision_config": VIT, "text_config": {**BLOCKS, "vocab_size": 9, "bos_token_id": 1, "eos_token_id": 2}}
# by model type: sizes, and class and settings of the checkpoint's processor
TRANSFORMERS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "clip": ("clip", TOWERS, "CLIPImageProcessor", {}),
    "siglip": ("siglip", TOWERS, "SiglipImageProcessor", {}),
    "siglip_vision": ("siglip_vision_model", VIT, "SiglipImageProcessor", {}),
    "vit": ("vit", VIT, "ViTImageProcessor", {}),
    "deit": ("deit", VIT, "DeiTImageProcessor", {}),
    "beit": ("beit", {**VIT, "use_mask_token": True}, "BeitImageProcessor", {}),
    "beit_crop": ("beit", VIT, "BeitImageProcessor", {"size": {"height": 256, "width": 256}, "do_center_crop": True}),
    "dinov2": ("dinov2", VIT, "BitImageProcessor", {"size": {"shortest_edge": 256}}),
    "dinov3": ("dinov3_vit", VIT, "DINOv3ViTImageProcessor", {}),
    "convnext": ("convnext", STAGES, "ConvNextImageProcessor", {"size": {"shortest_edge": 224}}),
    "convnextv2": ("convnextv2", STAGES, "ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    "swin": (
        "swin",
        {"image_size": 224, "embed_dim": 4, "depths": [1, 1], "num_heads": [1, 2], "window_size": 7},
        "ViTImageProcessor",
        {"resample": 3},
    ),
    "lanczos": ("vit", VIT, "ViTImageProcessor", {"resample": 1}),
    "not_normalized": ("vit", VIT, "ViTImageProcessor", {"do_normalize": False}),
    "other_scale": ("vit", VIT, "ViTImageProcessor", {"rescale_factor": 1 / 127.5}),
}
TIMM = ("resnet18", "convnext_atto", "vit_tiny_patch16_224", "mobilenetv3_small_100", "tf_efficientnet_lite0")
SQUASHED = "convnext_base.clip_laion2b_augreg_ft_in12k_in1k_384"
TORCHVISION = ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "vit_b_32")


HUGGINGFACE = ("encoder/image=huggingface",)
TIMM_WEIGHTS = ("encoder/image=timm", "encoder.image.pretrained=true")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write DIR/{train,val,test}.jsonl with JPEGs of every shape."""
    root = tmp_path_factory.mktemp("pictures")
    for number, (width, height) in enumerate(SHAPES):
        draws = np.random.default_rng(number)
        coarse = Image.fromarray(draws.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(root / f"{number}.jpg", quality=95)
    rows = [json.dumps({"image": f"{number}.jpg", "label": "ab"[number % 2]}) for number in range(len(SHAPES))]
    for split in ("train", "val", "test"):
        (root / f"{split}.jsonl").write_text("\n".join(rows))
    return root


@cache
def composed(tables: Path, *overrides: str) -> DictConfig:
    reads = ["task=[classification]", "task.classification.input=image", "dim=16", "data.batch_size=5"]
    return compose(["data=files", f"data.root={tables}", f"run_dir={tables / 'run'}", *reads, *overrides])


def configuration(tables: Path, *overrides: str, **encoder: Any) -> DictConfig:
    """Compose a command line, and set keys of encoder.image."""
    cfg = copy.deepcopy(composed(tables, *overrides))
    cfg.encoder.image.update(encoder)
    return cfg


def seen(cfg: DictConfig) -> tuple[Tensor, nn.Module]:
    """Return the pixels that the encoder gets from the files, and the encoder."""
    data = build_data(cfg)
    return pixels_of(data, cfg), build_model(cfg, data).encoders["image"].eval()


def pixels_of(data: DataModule, cfg: DictConfig) -> Tensor:
    data.read(Path(cfg.run_dir), training=True)
    split = data.split("test")
    samples = [split[(0, row)] for row in range(len(SHAPES))]
    return Collate(inputs=data.inputs, targets=data.targets).batch(samples).inputs["image"].values


def pictures(tables: Path) -> list[Image.Image]:
    return [Image.open(tables / f"{number}.jpg").convert("RGB") for number in range(len(SHAPES))]


def distance(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    found, expected = found.detach(), expected.detach()
    return float((found - expected).norm() / expected.norm())


def as_tokens(hidden: Tensor) -> Tensor:
    return hidden if hidden.ndim == 3 else hidden.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name: str, tables: Path, tmp_path: Path) -> None:
    kind, sizes, processor, settings = TRANSFORMERS[name]
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **sizes)).eval()
    model.save_pretrained(tmp_path)
    getattr(transformers, processor)(**settings).save_pretrained(tmp_path)
    theirs = AutoImageProcessor.from_pretrained(tmp_path)(images=pictures(tables), return_tensors="pt").pixel_values
    pixels, encoder = seen(configuration(tables, *HUGGINGFACE, pretrained=str(tmp_path)))
    assert distance(pixels, theirs) < CLOSE
    vision = model.vision_model if kind in ("clip", "siglip") else model
    expected = as_tokens(vision(theirs).last_hidden_state)
    assert distance(encoder(pixels).tokens, expected) < 2 * CLOSE


@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str, tables: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = timm.create_model(name, pretrained=False, num_classes=0).eval()
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net))
    theirs = torch.stack([transform(picture) for picture in pictures(tables)])
    weights = str(tmp_path / "weights.safetensors")
    cfg = configuration(tables, *TIMM_WEIGHTS, name=name, pretrained=weights)
    pixels, encoder = seen(cfg)
    assert distance(pixels, theirs) < 1e-6
    assert distance(encoder(pixels).tokens, as_tokens(net.forward_features(theirs))) < 1e-4


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str, tables: Path) -> None:
    wanted = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    theirs = torch.stack([wanted(picture) for picture in pictures(tables)])
    group = "resnet" if name == "resnet18" else "torchvision"
    cfg = configuration(tables, f"encoder/image={group}", "encoder.image.pretrained=true", name=name)
    assert distance(pixels_of(build_data(cfg), cfg), theirs) < 1e-6
    assert cfg.data.inputs.image.size == theirs.shape[-1]


def test_timm_squashes_where_its_model_was_trained_so(tables: Path) -> None:
    cfg = configuration(tables, *TIMM_WEIGHTS, name=SQUASHED)
    wanted = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(SQUASHED).to_dict())
    assert wanted["crop_mode"] == "squash"
    theirs = torch.stack([timm.data.create_transform(**wanted)(picture) for picture in pictures(tables)])
    assert distance(pixels_of(build_data(cfg), cfg), theirs) < 1e-6
    assert cfg.data.inputs.image.size == cfg.encoder.image.image_size == 384


def test_every_film_model_of_torchvision_gets_its_own_geometry(tables: Path) -> None:
    films = {"r3d": "r3d_18", "torchvision": "swin3d_t"}
    for group, name in films.items():
        overrides = [f"encoder/video={group}", f"encoder.video.name={name}", "encoder.video.pretrained=true"]
        cfg = configuration(tables, *overrides, "task.classification.input=video")
        build_data(cfg)
        wanted = torchvision.models.get_model_weights(name).DEFAULT.transforms()
        frames = torch.randint(256, (4, 3, 60, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        listed = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
        result = make(cfg.data.inputs.video, "video").load(listed, tables, seed=0, train=False)
        expected = wanted(frames).transpose(0, 1)  # shape (C, F, H, W)
        assert distance(result[0], expected) < CLOSE


@pytest.mark.parametrize("processor", ["VideoMAEImageProcessor", "VideoMAEVideoProcessor", "VivitImageProcessor"])
def test_films_of_transformers(processor: str, tables: Path, tmp_path: Path) -> None:
    kind = "vivit" if processor.startswith("Vivit") else "videomae"
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    theirs = getattr(transformers, processor)()
    theirs.save_pretrained(tmp_path)
    overrides = ["encoder/video=huggingface", "task.classification.input=video"]
    cfg = configuration(tables, *overrides)
    cfg.encoder.video.pretrained = str(tmp_path)
    build_data(cfg)
    assert cfg.data.inputs.video.size == cfg.encoder.video.image_size == 224
    for width, height in ((320, 180), (128, 160)):
        draws = np.random.default_rng(width)
        coarse = [Image.fromarray(draws.integers(0, 256, (height // 4, width // 4, 3), np.uint8)) for _ in range(8)]
        frames = [picture.resize((width, height), Image.Resampling.BICUBIC) for picture in coarse]
        result = make(cfg.data.inputs.video, "video").load(frames, tables, seed=0, train=False)
        expected = theirs([np.asarray(frame) for frame in frames], return_tensors="pt")["pixel_values"]
        assert distance(result[0], torch.as_tensor(np.asarray(expected))[0].float()) < CLOSE


@pytest.fixture
def vit(tmp_path: Path) -> str:
    """Save a ViT for 48 pixels, with a non-proportional bicubic resize."""
    AutoModel.from_config(AutoConfig.for_model("vit", **{**VIT, "image_size": 48, "patch_size": 16})).save_pretrained(
        tmp_path
    )
    transformers.ViTImageProcessor(size={"height": 48, "width": 48}, resample=3).save_pretrained(tmp_path)
    return str(tmp_path)


def test_size_is_that_of_the_weights_unless_the_command_says_another(tables: Path, vit: str) -> None:
    cfg = configuration(tables, *HUGGINGFACE, pretrained=vit)
    build_data(cfg)
    image = cfg.data.inputs.image
    assert (image.size, image.resize_size, image.interpolation) == (48, [48, 48], "bicubic")
    assert cfg.encoder.image.image_size == 48
    other = configuration(tables, *HUGGINGFACE, "data.inputs.image.size=32", pretrained=vit)
    pixels, encoder = seen(other)
    assert pixels.shape[-2:] == (32, 32) and encoder(pixels).tokens.shape[1] == 1 + 4
    assert other.data.inputs.image.resize_size == [32, 32]
    build_data(other)  # the resolved settings match the weights


def test_a_run_without_keys_of_the_geometry_prepares_pictures_as_it_was_trained(tables: Path, vit: str) -> None:
    cfg = configuration(tables, *HUGGINGFACE, pretrained=vit)
    for key in ("resize_size", "interpolation", "crop_offset"):
        del cfg.data.inputs.image[key]
    cfg.data.inputs.image.size = 64
    build_data(cfg)
    geometry = make(cfg.data.inputs.image, "image").geometry
    assert (geometry.resized, geometry.interpolation, geometry.crop_offset) == (64, "bilinear", "round")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("interpolation=bilinear", r"interpolation = bilinear, but the weights of .* were trained with bicubic\n"),
        ("resize_size=48", r"resize_size = 48, but the weights of .* were trained with \[48, 48\]\n"),
        ("crop_offset=round", r"crop_offset = round, but the weights of .* were trained with floor\n"),
    ],
)
def test_another_geometry_than_that_of_the_weights_is_refused(
    tables: Path, vit: str, override: str, message: str
) -> None:
    requested = [*HUGGINGFACE, f"data.inputs.image.{override}"]
    with pytest.raises(ConfigError, match=rf"data\.inputs\.image\.{message}    set data\.inputs\.image\.\w+ to auto"):
        build_data(configuration(tables, *requested, pretrained=vit))


def test_frames_of_films_have_the_size_of_their_own_encoder(tables: Path, vit: str) -> None:
    requested = ["encoder/image@encoder.video.image=huggingface", f"encoder.video.image.pretrained={vit}"]
    cfg = configuration(tables, *requested, "task.classification.input=video")
    build_data(cfg)
    assert cfg.data.inputs.video.size == cfg.encoder.video.image.image_size == 48
    assert cfg.data.inputs.image.size == cfg.encoder.image.image_size == 64


def test_from_scratch_auto_is_64_pixels_and_bilinear(tables: Path) -> None:
    cfg = configuration(tables)
    assert cfg.data.inputs.image.size == cfg.data.inputs.video.size == cfg.encoder.image.image_size == 64
    build_data(cfg)
    image = cfg.data.inputs.image
    assert (image.resize_size, image.interpolation, image.crop_offset) == (None, "bilinear", "round")


# preprocessor_config.json as it was published before processors had sizes by name; the geometry that it means
PUBLISHED: dict[str, tuple[dict[str, Any], int, int | list[int], str]] = {
    "clip": ({"feature_extractor_type": "CLIPFeatureExtractor", "resample": 3, "crop_size": 224}, 224, 224, "bicubic"),
    "vit": ({"feature_extractor_type": "ViTFeatureExtractor", "resample": 2}, 224, [224, 224], "bilinear"),
    "deit": (
        {"feature_extractor_type": "DeiTFeatureExtractor", "resample": 3, "size": 256, "crop_size": 224},
        224,
        [256, 256],
        "bicubic",
    ),
    "convnext": (
        {"feature_extractor_type": "ConvNextFeatureExtractor", "resample": 3, "crop_pct": 0.875},
        224,
        256,
        "bicubic",
    ),
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_older_files_of_processors_mean_what_the_library_reads_in_them(kind: str, tmp_path: Path) -> None:
    changed, size, resize_size, interpolation = PUBLISHED[kind]
    settings = {"do_resize": True, "size": 224, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, **changed}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    result = image_settings(str(tmp_path))
    assert (result["size"], result["resize_size"], result["interpolation"]) == (size, resize_size, interpolation)


Processor = Callable[[], Any]


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (lambda: transformers.Siglip2ImageProcessor(), r"\(Siglip2ImageProcessor\) resizes images to no fixed size"),
        (
            lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 48}),
            r"was trained on images of \{'height': 32, 'width': 48\}; this encoder accepts squares",
        ),
        (lambda: transformers.ViTImageProcessor(do_resize=False), r"\(ViTImageProcessor\) resizes .* no fixed size"),
        (
            lambda: transformers.CLIPImageProcessor(do_resize=False, crop_size=32),
            r"\(CLIPImageProcessor\) resizes images to no fixed size",
        ),
        (
            lambda: transformers.MobileViTImageProcessor(),
            r"\(MobileViTImageProcessor\) prepares images in a way .*: 96 x 64 pixels become \(3, 256, 256\), here",
        ),
        (
            lambda: transformers.DPTImageProcessor(do_pad=True, size_divisor=100, size={"height": 32, "width": 32}),
            r"\(DPTImageProcessor\) .* become \(3, 100, 100\), here \(3, 32, 32\) with other values\n    set",
        ),
    ],
)
def test_what_the_inputs_cannot_do_is_explained(
    processor: Processor, message: str, tables: Path, tmp_path: Path
) -> None:
    processor().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=message):
        build_data(configuration(tables, *HUGGINGFACE, pretrained=str(tmp_path)))
