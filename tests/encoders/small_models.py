"""Encoders of other libraries in the smallest sizes, and our own video encoders, by modality/name."""

from collections.abc import Callable
from typing import Any, cast

from torch import nn

from mmtrain.encoders.audio.clap import CLAPAudio
from mmtrain.encoders.audio.huggingface import HuggingFaceAudio
from mmtrain.encoders.image.clip import CLIPImage
from mmtrain.encoders.text.bert import BERT
from mmtrain.encoders.text.clip import CLIPText
from mmtrain.encoders.text.huggingface import HuggingFaceText
from mmtrain.encoders.text.lstm import TextLSTM
from mmtrain.encoders.video.huggingface import HuggingFaceVideo
from mmtrain.encoders.video.video_vit import VideoViT

BLOCKS = {"depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
CONVOLUTIONS = {
    "conv_dim": [4, 6],
    "conv_kernel": [6, 3],
    "conv_stride": [4, 2],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
NO_OTHER_DROPOUT = {"attention_dropout": 0.0, "activation_dropout": 0.0, "feat_proj_dropout": 0.0}


def speech(kind: str, **more: Any) -> Callable[[float], nn.Module]:
    """Dropout applies to the outputs of attention and MLP."""
    config = {"model_type": kind, **CONVOLUTIONS, **SIZES, **NO_OTHER_DROPOUT, **more}
    return lambda dropout: HuggingFaceAudio(
        pretrained=None, sample_rate=1000, config={**config, "hidden_dropout": dropout}
    )


def film(kind: str, **more: Any) -> Callable[[float], nn.Module]:
    """Return a builder for six frames."""
    config = {"model_type": kind, **SIZES, "attention_probs_dropout_prob": 0.0, **more}
    return lambda dropout: HuggingFaceVideo(
        pretrained=None, num_frames=6, image_size=8, config={**config, "hidden_dropout_prob": dropout}
    )


def video_vit(attention: str) -> Callable[[float], nn.Module]:
    """Return a builder for six frames."""
    sizes = {"num_frames": 6, "image_size": 8, "patch_size": 4, "dim": 8, "temporal_depth": 1, **BLOCKS}
    return lambda dropout: VideoViT(attention=attention, dropout=dropout, drop_path=0.0, **sizes)


def modern_bert(dropout: float) -> nn.Module:
    """A model without learned positions."""
    dropouts = {"attention_dropout": dropout, "embedding_dropout": dropout}
    config = {"model_type": "modernbert", "pad_token_id": 0, "vocab_size": 20, **SIZES, **dropouts}
    return HuggingFaceText(pretrained=None, max_length=8, pooling="auto", config=config)


def pair(config: dict[str, Any], dropout: float) -> dict[str, Any]:
    """Options of a tower of a CLIP; it has dropout in the attention only."""
    sizes = {**SIZES, "attention_dropout": dropout}
    text = {**sizes, "vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2}
    vision = {**sizes, "image_size": 8, "patch_size": 4}
    both = {"model_type": "clip", "text_config": text, "vision_config": vision, "projection_dim": 6}
    return {"pretrained": None, "config": both, **config}


def clap(dropout: float) -> nn.Module:
    """Ten seconds at 1000 Hz."""
    text = {**SIZES, "vocab_size": 20, "max_position_embeddings": 8}
    audio = {"patch_embeds_hidden_size": 4, "depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 8}
    audio |= {"num_hidden_layers": 2, "spec_size": 32, "num_mel_bins": 16, "patch_size": 4, "patch_stride": [4, 4]}
    audio |= {"window_size": 4, "projection_hidden_size": 8, "drop_path_rate": 0.0}
    audio |= {"attention_probs_dropout_prob": dropout, "hidden_dropout_prob": dropout}
    both = {"model_type": "clap", "text_config": text, "audio_config": audio, "projection_dim": 6}
    return without_projection(CLAPAudio(pretrained=None, config=both, sample_rate=1000))


def without_projection(tower: Any) -> nn.Module:
    """As in a model whose tasks do not use the projection."""
    tower.projection = None
    return cast(nn.Module, tower)


SMALL: dict[str, Callable[[float], nn.Module]] = {
    "text/lstm": lambda dropout: TextLSTM(vocab_size=20, dim=8, depth=2, bidirectional=True, dropout=dropout),
    "text/bert": lambda dropout: BERT(
        pretrained=None, pooling="auto", vocab_size=20, max_length=8, dim=8, **BLOCKS, dropout=dropout
    ),
    "text/huggingface": modern_bert,
    "text/clip": lambda dropout: without_projection(CLIPText(**pair({"max_length": 8}, dropout))),
    "audio/clap": clap,
    "image/clip": lambda dropout: without_projection(CLIPImage(**pair({"image_size": 8}, dropout))),
    "audio/huggingface (wav2vec2)": speech("wav2vec2"),
    "audio/huggingface (wavlm)": speech("wavlm"),
    "audio/huggingface (hubert)": speech("hubert", feat_extract_norm="layer", do_stable_layer_norm=True),
    "audio/huggingface (data2vec)": speech("data2vec-audio", conv_pos_kernel_size=3),
    "video/huggingface (videomae)": film("videomae", patch_size=4),
    "video/huggingface (timesformer)": film("timesformer", patch_size=4),
    "video/huggingface (vivit)": film("vivit", tubelet_size=[2, 4, 4]),
    "video/video_vit (divided)": video_vit("divided"),
    "video/video_vit (factorised)": video_vit("factorised"),
}
