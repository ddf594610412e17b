"""The rules of a configuration, on the real one: what is wrong, both values, where it was set, and the fix."""

from pathlib import Path

import pytest

from mmtrain.config import rules
from mmtrain.config import rules_hardware as machine
from mmtrain.config.compose import config_dir
from mmtrain.config.rules import RULES
from mmtrain.config.validate import faults_of


@pytest.fixture(autouse=True)
def there_may_be_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """`test_rules_hardware.py` is about hardware that a machine does not have."""
    monkeypatch.setattr(machine, "has_no_gpu", lambda: False)


def faults(*overrides: str) -> list[str]:
    return faults_of(config_dir(), None, list(overrides), multirun=False)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["encoder=resnet", "fusion=concat", "task=[contrastive]", "schedule=constant", "trainer=gpu"],
        ["~fusion", "task=[contrastive,matching]"],
        ["task.classification.input=image", "~fusion"],
        ["mode=fit", "test.subsets=null", "data.inputs.text.algorithm=wordpiece"],
        ["trainer=gpu", "trainer.precision=16-mixed"],
        ["optimizer.lr=1", "encoder.image.mlp_ratio=2", "trainer.limit_train_batches=10", "trainer.deterministic=warn"],
        ["trainer.gradient_clip_val=null", "trainer.val_check_interval=0.5", "trainer.max_time=00:00:01:00"],
        ["encoder.text.dropout=1", "encoder.image.drop_path=0", "optimizer.lr=0", "data.num_workers=0", "seed=0"],
        ["+target@data.targets.kind=class", "task.classification.target=kind", "+data.columns.kind=group"],
        ["dim=96", "encoder.text.dim=120", "encoder.text.num_heads=8", "fusion.num_heads=6"],
        ["data.inputs.image.size=56", "encoder.image.patch_size=14", "encoder.video.image.patch_size=7"],
        ["data.inputs.video.size=32", "encoder.video.image.image_size=32", "encoder.video.temporal=gru"],
        ["encoder/image@encoder.video.image=resnet", "data.inputs.video.size=32", "encoder/audio=cnn"],
        ["trainer.devices=[0,1]", "data.batch_size=2"],
        ["trainer.devices=auto", "trainer.accumulate_grad_batches=4", "data.batch_size=4"],
        ["trainer.devices='0,1'", "trainer.max_epochs=null", "trainer.max_steps=10"],
        ["trainer.devices=-1", "trainer.max_epochs=-1", "trainer.max_steps=1", "resume=auto"],
        ["monitor=val/loss", "checkpoint.mode=min"],
        ["monitor=val/classification/accuracy"],
        ["logger=[]", "callbacks=[ema,early_stopping]", "+logger.csv.anything=1"],
        ["logger=[csv,wandb,tensorboard]", "logger.wandb.name=mine", "callbacks=ema", "callbacks.ema.decay=0.5"],
        ["optimizer._target_=torch.optim.SGD", "~optimizer.eps", "~optimizer.betas"],
        ["~task.matching", "~trainer.benchmark"],
    ],
    ids=" ".join,
)
def test_a_good_configuration_has_no_fault(overrides: list[str]) -> None:
    assert faults(*overrides) == []


@pytest.mark.parametrize("group", ["data", "encoder", "balance", "optimizer", "schedule", "trainer"])
def test_what_every_run_needs_cannot_be_taken_out(group: str) -> None:
    """One fault, and not one for every key inside."""
    assert faults(f"~{group}") == [
        f"{group}: missing, but every run needs it (override ~{group})\n    fix: remove ~{group}",
    ]


def test_what_every_run_needs_is_asked_for_by_the_override_that_lacks_it() -> None:
    assert faults("checkpoint=null", "~trainer.compile", "~data.source", "~seed", "data.inputs=3") == [
        "seed: missing, but every run needs it (override ~seed)\n    fix: remove ~seed",
        "checkpoint.mode: missing, but every run needs it (override checkpoint=null)\n    fix: remove checkpoint=null",
        "data.source: missing, but every run needs it (override ~data.source)\n    fix: remove ~data.source",
        "trainer.compile: missing, but every run needs it (override ~trainer.compile)\n"
        "    fix: remove ~trainer.compile",
        "data.inputs=3: not a group of keys (override data.inputs=3)\n    fix: set its keys",
    ]


