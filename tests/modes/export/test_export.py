"""What is written for others gives the same output in a process that does not have this project."""

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from peft import LoraConfig
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer, AutoVideoProcessor

from mmtrain.encoders.audio.huggingface import HuggingFaceAudio
from mmtrain.encoders.image.huggingface import HuggingFaceImage
from mmtrain.encoders.image.timm import Timm
from mmtrain.encoders.image.vit import ViT
from mmtrain.encoders.text.huggingface import HuggingFaceText
from mmtrain.encoders.vector.mlp import VectorMLP
from mmtrain.errors import ConfigError
from mmtrain.fusion.concat import Concat
from mmtrain.layers.finetuning import Tuning, tune
from mmtrain.model import MultimodalModel
from mmtrain.modes.export.export import export_encoder, export_model, export_preprocessing, merge_adapters
from mmtrain.types import Batch, Features, View
from tests.batches import IMAGE_SIZE, make_encoders, make_model, random_batch
from tests.data.inputs.test_video import video_input
from tests.data.parts import fitted_text_input, image_input, text_input
from tests.encoders.small_models import BLOCKS, SIZES, SMALL
from tests.runs import run_tiny
from tests.tiny import make_tables

ROOT = Path(__file__).parents[3]

LOADING = """
import sys
import torch
program = torch.export.load(sys.argv[1]).module()
torch.save([program(*arguments) for arguments in torch.load(sys.argv[2])], sys.argv[3])
assert not any(name.split(".")[0] == "mmtrain" for name in sys.modules)
"""


def outputs_elsewhere(folder: Path, arguments: list[tuple[object, ...]]) -> list[object]:
    """What the exported program gives in a process of its own."""
    torch.save(arguments, folder / "arguments.pt")
    command = [sys.executable, "-P", "-c", LOADING, "model.pt2", "arguments.pt", "outputs.pt"]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    return torch.load(folder / "outputs.pt", weights_only=True)


def full_batches() -> list[Batch]:
    """Of several sizes, rows that have everything."""
    batches = [random_batch(seed, size=size) for seed, size in enumerate((4, 1, 7))]
    return [b.map(lambda t: torch.ones_like(t) if t.dtype is torch.bool and t.ndim == 1 else t) for b in batches]


def tensors(batch: Batch) -> dict[str, dict[str, Tensor]]:
    padded = batch.inputs.items()
    return {m: {"values": p.values} | ({} if p.mask is None else {"mask": p.mask}) for m, p in padded}


def with_presence(batch: Batch) -> dict[str, dict[str, Tensor]]:
    return {m: kept | {"present": batch.present[m]} for m, kept in tensors(batch).items()}


@pytest.mark.parametrize("modality", ["image", "text"])
def test_an_encoder_elsewhere(modality: str, tmp_path: Path) -> None:
    encoder = {**make_encoders(), "image": vit(8, image_size=IMAGE_SIZE)}[modality].double()
    inputs = [tensors(batch)[modality] for batch in full_batches()]
    code = export_encoder(encoder, inputs[0], tmp_path)
    assert "torch.export.load" in code
    theirs = outputs_elsewhere(tmp_path, [tuple(given.values()) for given in inputs])
    for given, (tokens, mask) in zip(inputs, theirs, strict=True):
        mine = encoder(given["values"], given.get("mask")).cleared()
        assert torch.equal(tokens, mine.tokens) and torch.equal(mask, mine.mask)


def test_a_whole_model_elsewhere(tmp_path: Path) -> None:
    model = make_model().eval()
    batches = full_batches()
    export_model(model, tensors(batches[0]), tmp_path)
    theirs = outputs_elsewhere(tmp_path, [(with_presence(batch),) for batch in batches])
    for batch, predictions in zip(batches, theirs, strict=True):
        mine = model(batch)
        assert set(predictions) == {"contrastive", "classification"}
        torch.testing.assert_close(predictions["classification"], mine["classification"], rtol=0, atol=1e-12)
        for modality, vectors in predictions["contrastive"].items():
            torch.testing.assert_close(vectors, mine["contrastive"][modality], rtol=0, atol=1e-6)


