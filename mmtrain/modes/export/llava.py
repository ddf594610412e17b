"""Exports a trained language model that reads images in the LLaVA architecture of transformers.

LlavaForConditionalGeneration computes the same as an image encoder of transformers, the MLP connector and any causal
LM of transformers. The export compares the logits of both, up to rounding, before it reports success.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from mmtrain.data.inputs.image import ImageInput
from mmtrain.data.targets.chat import ChatTarget
from mmtrain.encoders.image.huggingface import HuggingFaceImage
from mmtrain.errors import ConfigError
from mmtrain.fusion.connectors.mlp import MLPConnector
from mmtrain.layers.decoder import generation_config
from mmtrain.model import MultimodalModel
from mmtrain.modes.export.export import image_processor, merge_adapters
from mmtrain.tasks.language_model import LanguageModel
from mmtrain.tasks.policy import writer_of

POSITIONS = "embeddings.position_embedding.weight"  # of CLIP's image encoder
CLOSE = 1e-4  # logits may differ by another order of summation


def export_chat(model: MultimodalModel, task: str, picture: ImageInput, dialogues: ChatTarget, folder: Path) -> str:
    """Write model, tokenizer and processor in the format of transformers.

    Args:
        model: in evaluation mode; adapters in it are merged into their weights.
        task: name of the language model among its tasks.
        picture: preprocessing of images.
        dialogues: tokenization of dialogues.
        folder: created if it does not exist.

    Returns:
        The code that loads the model.

    Raises:
        ConfigError: if the components do not fit this architecture; the message has the difference.
    """
    head = writer_of(model.tasks[task])
    assert isinstance(head, LanguageModel)
    if head.reads != ("image",):
        raise ConfigError(f"task.{task}: reads {', '.join(head.reads)}, but transformers' LLaVA reads only images")
    tower, connector = model.encoders["image"], head.connectors["image"]
    if not isinstance(tower, HuggingFaceImage) or not isinstance(connector, MLPConnector):
        raise ConfigError(
            f"transformers has no model with {type(tower).__name__} and {type(connector).__name__}: its LLaVA needs"
            " encoder/image=huggingface and connector=mlp\n"
            "    fix: load the run with mmtrain.modes.chat.pipeline"
        )
    merge_adapters(model)
    llava = _llava(tower, connector, head, picture.size)
    _try(llava, model, head, picture.size)
    known = head.known
    llava.generation_config = generation_config(
        head.decoding,
        max_new_tokens=head.decoding.max_new_tokens or known.max_length,
        never=head.lm.never,
        start=None,
        end=known.end,
        pad=known.pad,
    )
    folder.mkdir(parents=True, exist_ok=True)
    llava.save_pretrained(folder)
    _processor(tower, picture, dialogues).save_pretrained(folder)
    return f'transformers.LlavaForConditionalGeneration.from_pretrained("{folder}")'


def _llava(tower: HuggingFaceImage, connector: MLPConnector, head: LanguageModel, size: int) -> Any:
    lm: Any = head.lm.model
    with torch.no_grad():
        length = tower(torch.zeros(1, 3, size, size)).tokens.shape[1]
    text = deepcopy(lm.config)
    text.tie_word_embeddings = False  # LLaVA expects a shared table under its name in a LLaMA
    marks: dict[str, Any] = {"pad_token_id": head.known.pad, "eos_token_id": head.known.end}
    config = LlavaConfig(
        vision_config=_resized(tower.net.config, size),
        text_config=text,
        image_token_index=head.known.places["image"],
        image_seq_length=length,
        projector_hidden_act="gelu",
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        **marks,
    )
    llava: Any = LlavaForConditionalGeneration(config)
    inner = llava.model
    _load(inner.vision_tower, _positions_resized(tower, size))
    inner.multi_modal_projector.linear_1.load_state_dict(connector.mlp.fc1.state_dict())
    inner.multi_modal_projector.linear_2.load_state_dict(connector.mlp.fc2.state_dict())
    _load(inner.language_model, lm.base_model.state_dict())
    llava.lm_head.load_state_dict(lm.get_output_embeddings().state_dict())
    return llava.eval()


def _resized(config: Any, size: int) -> Any:
    """The configuration of an encoder for another image size than that of its weights."""
    config = deepcopy(config)
    config.image_size = size
    return config


@torch.no_grad()
def _positions_resized(tower: HuggingFaceImage, size: int) -> dict[str, Tensor]:
    """Weights of the encoder, with learned positions interpolated to a size, as in each of its forward passes.

    Raises:
        ConfigError: if it has no positions that can be interpolated here.
    """
    weights, net = tower.net.state_dict(), tower.net
    if size == net.config.image_size:
        return weights
    if POSITIONS not in weights:
        kind = net.config.model_type
        raise ConfigError(
            f"data.inputs.image.size={size}: the weights of the encoder are for {net.config.image_size} pixels, and"
            f" positions of a {kind} cannot be resized here\n"
            "    fix: train with data.inputs.image.size=auto, or load the run with mmtrain.modes.chat.pipeline"
        )
    patches = (size // net.config.patch_size) ** 2
    empty = weights[POSITIONS].new_zeros(1, 1 + patches, weights[POSITIONS].shape[1])
    return weights | {POSITIONS: net.embeddings.interpolate_pos_encoding(empty, size, size)[0]}


def _load(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load weights. Parts that are not needed may be missing in the trained model."""
    unknown = model.load_state_dict(weights, strict=False).unexpected_keys
    if unknown:
        raise ConfigError(f"transformers' {type(model).__name__} has no weight {unknown[0]}")


@torch.no_grad()
def _try(llava: Any, model: MultimodalModel, head: LanguageModel, size: int) -> None:
    """Compare logits for a made-up dialogue about a made-up image.

    Raises:
        ConfigError: if they differ.
    """
    known = head.known
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    tokens, mask = head.connectors["image"](model.encoders["image"](pixels, None).cleared())
    words = torch.arange(len(known.names))[:8]
    words = words[~torch.isin(words, torch.tensor([*known.places.values(), known.pad]))]
    embeds = torch.cat([tokens[0][mask[0]], head.lm.embed(words)])[None]
    mine: Tensor = head.lm.model(inputs_embeds=embeds).logits
    places = torch.full((embeds.shape[1] - len(words),), known.places["image"])
    theirs: Tensor = llava(input_ids=torch.cat([places, words])[None], pixel_values=pixels).logits
    if not torch.allclose(mine, theirs, rtol=CLOSE, atol=CLOSE):
        kind = llava.config.vision_config.model_type
        raise ConfigError(
            f"transformers' LLaVA uses another layer of a {kind} than this model:"
            f" logits differ by {float((mine - theirs).abs().max()):.2g}\n"
            "    fix: train with an encoder of type clip_vision_model, or load the run with mmtrain.modes.chat.pipeline"
        )


def _processor(tower: HuggingFaceImage, picture: ImageInput, dialogues: ChatTarget) -> LlavaProcessor:
    with torch.no_grad():
        length = tower(torch.zeros(1, 3, picture.size, picture.size)).tokens.shape[1]
    patch = tower.net.config.patch_size
    dialogues.tokenizer.chat_template = dialogues.chosen_template
    return LlavaProcessor(
        image_processor=image_processor(picture),
        tokenizer=dialogues.tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=length - (picture.size // patch) ** 2,
        image_token="<image>",
        chat_template=dialogues.chosen_template,
    )