def test_parts_by_name_are_no_part() -> None:
    assert faults("+encoder._target_=mine.Mine") == [
        "encoder: contains components by name, but has a _target_ (override +encoder._target_=mine.Mine)\n"
        "    fix: move it into encoder.NAME"
    ]


BAD = {
    "rule_values": [
        (
            "mode=tset",
            "mode=tset: must be one of fit, test, predict, plan, search, chat ({})\n    fix: mode=test",
        ),
        ("mode=null", "mode=null: must be one of fit, test, predict, plan, search, chat ({})\n    fix: mode=fit"),
        ("checkpoint.mode=mx", "checkpoint.mode=mx: must be one of max, min ({})\n    fix: checkpoint.mode=max"),
        (
            "test.subsets=each",
            "test.subsets=each: must be one of single, all, none or null ({})\n    fix: test.subsets=single",
        ),
        (
            "data.inputs.text.algorithm=bp",
            "data.inputs.text.algorithm=bp: must be one of bpe, wordpiece ({})\n"
            "    fix: data.inputs.text.algorithm=bpe",
        ),
        (
            "encoder.audio.mel_scale=hkt",
            "encoder.audio.mel_scale=hkt: must be one of htk, slaney ({})\n    fix: encoder.audio.mel_scale=htk",
        ),
        (
            "encoder.video.temporal=max",
            "encoder.video.temporal=max: must be one of mean, gru, transformer ({})\n"
            "    fix: encoder.video.temporal=transformer",
        ),
        (
            "trainer.accelerator=gpuu",
            "trainer.accelerator=gpuu: must be one of auto, cpu, gpu, cuda, mps, tpu ({})\n"
            "    fix: trainer.accelerator=gpu",
        ),
        ("seed=1.5", "seed=1.5: must be an integer between 0 and 4294967295 ({})\n    fix: seed=2"),
        (
            "data.eval_batch_size=null",
            "data.eval_batch_size=null: must be an integer of at least 1 ({})\n    fix: data.eval_batch_size=256",
        ),
        ("optimizer.lr=fast", "optimizer.lr=fast: must be a number of at least 0 ({})\n    fix: optimizer.lr=0.001"),
        ("trainer.compile=1", "trainer.compile=1: must be true or false ({})\n    fix: trainer.compile=false"),
        ("seed=-1", "seed=-1: must be an integer between 0 and 4294967295 ({})\n    fix: seed=0"),
        ("dim=0", "dim=0: must be an integer between 1 and 1048576 ({})\n    fix: dim=128"),
        ("optimizer.lr=-1", "optimizer.lr=-1: must be a number of at least 0 ({})\n    fix: optimizer.lr=0.001"),
        (
            "fusion.dropout=1.5",
            "fusion.dropout=1.5: must be a number between 0 and 1 ({})\n    fix: fusion.dropout=0.1",
        ),
        (
            "schedule.min_lr_ratio=nan",
            "schedule.min_lr_ratio=nan: must be a number between 0 and 1 ({})\n    fix: schedule.min_lr_ratio=0.0",
        ),
        (
            "trainer.max_epochs=-5",
            "trainer.max_epochs=-5: must be an integer of at least -1 or null ({})\n    fix: trainer.max_epochs=26",
        ),
        (
            "data.inputs.text.vocab_size=3",
            "data.inputs.text.vocab_size=3: must be an integer between 6 and 16777216 ({})\n"
            "    fix: data.inputs.text.vocab_size=2000",
        ),
        (
            "test.corruptions=[noise,blurr,fog]",
            "test.corruptions=[noise,blurr,fog]: must be a list of values, each one of noise, blur, crop, typos,"
            " missing ({})\n"
            "    fix: test.corruptions=[noise,blur]",
        ),
        (
            "optimizer.eps=true",
            "optimizer.eps=true: must be a number above 0 ({})\n    fix: optimizer.eps=1e-08",
        ),
        (
            "optimizer.betas=0.9",
            "optimizer.betas=0.9: must be a list of 2 values, each a number of at least 0 and below 1 ({})\n"
            "    fix: optimizer.betas=[0.9,0.98]",
        ),
        (
            "data.inputs.image.size=big",
            "data.inputs.image.size=big: must be an integer between 1 and 1048576 or auto ({})\n"
            "    fix: data.inputs.image.size=auto",
        ),
        (
            "data.inputs.image.resize_size=[1,2,3]",
            "data.inputs.image.resize_size=[1,2,3]: must be an integer between 1 and 1048576"
            " or a list of 1 or 2 values, each an integer between 1 and 1048576 or null or auto ({})\n"
            "    fix: data.inputs.image.resize_size=auto",
        ),
        (
            "data.source.split.val=-0.1",
            "data.source.split.val=-0.1: must be a number between 0 and 1 ({})\n    fix: data.source.split.val=0.1",
        ),
        (
            "data.modality_dropout={text:2}",
            "data.modality_dropout.text=2: must be a number between 0 and 1 ({})\n"
            "    fix: data.modality_dropout.text=1",
        ),
        (
            "test.severities=[0,1]",
            "test.severities=[0,1]: must be a list of values, each an integer between 1 and 5 ({})\n"
            "    fix: test.severities=[1,3,5]",
        ),
    ],
    "rule_kinds": [
        (
            "resume_allow=3",
            "resume_allow=3: not a list ({})\n    fix: set resume_allow to a list, such as resume_allow=[]",
        ),
        (
            "data.source.split=3",
            "data.source.split=3: not a group of keys ({})\n"
            "    fix: set one of them, such as data.source.split.train, or remove the group with ~data.source.split",
        ),
        ("logger.csv=null", "logger.csv=None: not a group of keys ({})\n    fix: remove the group with ~logger.csv"),
        (
            "task.matching=null",
            "task.matching=None: not a group of keys ({})\n"
            "    fix: set one of them, such as task.matching._target_, or remove the group with ~task.matching",
        ),
    ],
    "rule_tasks": [
        (
            "task.contrastive.modalities=[image,txt]",
            "task.contrastive.modalities=txt: encoder has only image, text, audio, video, vector,"
            " sequence, dialogue ({})\n"
            "    fix: did you mean text?",
        ),
        (
            "task.classification.input=fuse",
            "task.classification.input=fuse: encoder has only image, text, audio, video, vector,"
            " sequence, dialogue ({})\n"
            "    fix: did you mean fused?",
        ),
        (
            "task.classification.target=lable",
            "task.classification.target=lable: data.targets has only label, labels, number, answer, caption,"
            " chat ({})\n"
            "    fix: did you mean label? Otherwise add the target with +target@data.targets.lable=class",
        ),
    ],
    "rule_targets": [
        (
            "+task.mine=3",
            "task.mine: _target_ is missing ({})\n    fix: set task.mine._target_=package.module.Class",
        ),
        (
            "~encoder.text._target_",
            "encoder.text: _target_ is missing ({})\n    fix: set encoder.text._target_=package.module.Class",
        ),
        (
            "~encoder.video.image.depth",
            "encoder.video.image._target_=mmtrain.encoders.image.vit.ViT: needs depth ({})\n"
            "    fix: set depth next to _target_",
        ),
        (
            "~encoder.vector.num_tokens",
            "encoder.vector._target_=mmtrain.encoders.vector.mlp.VectorMLP: needs num_tokens ({})\n"
            "    fix: set num_tokens next to _target_",
        ),
        (
            "balance._target_=mmtrain.balance.fixed.Fixd",
            "balance._target_=mmtrain.balance.fixed.Fixd: cannot be imported: mmtrain.balance.fixed has no Fixd ({})\n"
            "    fix: did you mean mmtrain.balance.fixed.Fixed?",
        ),
        (
            "+schedule.warmupp=3",
            "schedule._target_=mmtrain.training.optim.schedules.cosine: does not take warmupp ({})\n"
            "    fix: did you mean warmup_ratio?",
        ),
        (
            "~fusion.depth",
            "fusion._target_=mmtrain.fusion.cross_attn.CrossAttn: needs depth ({})\n"
            "    fix: set depth next to _target_",
        ),
        (
            "~data.columns",
            "data._target_=mmtrain.data.module.DataModule: needs columns ({})\n    fix: set columns next to _target_",
        ),
    ],
    "rule_heads": [
        (
            "encoder.text.num_heads=5",
            "encoder.text.dim=128: not divisible by encoder.text.num_heads=5 ({})\n"
            "    fix: set encoder.text.num_heads to 2 or 4, or dim to 130",
        ),
        (
            "encoder.image.dim=66",
            "encoder.image.dim=66: not divisible by encoder.image.num_heads=4 ({})\n"
            "    fix: set encoder.image.num_heads to 2 or 3, or encoder.image.dim to 68",
        ),
    ],
    "rule_patches": [
        (
            "encoder.image.patch_size=7",
            "encoder.image.image_size=64: not divisible by encoder.image.patch_size=7 ({})\n"
            "    fix: set encoder.image.patch_size to 8, or data.inputs.image.size to 70",
        ),
        (
            "encoder.audio.patch_mels=7",
            "encoder.audio.num_mels=64: not divisible by encoder.audio.patch_mels=7 ({})\n"
            "    fix: set encoder.audio.patch_mels to 8, or encoder.audio.num_mels to 70",
        ),
    ],
    "rule_sizes": [
        (
            "data.inputs.video.size=32",
            "encoder.video.image.image_size=64: data.inputs.video.size=32 differs ({})\n"
            "    fix: set encoder.video.image.image_size to 32, or data.inputs.video.size to 64",
        ),
    ],
    "rule_devices": [
        (
            f"trainer.devices={said}",
            f"trainer.devices={shown}: not a number of devices ({{}})\n"
            "    fix: set trainer.devices to a number such as 2, a list such as [0,1], or auto",
        )
        for said, shown in [("0", "0"), ("two", "two"), ("null", "None"), ("1.5", "1.5"), ("[]", "[]")]
    ],
    "rule_trainer": [
        (
            "+trainer.max_epoch=3",
            "trainer.max_epoch: the Trainer has no such argument ({})\n    fix: did you mean trainer.max_epochs?",
        ),
        ("++trainer.zzz=1", "trainer.zzz: the Trainer has no such argument ({})\n    fix: remove trainer.zzz"),
        (
            "+trainer.num_node=2",
            "trainer.num_node: the Trainer has no such argument ({})\n    fix: did you mean trainer.num_nodes?",
        ),
        (
            "+trainer.logger=true",
            "trainer.logger: the Trainer has no such argument ({})\n    fix: remove trainer.logger",
        ),
    ],
    "rule_balance": [],
    "rule_max_time": [
        (
            "trainer.max_time=5",
            "trainer.max_time=5: not days:hours:minutes:seconds ({})\n"
            "    fix: write a time limit such as trainer.max_time=00:12:00:00",
        ),
    ],
    "rule_step_split": [
        (
            "trainer.devices=200",
            "data.batch_size=128: too small for 200 parts, trainer.devices x trainer.accumulate_grad_batches ({})\n"
            "    fix: set data.batch_size to at least 200",
        ),
    ],
    "rule_duration": [
        (
            "trainer.max_epochs=null",
            "trainer.max_epochs=None: neither trainer.max_epochs nor trainer.max_steps is set ({})\n"
            "    fix: set trainer.max_epochs=20",
        ),
        (
            "trainer.max_epochs=0",
            "trainer.max_epochs=0, trainer.max_steps=-1: the run would have no training step ({})\n"
            "    fix: set the one with value 0 to 1",
        ),
    ],
    "rule_schedule": [
        (
            f"schedule._target_=torch.optim.lr_scheduler.{name}",
            f"schedule._target_=torch.optim.lr_scheduler.{name}: not a function (step, total_steps) -> factor of the"
            " learning rate ({})\n"
            "    fix: set schedule=cosine or schedule=constant, or name a function of your own, with _partial_: true;"
            " the LRScheduler classes of torch.optim are not such functions",
        )
        for name in ("OneCycleLR", "CosineAnnealingLR", "LambdaLR", "ReduceLROnPlateau", "SequentialLR")
    ],
    "rule_monitor": [
        (
            "monitor=train/loss",
            "monitor=train/loss: not a metric of validation ({})\n    fix: set monitor=val/loss checkpoint.mode=min",
        ),
        (
            "monitor=val/contrastiv/accuracy",
            "monitor=val/contrastiv/accuracy: not a metric of validation ({})\n"
            "    fix: set monitor to val/contrastive/accuracy",
        ),
        (
            "monitor=val/loss",
            "monitor=val/loss: better when it is lower, but checkpoint.mode=max would keep the highest ({})\n"
            "    fix: set checkpoint.mode=min",
        ),
    ],
    "rule_callback_monitor": [
        (
            "+callbacks.mine={_target_:pytorch_lightning.callbacks.EarlyStopping,monitor:val/matching/auroc,mode:min}",
            "callbacks.mine.monitor=val/matching/auroc: better when it is higher, but callbacks.mine.mode=min"
            " treats the lowest as the best ({})\n    fix: set callbacks.mine.mode=max",
        ),
    ],
    "rule_half_weights": [],  # tests/training/precision/test_bf16_true.py
    "rule_sharded": [],  # below: each case takes several overrides
    "rule_files": [
        (
            "resume=best.safetensors",
            "resume=best.safetensors: contains only weights, no optimizer and no position in the data ({})\n"
            "    fix: start a new run with init_from=best.safetensors, or resume from a .ckpt file",
        ),
        (
            "resume=gone.ckpt",
            "resume=gone.ckpt: does not exist ({})\n"
            "    fix: set resume=auto to resume the run in run_dir, or name a checkpoint,"
            " such as outputs/mine/checkpoints/last.ckpt",
        ),
        (
            "init_from=auto",
            "init_from=auto: does not exist ({})\n    fix: name a checkpoint, such as RUN/checkpoints/last.ckpt",
        ),
        ("run_dir=null", "run_dir=None: not the name of a folder ({})\n    fix: set run_dir=DIR, such as outputs/mine"),
    ],
    "rule_fusion": [
        (
            "~fusion",
            "task.classification.input=fused: there is no fusion ({})\n    fix: choose a fusion, such as fusion=concat,"
            " or let tasks read one modality: task.classification.input=image",
        ),
    ],
}
BAD |= {
    rule: []
    for rule in (
        "rule_tables",
        "rule_workers",
        "rule_gpus",
        "rule_accelerator",
        "rule_precision",
        "rule_run_dir",
        "rule_search",  # tests/modes/search/test_finder.py
        "rule_common_folder",
        "rule_nodes",
        "rule_world_size",
        "rule_sync_batchnorm",  # tests/config/test_rules_hardware.py
        "rule_trust",  # tests/config/test_run_config.py
    )
}


