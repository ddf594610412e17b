"""Write docs/compatibility.md: every rule of a configuration, with a command line that breaks it and the message.

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
# the machine of the page, on any machine that writes it
MACHINE = {
    "num_cores": lambda: 16,
    "num_gpus": lambda: 2,
    "has_no_gpu": lambda: False,
    "is_installed": lambda package: False,
    "free_bytes": lambda folder: 12_000_000,
}
INTRODUCTION = """# Rules of a configuration

mmtrain checks a configuration before it imports torch and before it uses data, weights or the network. All faults are
reported at once, each with its problem, its origin and the fix. The checks have this order:

1. Names that do not exist, values of another type, and overrides that replace each other.
2. The rules below.
3. Facts that only torch and Lightning know, such as their own arguments and whether CUDA works. This is still before
   the data is read.
4. The first rows of the data, before a model is built or weights are loaded.

These faults are found in the first rows:

* a column that does not exist, or does not have the type of its input
* paths without a file
* a target with a single class, or with almost one class per row
* texts that are longer than `max_length` and are truncated, which is only a note

With `data=files`, the first rows are checked together with the rules. Of a table with up to a thousand rows, all rows
are checked. Their faults are in the same report.

Some numbers do not have to match. `data.batch_size` does not have to be a multiple of `trainer.devices` times
`trainer.accumulate_grad_batches`, and the number of rows not a multiple of `data.batch_size`. Parts with one sample
less are padded with empty rows. The loss is a mean over the actual samples, so each sample has the same weight for any
split. `mode=plan` and launchers for a cluster are for another machine, so cores and GPUs are not counted.

This configuration breaks no rule:

    python train.py dim=96 encoder.text.num_heads=4 data.inputs.image.size=56 encoder.image.patch_size=14

`scripts/write_compatibility.py` writes this page from the rules (`mmtrain/config/rules.py`,
`mmtrain/config/rules_hardware.py`, `mmtrain/config/rules_tables.py`). The messages are those of a machine with 16
cores, 2 GPUs and a full disk.
"""


def page() -> str:
    """The complete page."""
    parts = [INTRODUCTION]
    for rule in RULES:
        line = BROKEN_BY[rule.__name__]
        command = line if "train.py" in line else f"python train.py {line}"
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), patch.multiple(machine, **MACHINE):
            Path("mydata").mkdir()
            Path("mydata/train.csv").write_text("path,title,kind\na.jpg,a cat that sleeps,cat\n", encoding="utf-8")
            ranks = {"LOCAL_RANK": "0", "WORLD_SIZE": "2"} if command.startswith("torchrun") else {}
            with patch.dict(os.environ, ranks):
                faults = faults_of(config_dir(), None, shlex.split(command.partition("train.py ")[2]), multirun=False)
        shown = "\n".join(f"    {row}" for fault in faults[:1] for row in fault.splitlines())
        parts.append(f"## {(rule.__doc__ or '').strip()}\n\n    $ {command}\n{shown}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
