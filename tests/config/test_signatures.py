"""A `_target_` is checked in its source: does it exist, and does it take its arguments? Nothing is imported."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mmtrain.config.signatures import fault_of

FILES = {
    "mine/__init__.py": "from mine.parts import Encoder as Passed\n",
    "mine/parts.py": """
        import torch
        from mine.base import *

        class Encoder(torch.nn.Module):
            def __init__(self, width, *, depth: int, dropout: float = 0.1) -> None:
                super().__init__()

        class Anything:
            def __init__(self, *, depth, **kwargs):
                pass

        class OtherSelf:
            def __init__(this, a=1, /, b=2):
                pass

        class Inherits(Encoder):
            pass

        class Both(Encoder, Anything):
            pass

        class FromTorch(torch.nn.Module):
            pass

        class Round(Round):
            pass

        class Outer:
            class Inner:
                pass

        @some_decorator
        class Decorated:
            def __init__(self, a):
                pass

        class Wrapped:
            @some_decorator
            def __init__(self, a):
                pass

        def make(name: str, size: int = 3):
            pass

        Alias = Encoder
        """,
    "mine/flat.py": """
        from mine.parts import Both, Encoder, Inherits
        from mmtrain.annotations import Flattened

        class Local:
            def __init__(self, *, height, part: Flattened[Inherits]):
                pass

        class Task:
            def __init__(self, *, local: Flattened[Local], size, first=1):
                pass

        class Unseen:
            def __init__(self, *, part: Flattened[Both]):
                pass
        """,
    "mine/closed.py": "class Encoder:\n    pass\n\n\nclass Fusion:\n    pass\n",
    "mine/lazy.py": "def __getattr__(name):\n    return object\n",
    "mine/broken.py": "class Encoder:\n    def __init__(self:\n",
    "mine/latin.py": "name = 'caf\xe9'\n",
    "bare/encoder.py": "class Mine:\n    pass\n",
    "bare/fast.cpython-311-x86_64-linux-gnu.so": "",
    "mine/deep/inside.py": "class Encoder:\n    pass\n",
}


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, source in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(textwrap.dedent(source), encoding="latin-1" if "latin" in name else "utf-8")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        ("mmtrain.fusion.concat.Concat", ["dims", "dim", "hidden_dim", "dropout", "missing"]),
        ("torch.optim.AdamW", ["lr", "betas"]),
        ("torch.nn.modules.linear.Linear", ["in_features", "out_features", "bias"]),
        ("pytorch_lightning.callbacks.EarlyStopping", ["monitor"]),
        ("torch._C.Generator", []),
        ("pathlib.Path", ["anything"]),
        ("builtins.dict", ["anything"]),
        ("__main__.Mine", ["anything"]),
        ("mine.parts.Encoder", ["width", "depth"]),
        ("mine.parts.make", ["name"]),
        ("mine.parts.OtherSelf", ["b"]),
        ("mine.deep.inside.Encoder", []),
        ("mine.flat.Task", ["size", "height", "width", "depth"]),
        # what cannot be seen is taken to be good
        ("mine.Passed", ["anything"]),
        ("mine.parts.Anything", ["depth", "anything"]),
        ("mine.parts.Inherits", ["width", "depth"]),
        ("mine.parts.Both", ["anything"]),
        ("mine.parts.FromTorch", ["anything"]),
        ("mine.parts.Round", ["anything"]),
        ("mine.parts.Decorated", ["anything"]),
        ("mine.parts.Wrapped", ["anything"]),
        ("mine.parts.Alias", ["anything"]),
        ("mine.parts.FromTheStar", []),
        ("mine.flat.Unseen", ["anything"]),
        ("mine.parts.Outer.Inner", ["anything"]),
        ("mine.lazy.Anything", []),
        ("bare.fast.Anything", []),
    ],
)
def test_what_is_there_has_no_fault(target: str, arguments: list[str]) -> None:
    assert fault_of(target, arguments, added=()) == []


@pytest.mark.parametrize(
    ("target", "what", "fix"),
    [
        ("Encoder", "not the dotted path of a class", "write package.module.Class"),
        ("mine/parts.Encoder", "not the dotted path of a class", "write package.module.Class"),
        ("mine..Encoder", "not the dotted path of a class", "write package.module.Class"),
        ("", "not the dotted path of a class", "write package.module.Class"),
        (
            "nowhere.parts.Encoder",
            "cannot be imported: there is no nowhere",
            "correct the path, or run where it can be imported",
        ),
        ("mine.prts.Encoder", "cannot be imported: mine has no prts", "did you mean mine.parts?"),
        ("bare.encodr.Mine", "cannot be imported: bare has no encodr", "did you mean bare.encoder?"),
        ("mine.closed.Encodr", "cannot be imported: mine.closed has no Encodr", "did you mean mine.closed.Encoder?"),
        ("mine.closed.Zzz", "cannot be imported: mine.closed has no Zzz", "did you mean mine.closed.Encoder?"),
        ("mine.closed", "a module, not a class", "name a class in it: mine.closed.Class"),
        ("mine.deep", "a module, not a class", "name a class in it: mine.deep.Class"),
        ("torch.optim.AdmW", "cannot be imported: torch.optim has no AdmW", "did you mean torch.optim.AdamW?"),
    ],
)
def test_what_is_not_there_is_said_with_the_nearest_name(target: str, what: str, fix: str) -> None:
    assert fault_of(target, [], added=()) == [(what, fix)]


def test_a_module_that_python_cannot_read_is_named_with_the_line(tmp_path: Path) -> None:
    ((what, fix),) = fault_of("mine.broken.Encoder", [], added=())
    assert (
        what.startswith(f"cannot be imported: {tmp_path / 'mine/broken.py'}, line 2: ") and fix == "correct that line"
    )
    ((what, _),) = fault_of("mine.latin.Encoder", [], added=())
    assert what.startswith(f"cannot be imported: {tmp_path / 'mine/latin.py'}, line ") and "utf-8" in what


@pytest.mark.parametrize(
    ("target", "arguments", "faults"),
    [
        ("mine.parts.Encoder", ["width", "detph", "depth"], [("does not take detph", "did you mean depth?")]),
        ("mine.parts.Encoder", ["width", "depth", "q"], [("does not take q", "it takes width, depth, dropout")]),
        ("mine.parts.Encoder", ["width", "depth", "self"], [("does not take self", "it takes width, depth, dropout")]),
        ("mine.parts.Encoder", [], [("needs width, depth", "set width next to _target_")]),
        (
            "mine.parts.Encoder",
            ["width", "detph"],
            [("does not take detph", "did you mean depth?"), ("needs depth", "set depth next to _target_")],
        ),
        ("mine.parts.Inherits", ["width", "detph", "depth"], [("does not take detph", "did you mean depth?")]),
        ("mine.parts.Anything", ["dpeth"], [("needs depth", "set depth next to _target_")]),
        ("mine.parts.make", ["name", "sise"], [("does not take sise", "did you mean size?")]),
        (
            "mine.flat.Task",
            ["size", "local", "width", "detph"],
            [
                ("does not take local", "it takes height, width, depth, dropout, size, first"),
                ("does not take detph", "did you mean depth?"),
                ("needs height, depth", "set height next to _target_"),
            ],
        ),
    ],
)
def test_arguments_are_those_of_the_constructor(
    target: str, arguments: list[str], faults: list[tuple[str, str]]
) -> None:
    assert fault_of(target, arguments, added=()) == faults


def test_what_the_program_adds_need_not_be_configured() -> None:
    assert fault_of("mmtrain.training.optim.schedules.cosine", ["warmup_ratio", "min_lr_ratio"], added=None) == []
    target = "mmtrain.fusion.concat.Concat"
    assert fault_of(target, ["dim", "hidden_dim", "missing"], added=["dims", "dropout"]) == []
    assert fault_of(target, ["dim", "hidden_dim", "missing"], added=["dims"]) == [
        ("needs dropout", "set dropout next to _target_"),
    ]
    assert fault_of(target, ["dim", "hidden_dim"], added=None) == [], "the result of a later call is unknown"


CHECK = """
import sys
from mmtrain.config.validate import faults_of
from mmtrain.cli.main import config_dir
overrides = ["encoder.text._target_=torch.nn.modules.linear.Linear", "logger=[csv,wandb]", "callbacks=[ema]"]
assert faults_of(config_dir(), None, [], multirun=False) == []
assert faults_of(config_dir(), None, overrides, multirun=False) != []
print(*[name for name in sys.modules if name.split(".")[0] in HEAVY])
"""


def test_looking_imports_nothing_heavy() -> None:
    heavy = ("torch", "torchvision", "pytorch_lightning", "transformers", "datasets", "wandb", "numpy", "PIL")
    code = CHECK.replace("HEAVY", repr(heavy))
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
