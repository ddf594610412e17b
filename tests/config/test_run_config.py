"""A run folder of a stranger runs no code in any mode, and one of the user's own is read as before."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from mmtrain.build import rebuild_from_run, rebuild_without_tables
from mmtrain.cli.main import main
from mmtrain.config.compose import config_dir
from mmtrain.config.instantiate import refused_targets
from mmtrain.config.run_config import MAX_BYTES, load_run_config, read_run_config
from mmtrain.config.validate import with_overrides_of_run
from mmtrain.data.module import DataModule
from mmtrain.errors import ConfigError
from mmtrain.modes.chat.pipeline import ChatPipeline
from mmtrain.modes.chat.repl import ChatSession
from mmtrain.modes.search.finder import Finder
from mmtrain.training.checkpoint.load_run import load_run, load_teacher
from tests.attacks import NAMES, PLACES, RECORD, Node, Stranger, planted, spelled, write_record
from tests.tiny import TINY_MODEL, make_tables

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stranger:
    """Their modules can be imported from the working folder."""
    made = Stranger(tmp_path / "stranger")
    monkeypatch.chdir(made.folder)
    monkeypatch.syspath_prepend(made.folder)
    return made


def all_gadgets(stranger: Stranger, run: Path) -> dict[str, Node]:
    return stranger.gadgets(run) | {name: {"_target_": name} for name in NAMES}


# ------------------------------------------------------------ the complete record


@pytest.mark.parametrize("place", PLACES)
def test_every_gadget_at_every_place_of_a_record_is_refused(place: str, stranger: Stranger, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name, node in all_gadgets(stranger, run).items():
        for form in (node, node | {"_partial_": True}, {"inside": [node]}):
            refused = list(refused_targets(planted(RECORD, place, form), "", []))
            assert [target for _, target in refused][:1] == [node["_target_"]], name
            assert refused[0][0].startswith(place.split(".[]")[0])
    assert not stranger.ran


def test_a_refusal_names_the_folder_the_key_the_target_and_the_fix(stranger: Stranger, tmp_path: Path) -> None:
    run = tmp_path / "run"
    names = {name: {"_target_": name} for name in ("mine.Mine", *NAMES[::8])}
    for name, node in (stranger.gadgets(run) | names).items():
        write_record(run, planted(RECORD, "encoder.image.depth", node))
        with pytest.raises(ConfigError) as raised:
            load_run_config(run, trust=[])
        message = str(raised.value).removeprefix(f"encoder.image.depth._target_={node['_target_']}")
        first, fix = message.split("\n    ")[:2]
        assert first == f": a run folder may only name components of mmtrain ({run / 'config.yaml'})", name
        assert fix.startswith("fix: ")
        assert ("trust=[mine]" in fix) == (node["_target_"] == "mine.Mine") or "evil_module" in node["_target_"]
    assert not stranger.ran


def test_a_target_behind_an_interpolation_is_refused(stranger: Stranger, tmp_path: Path) -> None:
    run = tmp_path / "run"
    node = stranger.gadgets(run)["os"]
    hidden = RECORD | {"hidden": "os.system", "fusion": {"_target_": "${hidden}"}}
    for record in (
        hidden,
        planted(RECORD, "fusion", "${hidden}") | {"hidden": node},
        planted(RECORD, "fusion", {"_target_": "${oc.decode:os.system}"}),
        planted(RECORD, "fusion", "${oc.create:{_target_:os.system}}"),
        planted(RECORD, "data.source.root", "${oc.env:HOME}"),
        planted(RECORD, "data.source.root", "\\${oc.env:HOME}"),
        planted(RECORD, "data.source.root", "$${seed}"),
        RECORD | {"overrides": ["data.root=${oc.env:HOME}"]},
        RECORD | {"${oc.env:HOME}": 1},
    ):
        write_record(run, record)
        with pytest.raises(ConfigError, match=r"not written by mmtrain: the interpolation"):
            load_run_config(run, trust=["os"])


@pytest.mark.parametrize(
    "content",
    [
        *("", "3", "- 1", "a: [", "overrides: 3", "overrides: [[1]]", "a: !!python/name:os.system ''\noverrides: []"),
        "a: !!python/object/apply:os.system [ls]\noverrides: []",
        "a: &a [*a]\noverrides: []",
        "overrides: []\na0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)),
        "overrides: []\na: " + "[" * 200 + "]" * 200,
        "overrides: []\na: 2001-99-99",
        "overrides: []\n? [1]\n: 2",
        "overrides: []\n# " + "x" * MAX_BYTES,
    ],
    ids=lambda content: content[:40],
)
def test_what_is_no_record_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"not written by mmtrain: |is damaged: (it is empty|larger than)"):
        read_run_config(tmp_path)


def test_the_records_own_trust_does_not_count(tmp_path: Path) -> None:
    assert load_run_config(write_record(tmp_path, RECORD), trust=["mine"]).trust == ["mine"]


def test_a_record_of_an_earlier_version_gets_what_its_components_have_got_since(tmp_path: Path) -> None:
    film = {"_target_": "mmtrain.data.inputs.video.VideoInput", "num_frames": 3}
    old = planted(planted(RECORD, "data.inputs.video", film), "balance._target_", "mmtrain.balance.mgda.MGDA")
    cfg = load_run_config(write_record(tmp_path, planted(old, "balance.epsilon", 0.001)), trust=[])
    assert cfg.data.inputs.video.max_video_pixels == 500_000_000 and cfg.data.inputs.video.num_frames == 3
    assert "size" not in cfg.data.inputs.video, "the shipped value follows from another key"
    assert "epsilon" not in cfg.balance


def test_a_defaults_list_is_no_value_of_a_component(tmp_path: Path) -> None:
    encoder = {"_target_": "mmtrain.encoders.image.vit.ViT", "depth": 3}
    cfg = load_run_config(write_record(tmp_path, planted(RECORD, "encoder.image", encoder)), trust=[])
    assert cfg.encoder.image.depth == 3 and cfg.encoder.image.patch_size == 16
    assert "defaults" not in cfg.encoder.image


def test_pictures_of_an_earlier_version_stay_as_they_were_trained(tmp_path: Path) -> None:
    picture = {"_target_": "mmtrain.data.inputs.image.ImageInput", "size": 64}
    cfg = load_run_config(write_record(tmp_path, planted(RECORD, "data.inputs.image", picture)), trust=[])
    assert cfg.data.inputs.image.max_pixels == 100_000_000
    assert not {"resize_size", "interpolation", "crop_offset"} & set(cfg.data.inputs.image)


# -------------------------------------------------------------- its overrides

GROUPED = [place for place in PLACES if "[]" not in place]


def repeated(run: Path, overrides: list[str], *given: str, **record: Any) -> tuple[list[str], list[str]]:
    """What a test takes of the overrides of a run, and what it refuses."""
    write_record(run, {"overrides": overrides, **record})
    command = ["mode=test", f"run_dir={run}", *given]
    used, faults = with_overrides_of_run(command)
    return [override for override in used if override not in command], faults


@pytest.mark.parametrize("place", GROUPED)
def test_gadgets_in_the_overrides_of_a_run_are_refused_or_left_out(
    place: str, stranger: Stranger, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    wanted = ("torch.hub", "pathlib", "reexported os", "own writer", "eval", "module in the working folder")
    nodes = [node for name, node in stranger.gadgets(run).items() if name in wanted]
    for plus in ("", "+", "++"):
        overrides = [f"{plus}{place}={spelled(node)}" for node in nodes]
        overrides += [f"{plus}{place}._target_={node['_target_']}" for node in nodes]
        kept, faults = repeated(run, overrides)
        assert kept == []
        if place.split(".")[0] not in ("optimizer", "schedule", "callbacks", "logger", "trial", "hidden"):
            for override, node in zip(overrides, nodes * 2, strict=True):
                starts = (f"{override}: ", f"{place}._target_={node['_target_']}: ")
                assert any(fault.startswith(starts) for fault in faults), override
    assert not stranger.ran


def test_every_name_in_the_overrides_of_a_run_is_refused(tmp_path: Path) -> None:
    overrides = [f"encoder.image._target_={spelled(name)}" for name in NAMES]
    kept, faults = repeated(tmp_path / "run", overrides)
    assert kept == [] and len(faults) == len(overrides)


TAKEN = [
    *("encoder=resnet", "encoder/image=cnn", "encoder/image@encoder.video.image=vit", "fusion=concat", "~fusion"),
    *("task=[contrastive,classification]", "task.contrastive.modalities=[image,audio]", "dim=64", "seed=3"),
    *("data=files", "data.root=/somewhere/data", "+data.columns.image=file", "data.val='a b/{00..12}.tar'"),
    *("+part@data.parts.mine=files", "+target@data.targets.caption=preference", "policy@task.dpo=language_model"),
    *("+peft@encoder.image.peft=lora", "encoder.image.peft.r=8", "encoder.image.pretrained=a/b.pth"),
    *(
        "balance=uncertainty",
        "modality_balance=ogm_ge",
        "experiment=dialogue",
        "monitor=val/loss",
        "checkpoint.mode=min",
    ),
    *("trainer=ddp", "trainer.devices=2", "trainer.precision=bf16-mixed", "trainer.max_time=00:11:45:00"),
    *(
        "callbacks=[ema,early_stopping]",
        "~callbacks.ema",
        "test.templates=['a picture of a {}']",
        "test.group_by=label",
    ),
    *("+width=64", "+encoder.image={_target_:mmtrain.encoders.image.vit.ViT,depth:2}"),
]
LEFT_OUT = [
    *("mode=fit", "run_dir=/elsewhere", "resume=auto", "resume_allow=[seed]", "init_from=a.ckpt", "trust=[os]"),
    *("hydra.run.dir=/elsewhere", "++hydra.run.dir=/elsewhere", "hydra.searchpath=[file:///elsewhere]"),
    *("+hydra.callbacks.x={_target_:os.system}", "hydra/launcher=ray", "hydra.job.env_set={PATH:/elsewhere}"),
    *("+hydra/sweeper=optuna", "predict.index=/elsewhere", "search.index=/elsewhere", "search.sheet=/a.png"),
    *("logger=[csv,wandb]", "logger.wandb.name=x", "+logger.x={_target_:os.system}", "sweep=optimizer", "trial={a:1}"),
    *("+callbacks.x={_target_:os.system}", "callbacks.ema._target_=os.system", "optimizer.lr=1", "schedule=constant"),
    *(
        "optimizer._target_=torch.optim.SGD",
        "~optimizer.betas",
        "plan.memory=80GB",
        "+trainer.plugins=[{_target_:a.b}]",
    ),
    *("+trainer.default_root_dir=/elsewhere", "trainer.strategy=/elsewhere", "checkpoint.mode=a/b", "+mine={a:1}"),
    *("overrides=[a]", "+experiment.x=1"),
]
REFUSED = [
    *("encoder/image=../../x", "encoder/image=/elsewhere/x", "encoder=[../x]", "experiment='..'", "task=[a/b]"),
    *("encoder/image=mine", "encoder=null2", "encoder={image:{_target_:os.system}}", "experiment={a:1}"),
    *("+logger@encoder.x=wandb", "+callbacks@fusion.x=ema", "+encoder@_global_=vit", "+input@hydra.x=image"),
    *("+hydra/launcher@encoder.x=ray", "+trainer@trainer.x=cpu", "+sweep@data.x=optimizer", "+input@logger.x=image"),
    *("data.root=$\\{oc.env:HOME\\}", "data.root=$\\{seed\\}", "encoder.image._target_.x=1", "$x=1", "data.$x=1"),
    *("seed=1,2", "dim=range(1,3)", "data.root=glob(*)", "--config-dir=/elsewhere", "-m", "seed", "", " seed=1"),
    *("fusion={a:[{b:{_target_:os.system}}]}", "fusion._args_=[{_target_:os.system}]", "+mine._target_=os.system"),
]


@pytest.mark.parametrize(
    ("overrides", "outcome"), [(TAKEN, "taken"), (LEFT_OUT, "left out"), (REFUSED, "refused")], ids=lambda o: o
)
def test_what_describes_the_model_and_the_data_is_taken(overrides: list[str], outcome: str, tmp_path: Path) -> None:
    for override in overrides:
        kept, faults = repeated(tmp_path / "run", [override])
        text = "refused" if faults else "taken" if kept == [override] else "left out"
        assert text == outcome, override


def test_what_this_command_sets_itself_is_neither_taken_nor_refused(tmp_path: Path) -> None:
    overrides = ["encoder.image={_target_:os.system}", "encoder/text=../x", "data.root=$\\{oc.env:HOME\\}"]
    assert repeated(tmp_path / "run", overrides, "encoder=vit", "data.root=/mine") == ([], [])


@pytest.mark.parametrize(
    ("recorded", "given", "taken"),
    [
        (["data.root=old"], "data.root", []),
        (["data.root=old"], "data.test", []),
        (["data.train=a.csv", "data.val=b.csv"], "data.root", []),
        (["data.train=a.csv", "data.val=b.csv"], "data.test", []),
        (["data.train=a.csv", "data.root=base"], "data.test", ["data.root=base"]),
        (["data.train=a.csv", "data.val=b.csv"], "seed", ["data.train=a.csv", "data.val=b.csv"]),
    ],
)
def test_tables_that_this_command_names_replace_all_of_the_run(
    recorded: list[str], given: str, taken: list[str], tmp_path: Path
) -> None:
    files = {key.removeprefix("data."): value for key, _, value in (text.partition("=") for text in recorded)}
    source = {"_target_": "mmtrain.data.sources.files.existing_folder"}
    assert repeated(tmp_path / "run", ["data=files", *recorded], f"{given}=3", data={**files, "source": source}) == (
        ["data=files", *taken],
        [],
    )


def test_an_option_of_the_users_own_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "conf" / "encoder" / "image").mkdir(parents=True)
    (tmp_path / "conf" / "encoder" / "image" / "mine.yaml").write_text("_target_: mine.MyEncoder\n")
    run = write_record(tmp_path / "run", {"overrides": ["encoder/image=mine"]})
    command = ["mode=test", f"run_dir={run}"]
    assert with_overrides_of_run(command, str(tmp_path / "conf")) == (["encoder/image=mine", *command], [])
    _, (said,) = with_overrides_of_run(command)
    expected = "encoder/image=mine: encoder/image has no option mine; add --config-dir DIR if it is your own file"
    assert said.startswith(expected)


@pytest.mark.parametrize(
    "reference", ["it's", "x' +hydra.run.dir='/elsewhere", "x'", "\\", "\\'", "a\\\\'b", 'a"b', "a,b", "{a: b}", "a=b"]
)
def test_a_reference_is_one_value_whatever_it_holds(reference: str, tmp_path: Path) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    tasks = {
        "scst": {"reference": reference},
        "a=b": {"reference": "x"},
        "a.b": {"reference": "x"},
        "c": {"reference": 3},
    }
    (kept,), faults = repeated(tmp_path / "run", [], task=tasks)
    (override,) = OverridesParser.create().parse_overrides([kept])
    assert (override.key_or_group, override.value(), faults) == ("task.scst.reference", reference, [])


# ------------------------------------------------------------------- readers


def script(name: str) -> Callable[[], Any]:
    """The program of a script, which is no module of a package."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    program: Callable[[], Any] = module.main
    return program


