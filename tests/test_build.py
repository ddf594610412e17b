"""Objects from configuration: what a constructor refuses is the user's to fix, what breaks inside it is not.

That every file of configs/ can be built is in tests/test_configs.py.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from torch import nn

from mmtrain.build import (
    build_data,
    build_lit,
    build_model,
    check_parts,
    compose,
    encoded_modalities,
)
from mmtrain.config.instantiate import make
from mmtrain.data.module import DataModule
from mmtrain.errors import ConfigError
from mmtrain.training.trainer import build_trainer
from tests.tiny import TINY_MODEL, make_tables


class Refusing:
    """A part whose constructor takes a size."""

    def __init__(self, *, size: int) -> None:
        if size < 0:
            raise ValueError(f"size = {size} is negative; set it to 1")
        if size == 0:
            raise TypeError("inside")
        self.size = size


def node(**keys: object) -> DictConfig:
    return OmegaConf.create({"_target_": f"{__name__}.Refusing", **keys})


def test_a_part_is_made_from_its_node_and_what_the_program_adds() -> None:
    assert make(node(size=3), "fusion").size == 3
    assert make(node(), "fusion", size=4).size == 4
    assert make(node(_partial_=True), "schedule")(size=5).size == 5


@pytest.mark.parametrize("added", [{}, {"size": 1}])
def test_an_argument_that_it_does_not_take_is_the_users_to_mend(added: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"^fusion\._target_=.*Refusing: cannot be called with .*: .*sise"):
        make(node(sise=3), "fusion", **added)


def test_an_argument_that_it_lacks_is_the_users_to_mend() -> None:
    with pytest.raises(ConfigError, match=r"^fusion\._target_=.*Refusing: cannot be called with .*: .*size"):
        make(node(), "fusion")


def test_of_a_node_inside_another_its_own_key_is_named() -> None:
    """As of a run folder that an earlier version wrote."""
    outer = OmegaConf.create({"_target_": "builtins.dict", "inputs": {"text": node()}})
    with pytest.raises(
        ConfigError, match=r"^data\.inputs\.text\._target_=.*Refusing: cannot be called with .*: .*size"
    ):
        make(outer, "data")


def test_what_it_refuses_is_said_with_the_node() -> None:
    for given, added in (({"size": -1}, {}), ({}, {"size": -1})):
        with pytest.raises(ConfigError, match=r"^encoder\.image: size = -1 is negative; set it to 1$"):
            make(node(**given), "encoder.image", **added)


def test_what_breaks_inside_is_a_fault_of_the_program() -> None:
    with pytest.raises(Exception, match="inside") as caught:
        make(node(size=0), "fusion")
    assert not isinstance(caught.value, ConfigError)


def test_parts_that_need_no_data_are_tried_before_it_is_read_and_all_that_is_wrong_is_said(tmp_path: object) -> None:
    wrong = [
        *("optimizer.betas=[1]", "callbacks.ema.decay=2", "trainer.strategy=dpp", "balance=gradvac", "balance.beta=7"),
        f"run_dir={tmp_path}",
    ]
    with pytest.raises(ConfigError) as caught:
        check_parts(compose(wrong))
    message = str(caught.value)
    assert [line.split(":")[0] for line in message.splitlines() if not line.startswith(" ")] == [
        *("optimizer", "balance", "trainer", "callbacks.ema")
    ]
    assert "invalid strategy name: `strategy='dpp'`" in message
    check_parts(compose([f"run_dir={tmp_path}"]))


@pytest.mark.parametrize("added", [{}, {"size": 1}])
@pytest.mark.parametrize("target", ["mmtrain.fusion.nothing.Nothing", "nowhere.Part", "mmtrain.fusion.concat.Nothing"])
def test_a_class_that_is_not_there_is_named(target: str, added: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"^fusion\._target_={target}: cannot be imported: "):
        make(OmegaConf.create({"_target_": target}), "fusion", **added)


def test_what_the_program_adds_is_handed_over_as_it_is() -> None:
    """Hydra alone would turn data classes among it into configurations, and dicts too."""
    dims = {"image": 8}
    assert make(OmegaConf.create({"_target_": "builtins.dict", "dim": 4}), "fusion", dims=dims)["dims"] is dims


# ------------------------------------------------------------- from tiny tables


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tmp_path_factory.mktemp("build") / "data")


@pytest.fixture
def tiny(tables: Path, tmp_path: Path) -> Any:
    """A small configuration and its data."""

    def compose_and_read(*overrides: str) -> tuple[DictConfig, DataModule]:
        cfg = compose(["data=files", f"data.root={tables}", f"run_dir={tmp_path / 'run'}", *TINY_MODEL, *overrides])
        data = build_data(cfg)
        data.read(Path(cfg.run_dir), training=True)
        return cfg, data

    return compose_and_read


@pytest.mark.parametrize(
    ("overrides", "encoders", "fused"),
    [
        (["task=[contrastive]"], {"image", "text"}, False),
        (["task=[matching]"], {"image", "text"}, True),
        (["task=[classification]"], {"image", "text"}, True),
        (["task=[classification]", "task.classification.input=image"], {"image"}, False),
        (["task=[classification]", "task.classification.input=text"], {"text"}, False),
        (["task=[contrastive,classification]", "task.classification.input=image"], {"image", "text"}, False),
    ],
)
def test_what_no_task_reads_is_not_built(overrides: list[str], encoders: set[str], fused: bool, tiny: Any) -> None:
    cfg, data = tiny(*overrides)
    model = build_model(cfg, data)
    assert set(model.encoders) == encoders
    assert (model.fusion is not None) == fused
    assert set(model.tasks) == set(cfg.task)


def test_a_fusion_is_of_what_the_data_has(tiny: Any) -> None:
    cfg, data = tiny("task=[classification]", "fusion=concat")
    del data.inputs["text"]
    model = build_model(cfg, data)
    assert list(model.encoders) == list(model.fusion.norms) == ["image"]


def test_an_encoder_that_takes_a_width_is_handed_that_of_the_data(tiny: Any) -> None:
    cfg, data = tiny("task=[classification]")
    data.inputs["vector"] = SimpleNamespace(kind="vector", dim=5)
    model = build_model(cfg, data)
    assert set(model.encoders) == {"image", "text", "vector"}
    assert model.encoders["vector"].hidden[0].in_features == 5


def test_an_encoder_that_takes_a_width_is_refused_where_the_data_has_none(tiny: Any) -> None:
    cfg, data = tiny()
    cfg.encoder.image = cfg.encoder.vector
    with pytest.raises(ConfigError) as raised:
        build_model(cfg, data)
    assert str(raised.value) == (
        "encoder.image._target_ = mmtrain.encoders.vector.mlp.VectorMLP takes in_dim, but data.inputs.image has no"
        " width to give\n    choose an encoder of image data with encoder/image=NAME"
    )


@pytest.mark.parametrize(
    ("task", "missing", "message"),
    [
        ("contrastive", "text", "task.contrastive.modalities=text: the data has only image"),
        ("matching", "text", "task.matching.modalities=text: the data has only image"),
        ("contrastive", "image", "task.contrastive.modalities=image: the data has only text"),
    ],
)
def test_a_task_whose_modality_the_data_lacks_is_refused_with_the_mend(
    task: str, missing: str, message: str, tiny: Any
) -> None:
    cfg, data = tiny(f"task=[{task}]")
    assert encoded_modalities(cfg, data) == ["image", "text"]
    del data.inputs[missing]
    with pytest.raises(ConfigError) as raised:
        encoded_modalities(cfg, data)
    fix = f"    fix: choose task=[classification], or set data.columns.{missing}=NAME, if a column contains it"
    assert str(raised.value) == f"{message}; the columns are id, image, caption, label, number\n{fix}"


def test_of_two_other_modalities_a_pair_is_offered(tiny: Any) -> None:
    cfg, data = tiny("task=[contrastive,matching]")
    data.inputs["audio"] = data.inputs.pop("image")
    with pytest.raises(ConfigError) as raised:
        encoded_modalities(cfg, data)
    for name in ("contrastive", "matching"):
        assert f"    fix: set task.{name}.modalities=[text,audio], or " in str(raised.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("encoder.image.num_heads=3", r"^encoder\.image: dim = 16 is not divisible by num_heads = 3"),
        ("encoder.image.patch_size=5", r"^encoder\.image: image_size = 16 is not divisible by patch_size = 5"),
        ("fusion.num_heads=3", r"^fusion: dim = 16 is not divisible by num_heads = 3"),
        ("task.matching.hard_negative_ratio=2", r"^task\.matching: hard_negative_ratio = 2"),
        (
            "task.classification.input=audio",
            r"^task\.classification\.input=audio: the data has only image, text; the columns are id",
        ),
        (
            "task.contrastive.modalities=[image,audio]",
            r"^task\.contrastive\.modalities=audio: the data has only image, text",
        ),
        (
            "task.classification.target=color",
            r"^task\.classification\.target=color: no training row has one; the columns are id, image, ",
        ),
    ],
)
def test_what_a_model_cannot_be_is_said_with_its_key(override: str, message: str, tiny: Any) -> None:
    cfg, data = tiny(override)
    with pytest.raises(ConfigError, match=message):
        build_model(cfg, data)


def test_what_an_optimizer_refuses_is_said_with_its_key(tiny: Any) -> None:
    """It is made when training begins, from the parameters."""
    cfg, data = tiny("optimizer.betas=[2,0.9]")
    lit = build_lit(cfg, build_model(cfg, data))
    with pytest.raises(ConfigError, match=r"^optimizer: Invalid beta parameter at index 0: 2"):
        lit.make_optimizer([{"params": list(lit.parameters())}])


PAIR = [("image",), ("text",)]


@pytest.mark.parametrize(("subsets", "expected"), [("single", PAIR), ("all", PAIR), ("none", [])])
def test_a_test_judges_the_modalities_alone_if_asked(subsets: str, expected: list[tuple[str]], tiny: Any) -> None:
    cfg, data = tiny(f"test.subsets={subsets}")
    lit = build_lit(cfg, build_model(cfg, data))
    evaluation = lit.evaluation
    assert evaluation.subsets == expected
    assert {key.partition("+")[2] for key in evaluation.subset_metrics} == {m for subset in expected for m in subset}


def test_all_subsets_of_three_modalities_are_judged(tiny: Any) -> None:
    cfg, data = tiny("test.subsets=all")
    encoders = {name: nn.Identity() for name in ("image", "text", "audio")}
    model = build_model(cfg, data)
    model.encoders = nn.ModuleDict(encoders)
    subsets = build_lit(cfg, model).evaluation.subsets
    assert subsets == [(m,) for m in encoders] + [("image", "text"), ("image", "audio"), ("text", "audio")]


def test_knobs_reach_what_they_are_for(tiny: Any) -> None:
    step = ["trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=null", "trainer.log_every_n_steps=5"]
    tasks = ["task=[contrastive,classification]", "task.contrastive.weight=3"]
    cfg, data = tiny("seed=7", "checkpoint.mode=min", *step, *tasks)
    lit = build_lit(cfg, build_model(cfg, data))
    assert (data.seed, data.num_micro_batches, data.batch_size) == (7, 2, 8)
    assert (lit.seed, lit.gradient_clip_val, lit.log_every_n_steps) == (7, None, 5)
    assert {name: task.weight for name, task in lit.tasks.items()} == {"contrastive": 3, "classification": 0.5}
    trainer = build_trainer(cfg, monitor="val/loss", resume_step=None)
    assert (trainer.checkpoint_callback.monitor, trainer.checkpoint_callback.mode) == ("val/loss", "min")
    assert (trainer.accumulate_grad_batches, trainer.gradient_clip_val) == (1, None)  # the step does both itself


class Pretrained(nn.Module):
    """An encoder whose weights want pictures as these."""

    def __init__(self, *, pretrained: str | None, patch: int) -> None:
        super().__init__()
        self.dim = patch
        self.inner = nn.Linear(1, 1)

    @classmethod
    def preprocessing(cls, *, pretrained: str | None) -> dict[str, Any]:
        if pretrained == "gone":
            raise ValueError("pretrained = gone cannot be read; name another")
        return {} if pretrained is None else {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}


def with_pretrained(pretrained: str | None, *overrides: str) -> DictConfig:
    cfg = compose(["task=[contrastive]", *overrides])
    cfg.encoder.image = {"_target_": f"{__name__}.Pretrained", "pretrained": pretrained, "patch": 4}
    return cfg


def test_preprocessing_comes_with_the_weights() -> None:
    cfg = with_pretrained("somewhere")
    build_data(cfg)
    assert cfg.data.inputs.image.mean == [0.1, 0.2, 0.3] and cfg.data.inputs.image.std == [0.4, 0.5, 0.6]


@pytest.mark.parametrize(
    "value", [{"_target_": "os.getcwd"}, [{"_target_": "os.getcwd"}], "${oc.env:HOME}", ["1"], (1,)]
)
def test_what_weights_say_of_their_input_is_no_configuration(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in a file of others."""
    monkeypatch.setattr(Pretrained, "preprocessing", classmethod(lambda cls, *, pretrained: {"mean": value}))
    with pytest.raises(ConfigError, match=r"^encoder\.image: the weights say that mean is .*, which is no setting$"):
        build_data(with_pretrained("somewhere"))


