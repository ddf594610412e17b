"""A pair that was never trained here: zero-shot classification of folders, from a command and from Python."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoProcessor
from transformers.image_utils import load_image

from mmtrain.modes.search.finder import Finder
from tests.commands import run_command
from tests.pairs import write_clip, write_pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair, and folders of pictures with the names of CIFAR-10."""
    root = tmp_path_factory.mktemp("pretrained")
    write_clip(root / "pair")
    (root / "files").mkdir()
    for number, file in enumerate(write_pictures(root / "files")):
        place = root / "pictures" / ("cat", "Airplane", "dog")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place / file.name)
    return root


def expected(folder: Path, files: list[Path], names: list[str]) -> torch.Tensor:
    """Probabilities (N, C) by the library, with one template."""
    model = AutoModel.from_pretrained(folder / "pair").eval()
    texts = [f"a photo of a {name}" for name in names]
    options = {"padding": True, "truncation": True, "max_length": 12, "return_tensors": "pt"}
    inputs = AutoProcessor.from_pretrained(folder / "pair")(
        text=texts, images=[load_image(str(file)) for file in files], **options
    )
    with torch.no_grad():
        chances: torch.Tensor = model(**inputs).logits_per_image.softmax(dim=1)
    return chances


def test_from_python(folder: Path) -> None:
    files = sorted((folder / "files").iterdir())
    found = Finder.pretrained(folder / "pair").classify(files, names=["cat", "dog", "ship"], templates="photo")
    rows = torch.tensor([[row[name] for name in ("cat", "dog", "ship")] for row in found])
    assert torch.allclose(rows, expected(folder, files, ["cat", "dog", "ship"]), atol=1e-5)


def test_from_the_command_line(folder: Path) -> None:
    """Folders are classes, and all pictures are tested. The folder of the run can be tested again without the pair."""
    run = folder / "run"
    command = ["mode=test", "encoder=clip", f"encoder.pretrained={folder / 'pair'}", f"run_dir={run}"]
    command += ["data=files", f"data.root={folder / 'pictures'}", "test.zero_shot=label", "test.templates=photo"]
    done = run_command(*command, "test.class_names=cifar10")
    assert done.returncode == 0, done.stderr
    test = json.loads((run / "summary.json").read_text())["test"]
    files = sorted((folder / "pictures").glob("*/*"))
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    truth = torch.tensor([names.index(file.parent.name.lower()) for file in files])
    chances = expected(folder, files, names)
    assert test["zero_shot_image/accuracy"]["value"] == pytest.approx(
        (chances.argmax(dim=1) == truth).double().mean().item()
    )
    top5 = (chances.topk(5).indices == truth[:, None]).any(dim=1).double().mean().item()
    assert test["zero_shot_image/top5_accuracy"]["value"] == pytest.approx(top5)
    untrained = run_command(*command[:3], f"run_dir={folder / 'other'}", *command[4:], "task=[classification]")
    assert untrained.returncode == 2 and "Traceback" not in untrained.stderr