def typed(program: Callable[[], Any], *words: str) -> int:
    """The exit status of a command."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["program", *words])
        patched.setattr(sys, "path", list(sys.path))
        try:
            return int(program() or 0)
        except SystemExit as leaving:
            return int(leaving.code or 0)
        except ConfigError:
            return 2


def teach(run: Path) -> None:
    load_teacher(
        str(run), DataModule.__new__(DataModule), OmegaConf.create({}), "task.a.teacher", rebuild_from_run, trust=[]
    )


PYTHON: dict[str, Callable[[Path], Any]] = {
    "Finder.load": Finder.load,
    "ChatPipeline": ChatPipeline,
    "chat": ChatSession,
    "load_run": lambda run: load_run(run, rebuild_from_run),
    "load_trained of a checkpoint": lambda run: load_run(run / "checkpoints" / "best.ckpt", rebuild_without_tables),
    "a teacher or reference": teach,
    "scripts/export.py": lambda run: typed_or_refused("export", str(run), "--out", str(run / "out")),
    "scripts/export_chat.py": lambda run: typed_or_refused("export_chat", str(run), "--out", str(run / "out")),
    "scripts/make_preferences.py": lambda run: typed_or_refused("make_preferences", str(run), str(run / "out")),
}


def typed_or_refused(name: str, *words: str) -> None:
    if typed(script(name), *words) == 2:
        raise ConfigError("status 2")


COMMANDS = {
    "mode=test": ["mode=test"],
    "mode=predict": ["mode=predict"],
    "predict.index": ["mode=predict", "predict.index=index"],
    "mode=search": ["mode=search", "search.query=dog"],
    "mode=chat": ["mode=chat"],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a checkpoint, which is not read."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.ckpt").write_bytes(b"")
    return folder


@pytest.mark.parametrize("reader", PYTHON)
def test_a_reader_refuses_a_record_that_would_run_code(reader: str, run: Path, stranger: Stranger) -> None:
    for name, place in (("torch.hub", "data.split"), ("pathlib", "hidden"), ("reexported os", "encoder.image")):
        write_record(run, planted(RECORD, place, stranger.gadgets(run)[name]))
        with pytest.raises(ConfigError, match=r"may only name components of mmtrain|^status 2$"):
            PYTHON[reader](run)
        assert not stranger.ran and not (run / "out").exists()


@pytest.mark.parametrize("mode", COMMANDS)
def test_a_command_refuses_overrides_of_a_run_that_would_run_code(
    mode: str, run: Path, stranger: Stranger, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, place in (("torch.hub", "data.split"), ("pathlib", "+fusion.x"), ("reexported os", "encoder.image")):
        node = stranger.gadgets(run)[name]
        write_record(run, RECORD | {"overrides": [f"{place}={spelled(node)}"]})
        assert typed(main, *COMMANDS[mode], f"run_dir={run}") == 2
        assert f"_target_={node['_target_']}: a run folder may only name components" in capsys.readouterr().err
        assert not stranger.ran


@pytest.mark.parametrize("mode", ["mode=search", "mode=chat"])
def test_a_command_refuses_a_record_that_would_run_code(
    mode: str, run: Path, stranger: Stranger, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(run, planted(RECORD, "data.split", stranger.gadgets(run)["torch.hub"]))
    assert typed(main, *COMMANDS[mode], f"run_dir={run}") == 2
    assert "data.split._target_=torch.hub.load_state_dict_from_url: " in capsys.readouterr().err
    assert not stranger.ran


def test_every_reader_of_a_run_folder_goes_through_the_check() -> None:
    """OmegaConf.load takes what the program wrote for itself: the configuration of a rank, or of a batch size's try."""
    own = {"mmtrain/modes/run.py", "mmtrain/modes/plan/find.py"}
    for file in [*(ROOT / "mmtrain").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        text, name = file.read_text(), file.relative_to(ROOT).as_posix()
        assert "OmegaConf.load(" not in text or name in own, name
        assert "hydra.utils" not in text or name == "mmtrain/config/instantiate.py", name


def test_what_the_program_writes_is_read(tmp_path: Path) -> None:
    from mmtrain.build import compose

    cfg = compose(["data=files", f"data.root={tmp_path}", "encoder.image.dim=${dim}"])
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    assert load_run_config(tmp_path, trust=[]) == cfg
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["overrides"][-1] == "encoder.image.dim=128"
    assert (config_dir() / "train.yaml").is_file()


# --------------------------------------------------- a run of the user's own

MINE = """
import torch
from torch import nn
from mmtrain.types import Features


class MyEncoder(nn.Module):
    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.net = nn.Conv2d(3, dim, 4, stride=4)

    def forward(self, values, mask=None):
        tokens = self.net(values).flatten(2).transpose(1, 2)
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))
"""


def test_a_run_with_classes_of_the_users_own_is_read_when_they_are_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained with `--config-dir`: what that folder names later is trusted, what the record names is not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_of_the_user.py").write_text(MINE)
    option = tmp_path / "conf" / "encoder" / "image" / "mine.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("_target_: mine_of_the_user.MyEncoder\ndim: ${dim}\n")
    tables = make_tables(tmp_path / "data")
    sizes = [o for o in TINY_MODEL if not o.startswith(("encoder.image", "trainer.max_epochs"))]
    trained = ["data=files", f"data.root={tables}", "task=[contrastive]", "trainer.max_epochs=1", *sizes]
    own = ["--config-dir", "conf"]
    assert typed(main, *own, *trained, "encoder/image=mine", "run_dir=run") == 0
    read = ["run_dir=run", "mode=test"]
    assert typed(main, *own, *read) == 0
    capsys.readouterr()
    assert typed(main, *read, "trust=[mine_of_the_user]") == 2
    assert "encoder/image has no option mine; add --config-dir DIR" in capsys.readouterr().err
    index = ["run_dir=run", "mode=predict", "predict.index=run/index"]
    assert typed(main, *own, *index) == 0
    search = [*own, "run_dir=run", "mode=search", "search.query=a red bar"]
    capsys.readouterr()
    assert typed(main, *search) == 2
    first, fix = capsys.readouterr().err.splitlines()
    assert first == (
        "encoder.image._target_=mine_of_the_user.MyEncoder: a run folder may only name components of mmtrain"
        f" ({tmp_path}/run/config.yaml)"
    )
    assert fix == (
        "    fix: if you know who made the run folder, trust=[mine_of_the_user] (in Python"
        ' trust=["mine_of_the_user"], for scripts --trust mine_of_the_user)'
    )
    assert typed(main, *search, "trust=[mine_of_the_user]") == 0
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"trust=\[mine_of_the_user\]"):
        Finder.load("run")
    assert len(Finder.load("run", index="run/index", trust=["mine_of_the_user"]).find(text="a red bar")) == 5


