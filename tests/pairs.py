"""Small pairs of towers with random weights, as a user has them: folders with weights, processor and tokenizer."""

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    BertTokenizer,
    ChineseCLIPImageProcessor,
    ChineseCLIPProcessor,
    ClapFeatureExtractor,
    ClapProcessor,
    CLIPImageProcessor,
    CLIPProcessor,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    Siglip2ImageProcessor,
    Siglip2Processor,
    SiglipImageProcessor,
    SiglipProcessor,
)

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TEXTS = [
    "a red dog",
    "TWO CATS, and a Fox!",
    "",
    "smile 🙂 and fire 🔥",
    " ".join(f"word{number}" for number in range(300)),
]
OPEN_CLIP: dict[str, Any] = {
    "embed_dim": 20,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2},
}
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def clip_tokenizer() -> CLIPTokenizer:
    """Byte-level BPE with CLIP's marks."""
    pieces = [*BYTES, *(f"{c}</w>" for c in BYTES)]
    merges = [("a", "n"), ("d", "o"), ("do", "g</w>"), ("c", "a"), ("ca", "t"), ("r", "e"), ("re", "d</w>")]
    pieces += ["".join(pair) for pair in merges]
    marks = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, *marks])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=12)


def siglip_tokenizer(*, masks_padding: bool = False) -> PreTrainedTokenizerFast:
    """Lower case, an end mark, and a padding id that is not that of the configuration's class."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    marks = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    names = ["input_ids", "attention_mask"] if masks_padding else ["input_ids"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=12, model_input_names=names, **marks)


def bert_tokenizer() -> BertTokenizer:
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = string.ascii_lowercase + string.digits + string.punctuation
    words = [*marks, *letters, *(f"##{c}" for c in letters)]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)}, model_max_length=12)


def randomize(model: nn.Module) -> None:
    """Weights that let every part matter: also biases, norms and positions."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "logit" not in name:
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def _write(folder: Path, kind: str, processor: Any, **config: Any) -> None:
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **config))
    randomize(model)
    with torch.no_grad():
        for name in ("logit_scale", "logit_scale_a", "logit_scale_t"):
            if hasattr(model, name):
                getattr(model, name).fill_(3.2)
        if hasattr(model, "logit_bias"):
            model.logit_bias.fill_(-4.5)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)


def _square(size: int) -> dict[str, int]:
    return {"height": size, "width": size}


def write_clip(folder: Path, **changed: Any) -> None:
    tokenizer = clip_tokenizer()
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 1}
    text = {**SIZES, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": 12} | changed
    vision = {**SIZES, "hidden_size": 24, "image_size": 32, "patch_size": 8}
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=_square(32))
    _write(
        folder, "clip", CLIPProcessor(pictures, tokenizer), text_config=text, vision_config=vision, projection_dim=20
    )


def write_siglip(folder: Path, *, masks_padding: bool = False, **changed: Any) -> None:
    """As SigLIP 2 with a fixed resolution is published: its text configuration has no padding id."""
    tokenizer = siglip_tokenizer(masks_padding=masks_padding)
    text = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 12, "projection_size": 16} | changed
    vision = {**SIZES, "image_size": 32, "patch_size": 8}
    pictures = SiglipImageProcessor(size=_square(32))
    _write(folder, "siglip", SiglipProcessor(pictures, tokenizer), text_config=text, vision_config=vision)


def write_naflex(folder: Path) -> None:
    """SigLIP 2 with variable resolution: up to 256 patches of 16 pixels. Its tokenizer class adds tokens of its own."""
    tokenizer = siglip_tokenizer()
    text = {**SIZES, "vocab_size": len(tokenizer) + 8, "max_position_embeddings": 12, "projection_size": 16}
    vision = {**SIZES, "num_patches": 16, "patch_size": 16}
    pictures = Siglip2ImageProcessor(patch_size=16, max_num_patches=256)
    _write(folder, "siglip2", Siglip2Processor(pictures, tokenizer), text_config=text, vision_config=vision)


def write_chinese_clip(folder: Path) -> None:
    tokenizer = bert_tokenizer()
    text = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 12}
    vision = {**SIZES, "hidden_size": 24, "image_size": 32, "patch_size": 8}
    pictures = ChineseCLIPImageProcessor(size=_square(32), crop_size=_square(32), do_center_crop=False)
    processor = ChineseCLIPProcessor(pictures, tokenizer)
    _write(folder, "chinese_clip", processor, text_config=text, vision_config=vision, projection_dim=20)


def write_altclip(folder: Path) -> None:
    """The positions of its text tower begin after the padding id, as those of RoBERTa."""
    tokenizer = siglip_tokenizer(masks_padding=True)
    text = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 13, "project_dim": 20, "pad_token_id": 0}
    vision = {**SIZES, "hidden_size": 24, "image_size": 32, "patch_size": 8}
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=_square(32))
    from transformers import AltCLIPProcessor

    processor = AltCLIPProcessor(pictures, tokenizer)
    _write(folder, "altclip", processor, text_config=text, vision_config=vision, projection_dim=20)


def write_clap(folder: Path) -> None:
    """Three seconds of sound at 8 kHz; the positions of its text tower begin after the padding id."""
    tokenizer = siglip_tokenizer(masks_padding=True)
    text = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 13, "pad_token_id": 0}
    audio = {"patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 16}
    audio |= {"num_hidden_layers": 2, "spec_size": 64, "num_mel_bins": 32, "patch_size": 4, "patch_stride": [4, 4]}
    audio |= {"window_size": 4, "enable_fusion": False, "projection_hidden_size": 16, "drop_path_rate": 0.0}
    sound = {"feature_size": 32, "sampling_rate": 8000, "hop_length": 200, "fft_window_size": 512, "max_length_s": 3}
    extractor = ClapFeatureExtractor(**sound, frequency_max=4000, truncation="rand_trunc")
    processor = ClapProcessor(extractor, tokenizer)
    _write(folder, "clap", processor, text_config=text, audio_config=audio, projection_dim=20)


WRITERS: dict[str, Callable[..., None]] = {
    "clip": write_clip,
    "siglip": write_siglip,
    "siglip2": write_naflex,
    "chinese_clip": write_chinese_clip,
    "altclip": write_altclip,
}


def write_open_clip(
    folder: Path, config: dict[str, Any] | None = None, *, size: int = 32, mode: str = "shortest"
) -> None:
    """A folder that open_clip loads as local-dir:FOLDER."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    prepared = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic"}
    prepared |= {"resize_mode": mode, "size": size}
    text = json.dumps({"model_cfg": config or OPEN_CLIP, "preprocess_cfg": prepared})
    (folder / "open_clip_config.json").write_text(text)
    if "hf_tokenizer_name" in (config or OPEN_CLIP)["text_cfg"]:
        siglip_tokenizer().save_pretrained(folder)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    randomize(model)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")


def write_pictures(folder: Path) -> list[Path]:
    """Pictures of odd kinds: long and thin, grey, CMYK, turned by EXIF, and usual ones."""
    draws = np.random.default_rng(0)

    def noise(width: int, height: int) -> Image.Image:
        coarse = draws.integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    pictures: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "thin.jpg": (noise(7, 301), {}),
        "grey.jpg": (noise(90, 60).convert("L"), {}),
        "cmyk.jpg": (noise(64, 80).convert("CMYK"), {}),
        "turned.jpg": (noise(120, 50), {"exif": turned}),
        "usual.jpg": (noise(320, 240), {}),
    }
    for name, (picture, options) in pictures.items():
        picture.save(folder / name, quality=95, **options)
    return [folder / name for name in pictures]
