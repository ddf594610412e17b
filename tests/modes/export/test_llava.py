"""An exported language model answers in a process that has transformers and not this project, with the same tokens."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from PIL import Image
from torch import nn
from transformers import AutoConfig, AutoModel, AutoProcessor, LlavaForConditionalGeneration

from mmtrain.data.dataset import Collate
from mmtrain.data.inputs.image import ImageInput
from mmtrain.data.targets.chat import ChatTarget
from mmtrain.encoders.image.huggingface import HuggingFaceImage
from mmtrain.errors import ConfigError
from mmtrain.fusion.connectors.mlp import MLPConnector
from mmtrain.fusion.connectors.perceiver import PerceiverConnector
from mmtrain.model import MultimodalModel
from mmtrain.modes.export.llava import export_chat
from mmtrain.tasks.language_model import LanguageModel
from mmtrain.types import Sample
from tests.data.parts import plain_image_input
from tests.dialogues import CONFIGS, decoding_of, source_of

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "patch_size": 8}
QUESTIONS = ["what is this?", "which color has it?", "why?"]
ELSEWHERE = """
import json, sys
sys.modules["mmtrain"] = None
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration
model = LlavaForConditionalGeneration.from_pretrained(sys.argv[1])
processor = AutoProcessor.from_pretrained(sys.argv[1])
said = []
for number, question in enumerate(json.loads(sys.argv[2])):
    turns = [{"role": "user", "content": f"<image>{question}"}]
    text = processor.apply_chat_template(turns, add_generation_prompt=True)
    picture = Image.open(f"{number}.png")
    inputs = processor(images=picture, text=text, add_special_tokens=False, return_tensors="pt")
    ids = model.generate(**inputs)
    said.append(ids[0, inputs["input_ids"].shape[1] :].tolist())
print(json.dumps(said))
"""


def make_parts(kind: str, tower: str, **options: Any) -> tuple[MultimodalModel, ImageInput, ChatTarget]:
    torch.manual_seed(0)
    plain = {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_scale": 1.0, "rotate": 0.0, "flip": 0.0, "color_jitter": 0.0}
    picture = ImageInput(size=16, **plain, background=[255] * 3, max_pixels=10**6)
    facts = {"prompt": "<image>{question}", "tokenizer": None, "template": None, "placeholders": ["image"]}
    facts |= {"keep_references": False}
    chat = ChatTarget(column_roles=["question", "answer"], vocab_size=300, max_length=128, **facts)
    chat.fit([[question, "a red square"] for question in QUESTIONS], Path())
    image = HuggingFaceImage(pretrained=None, config={"model_type": tower, **SIZES}, image_size=16)
    task = LanguageModel(
        **{
            "dims": {"image": image.dim},
            "known_targets": {"chat": chat.known},
            "encoders": {"image": nn.Identity()},
            "target": "chat",
            "modalities": ["image"],
            "weight": 1.0,
            "label_smoothing": 0.0,
            "lm": source_of(config={**CONFIGS[kind], "max_position_embeddings": 128}),
            "connector": partial(MLPConnector),
            "pack": None,
            "decoding": decoding_of(max_new_tokens=12),
            "generate_every": 1,
            "tokenize": "13a",
            **options,
        }
    )
    model = MultimodalModel(encoders={"image": image}, fusion=None, tasks={"chat": task})
    for name, parameter in model.tasks.named_parameters():
        if "norm" not in name and "ln_" not in name:
            nn.init.normal_(parameter, std=0.5)
    return model.eval(), picture, chat


def answered(model: MultimodalModel, picture: ImageInput, chat: ChatTarget, folder: Path) -> list[list[int]]:
    """The tokens that are written here, of three pictures of as many pixels as the model sees."""
    samples = []
    for number, question in enumerate(QUESTIONS):
        pixels = torch.randint(256, (16, 16, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
        loaded, _ = picture.load(f"{number}.png", folder, seed=0, train=False)
        value = chat.load([question, None])
        assert value is not None
        samples.append(Sample(id=str(number), row=number, inputs={"image": loaded}, targets={"chat": value}))
    batch = Collate(inputs={"image": picture}, targets={"chat": chat}).batch(samples)
    task: Any = model.tasks["chat"]
    results = []
    for row in range(len(samples)):
        requested = task.prompts(model.view(batch)).take(torch.tensor([row]))
        ids = task.generate(requested, torch.tensor([row]), task.decoding)[0].tolist()
        results.append(ids[: ids.index(chat.known.end) + 1] if chat.known.end in ids else ids)
    return results


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
def test_it_answers_with_the_same_tokens_elsewhere(kind: str, tmp_path: Path) -> None:
    model, picture, chat = make_parts(kind, "clip_vision_model", lm=source_of(
        config={**CONFIGS[kind], "max_position_embeddings": 128}, peft=LoraConfig(r=2) if kind == "qwen2" else None
    ))  # fmt: skip
    wanted = answered(model, picture, chat, tmp_path)
    assert len({tuple(ids) for ids in wanted}) > 1
    code = export_chat(model, "chat", picture, chat, tmp_path / "out")
    assert code == f'transformers.LlavaForConditionalGeneration.from_pretrained("{tmp_path / "out"}")'
    command = [sys.executable, "-P", "-c", ELSEWHERE, "out", json.dumps(QUESTIONS)]
    output = subprocess.run(command, cwd=tmp_path, check=True, timeout=200, capture_output=True, text=True).stdout
    assert json.loads(output.splitlines()[-1]) == wanted


def test_what_transformers_has_no_architecture_for_is_said(tmp_path: Path) -> None:
    connector = partial(PerceiverConnector, num_latents=2, depth=1, num_heads=2, mlp_ratio=1.0, dropout=0.0)
    model, picture, chat = make_parts("llama", "clip_vision_model", connector=connector)
    with pytest.raises(ConfigError, match="no model with HuggingFaceImage and PerceiverConnector"):
        export_chat(model, "chat", picture, chat, tmp_path)


def test_a_tower_of_which_another_layer_would_be_read_is_said(tmp_path: Path) -> None:
    model, picture, chat = make_parts("llama", "siglip_vision_model")
    with pytest.raises(ConfigError, match="uses another layer of a siglip_vision_model"):
        export_chat(model, "chat", picture, chat, tmp_path)


@pytest.mark.parametrize(("trained", "seen"), [(32, 16), (16, 24)])
def test_a_tower_that_sees_another_size_than_its_weights(trained: int, seen: int, tmp_path: Path) -> None:
    model, picture, chat = make_parts("llama", "clip_vision_model")
    tower = AutoModel.from_config(AutoConfig.for_model("clip_vision_model", image_size=trained, **SIZES))
    tower.save_pretrained(tmp_path / "tower")
    model.encoders["image"] = HuggingFaceImage(pretrained=str(tmp_path / "tower"), config=None, image_size=seen)
    picture = plain_image_input(size=seen)
    export_chat(model.eval(), "chat", picture, chat, tmp_path / "out")  # which compares the logits
    written = LlavaForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert written.config.vision_config.image_size == seen
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    pixels = Image.effect_noise((60, 40), 90).convert("RGB")
    theirs = processor.image_processor(images=pixels, return_tensors="pt").pixel_values[0]
    mine, _ = picture.load(pixels, tmp_path, seed=0, train=False)
    assert (mine - theirs).norm() < 0.02 * mine.norm()