def test_a_wrong_number_is_said_once_though_another_part_goes_by_it() -> None:
    assert [fault.splitlines()[0] for fault in faults("data.inputs.text.max_length=0")] == [
        "data.inputs.text.max_length=0: must be an integer between 3 and 1048576 or auto"
        " (override data.inputs.text.max_length=0)"
    ]


def test_every_rule_has_its_bad_cases() -> None:
    assert BAD.keys() == {rule.__name__ for rule in RULES}


def test_what_looks_at_whole_weights_does_not_go_with_shares() -> None:
    but = "but with trainer.strategy=fsdp each rank has only a shard (override trainer.strategy=fsdp)\n    "
    other = "callbacks.ema._target_=pytorch_lightning.callbacks.EMAWeightAveraging"
    assert faults("trainer.strategy=fsdp", "trainer.devices=2") == []
    assert faults("trainer.strategy=fsdp", other, "balance=pcgrad") == [
        f"callbacks.ema: averages complete weights, {but}fix: use callbacks=[ema] instead",
        f"balance.gradients_of=parameters: compares complete gradients, {but}fix: set balance.gradients_of=features",
    ]


@pytest.mark.parametrize("rule", BAD)
def test_a_fault_says_what_and_where_and_how_to_mend_it(rule: str) -> None:
    for batch in apart(BAD[rule]):
        expected = [fault.format(f"override {override}") for override, fault in batch]
        assert sorted(faults(*[override for override, _ in batch])) == sorted(expected)