def test_a_whole_model_takes_rows_that_miss_modalities(tmp_path: Path) -> None:
    """The same predictions as here, for any values of a row without image or text, also NaN."""
    model = make_model(fusion="cross_attn", tasks=["classification"]).eval()
    export_model(model, tensors(full_batches()[0]), tmp_path)
    program = torch.export.load(tmp_path / "model.pt2").module()
    for seed in range(4):
        batch = random_batch(seed, size=5)
        given = with_presence(batch)
        image = given["image"]
        image["values"] = image["values"].masked_fill(~image["present"].view(-1, 1, 1, 1), torch.nan)
        assert not all(bool(kept["present"].all()) for kept in given.values())
        torch.testing.assert_close(program(given)["classification"], model(batch)["classification"], rtol=0, atol=1e-12)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["tasks"] == ["classification"]
    assert config["inputs"]["image"]["present"] == {"dtype": "bool", "shape": ["rows"]}
    assert config["inputs"]["text"]["values"] == {"dtype": "int64", "shape": ["rows", "length"]}


def test_missing_numbers_of_an_export_are_nan(tmp_path: Path) -> None:
    """They become 0 as in the loader; a row of them alone is a missing modality."""
    encoder = VectorMLP(in_dim=3, dim=8, num_tokens=2, hidden_dim=8, depth=1, dropout=0.0).eval()
    values = torch.tensor([[1.0, torch.nan, 2.0], [torch.nan] * 3, [0.5, -1.0, torch.nan]])
    export_encoder(encoder, {"values": torch.zeros(2, 3)}, tmp_path / "part", fills_gaps=True)
    tokens, _ = torch.export.load(tmp_path / "part" / "model.pt2").module()(values)
    torch.testing.assert_close(tokens, encoder(values.nan_to_num()).tokens)
    fusion = Concat(dims={"vector": 8}, dim=8, hidden_dim=8, dropout=0.0, missing="identity")
    model = MultimodalModel(encoders={"vector": encoder}, fusion=fusion, tasks={"label": Head()}).eval()
    export_model(model, {"vector": {"values": torch.zeros(2, 3)}}, tmp_path / "complete", with_gaps=["vector"])
    program = torch.export.load(tmp_path / "complete" / "model.pt2").module()
    present = torch.ones(3, dtype=torch.bool)
    fused = program({"vector": {"values": values, "present": present}})["label"]
    assert fused.isfinite().all()
    present = torch.tensor([True, False, True])
    assert torch.equal(fused, program({"vector": {"values": values.nan_to_num(), "present": present}})["label"])


class Head(nn.Module):
    """A task that returns the fused tokens."""

    def forward(self, view: View) -> Tensor:
        return view.fused().tokens


def test_a_model_without_anything_to_say_of_a_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no task predicts one row independently\n    fix: export an encoder"):
        export_model(make_model(tasks=["matching"]), {}, tmp_path)


def test_adapters_are_merged() -> None:
    encoder = make_encoders()["text"].double().eval()
    names = set(encoder.state_dict())
    tune(encoder, Tuning(peft=LoraConfig(r=2, init_lora_weights=False)))
    values = full_batches()[0].inputs["text"]
    before = encoder(*values).tokens
    merge_adapters(encoder)
    torch.testing.assert_close(encoder(*values).tokens, before, rtol=0, atol=1e-7)
    assert set(encoder.state_dict()) == names


class Unclear(nn.Module):
    """Its output's shape is a number that no graph knows."""

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.zeros(int(values.sum().item() * 3) % 5 + 1)


def test_what_torch_cannot_follow_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"torch\.export cannot trace ExportableEncoder"):
        export_encoder(Unclear(), {"values": torch.randn(2, 3)}, tmp_path)