@pytest.mark.parametrize("trust", [[], ["mine"]])
def test_a_teacher_may_name_what_the_student_trusts(trust: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from mmtrain import build

    class Loaded(Exception):
        pass

    def load(*args: Any, trust: list[str]) -> None:
        raise Loaded(trust)

    monkeypatch.setattr(build, "load_teacher", load)
    words = [f"trust=[{','.join(trust)}]", "task.distillation.teacher=run"]
    cfg = build.compose(["task=[classification,distillation]", *words])
    with pytest.raises(Loaded) as raised:
        build._task(cfg, "distillation", {}, DataModule.__new__(DataModule))
    assert raised.value.args == (trust,)


def test_a_class_that_an_override_of_the_run_names_is_taken_when_it_is_trusted(tmp_path: Path) -> None:
    override = "encoder.image={_target_:mine_of_the_user.MyEncoder,dim:16}"
    for trust, taken in ((["trust=[mine_of_the_user]"], True), (["++trust=[mine_of_the_user]"], True), ([], False)):
        kept, faults = repeated(tmp_path / "run", [override], *trust)
        assert (kept == [override], bool(faults)) == (taken, not taken)
    for trust in ("trust=[os]", "trust=", "trust=[mine/x]", "trust={a:1}"):
        _, (fault,) = repeated(tmp_path / "run", [override], trust)
        assert fault.startswith("trust=")
