"""A pair that was trained here gives the same similarities in its own library, in a process without mmtrain."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmtrain.build import build_data, build_model, compose
from mmtrain.errors import ConfigError
from mmtrain.modes.export.pair import LIBRARIES, export_pair
from mmtrain.modes.search.towers import Towers
from tests.pairs import TEXTS, WRITERS, randomize, write_pictures

# Reads folders from standard input, and writes the logits of pictures and texts of each.
ELSEWHERE = """
import json, sys, torch
from PIL import Image, ImageOps
given = json.load(sys.stdin)
pictures = [ImageOps.exif_transpose(Image.open(file)).convert("RGB") for file in given["pictures"]]
logits = {}
for name, place in given["folders"].items():
    with torch.no_grad():
        if name.startswith("open_clip"):
            import open_clip
            model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{place}")
            tokens = open_clip.get_tokenizer(f"local-dir:{place}")(given["texts"])
            images, texts, scale = model.eval()(torch.stack([preprocess(p) for p in pictures]), tokens)
            logits[name] = (scale * images @ texts.T).tolist()
        else:
            import transformers
            model = transformers.AutoModel.from_pretrained(place).eval()
            processor = transformers.AutoProcessor.from_pretrained(place)
            padding = "max_length" if "siglip" in name else True
            options = dict(padding=padding, truncation=True, max_length=12, return_tensors="pt")
            logits[name] = model(**processor(text=given["texts"], images=pictures, **options)).logits_per_image.tolist()
assert "mmtrain" not in sys.modules
print(json.dumps(logits))
"""


def trained(root: Path, kind: str, *overrides: str) -> tuple[Any, Any]:
    """A model whose weights are not those of its checkpoint any more."""
    given = ["encoder=clip", f"encoder.pretrained={root / kind}", "data=files", f"data.root={root}"]
    cfg = compose([*given, "task=[contrastive]", f"run_dir={root / 'run'}", "data.batch_size=5", *overrides])
    data = build_data(cfg)
    data.read(Path(cfg.run_dir), training=True)
    model = build_model(cfg, data)
    randomize(model)
    with torch.no_grad():
        model.tasks["contrastive"].log_scale.fill_(2.2)
    return model, data


def similarities(model: Any, data: Any, pictures: list[Path]) -> Tensor:
    towers, task = Towers(model, data.inputs, where="test"), model.tasks["contrastive"]
    images, texts = towers.encode("image", [str(file) for file in pictures]), towers.encode("text", TEXTS)
    logits: Tensor = task.scale * images @ texts.T + (0.0 if task.bias is None else task.bias)
    return logits.detach()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pairs")
    for kind, write in WRITERS.items():
        write(place / kind)
    files = [file.name for file in write_pictures(place)]
    rows = [json.dumps({"image": file, "text": text or "blank"}) for file, text in zip(files, TEXTS, strict=True)]
    for split in ("train", "val", "test"):
        (place / f"{split}.jsonl").write_text("\n".join(rows))
    return place


def test_similarities_elsewhere(root: Path, tmp_path: Path) -> None:
    pictures = write_pictures(root)
    folders, expected = {}, {}
    for kind in WRITERS:
        model, data = trained(root, kind)
        expected[kind] = similarities(model, data, pictures)
        export_pair(model, data.inputs, tmp_path / kind)
        folders[kind] = str(tmp_path / kind)
    model, data = trained(root, "clip", "data.inputs.image.resize_backend=pillow")
    expected["open_clip"] = similarities(model, data, pictures)
    export_pair(model, data.inputs, tmp_path / "open_clip", library="open_clip")
    folders["open_clip"] = str(tmp_path / "open_clip")
    given = {"folders": folders, "pictures": [str(file) for file in pictures], "texts": TEXTS}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], input=json.dumps(given), capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == set(expected)
    for kind, logits in expected.items():
        assert (torch.tensor(found[kind]) - logits).norm() < 1e-5 * logits.norm(), kind


def test_adapters_are_merged(root: Path, tmp_path: Path) -> None:
    lora = ["+peft@encoder.text.peft=lora", "encoder.text.peft.r=2", "encoder.image.freeze=true"]
    model, data = trained(root, "clip", *lora)
    before = similarities(model, data, write_pictures(root))
    export_pair(model, data.inputs, tmp_path / "out")
    fresh = build_model(compose_of(root, tmp_path / "out"), data)
    assert (similarities(fresh, data, write_pictures(root)) - before).norm() < 1e-5 * before.norm()


def compose_of(root: Path, pair: Path) -> Any:
    given = ["encoder=clip", f"encoder.pretrained={pair}", "data=files", f"data.root={root}", "task=[contrastive]"]
    cfg = compose([*given, f"run_dir={root / 'run'}", "data.batch_size=5"])
    build_data(cfg)
    return cfg


def test_what_cannot_be_exported_is_explained(root: Path, tmp_path: Path) -> None:
    new, data = trained(root, "clip", "task.contrastive.projection=new", "task.contrastive.embed_dim=8")
    with pytest.raises(ConfigError, match=r"no contrastive task that uses the projections of a pretrained pair"):
        export_pair(new, data.inputs, tmp_path / "new")
    model, data = trained(root, "siglip")
    with pytest.raises(ConfigError, match=r"--library open_clip: a model of type siglip is not written"):
        export_pair(model, data.inputs, tmp_path / "siglip", library=LIBRARIES[1])
