"""The data of a run: tables, columns, vocabularies and loaders behind one LightningDataModule."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from mmtrain.data.dataset import Collate, EvalSplit, TrainSplit
from mmtrain.data.files import find_columns, read_tables
from mmtrain.data.label import ClassLabel
from mmtrain.data.loader import EvalSteps, TrainSteps, make_loader
from mmtrain.data.text import texts_of
from mmtrain.errors import ConfigError
from mmtrain.types import Batch, ClassTarget


class DataModule(LightningDataModule):
    """Everything between a folder of tables and the batches of a step.

    Args:
        source: gives the folder with the tables; an embedded data set makes it first.
        columns: by input or target, its column, or None to look for the usual names.
        inputs: by modality, how to read it.
        targets: the class targets.
        batch_size: samples of an optimizer step, over all devices and micro-batches.
        eval_batch_size: samples of a batch in validation, test and predict.
        num_workers: processes that load, per device; 0 loads in the training process.
        seed: of the order and of every random draw.
        num_micro_batches: a step's samples on a device are run in so many parts.
    """

    def __init__(
        self,
        *,
        source: Callable[[], Path],
        columns: Mapping[str, str | None],
        inputs: Mapping[str, Any],
        targets: list[str],
        batch_size: int,
        eval_batch_size: int,
        num_workers: int,
        seed: int,
        num_micro_batches: int,
    ) -> None:
        super().__init__()
        self._source = source
        self._wanted = dict(columns)
        self._inputs = dict(inputs)
        self._targets = {name: ClassLabel(name) for name in targets}
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.num_micro_batches = num_micro_batches
        self.tables: dict[str, Any] = {}
        self.inputs: dict[str, Any] = {}
        self.targets: dict[str, ClassLabel] = {}

    @property
    def known_targets(self) -> dict[str, ClassTarget]:
        """What the training split says of each target that it has."""
        return {name: target.known for name, target in self.targets.items()}

    def read(self, vocabulary_folder: Path, *, training: bool) -> None:
        """Open the tables; learn the vocabularies, or take those that the folder already holds.

        Several processes of one run may call this at once: the first one learns.

        Args:
            vocabulary_folder: the run folder.
            training: whether there must be a training split.

        Raises:
            ConfigError: when the folder, a table or a column is missing or does not serve.
        """
        self.folder = self._source()
        self.tables = read_tables(self.folder)
        if training and "train" not in self.tables:
            raise ConfigError(f"{self.folder} has no train table; it has {', '.join(self.tables)}\n    add train.jsonl (or .csv, .parquet ...)")
        first = next(iter(self.tables.values()))
        self.columns = find_columns(first, {name: self._wanted.get(name) for name in [*self._inputs, *self._targets]})
        self.inputs = {m: reader for m, reader in self._inputs.items() if m in self.columns}
        self.targets = {t: target for t, target in self._targets.items() if t in self.columns}
        if not self.inputs:
            raise ConfigError(
                f"{self.folder}: no column is known as an input; the table has {', '.join(first.column_names)}\n"
                f"    say which holds what, such as data.columns.{next(iter(self._inputs))}={first.column_names[0]}"
            )
        if training and len(self.tables["train"]) < self.batch_size:
            raise ConfigError(
                f"data.batch_size = {self.batch_size} is larger than the training split of {len(self.tables['train'])} rows"
                f" in {self.folder}\n    set data.batch_size to {len(self.tables['train'])} or less"
            )
        vocabulary_folder.mkdir(parents=True, exist_ok=True)
        with FileLock(vocabulary_folder / ".vocabulary.lock"):
            self._vocabularies(vocabulary_folder)

    def _vocabularies(self, folder: Path) -> None:
        done = folder / ".vocabulary"
        learned = [r for r in self.inputs.values() if r.kind == "text"] + list(self.targets.values())
        if done.exists():
            for part in learned:
                part.restore(folder)
            return
        if "train" not in self.tables:
            raise ConfigError(f"{folder} holds no vocabulary and {self.folder} has no train table to learn one from\n    set run_dir to the folder of the training run")
        for name, column in self.columns.items():
            values = self.tables["train"][column]
            if name in self.targets:
                self.targets[name].fit(values)
                self.targets[name].save(folder)
            elif self.inputs[name].kind == "text":
                self.inputs[name].fit(text for cell in values for text in texts_of(cell))
                self.inputs[name].save(folder)
        done.write_text("the tokenizer and the class names here were learned from the training split\n")

    def split(self, name: str) -> EvalSplit:
        """A split as evaluation reads it.

        Raises:
            ConfigError: when there is no such table.
        """
        if name not in self.tables:
            raise ConfigError(f"{self.folder} has no {name} table; it has {', '.join(self.tables)}\n    add {name}.jsonl (or .csv, .parquet ...)")
        return EvalSplit(self.tables[name], **self._parts())

    def _parts(self) -> dict[str, Any]:
        return {
            "folder": self.folder,
            "columns": self.columns,
            "inputs": self.inputs,
            "targets": self.targets,
            "seed": self.seed,
        }

    def example(self) -> Batch:
        """A batch of two rows, to see shapes with."""
        split = EvalSplit(next(iter(self.tables.values())).select(range(2)), **self._parts())
        return Collate(inputs=self.inputs, targets=list(self.targets)).batch([split[0, 0], split[0, 1]])

    def train_dataloader(self) -> DataLoader[Any]:
        """The steps of training, from the trainer's step on."""
        assert self.trainer is not None
        split = TrainSplit(self.tables["train"], **self._parts())
        steps = TrainSteps(
            num_samples=len(split),
            batch_size=self.batch_size,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            num_micro_batches=self.num_micro_batches,
            first_step=self.trainer.global_step,
            steps_per_epoch=_limited(len(split), self.batch_size, self.trainer.limit_train_batches),
        )
        return self._loader(split, steps, self.num_micro_batches)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The validation split; nothing when there is none."""
        return self._eval_loader("val") if "val" in self.tables else []

    def test_dataloader(self) -> DataLoader[Any]:
        """The test split."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """The test split."""
        return self._eval_loader("test")

    def _eval_loader(self, name: str) -> DataLoader[Any]:
        assert self.trainer is not None
        split = self.split(name)
        steps = EvalSteps(
            num_samples=len(split),
            batch_size=self.eval_batch_size,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        return self._loader(split, steps, 1)

    def _loader(self, split: TrainSplit, steps: Any, num_micro_batches: int) -> DataLoader[Any]:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive the workers' fork
        assert self.trainer is not None
        return make_loader(
            split,
            steps,
            Collate(inputs=self.inputs, targets=list(self.targets), num_micro_batches=num_micro_batches),
            num_workers=self.num_workers,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )


def _limited(num_samples: int, batch_size: int, limit: int | float) -> int:
    steps = -(-num_samples // batch_size)
    return max(1, min(steps, limit if isinstance(limit, int) else int(steps * limit)))