def test_a_metric_is_not_kept_at_its_worst() -> None:
    mode = "checkpoint.mode=min"
    assert faults(mode) == [
        f"checkpoint.mode=min: the default metric of a task is better when it is higher (override {mode})\n"
        "    fix: set checkpoint.mode=max, or name a metric, such as monitor=val/loss"
    ]
    monitor = "monitor=val/classification/macro_f1"
    assert faults(mode, monitor) == [
        "monitor=val/classification/macro_f1: better when it is higher, but checkpoint.mode=min would keep the"
        f" lowest (override {monitor}, override {mode})\n    fix: set checkpoint.mode=max"
    ]
    for kept in ("min", "max"):
        assert faults(f"checkpoint.mode={kept}", "monitor=val/classification/of_my_own") == []


TASKS = ["contrastive", "classification"]
LOSS = "set monitor=val/loss checkpoint.mode=min"


@pytest.mark.parametrize(
    ("wrong", "fix"),
    [
        *((name, LOSS) for name in ("loss", "val_loss", "val.loss", "VAL/loss", "val/loss/", "Validation-Loss")),
        ("macro_f1", "set monitor to val/contrastive/macro_f1 or val/classification/macro_f1"),
        ("val/F1", "set monitor to val/contrastive/macro_f1 or val/classification/macro_f1"),
        ("classification/macro_f1", "set monitor to val/classification/macro_f1"),
        ("val_classification_accuracy", "set monitor to val/classification/accuracy"),
        ("test/clasification/acc", "set monitor to val/classification/accuracy"),
        ("contrastive/image_to_text_R@5", "set monitor to val/contrastive/image_to_text_R@5"),
        ("classification/loss", "set monitor to val/classification/loss, with checkpoint.mode=min"),
        *(
            (
                name,
                "set monitor to val/loss or a metric of a task, such as val/contrastive/loss, with checkpoint.mode=min",
            )
            for name in ("", "3", "val/", "val/regression/mae")
        ),
    ],
)
def test_a_monitor_is_written_as_its_metric_is_logged(wrong: str, fix: str) -> None:
    assert rules._name_metric(wrong, TASKS) == fix