def test_preprocessing_without_weights() -> None:
    cfg = with_pretrained(None)
    build_data(cfg)
    assert cfg.data.inputs.image.mean == cfg.data.inputs.image.std == [0.5, 0.5, 0.5]
    build_data(own := with_pretrained(None, "data.inputs.image.mean=[0.3,0.3,0.3]"))
    assert own.data.inputs.image.mean == [0.3, 0.3, 0.3]


def test_preprocessing_of_an_encoder_inside_another() -> None:
    cfg = with_pretrained("somewhere", "data=files", "data.root=.", "task.contrastive.modalities=[video,text]")
    cfg.encoder.video.image = cfg.encoder.image
    build_data(cfg)
    assert cfg.data.inputs.video.mean == [0.1, 0.2, 0.3]
    assert cfg.data.inputs.image.mean == [0.5, 0.5, 0.5]  # no task reads it


def test_other_preprocessing_than_the_weights_want_is_refused_with_the_mend() -> None:
    cfg = with_pretrained("somewhere", "data.inputs.image.mean=[0.3,0.3,0.3]")
    message = r"image\.mean = \[0.3, 0.3, 0.3\], but the weights of encoder\.image were trained with \[0.1, 0.2"
    with pytest.raises(ConfigError, match=message) as caught:
        build_data(cfg)
    assert str(caught.value).endswith("\n    set data.inputs.image.mean to auto")
    with pytest.raises(ConfigError, match=r"encoder\.image: pretrained = gone cannot be read; name another"):
        build_data(with_pretrained("gone"))


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ({"_target_": "torch.optim.lr_scheduler.OneCycleLR", "_partial_": True, "max_lr": 0.1}, "multiple values"),
        ({"_target_": "torch.optim.lr_scheduler.LambdaLR", "_partial_": True}, ": 'int' object has no attribute"),
        ({"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 3}, ""),
        ({"_target_": "builtins.divmod", "_partial_": True}, ": it gives tuple"),
    ],
)  # fmt: skip
def test_a_schedule_that_is_no_function_is_explained(schedule: dict[str, Any], reason: str) -> None:
    cfg = compose(["data=digits"])
    OmegaConf.update(cfg, "schedule", None)
    cfg.schedule = schedule
    with pytest.raises(
        ConfigError, match=rf"schedule\._target_={schedule['_target_']}: not a function .*{reason}.*\n    fix: "
    ) as caught:
        check_parts(cfg)
    assert "schedule=cosine or schedule=constant" in str(caught.value)
