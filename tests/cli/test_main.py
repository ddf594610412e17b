"""The command as a user types it: its help, its exit status, and a user's own encoders in another folder."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmtrain.config.compose import config_dir
from mmtrain.config.validate import INTERNAL_GROUPS, faults_of

ROOT = Path(__file__).resolve().parents[2]

MINE = """
import torch
from torch import nn


class MyEncoder(nn.Module):
    def __init__(self, *, dim: int, depth: int = 2) -> None:
        super().__init__()
"""
ONE_ENCODER = {"encoder/image/mine.yaml": "_target_: mine.MyEncoder\ndim: ${dim}\n"}
ONE_SET = {
    "encoder/mine.yaml": "defaults:\n  - text: transformer\nimage:\n  _target_: mine.MyEncoder\n  dim: ${dim}\n",
}


def command(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, str(ROOT / "train.py"), *args]
    return subprocess.run(call, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def write(home: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (home / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "conf" / name).write_text(content)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own working folder, where Python finds `mine`."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


# ------------------------------------------------------------------ as processes


def test_the_last_value_of_a_key_is_the_one_that_the_run_has(tmp_path: Path) -> None:
    done = command("dim=64", "fusion=sum", "--cfg", "job", "seed=1", "dim=96", "fusion=concat", cwd=tmp_path)
    assert done.returncode == 0
    assert "\ndim: 96\n" in done.stdout and "mmtrain.fusion.concat.Concat" in done.stdout
    assert "dim=64: replaced by dim=96, because the last value of a key is used\n" in done.stderr
    assert "fusion=sum: replaced by fusion=concat" in done.stderr


def test_help_lists_every_group_and_option(tmp_path: Path) -> None:
    done = command("--help", cwd=tmp_path)
    assert done.returncode == 0
    listed = dict(re.findall(r"^([\w/]+): (.+)$", done.stdout, re.MULTILINE))
    available: dict[str, list[str]] = {}
    for file in sorted(config_dir().rglob("*.yaml")):
        path = file.relative_to(config_dir())
        if path.parent != Path() and path.parts[0] not in ("hydra", *INTERNAL_GROUPS):  # --hydra-help lists the first
            available.setdefault(path.parent.as_posix(), []).append(path.stem)
    assert {group: options.split(", ") for group, options in listed.items()} == available
    assert "python train.py [group=option ...] [key=value ...]" in done.stdout and "resume=auto|PATH" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_help_lists_options_of_the_users_own(home: Path) -> None:
    write(home, ONE_ENCODER)
    done = command("--config-dir", "conf", "--help", cwd=home)
    assert re.search(r"^encoder/image: .*mine, .*vit$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    "args", [["encoder=vitt"], ["-m", "encoder=vit,vitt", "run_dir=out"], ["run_dir=out", "-m", "encoder=vit,vitt"]]
)
def test_a_wrong_command_ends_with_2_and_leaves_nothing(tmp_path: Path, args: list[str]) -> None:
    """Nor does it matter where it is called from."""
    done = command(*args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    first, fix = done.stderr.splitlines()
    assert first == "encoder=vitt: encoder has no option vitt" and fix.startswith("    fix: did you mean encoder=vit? ")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_command_in_the_checkout_leaves_nothing() -> None:
    before = sorted(ROOT.iterdir())
    done = command("encoder=vitt", "trainer.max_epoch=3", cwd=ROOT)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 4)
    assert sorted(ROOT.iterdir()) == before


def test_flags_may_stand_anywhere(tmp_path: Path) -> None:
    done = command("seed=3", "--cfg", "job", "dim=32", cwd=tmp_path)
    assert done.returncode == 0
    assert "\nseed: 3\n" in done.stdout and "\ndim: 32\n" in done.stdout
    done = command("seed=3", "--info", "config", cwd=tmp_path)
    assert done.returncode == 0
    assert command("seed=3", "dim=32", "--info", cwd=tmp_path).returncode == 0  # an override is not its value


def test_testing_needs_a_run(tmp_path: Path) -> None:
    done = command("mode=test", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(
        "mode=test: needs a trained run\n    fix: set run_dir to the folder of "
    )
    done = command("mode=predict", "run_dir=nowhere", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("run_dir=nowhere: not the folder of a run")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_users_own_is_named_by_the_command(home: Path) -> None:
    """The command finds `mine.py` in the working folder, and the folder of YAML files next to it."""
    write(home, {"encoder/mine.yaml": ONE_SET["encoder/mine.yaml"].replace("  dim", "  detph: 3\n  dim")})
    done = command("--config-dir", "conf", "encoder=mine", cwd=home)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "encoder.image._target_=mine.MyEncoder: does not take detph (conf/encoder/mine.yaml)\n"
        "    fix: did you mean depth?\n"
    )
    assert not (home / "outputs").exists()


# ------------------------------------------------------ encoders of the user's own


def faults(*overrides: str) -> list[str]:
    return faults_of(config_dir(), "conf", list(overrides), multirun=False)


BOTH = pytest.mark.parametrize(
    ("files", "override"),
    [(ONE_ENCODER, "encoder/image=mine"), (ONE_SET, "encoder=mine")],
    ids=["one encoder", "a set of encoders"],
)


@BOTH
def test_an_encoder_of_the_users_own_is_good(home: Path, files: dict[str, str], override: str) -> None:
    write(home, files)
    assert faults(override) == []
    assert faults(override, "+encoder.image.depth=3", "dim=64", "encoder/text=transformer") == []


@BOTH
@pytest.mark.parametrize(
    ("message", "instead", "fault"),
    [
        (
            "mine.MyEncoder",
            "mine.MyEncodr",
            "_target_=mine.MyEncodr: cannot be imported: mine has no MyEncodr ({})\n"
            "    fix: did you mean mine.MyEncoder?",
        ),
        (
            "mine.MyEncoder",
            "nime.MyEncoder",
            "_target_=nime.MyEncoder: cannot be imported: there is no nime ({})\n"
            "    fix: correct the path, or run where it can be imported",
        ),
        ("mine.MyEncoder", "mine", "_target_=mine: not the dotted path of a class ({})\n    fix: write package.module"),
        ("dim: ${dim}", "", "_target_=mine.MyEncoder: needs dim ({})\n    fix: set dim next to _target_"),
        (
            "${dim}",
            "${widht}",
            "dim: Interpolation key 'widht' not found ({})\n    fix: correct the interpolation, or set ",
        ),
        ("${dim}", "???", "dim: not set ({})\n    fix: set encoder.image.dim=..."),
    ],
)
def test_what_is_wrong_in_it_is_explained_with_its_file(
    home: Path, files: dict[str, str], override: str, message: str, instead: str, fault: str
) -> None:
    write(home, {name: content.replace(message, instead) for name, content in files.items()})
    (file,) = files
    (result,) = faults(override)
    assert result.startswith(f"encoder.image.{fault.format(f'conf/{file}')}")


def test_a_class_that_stands_above_the_modalities_is_sent_below_one(home: Path) -> None:
    write(home, {"encoder/mine.yaml": "_target_: mine.MyEncoder\ndim: ${dim}\n"})
    assert faults("encoder=mine") == [
        "encoder: contains components by name, but has a _target_ (conf/encoder/mine.yaml)\n"
        "    fix: move it into encoder.NAME"
    ]


def test_a_misspelt_option_in_a_set_is_explained(home: Path) -> None:
    write(home, {"encoder/mine.yaml": "defaults:\n  - image: vit\n  - text: transformr\n"})
    assert faults("encoder=mine") == [
        "encoder=mine: In 'encoder/mine': Could not find 'encoder/text/transformr'\n"
        "    fix: did you mean encoder/text/transformer?"
    ]