LOADING_OTHERS = """
import sys
import timm
import torch
import transformers
import transformers.models.whisper.modeling_whisper
for name, code, arguments in torch.load("arguments.pt"):
    torch.save(eval(code, {**globals(), **arguments}), f"{name}.pt")
assert not any(name.split(".")[0] == "mmtrain" for name in sys.modules)
"""
CLIP_TEXT = {"model_type": "clip_text_model", "vocab_size": 20, "eos_token_id": 2, "pad_token_id": 0, **SIZES}
IMAGE = torch.randn(2, 3, 32, 32)


def vit(color_features: int, image_size: int = 32) -> ViT:
    """With a factor for what attention and MLP add."""
    options = {"dropout": 0.0, "drop_path": 0.0, "layer_scale": 0.1, "pretrained": None, **BLOCKS}
    return ViT(image_size=image_size, patch_size=image_size // 4, dim=8, color_features=color_features, **options)


def words(encoder: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    ids = torch.randint(3, 20, (3, 8))
    mask = torch.arange(8) < torch.tensor([[8], [3], [1]])
    return encoder, {"values": ids, "mask": mask}


OTHERS: dict[str, Callable[[], tuple[nn.Module, dict[str, Tensor]]]] = {
    "timm": lambda: (Timm(name="convnext_atto", pretrained=None, image_size=32, drop_path=0.0), {"values": IMAGE}),
    "timm, sized": lambda: (
        Timm(name="deit3_small_patch16_224", pretrained=None, image_size=32, drop_path=0.1),
        {"values": IMAGE},
    ),
    "vit": lambda: (vit(0), {"values": IMAGE}),
    "image/huggingface": lambda: (
        HuggingFaceImage(
            pretrained=None, image_size=32, config={"model_type": "clip_vision_model", "patch_size": 8, **SIZES}
        ),
        {"values": IMAGE},
    ),
    "bert": lambda: words(SMALL["text/bert"](0.0)),
    "text/huggingface": lambda: words(SMALL["text/huggingface"](0.0)),
    "lengthened": lambda: words(
        HuggingFaceText(
            pretrained=None, max_length=8, pooling="auto", config={"max_position_embeddings": 5, **CLIP_TEXT}
        )
    ),
    "video/huggingface": lambda: (
        SMALL["video/huggingface (timesformer)"](0.0),
        {"values": torch.randn(2, 6, 3, 8, 8)},
    ),
    "audio/huggingface": lambda: (
        SMALL["audio/huggingface (hubert)"](0.0),
        {"values": F.layer_norm(torch.randn(2, 200), (200,), eps=1e-7)},
    ),
}


def load_elsewhere(folder: Path, exported: list[tuple[str, str, dict[str, Tensor]]]) -> None:
    """Names, the code that each export printed, and what goes in; what comes out of a process of its own is NAME.pt."""
    torch.save(exported, folder / "arguments.pt")
    subprocess.run([sys.executable, "-P", "-c", LOADING_OTHERS], cwd=folder, check=True, timeout=300)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Features, Tensor]]:
    """Of each encoder, what it says here and what the library says that loads its files."""
    folder = tmp_path_factory.mktemp("exports")
    mine, exported = {}, []
    for number, (name, make) in enumerate(OTHERS.items()):
        encoder, given = make()
        encoder = encoder.eval()
        for parameter in encoder.parameters():  # what starts as zero is something, too
            nn.init.normal_(parameter, std=0.1)
        code = export_encoder(encoder, given, folder / str(number))
        assert {"model.safetensors", "config.json"} <= {path.name for path in (folder / str(number)).iterdir()}
        exported.append((str(number), code, given))
        mine[name] = encoder(given["values"], given.get("mask"))
    load_elsewhere(folder, exported)
    theirs = [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(len(OTHERS))]
    return dict(zip(mine, zip(mine.values(), theirs, strict=True), strict=True))


