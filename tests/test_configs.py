"""Every YAML file composes, builds what it says and hides no default in code; a new file is covered as it is."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from torch import Tensor
from torch.optim import Optimizer

from mmtrain.build import _without_tuning, build_data, build_lit, build_model, compose
from mmtrain.config import rules_hardware as machine
from mmtrain.config.compose import config_dir
from mmtrain.config.instantiate import make, signature_of
from mmtrain.config.rules import OWN_TRAINER_KEYS
from mmtrain.config.validate import faults_of
from mmtrain.data.dataset import Collate, TrainSplit
from mmtrain.data.loader import TrainSteps, make_loader
from mmtrain.data.module import DataModule
from mmtrain.training.trainer import build_callbacks, build_loggers, build_trainer
from mmtrain.types import Batch
from tests.batches import gradients
from tests.pairs import write_clap, write_clip, write_open_clip
from tests.tiny import TINY_MODEL, make_fetched_folders, make_tables

FILES = sorted(path.relative_to(config_dir()).with_suffix("") for path in config_dir().rglob("*.yaml"))
LISTS = ("task", "logger", "callbacks")  # groups with several options at once
# What mmtrain.build hands over, and what a schedule is called with; everything else is in YAML.
HANDED_OVER = {
    "tables": {"source", "seed", "num_micro_batches"},  # the source is in the files of data/, which name this one
    "encoder": {"in_dim"},
    "fusion": {"dims"},
    "connector": {"in_dim", "dim"},
    "task": {"dims", "known_targets", "vocabularies", "encoders", "decides"},
    "balance": {"tasks"},
    "modality_balance": {"tasks", "dims"},
    "logger": {"resume_step"},
    "schedule": {"step", "total_steps"},
}

SIZES = "hidden_size:16,num_hidden_layers:1,num_attention_heads:2,intermediate_size:16"
# Models of transformers with random weights, in place of the hub's
SMALL_MODELS = {
    "image": f"{{model_type:vit,patch_size:8,{SIZES}}}",
    "text": f"{{model_type:bert,vocab_size:2000,{SIZES}}}",
    "audio": f"{{model_type:wav2vec2,conv_dim:[8,8],conv_stride:[20,16],conv_kernel:[20,16],num_feat_extract_layers:2,"
    f"num_conv_pos_embeddings:4,num_conv_pos_embedding_groups:2,{SIZES}}}",
    "video": f"{{model_type:videomae,patch_size:8,{SIZES}}}",
}

# The target of a task of sentences
TARGETS_OF = {
    "captioning": (),
    "language_model": ("data.columns.chat=caption", "data.targets.chat.column_roles=[answer]"),
    "generation": ("+target@data.targets.sentence=text", "+data.columns.sentence=caption"),
    "vqa_generative": ("target@data.targets.answer=text", "data.columns.answer=caption"),
}

# Tasks that another run's model is a part of
NEED_A_RUN = ("distillation", "dpo", "scst", "grpo")


def each(files: list[Path]) -> pytest.MarkDecorator:
    """A test for each of these files."""
    return pytest.mark.parametrize("file", [pytest.param(file, id=file.as_posix()) for file in files])


def of_groups(*groups: str) -> pytest.MarkDecorator:
    """A test for each file of these groups and their sub-groups."""
    return each([file for file in FILES if file.parts[0] in groups and len(file.parts) > 1])


def content(file: Path) -> Any:
    return yaml.safe_load((config_dir() / file).with_suffix(".yaml").read_text(encoding="utf-8"))


def nodes(value: Any) -> list[dict[str, Any]]:
    """Every mapping with a `_target_`, at any depth."""
    if not isinstance(value, dict):
        return []
    return [value] * ("_target_" in value) + [node for child in value.values() for node in nodes(child)]


def placed(file: Path, node: dict[str, Any]) -> set[str]:
    """The keys that a defaults list fills: `inputs` of `/input@inputs.image: image`, and all of a file put in here."""
    keys: set[str] = set()
    for entry in node.get("defaults", []):
        group, option = next(iter(entry.items())) if isinstance(entry, dict) else (entry, None)
        named, _, where = group.partition("@")
        if where and where != "_here_":
            keys.add(where.partition(".")[0])
        elif named not in ("_self_", "/tuning") and (where or option is None):  # tuning: build.py reads it
            other = (Path() if named.startswith("/") else file.parent) / named.lstrip("/") / (option or "")
            keys |= {*content(other), *placed(other, content(other))} - {"_target_", "defaults"}
    return keys


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tmp_path_factory.mktemp("configs") / "data")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """By option of a pair, the overrides that choose small weights."""
    root = tmp_path_factory.mktemp("pairs")
    write_clip(root / "clip")
    write_clap(root / "clap")
    write_open_clip(root / "open_clip")
    return {
        "clip": [f"pretrained={root / 'clip'}"],
        "clap": [f"pretrained={root / 'clap'}"],
        "open_clip": [f"name='local-dir:{root / 'open_clip'}'", "pretrained=null"],
    }


@pytest.fixture
def choosing(tables: Path, pairs: dict[str, list[str]]) -> Any:
    """The overrides that choose a file of configs/."""

    def overrides(file: Path) -> list[str]:
        group, option = file.parent.as_posix(), file.name
        if group == ".":
            return []
        if group == "tables":  # not a person's choice: the files of data/ name it
            return [f"tables@data={option}"]
        if group in ("input", "target"):
            return [f"+{group}@data.{group}s.more={option}"]
        if group == "part":
            needs = {
                "files": [f"root={tables}"],
                "fetched": [f"root={tables}", "command=none"],
                "hub": ["name=user/name"],
            }
            more = [f"data.parts.more.source.{need}" for need in needs.get(option, ())]
            return ["data=mix", f"+part@data.parts.more={option}", *more]
        if option in pairs:
            key = ".".join(file.parts[:-1])
            return [f"{group}={option}", *(f"{key}.{override}" for override in pairs[option])]
        if option == "huggingface":
            key = f"encoder.{file.parts[1]}"
            return [f"{group}={option}", f"{key}.pretrained=null", f"{key}.config={SMALL_MODELS[file.parts[1]]}"]
        if file.as_posix() == "encoder/image/timm":
            return [f"{group}={option}", "encoder.image.name=test_efficientnet"]  # takes pictures of 16 pixels
        if group == "connector":
            return ["task=[language_model]", f"connector@task.language_model.connector={option}"]
        if group == "policy":
            return ["task=[dpo]", f"policy@task.dpo={option}", *TARGETS_OF.get(option, ())]
        if option == "pictures":
            return ["encoder/image=pictures", "input@data.inputs.image=images", "encoder.image.image.patch_size=8"]
        if group == "peft":
            return [f"+peft@encoder.image.peft={option}"]
        if group == "tuning":
            return []
        if file.as_posix() == "task/distillation":
            return ["task=[classification,distillation]", "task.distillation.teacher=outputs/teacher"]
        if file.as_posix() == "fusion/late":
            return ["fusion=late", "task=[contrastive,classification]"]  # no pair is judged by one modality each
        if group == "task":
            return [
                f"task=[{option}]",
                *TARGETS_OF.get(option, ("data.columns.labels=label", "data.columns.answer=label")),
            ]
        requested = [key for key, value in (content(file) or {}).items() if value == "???"] if group == "data" else []
        requested += ["root"] if file.as_posix() == "data/files" else []  # or a file for each split
        return [
            f"{group}=[{option}]" if group in LISTS else f"{group}={option}",
            *(f"data.{k}={tables}" for k in requested),
            *(["data.batch_size=8"] if requested else []),
        ]

    return overrides


@pytest.fixture
def compose_tiny(tables: Path, tmp_path: Path) -> Any:
    """The real configuration, made small by those of TINY_MODEL whose keys it has."""

    def compose_it(*overrides: str) -> DictConfig:
        requested = ["data=files", f"data.root={tables}", f"run_dir={tmp_path / 'run'}", *overrides]
        if not any("encoder" in override for override in overrides):
            return compose([*requested, *TINY_MODEL])
        full = compose(requested)
        tiny = [o for o in TINY_MODEL if OmegaConf.select(full, o.split("=")[0]) is not None]
        if any("open_clip" in override for override in overrides):  # its images have one size
            tiny.remove("data.inputs.image.size=16")
        return compose([*requested, *tiny])

    return compose_it


def read(cfg: DictConfig) -> DataModule:
    """The data of a configuration, with its vocabularies."""
    data = build_data(cfg)
    data.read(Path(cfg.run_dir), training=True)
    return data


def all_rows(data: DataModule) -> Batch:
    """The training split in one batch: some rows have no picture, no caption or no label."""
    split, size = TrainSplit(data.tables["train"], **data.parts()), len(data.tables["train"])
    collate = Collate(inputs=data.inputs, targets=data.targets)
    steps = TrainSteps(num_samples=size, batch_size=size)
    return next(iter(make_loader(split, steps, collate, num_workers=0, pin_memory=False)))[0]


# --------------------------------------------------------------- compose, build


@each(FILES)
def test_it_composes_without_a_fault(
    file: Path, choosing: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "has_no_gpu", lambda: False)
    make_fetched_folders(tmp_path, monkeypatch)
    assert faults_of(config_dir(), None, choosing(file), multirun=False) == []  # a value that is missing is one


@of_groups("encoder", "fusion", "task", "balance")
def test_a_part_of_the_model_is_built_and_learns(file: Path, choosing: Any, compose_tiny: Any) -> None:
    """From tables with gaps. A part that nothing trains has parameters without a gradient."""
    if file.parts[0] == "task" and file.name in NEED_A_RUN:
        pytest.skip(f"needs a trained model: tests/tasks/test_{file.name}.py")
    cfg = compose_tiny(*choosing(file))
    data = read(cfg)
    lit = build_lit(cfg, build_model(cfg, data))
    losses = {name: total / count.clamp(min=1) for name, (total, count) in lit.model.losses(all_rows(data)).items()}
    loss = torch.stack(list(losses.values())).sum()
    assert loss.isfinite()
    loss.backward()
    result = gradients(lit.model)
    assert [name for name, gradient in result.items() if not gradient.isfinite().all()] == []
    for part in [*lit.model.encoders.values(), *lit.model.tasks.values(), *filter(None, [lit.model.fusion])]:
        assert any(p.grad is not None and p.grad.any() for p in part.parameters()), type(part).__name__


@each([file for file in FILES if file.parts[0] == "encoder" and len(file.parts) > 2])
def test_an_encoder_is_built_as_it_stands_and_learns(file: Path, choosing: Any) -> None:
    """Unlike the tables of these tests, this has every modality, and nothing is made small."""
    cfg = compose(choosing(file))
    build_data(cfg)  # sizes that come with weights
    modality = file.parts[1]
    values, mask = inputs_of(modality, cfg.data.inputs[modality])
    if file.name == "pictures":
        values, mask = values.unsqueeze(1).expand(-1, 2, -1, -1, -1), torch.tensor([[True, True], [True, False]])
    knows_width = {"in_dim": values.shape[-1]} if modality in ("vector", "sequence") else {}
    encoder = make(_without_tuning(cfg.encoder[modality]), f"encoder.{modality}", **knows_width)
    encoder.projection = None  # of a pair, which no task uses here
    tokens, valid = encoder(values, mask).cleared()
    assert tokens.shape == (*valid.shape, encoder.dim)
    assert valid.any(dim=1).all()
    (tokens * torch.randn_like(tokens)).sum().backward()
    assert [name for name, gradient in gradients(encoder).items() if not gradient.any()] == []


def inputs_of(modality: str, cfg: DictConfig) -> tuple[Tensor, Tensor | None]:
    """Two rows as configs/input/ says they are, the first as long as it can be."""
    if modality in ("image", "vector"):
        return torch.randn((2, 3, cfg.size, cfg.size) if modality == "image" else (2, 7)), None
    if modality == "text":
        values = torch.randint(6, 100 if cfg.tokenizer else cfg.vocab_size, (2, cfg.max_length))
    elif modality == "audio":
        values = torch.randn(2, round(cfg.max_seconds * cfg.sample_rate))
    elif modality == "video":
        values = torch.randn(2, cfg.num_frames, 3, cfg.size, cfg.size)
    elif modality == "dialogue":
        values = torch.randint(cfg.max_speakers, (2, cfg.max_turns, 1 + cfg.max_length))
    else:
        assert modality == "sequence", f"say here what a row of {modality} is"
        values = torch.randn(2, cfg.max_length, 7)
    length = values.shape[1]
    return values, torch.arange(length) < torch.tensor([[length], [length // 3]])


@pytest.mark.parametrize("name", ["dpo", "grpo"])
def test_a_language_model_is_a_policy_that_needs_no_run(name: str, compose_tiny: Any) -> None:
    """With adapters, which alone learn; of answers to choose from, and of answers with a reward."""
    pairs = ["target@data.targets.chat=chat_preference", "data.columns.chat=[caption,label]"]
    kept = ["data.targets.chat.keep_references=true", "data.columns.chat=caption"]
    cfg = compose_tiny(
        *(f"task=[{name}]", f"policy@task.{name}=language_model", "data.targets.chat.column_roles=[answer]"),
        *(f"+peft@task.{name}.policy.lm.peft=lora", f"task.{name}.reference=adapters_off", "encoder.image.freeze=true"),
        *(pairs if name == "dpo" else kept),
    )
    data = read(cfg)
    model = build_lit(cfg, build_model(cfg, data)).model
    total, count = model.losses(all_rows(data))[name]
    total.backward()
    assert count > 0 and total.isfinite()
    assert {n.split("lora_")[-1][0] for n, p in model.named_parameters() if p.requires_grad} == {"A", "B"}
    assert name != "dpo" or any(p.grad is not None and p.grad.any() for p in model.parameters())


@of_groups("data")
def test_a_data_set_is_built_and_no_table_is_opened(file: Path, choosing: Any) -> None:
    data = build_data(compose(choosing(file)))
    assert isinstance(data, DataModule)
    assert data.tables == {}


@of_groups("optimizer")
def test_an_optimizer_takes_the_parameters(file: Path, choosing: Any, compose_tiny: Any) -> None:
    cfg = compose_tiny(*choosing(file))
    lit = build_lit(cfg, build_model(cfg, read(cfg)))
    assert isinstance(lit.make_optimizer([{"params": list(lit.parameters())}]), Optimizer)


@of_groups("schedule")
def test_a_schedule_gives_a_factor_from_the_first_step_to_the_last(file: Path, choosing: Any) -> None:
    schedule = make(compose(choosing(file)).schedule, "schedule")
    assert all(0.0 <= schedule(step, 40) <= 1.0 for step in range(41))
    assert schedule(0, 40) > 0


@of_groups("callbacks")
def test_a_callback_is_built(file: Path, choosing: Any, compose_tiny: Any) -> None:
    cfg = compose_tiny(*choosing(file))
    callbacks = build_callbacks(cfg, monitor="val/loss")
    assert all(isinstance(callback, Callback) for callback in callbacks)
    assert get_object(cfg.callbacks[file.name]._target_) in map(type, callbacks)


@of_groups("logger")
def test_a_logger_is_built_beside_the_csv_that_is_always_on(file: Path, choosing: Any, compose_tiny: Any) -> None:
    csv, *others = build_loggers(compose_tiny(*choosing(file)), resume_step=None)
    assert type(csv).__name__ == "CSVMetrics"
    assert len(others) == (file.name != "csv")
    assert all(isinstance(logger, Logger) for logger in others)


@of_groups("trainer")
def test_a_trainer_has_lightnings_own_names_and_those_of_the_step(file: Path, choosing: Any) -> None:
    keys = set(compose(choosing(file)).trainer)
    assert set(OWN_TRAINER_KEYS) <= keys
    assert keys - set(OWN_TRAINER_KEYS) <= set(inspect.signature(Trainer).parameters)


@pytest.mark.parametrize("option", ["cpu", "ddp"])
def test_a_trainer_is_built_without_a_gpu(option: str, compose_tiny: Any) -> None:
    cfg = compose_tiny(f"trainer={option}", "trainer.accelerator=cpu")
    trainer = build_trainer(cfg, monitor="val/loss", resume_step=None)
    assert (trainer.num_devices, trainer.max_epochs) == (cfg.trainer.devices, cfg.trainer.max_epochs)
    assert trainer.checkpoint_callback.filename == "best"


# -------------------------------------------------------------- names, defaults


@each([file for file in FILES if file.parts[0] in ("encoder", "fusion", "task", "balance") and nodes(content(file))])
def test_a_file_its_module_and_its_option_share_one_name(file: Path) -> None:
    package = {"encoder": "encoders", "task": "tasks"}.get(file.parts[0], file.parts[0])
    assert content(file)["_target_"].rpartition(".")[0] == ".".join(["mmtrain", package, *file.parts[1:]])


@each([file for file in FILES if nodes(content(file))])
def test_every_argument_of_our_own_stands_in_the_file(file: Path) -> None:
    """No default hides in code: the file and what mmtrain.build hands over name all that a class or function takes."""
    top = content(file)
    for node in nodes(top):
        if node["_target_"].startswith("mmtrain."):
            given = {key for key in node if not key.startswith("_") and key != "defaults"} | placed(file, node)
            taken = set(signature_of(get_object(node["_target_"])).parameters)
            handed_over = HANDED_OVER.get(file.parts[0], set()) if node is top else set()
            assert given <= taken, node["_target_"]
            assert taken - given == handed_over & taken, node["_target_"]