def apart(cases: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """As few command lines as will do: no key twice in one."""
    lines: list[dict[str, tuple[str, str]]] = []
    for case in cases:
        key = case[0].split("=")[0]
        line = next((line for line in lines if key not in line), None)
        if line is None:
            lines.append({key: case})
        else:
            line[key] = case
    return [list(line.values()) for line in lines]


def test_an_unknown_precision_is_compared_with_those_of_lightning() -> None:
    (fault,) = faults("trainer.precision=bf16-mixd")
    what, fix = fault.splitlines()
    assert what.startswith("trainer.precision=bf16-mixd: must be one of 32, 32-true,") and what.count("32,") == 1
    assert fix == "    fix: trainer.precision=bf16-mixed"


def test_a_width_that_is_set_once_is_mended_once_for_each_part_that_has_it() -> None:
    assert faults("dim=100", "fusion.num_heads=8", "encoder.text.num_heads=5") == [
        "fusion.dim=100: not divisible by fusion.num_heads=8 (override dim=100, override fusion.num_heads=8)\n"
        "    fix: set fusion.num_heads to 5 or 10, or dim to 104"
    ]


def test_a_size_that_is_set_once_is_mended_where_it_is_set() -> None:
    """Pictures and the frames of films have it, and each encoder has its own patches."""
    patches = ["encoder.image.patch_size=8", "encoder.video.image.patch_size=8"]
    assert faults("data.inputs.image.size=20", *patches) == [
        f"{key}.image_size=20: not divisible by {key}.patch_size=8"
        f" (override data.inputs.image.size=20, override {key}.patch_size=8)\n"
        f"    fix: set {key}.patch_size to 10, or data.inputs.image.size to 24"
        for key in ("encoder.image", "encoder.video.image")
    ]


def test_a_step_that_is_split_says_all_that_split_it() -> None:
    assert faults("trainer.devices=2", "data.batch_size=4", "trainer.accumulate_grad_batches=3") == [
        "data.batch_size=4: too small for 6 parts, trainer.devices x trainer.accumulate_grad_batches"
        " (override trainer.accumulate_grad_batches=3, override data.batch_size=4, override trainer.devices=2)\n"
        "    fix: set data.batch_size to at least 6"
    ]


def test_a_run_without_a_task_is_no_run() -> None:
    assert faults("task=[]") == [
        "task=[]: no task is chosen (override task=[])\n    fix: choose tasks, such as task=[contrastive]",
    ]


def test_data_that_lacks_what_a_task_reads_is_named_with_the_files_of_the_tasks() -> None:
    assert faults("~encoder/text", "~fusion", "task=[contrastive]") == [
        "task.contrastive.modalities=text: encoder has only image, audio, video, vector, sequence, dialogue"
        " (configs/task/contrastive.yaml)\n"
        "    fix: choose one of them, or choose another task"
    ]
    assert faults("~target@data.targets.label", "~target@data.targets.labels") == [
        "task.classification.target=label: data.targets has only number, answer, caption, chat"
        " (configs/task/classification.yaml)\n"
        "    fix: did you mean number? Otherwise add the target with +target@data.targets.label=class"
    ]
    assert faults("task=[captioning]", "task.captioning.target=captions") == [
        "task.captioning.target=captions: data.targets has only label, labels, number, answer, caption, chat"
        " (override task.captioning.target=captions)\n"
        "    fix: did you mean caption? Otherwise add the target with +target@data.targets.captions=text"
    ]


@pytest.mark.parametrize(("balance", "name"), [("pcgrad", "PCGrad"), ("uncertainty", "Uncertainty")])
def test_one_task_alone_has_nothing_to_be_balanced_with(balance: str, name: str) -> None:
    assert faults("task=[contrastive]", f"balance={balance}") == [
        f"balance={name}: balances several tasks, but there is only contrastive"
        f" (override balance={balance}, override task=[contrastive])\n"
        "    fix: set balance=fixed, or choose more tasks"
    ]


def test_files_and_folders_are_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "train.csv").write_text("caption\na cat\n")
    here = [f"resume={file}", f"init_from={file}", f"run_dir={tmp_path / 'new'}", "data=files", f"data.root={tmp_path}"]
    assert faults(*here) == []
    wrong = [f"resume={tmp_path}", f"run_dir={file}", "data=files", f"data.root={file}"]
    assert faults(*wrong) == [
        f"data.root={file}: not a folder (override data.root={file})\n    fix: set data.root={tmp_path}, its folder",
        f"resume={tmp_path}: is a folder (override resume={tmp_path})\n"
        "    fix: set resume=auto to resume the run in run_dir, or name a checkpoint,"
        " such as outputs/mine/checkpoints/last.ckpt",
        f"run_dir={file}: is a file, or inside a file (override run_dir={file})\n"
        "    fix: set run_dir=DIR, such as outputs/mine",
    ]
    assert f"run_dir={file}/x: is a file, or inside a file" in faults(f"run_dir={file}/x")[0]


