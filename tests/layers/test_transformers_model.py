"""Checkpoints of the transformers library, and what is said of those that cannot be taken."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, FeatureExtractionMixin, Wav2Vec2FeatureExtractor

from mmtrain.layers.transformers_model import transformers_config, transformers_model, transformers_settings

SIZES = {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8}
SIZES |= {"intermediate_size": 8, "patch_size": 4}


def save(folder: Path) -> torch.nn.Module:
    model = AutoModel.from_config(AutoConfig.for_model(**SIZES))
    model.bfloat16().save_pretrained(folder)
    return model


def test_weights_are_taken_in_32_bits(tmp_path: Path) -> None:
    saved = save(tmp_path)
    config = transformers_config(str(tmp_path), None, model_types=("vit",))
    taken = transformers_model(str(tmp_path), config)
    assert taken.config.hidden_size == 8
    for name, value in taken.state_dict().items():
        assert value.dtype is torch.float32 and torch.equal(value, saved.state_dict()[name].float())


def test_random_weights_have_the_sizes_that_are_asked_for() -> None:
    model = transformers_model(None, transformers_config(None, SIZES, model_types=("vit", "bert")))
    assert model.config.hidden_size == 8 and len(model.state_dict()) > 0


def test_a_checkpoint_without_a_weight_is_refused_unless_it_is_of_no_use(tmp_path: Path) -> None:
    save(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = {name: value for name, value in load_file(file).items() if not name.startswith("pooler")}
    save_file(weights, file, metadata={"format": "pt"})
    config = transformers_config(str(tmp_path), None, model_types=("vit",))
    transformers_model(str(tmp_path), config, unused=("pooler.",))
    with pytest.raises(ValueError, match=r"lacks 2 weights, such as pooler.dense.bias, pooler.dense.weight; name a"):
        transformers_model(str(tmp_path), config)


def test_what_cannot_be_loaded_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pretrained = .* cannot be loaded: (.|\n)*set pretrained to a folder"):
        transformers_config(str(tmp_path), None, model_types=("vit",))
    save(tmp_path)
    said = f"the model type of pretrained = {tmp_path} is vit; this encoder takes bert, t5"
    with pytest.raises(ValueError, match=said):
        transformers_config(str(tmp_path), None, model_types=("bert", "t5"))
    with pytest.raises(ValueError, match=r"cannot be loaded: (.|\n)*preprocessor_config.json"):
        transformers_settings(str(tmp_path), FeatureExtractionMixin.get_feature_extractor_dict)
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(tmp_path)
    found = transformers_settings(str(tmp_path), FeatureExtractionMixin.get_feature_extractor_dict)
    assert found["sampling_rate"] == 8000
