"""Checkpoints of the transformers library, and messages for unsupported ones."""

import ast
import json
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


def test_a_pretrained_model_learns_with_its_dropout(tmp_path: Path) -> None:
    """The library loads a model for evaluation, and a training loop does not change that."""
    config = AutoConfig.for_model(**SIZES)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    for pretrained in (str(tmp_path), None):
        model = transformers_model(pretrained, config)
        assert all(module.training for module in model.modules())


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
    with pytest.raises(ValueError, match=r"2 weights are missing, such as pooler.dense.bias, pooler.dense.weight; set"):
        transformers_model(str(tmp_path), config)


def test_what_cannot_be_loaded_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pretrained = .* cannot be loaded: (.|\n)*set pretrained to a folder"):
        transformers_config(str(tmp_path), None, model_types=("vit",))
    save(tmp_path)
    message = f"the model type of pretrained = {tmp_path} is vit; this encoder accepts bert, t5"
    with pytest.raises(ValueError, match=message):
        transformers_config(str(tmp_path), None, model_types=("bert", "t5"))
    with pytest.raises(ValueError, match=r"cannot be loaded: (.|\n)*preprocessor_config.json"):
        transformers_settings(str(tmp_path), FeatureExtractionMixin.get_feature_extractor_dict)
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(tmp_path)
    result = transformers_settings(str(tmp_path), FeatureExtractionMixin.get_feature_extractor_dict)
    assert result["sampling_rate"] == 8000


def bring_code(folder: Path, file: str) -> Path:
    """Write a config that refers to a class in another file of the folder; importing that file leaves a trace."""
    proof = folder / "proof"
    (folder / "theirs.py").write_text(f"from pathlib import Path\nPath({str(proof)!r}).touch()\nclass Theirs: ...\n")
    said = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    said |= {"model_type": "theirs", "auto_map": dict.fromkeys(("AutoConfig", "AutoModel"), "theirs.Theirs")}
    (folder / file).write_text(json.dumps(said))
    return proof


def nobody_answers(*said: object) -> str:
    raise AssertionError("a user was prompted")


def test_code_of_a_checkpoint_is_never_run_and_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", nobody_answers)
    save(tmp_path)
    proof = bring_code(tmp_path, "config.json")
    for types in (("theirs",), ("vit",)):
        with pytest.raises(
            ValueError, match=r"cannot be loaded: it brings code of its own \(auto_map\), which is never"
        ):
            transformers_config(str(tmp_path), None, model_types=types)
    config = AutoConfig.for_model(**SIZES)
    config.auto_map = {"AutoModel": "theirs.Theirs"}
    transformers_model(str(tmp_path), config)  # for a type that the library has, the library's own code is used
    transformers_model(None, config)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoModel": "theirs.Theirs"}),
        ("attn_implementation", "theirs/kernel"),
        ("attn_implementation", "flash_attention_2"),
        ("experts_implementation", "theirs"),
        ("_attn_implementation_internal", "theirs"),
        ("_name_or_path", "theirs"),
        ("backbone", "theirs/model"),
        ("backbone", "hf-hub:theirs"),
        ("trust_remote_code", True),
        ("quantization_config", {}),
        ("text_config", {"model_type": "bert", "auto_map": {}}),
    ],
)
def test_sizes_name_no_code(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^config\.{key}(\.auto_map)? = .* is not a size; remove it"):
        transformers_config(None, SIZES | {key: value}, model_types=("vit",))
    assert transformers_config(None, SIZES | {"attn_implementation": "eager"}, model_types=("vit",)).hidden_size == 8


def test_every_call_of_from_pretrained_says_that_no_code_is_run() -> None:
    root = Path(__file__).resolve().parents[2]
    result = 0
    for file in [*(root / "mmtrain").rglob("*.py"), *(root / "scripts").glob("*.py")]:
        for call in ast.walk(ast.parse(file.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            if call.func.attr in ("from_pretrained", "from_config") and ast.unparse(call.func.value) != "nn.Embedding":
                assert "trust_remote_code=False" in ast.unparse(call), f"{file}: {ast.unparse(call)}"
                result += 1
    assert result >= 6
