"""Write docs/compatibility.md: every rule of a configuration, with a command line that breaks it and what is said then.

python scripts/write_compatibility.py
"""

import contextlib
import os
import shlex
import tempfile
from pathlib import Path
from unittest.mock import patch

from mmtrain.config import rules_hardware as machine
from mmtrain.config.compose import config_dir
from mmtrain.config.rules import RULES
from mmtrain.config.validate import faults_of

PAGE = Path(__file__).resolve().parent.parent / "docs" / "compatibility.md"
BROKEN_BY = {
    "rule_values": "fusion=mlb fusion.joint_dim=-7",
    "rule_kinds": "data.source.split=3",
    "rule_tasks": "task.contrastive.modalities=[image,txt]",
    "rule_fusion": "~fusion",
    "rule_targets": "++encoder.image.dept=3",
    "rule_schedule": "schedule._target_=torch.optim.lr_scheduler.OneCycleLR",
    "rule_heads": "encoder.text.num_heads=5",
    "rule_patches": "encoder.image.patch_size=15",
    "rule_sizes": "encoder.image.image_size=32",
    "rule_trainer": "+trainer.max_epoch=3",
    "rule_balance": "task=[contrastive] balance=pcgrad",
    "rule_devices": "trainer.devices=two",
    "rule_step_split": "data.batch_size=2 trainer.accumulate_grad_batches=4",
    "rule_half_weights": "trainer.precision=bf16-true",
    "rule_sharded": "trainer=fsdp balance=pcgrad",
    "rule_common_folder": "torchrun --nproc-per-node 2 train.py trainer=ddp",
    "rule_nodes": "trainer=ddp trainer.num_nodes=2",
    "rule_world_size": "torchrun --nproc-per-node 2 train.py trainer.devices=4 run_dir=out",
    "rule_duration": "trainer.max_epochs=0",
    "rule_max_time": "trainer.max_time=5",
    "rule_monitor": "monitor=val/loss",
    "rule_callback_monitor": "callbacks=[ema,early_stopping] callbacks.early_stopping.monitor=val/matching/auroc",
    "rule_files": "data=files data.root=nowhere",
    "rule_tables": "data=files data.root=mydata data.columns.image=photo",
    "rule_workers": "trainer=ddp data.num_workers=64",
    "rule_gpus": "trainer=gpu trainer.devices=8",
    "rule_accelerator": "trainer.accelerator=tpu",
    "rule_precision": "trainer.precision=16-mixed",
    "rule_trust": "trust=[mmtrain]",
    "rule_sync_batchnorm": "trainer=ddp trainer.accelerator=cpu trainer.sync_batchnorm=true",
    "rule_search": "mode=search run_dir=outputs/mine",
    "rule_run_dir": "run_dir=outputs/mine",
}
# what the page is written for, wherever it is written
MACHINE = {
    "num_cores": lambda: 16,
    "num_gpus": lambda: 2,
    "lacks_gpu": lambda: False,
    "is_installed": lambda package: False,
    "free_bytes": lambda folder: 12_000_000,
}
INTRODUCTION = """# What goes with what

Before torch is imported, and before any data, weights or network are touched, a configuration is looked at by the
rules below, and everything that is wrong is said at once: what, where it was set, the mend. Names that are not there,
values of another kind, and overrides that undo each other are found before. What only torch and Lightning know, such as
their own arguments and whether CUDA works, is tried next, still before the data. What only the data knows is said from
its first rows, before a model is made or weights are loaded: a column that is not there, or cannot be what it is read
as; paths that lead to no file; classes of which there is one alone, or nearly one for each row; and, as a note, how
many texts are longer than `max_length` and lose their ends. Of `data=files` the first rows are looked at with the
rules, and of a table of up to a thousand rows all of them: what is wrong is in the same report.

Some things need not fit. `data.batch_size` need not be a multiple of `trainer.devices` times
`trainer.accumulate_grad_batches`, nor the rows of one of `data.batch_size`: parts that have a sample less are filled up
with nothing, and the loss is a mean over the samples that are there, so that each counts the same for any split. And
`mode=plan`, or a launcher that sends runs to a cluster, speaks of another machine than this one: no core or GPU is
counted then.

This one breaks none of them:

    python train.py dim=96 encoder.text.num_heads=4 data.inputs.image.size=56 encoder.image.patch_size=14

This page is written from the rules themselves (`mmtrain/config/rules.py`, `mmtrain/config/rules_hardware.py`,
`mmtrain/config/rules_tables.py`) by `scripts/write_compatibility.py`, as a machine of 16 cores and 2 GPUs whose disk is
full would say it.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for rule in RULES:
        line = BROKEN_BY[rule.__name__]
        command = line if "train.py" in line else f"python train.py {line}"
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), patch.multiple(machine, **MACHINE):
            Path("mydata").mkdir()
            Path("mydata/train.csv").write_text("path,title,kind\na.jpg,a cat that sleeps,cat\n", encoding="utf-8")
            ranks = {"LOCAL_RANK": "0", "WORLD_SIZE": "2"} if command.startswith("torchrun") else {}
            with patch.dict(os.environ, ranks):
                said = faults_of(config_dir(), None, shlex.split(command.partition("train.py ")[2]), multirun=False)
        shown = "\n".join(f"    {row}" for fault in said[:1] for row in fault.splitlines())
        parts.append(f"## {(rule.__doc__ or '').strip()}\n\n    $ {command}\n{shown}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