@pytest.mark.parametrize("name", OTHERS)
def test_by_the_library_that_knows_the_architecture(name: str, elsewhere: dict[str, tuple[Features, Tensor]]) -> None:
    mine, theirs = elsewhere[name]
    theirs = theirs.flatten(2).transpose(1, 2) if theirs.ndim == 4 else theirs
    torch.testing.assert_close(theirs[mine.mask], mine.tokens[mine.mask], rtol=1e-5, atol=1e-5)


def test_a_vit_with_features_of_colour_is_a_program(tmp_path: Path) -> None:
    assert "torch.export.load" in export_encoder(vit(8), {"values": IMAGE}, tmp_path)


def test_the_encoder_of_whisper_by_the_library(tmp_path: Path) -> None:
    config = {"model_type": "whisper", "d_model": 8, "encoder_layers": 1, "encoder_attention_heads": 2}
    encoder = HuggingFaceAudio(
        pretrained=None, sample_rate=16000, config={**config, "encoder_ffn_dim": 12, "decoder_attention_heads": 2}
    ).eval()
    sound = torch.randn(1, 30 * 16000)
    code = export_encoder(encoder, {"values": sound, "mask": torch.ones(1, 30 * 16000).bool()}, tmp_path)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    spectrograms = extractor(sound[0].numpy(), sampling_rate=16000, return_tensors="pt").input_features
    torch.testing.assert_close(spectrograms, encoder.net.mel(sound).transpose(1, 2), rtol=1e-4, atol=1e-4)
    load_elsewhere(tmp_path, [("whisper", code, {"spectrograms": spectrograms})])
    theirs = torch.load(tmp_path / "whisper.pt", weights_only=True)
    torch.testing.assert_close(theirs, encoder(sound, None).tokens, rtol=1e-5, atol=1e-5)


