"""The README's own commands, in their order, in one folder, shrunk to few steps and every 12th emoji; its Python."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mmtrain.build import compose
from mmtrain.config.instantiate import instantiate
from mmtrain.data.sources import openmoji
from tests.commands import run_command

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FEW_STEPS = [
    "limit_train_batches=2",
    "limit_val_batches=1",
    "limit_test_batches=1",
    "max_epochs=1",
    "log_every_n_steps=1",
]
SMALL = [
    *(f"trainer.{o}" for o in FEW_STEPS),
    *("data.batch_size=4", "data.eval_batch_size=16", "data.inputs.image.size=16", "dim=16"),
]

pytestmark = pytest.mark.slow


def blocks() -> list[str]:
    """The indented blocks, each as it is typed."""
    results = re.findall(r"(?:^    .*\n)+", README, flags=re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in results]


def commands() -> list[list[str]]:
    """The arguments of every `python train.py` of "The command", in order."""
    block = next(b for b in blocks() if "-m encoder" in b)
    lines = [line for line in block.splitlines() if line.startswith("python train.py")]
    return [shlex.split(line, comments=True)[2:] for line in lines]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to type the commands in, and a cache of its own. In it, OpenMoji is drawn, but only every 12th base.

    The commands are run for what they do, and all 3,944 emoji are drawn in tests/data/sources/test_openmoji.py.
    """
    folder = tmp_path_factory.mktemp("readme")
    every = openmoji.catalogue()
    kept = set(sorted({openmoji.base_of(emoji.code) for emoji in every})[::12])
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MMTRAIN_CACHE", str(folder / "cache"))
        patched.setattr(openmoji, "catalogue", lambda: [e for e in every if openmoji.base_of(e.code) in kept])
        instantiate(compose(SMALL).data.source, _convert_="all")()
    return folder


def run(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """`python train.py` with that."""
    environment = os.environ | {"MMTRAIN_CACHE": str(home / "cache"), "PYTHONPATH": str(ROOT)}
    set_later = [
        {word.partition("=")[0] for word in command[place + 1 :] if "=" in word} for place in range(len(command))
    ]
    command = tuple(w for w, later in zip(command, set_later, strict=True) if w.partition("=")[0] not in later)
    return run_command(*command, cwd=home, env=environment, forked_ranks=True)


def test_there_are_commands_to_run() -> None:
    message = " ".join(word for command in commands() for word in command)
    assert len(commands()) >= 10
    for key in ("-m", "resume=auto", "mode=test", "mode=predict", "init_from=", "trainer=ddp", "logger=", "--help"):
        assert key in message


@pytest.mark.slow(seconds=250)
def test_every_command_runs(home: Path) -> None:
    """In their order, because some use the results of others."""
    for arguments in commands():
        is_run = not any(a in ("--help", "--cfg") or a.startswith(("mode=", "resume=")) for a in arguments)
        done = run(home, *arguments, *(SMALL if is_run or "resume=auto" in arguments else []))
        assert done.returncode == 0, f"{shlex.join(arguments)}\n{done.stderr}"
    assert (home / "outputs/mine/predictions.jsonl").is_file()
    assert (home / "outputs/mine/report.html").is_file()


def test_the_misspelling_is_explained_as_it_says(home: Path) -> None:
    block = next(b for b in blocks() if b.startswith("$ python train.py encoder=vitt"))
    done = run(home, "encoder=vitt")
    assert done.returncode == 2
    assert done.stderr.strip() == "\n".join(block.strip().splitlines()[1:])


def test_the_table_of_ones_own_trains_with_gaps(home: Path) -> None:
    """The rows of "Your own data", with pictures under the names that they give."""
    from PIL import Image

    block = next(b for b in blocks() if b.startswith("mydata/train.jsonl"))
    root = home / "mydata"
    root.mkdir()
    for line in block.splitlines():
        table, row = line.split(maxsplit=1)
        another = row.replace("dog", "fox")  # one class would be nothing to learn
        (home / table).write_text(f"{row}\n{another}\n" * 2, encoding="utf-8")
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (20, 20), "red").save(root / name)
    command = next(b for b in blocks() if b.startswith("python train.py data=files"))
    done = run(home, *shlex.split(command)[2:], *SMALL)
    assert done.returncode == 0, done.stderr


def test_a_lone_table_with_names_of_its_own_trains(home: Path) -> None:
    from PIL import Image

    (home / "photos").mkdir()
    rows = [f"{n}.png,{'a red' if n % 2 else 'a blue'} thing {n},{'red' if n % 2 else 'blue'}\n" for n in range(20)]
    (home / "photos" / "table.csv").write_text("photo,title,kind\n" + "".join(rows))
    for n in range(20):
        Image.new("RGB", (30, 20), "red" if n % 2 else "blue").save(home / "photos" / f"{n}.png")
    command = next(b for b in blocks() if b.startswith("python train.py data=files data.root=photos"))
    done = run(home, *shlex.split(command)[2:], *SMALL)
    assert done.returncode == 0, done.stderr
    assert "classification/accuracy" in done.stdout


def test_the_python_of_the_readme_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    shapes = re.findall(r"print\(.*\)  # (.*)", code)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == shapes
