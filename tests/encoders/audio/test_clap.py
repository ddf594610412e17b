"""CLAP: from sound files and sentences to the similarities, the loss and the gradients of its own library."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import wavfile
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoProcessor, ClapFeatureExtractor

from mmtrain.build import build_data, build_model, compose
from mmtrain.data.dataset import Collate
from mmtrain.encoders.audio.clap import CLAPAudio
from mmtrain.errors import ConfigError
from mmtrain.modes.export.pair import export_pair
from mmtrain.modes.search.towers import Towers
from tests.pairs import TEXTS, write_clap, write_clip

RATE = 8000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair, and sounds that are shorter than its three seconds, as long, and longer."""
    place = tmp_path_factory.mktemp("clap")
    write_clap(place / "pair")
    draws = np.random.default_rng(0)
    rows = []
    for seconds, text in zip((0.3, 1.0, 2.7, 3.0, 1.4), TEXTS, strict=True):
        name = f"{seconds}.wav"
        wavfile.write(place / name, RATE, (draws.normal(size=int(RATE * seconds)) * 3000).astype(np.int16))
        rows.append(json.dumps({"audio": name, "text": text or "a blank"}))
    for split in ("train", "val", "test"):
        (place / f"{split}.jsonl").write_text("\n".join(rows))
    return place


def built(root: Path, *overrides: str) -> tuple[Any, Any]:
    given = ["encoder=clap", f"encoder.pretrained={root / 'pair'}", "data=files", f"data.root={root}"]
    given += ["task=[contrastive]", "task.contrastive.modalities=[audio,text]", "data.batch_size=5"]
    cfg = compose([*given, f"run_dir={root / 'run'}", *overrides])
    data = build_data(cfg)
    data.read(Path(cfg.run_dir), training=True)
    return build_model(cfg, data), data


def their_tensors(place: Path, root: Path, texts: list[str]) -> Any:
    processor = AutoProcessor.from_pretrained(place)
    sounds = [wavfile.read(root / json.loads(line)["audio"])[1] / 32768 for line in rows_of(root)]
    words = processor.tokenizer(texts, padding=True, truncation=True, max_length=12, return_tensors="pt")
    return {**words, **processor.feature_extractor(sounds, sampling_rate=RATE, return_tensors="pt")}


def rows_of(root: Path) -> list[str]:
    return (root / "val.jsonl").read_text().splitlines()


def logits(model: Any, data: Any, root: Path) -> Tensor:
    towers = Towers(model, data.inputs, where="test")
    sounds = towers.encode("audio", [str(root / json.loads(line)["audio"]) for line in rows_of(root)])
    return towers.scale * sounds @ towers.encode("text", TEXTS).T


@torch.no_grad()
def test_similarities_before_the_first_step_and_after_an_export(root: Path, tmp_path: Path) -> None:
    model, data = built(root)
    assert (data.inputs["audio"].sample_rate, data.inputs["audio"].max_seconds) == (RATE, 3.0)
    ours = logits(model, data, root)
    expected = AutoModel.from_pretrained(root / "pair").eval()(**their_tensors(root / "pair", root, TEXTS))
    assert (ours - expected.logits_per_audio).norm() < 1e-5 * ours.norm()
    export_pair(model, data.inputs, tmp_path / "out")
    again = AutoModel.from_pretrained(tmp_path / "out").eval()(**their_tensors(tmp_path / "out", root, TEXTS))
    assert (again.logits_per_audio - ours).norm() < 1e-5 * ours.norm()


def test_loss_and_gradients_of_the_first_step(root: Path) -> None:
    """Both scales of the library are one here, so its gradient is their sum. Batch norms are in evaluation mode.

    The loss is that of the paper: the library's `return_loss` takes the direction from text to audio twice.
    """
    model, data = built(root)
    split = data.split("val")
    batch = Collate(inputs=data.inputs, targets=data.targets).batch([split[(0, row)] for row in range(len(TEXTS))])
    model.double().encoders.eval()
    total, count = model.losses(batch.map(lambda t: t.double() if t.is_floating_point() else t))["contrastive"]
    (total / count).backward()
    theirs = AutoModel.from_pretrained(root / "pair").double().eval()
    tensors = their_tensors(root / "pair", root, [json.loads(line)["text"] for line in rows_of(root)])
    tensors["input_features"] = tensors["input_features"].double()
    out, rows = theirs(**tensors), torch.arange(len(TEXTS))
    loss = (F.cross_entropy(out.logits_per_audio, rows) + F.cross_entropy(out.logits_per_text, rows)) / 2
    loss.backward()
    assert float(total / count) == pytest.approx(float(loss), rel=1e-5)
    scale = model.tasks["contrastive"].log_scale.grad
    assert scale == pytest.approx(float(theirs.logit_scale_a.grad + theirs.logit_scale_t.grad), rel=1e-4)
    wanted = dict(theirs.audio_model.named_parameters())
    found = {name: p.grad for name, p in model.encoders["audio"].net.named_parameters()}
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        assert (gradient - wanted[name].grad).norm() <= 1e-3 * wanted[name].grad.norm() + 1e-9, name


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
def test_spectrograms_are_those_of_the_library(truncation: str, padding: str) -> None:
    audio = {"spec_size": 256, "num_mel_bins": 64, "depths": [1, 1], "num_attention_heads": [2, 2]}
    audio |= {"patch_embeds_hidden_size": 8, "hidden_size": 16, "enable_fusion": truncation == "fusion"}
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}
    config = {"model_type": "clap", "audio_config": audio, "text_config": text}
    encoder = CLAPAudio(pretrained=None, config=config, sample_rate=16000)
    encoder.extractor.padding = padding
    waveform = torch.randn(20000, generator=torch.Generator().manual_seed(0)) * 0.1
    found = encoder._mels(encoder._fit(waveform).unsqueeze(0))[0]
    extractor = ClapFeatureExtractor(
        feature_size=64, sampling_rate=16000, frequency_max=8000, truncation=truncation, padding=padding
    )
    expected = extractor(waveform.numpy(), sampling_rate=16000, return_tensors="pt")["input_features"][0]
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-3  # decibels; the library rounds waveforms to 32 bits


def test_faults(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sample_rate = 16000, but the weights .* were trained with 8000"):
        built(root, "data.inputs.audio.sample_rate=16000")
    write_clip(tmp_path / "clip")
    with pytest.raises(ConfigError, match=r"\(clip\) has towers for image and text; set encoder to clip"):
        built(root, f"encoder.pretrained={tmp_path / 'clip'}")