def test_what_the_training_split_taught_goes_with_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program needs the class of each logit, and how numbers were scaled."""
    tables = make_tables(tmp_path / "data")
    for path in tables.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row | {"b": n % 5, "a": 2.5 * n}) + "\n" for n, row in enumerate(rows)))
    requested = ["task=[classification,regression]", "data.columns.vector=[b,a]", "trainer.max_steps=1"]
    run, out = tmp_path / "run", tmp_path / "out"
    assert run_tiny(tables, run, *requested) == 0
    for words in ([], ["--part", "text"]):
        monkeypatch.setattr(sys, "argv", ["export.py", str(run), "--out", str(out / str(len(words))), *words])
        runpy.run_path(str(ROOT / "scripts" / "export.py"))["main"]()
    full, text = ({p.name for p in (out / name).iterdir()} for name in ("0", "2"))
    learned = {"tokenizer.json", "scale_vector.json", "classes_label.json", "numbers_number.json"}
    assert full & {p.name for p in run.iterdir()} == learned and text & learned == {"tokenizer.json"}
    for name in learned:
        assert (out / "0" / name).read_bytes() == (run / name).read_bytes()
    prepared = json.loads((out / "0" / "preprocessing.json").read_text())
    assert prepared["vector"]["columns"] == ["b", "a"] and prepared["image"]["size"] == 16
    assert json.loads((out / "2" / "preprocessing.json").read_text()).keys() == {"text"}


PICTURES = [Image.effect_noise(size, 90).convert("RGB") for size in ((70, 70), (90, 60), (60, 107), (31, 20))]
GEOMETRIES: dict[str, dict[str, Any]] = {
    "from scratch": {},
    "cropped": {"resize_size": 36, "interpolation": "bicubic", "crop_offset": "floor"},
    "squashed": {"resize_size": [32, 32], "interpolation": "lanczos"},
    "squashed and cropped": {"resize_size": [40, 40], "interpolation": "bicubic", "crop_offset": "floor"},
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_transformers_prepares_pictures_as_the_encoder_was_trained(name: str, tmp_path: Path) -> None:
    encoder, given = OTHERS["image/huggingface"]()
    kind = image_input(size=32, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6], **GEOMETRIES[name])
    export_encoder(encoder, given, tmp_path)
    export_preprocessing(kind, tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    for picture in PICTURES:
        mine, _ = kind.load(picture, tmp_path, seed=0, train=False)
        theirs = processor(images=picture, return_tensors="pt").pixel_values[0]
        assert (mine - theirs).norm() < 0.02 * mine.norm()


@pytest.mark.parametrize("name", GEOMETRIES)
def test_timm_prepares_pictures_as_the_encoder_was_trained(name: str, tmp_path: Path) -> None:
    encoder = Timm(name="resnet10t", pretrained=None, image_size=32, drop_path=0.0)
    geometry = GEOMETRIES[name] | {"crop_offset": "round"}
    kind = image_input(size=32, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6], **geometry)
    export_encoder(encoder, {"values": IMAGE}, tmp_path)
    export_preprocessing(kind, tmp_path)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    for picture in PICTURES:
        mine, _ = kind.load(picture, tmp_path, seed=0, train=False)
        torch.testing.assert_close(transform(picture), mine, rtol=1e-5, atol=1e-5)


def test_transformers_prepares_films_as_the_encoder_was_trained(tmp_path: Path) -> None:
    encoder, given = OTHERS["video/huggingface"]()
    kind = video_input(size=8, resize_size=10, interpolation="bicubic", crop_offset="floor")
    export_encoder(encoder, given, tmp_path)
    export_preprocessing(kind, tmp_path)
    mine = kind.load([PICTURES[1]] * 4, tmp_path, seed=0, train=False)
    assert mine is not None
    processor = AutoVideoProcessor.from_pretrained(tmp_path)
    theirs = processor([np.asarray(PICTURES[1])] * 4, return_tensors="pt").pixel_values[0]
    assert (mine[0] - theirs).norm() < 0.02 * theirs.norm()


@pytest.mark.parametrize("trained_here", [True, False])
def test_transformers_has_the_tokenizer_of_the_training(trained_here: bool, tmp_path: Path) -> None:
    kind = fitted_text_input()
    if not trained_here:
        kind.to_transformers().save_pretrained(tmp_path / "weights")
        kind = text_input(tokenizer=str(tmp_path / "weights"), max_length=6)
        kind.fit([], tmp_path)
    encoder, given = OTHERS["bert"]()
    export_encoder(encoder, given, tmp_path / "out")
    export_preprocessing(kind, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("a red cat", "two BLUE bires and a dog, a dog and a very long list of sheep", "ein Fuß"):
        mine, _ = kind.load(text, tmp_path, seed=0, train=False)
        assert tokenizer(text, truncation=True).input_ids == mine.tolist()
    padded = tokenizer(["a red cat", "cat"], padding=True).input_ids
    loaded = [kind.load(text, tmp_path, seed=0, train=False)[0] for text in ("a red cat", "cat")]
    assert padded == kind.pad(loaded).values.tolist()


@pytest.mark.parametrize("pooling", ["tokens", "last"])
def test_the_code_of_siglip_pads_as_it_was_trained(pooling: str, tmp_path: Path) -> None:
    config = {"model_type": "siglip_text_model", "vocab_size": 20, "projection_size": 8, **SIZES}
    config |= {"max_position_embeddings": 12, "bos_token_id": 2, "eos_token_id": 3}
    encoder, given = words(HuggingFaceText(pretrained=None, max_length=10, pooling=pooling, config=config))
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    code = export_encoder(encoder, given, tmp_path)
    theirs = eval(code, {"torch": torch, "transformers": transformers, **given})
    mine = encoder(given["values"], given["mask"])
    if pooling == "tokens":
        torch.testing.assert_close(theirs[mine.mask], mine.tokens[mine.mask])
    else:
        assert code.endswith("# its last over all 12 places is the one token")
        torch.testing.assert_close(theirs[:, -1], mine.tokens[:, 0])