@pytest.mark.parametrize(
    ("chosen", "key", "script"),
    [
        ("data=stamps", "data.source.root", "fetch_stamps"),
        ("data=stamps_languages", "data.root", "fetch_stamps"),  # ten parts of one folder
        ("experiment=dialogue", "data.parts.talk.source.root", "fetch_talk"),
    ],
)
def test_a_data_set_that_nobody_fetched_is_reported_with_its_script(
    chosen: str, key: str, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMTRAIN_CACHE", str(tmp_path))
    name = script.removeprefix("fetch_")
    first, *others = faults(chosen)
    assert first.startswith(f"{key}={tmp_path}/{name}: does not exist; this data set is downloaded once (configs/")
    assert first.endswith(f"\n    fix: run python scripts/{script}.py, or set {key} to the folder of the data set")
    assert len(others) == (chosen == "experiment=dialogue")  # tweets
    assert faults(chosen, f"{key}={tmp_path}") == others


def test_the_folder_of_a_part_of_a_mixture_exists(tmp_path: Path) -> None:
    part = ["data=mix", "+part@data.parts.a=files", f"data.parts.a.source.root={tmp_path}/gone"]
    assert faults(*part) == [
        f"data.parts.a.source.root={tmp_path}/gone: not a folder (override {part[2]})\n"
        "    fix: set data.parts.a.source.root to the folder with train.jsonl (or .csv, .parquet ...)"
    ]


def test_all_faults_are_said_at_once() -> None:
    wrong = ["mode=tset", "seed=no", "encoder.text.num_heads=5", "monitor=loss", "resume=gone", "+balance.x=1"]
    wrong += ["task.classification.input=imag", "trainer.devices=0", "fusion.dropout=2", "encoder.image.patch_size=7"]
    result = faults(*wrong)
    assert len(result) == len(wrong)
    for override in wrong:
        assert len([fault for fault in result if f"(override {override})\n" in fault]) == 1, override
