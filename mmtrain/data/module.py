"""The data of a run: tables, columns, vocabularies and loaders behind one LightningDataModule.

What a run learned (a tokenizer, class names) and which inputs and targets it had stays in its folder. Whoever comes
back to the folder, to go on or to test, takes it from there: a table without captions or labels serves as well then.
"""

import json
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
        self.first_step = 0  # of training; Lightning asks for the loader before it restores its own count
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
            raise self._no_table("train")
        first = next(iter(self.tables.values()))
        self.columns = find_columns(first, {name: self._wanted.get(name) for name in [*self._inputs, *self._targets]})
        if not any(m in self.columns for m in self._inputs):
            raise ConfigError(
                f"{self.folder}: no column is known as an input; the table has {', '.join(first.column_names)}\n"
                f"    say which holds what, such as data.columns.{next(iter(self._inputs))}={first.column_names[0]}"
            )
        if training and len(self.tables["train"]) < self.batch_size:
            rows = len(self.tables["train"])
            raise ConfigError(
                f"data.batch_size = {self.batch_size} is larger than the training split of {rows} rows"
                f" in {self.folder}\n    set data.batch_size to {rows} or less"
            )
        vocabulary_folder.mkdir(parents=True, exist_ok=True)
        with FileLock(vocabulary_folder / ".vocabulary.lock"):
            self._vocabularies(vocabulary_folder, training=training)

    def _vocabularies(self, folder: Path, *, training: bool) -> None:
        record = folder / ".vocabulary.json"
        known = json.loads(record.read_text(encoding="utf-8")) if record.exists() else None
        # what an attempt left that ended before its first checkpoint binds nobody
        bound = known is not None and (not training or any((folder / "checkpoints").glob("*.ckpt")))
        if known is not None and (bound or known["origin"] == self._origin()):
            self._restore(folder, known)
            return
        if "train" not in self.tables:
            raise ConfigError(
                f"{folder} holds no vocabulary and {self.folder} has no train table to learn one from\n"
                "    set run_dir to the folder of the training run"
            )
        self._learn(folder)
        known = {"origin": self._origin(), "inputs": list(self.inputs), "targets": list(self.targets)}
        temporary = record.with_suffix(".part")
        temporary.write_text(json.dumps(known), encoding="utf-8")
        temporary.replace(record)

    def _origin(self) -> list[str]:
        """What the vocabularies follow from."""
        recipes = [reader.recipe for reader in self._inputs.values() if reader.kind == "text"]
        return [self.tables["train"]._fingerprint, json.dumps(self.columns), *recipes]

    def _restore(self, folder: Path, known: Mapping[str, Any]) -> None:
        self.inputs = {m: reader for m, reader in self._inputs.items() if m in known["inputs"]}
        self.targets = {t: target for t, target in self._targets.items() if t in known["targets"]}
        for part in [*(r for r in self.inputs.values() if r.kind == "text"), *self.targets.values()]:
            part.restore(folder)

    def _learn(self, folder: Path) -> None:
        """Fit on the training split; a target that it never has is none."""
        table = self.tables["train"]
        self.inputs = {m: reader for m, reader in self._inputs.items() if m in self.columns}
        for name, reader in self.inputs.items():
            if reader.kind == "text":
                reader.fit(text for cell in table[self.columns[name]] for text in texts_of(cell))
                reader.save(folder)
        for name, target in self._targets.items():
            if name in self.columns:
                target.fit(table[self.columns[name]])
        self.targets = {name: target for name, target in self._targets.items() if target.known.names}
        for target in self.targets.values():
            target.save(folder)

    def split(self, name: str) -> EvalSplit:
        """A split as evaluation reads it.

        Raises:
            ConfigError: when there is no such table.
        """
        if name not in self.tables:
            raise self._no_table(name)
        return EvalSplit(self.tables[name], **self.parts())

    def _no_table(self, name: str) -> ConfigError:
        return ConfigError(
            f"{self.folder} has no {name} table; it has {', '.join(self.tables)}\n"
            f"    add {name}.jsonl (or .csv, .parquet ...)"
        )

    def parts(self) -> dict[str, Any]:
        """What every split of this data is read with."""
        return {
            "folder": self.folder,
            "columns": self.columns,
            "inputs": self.inputs,
            "targets": self.targets,
            "seed": self.seed,
        }

    def example(self) -> Batch:
        """A batch of two rows, to see shapes with."""
        table = next(iter(self.tables.values()))
        last = min(2, len(table)) - 1
        split = EvalSplit(table.select(range(last + 1)), **self.parts())
        return Collate(inputs=self.inputs, targets=list(self.targets)).batch([split[0, 0], split[0, last]])

    def train_dataloader(self) -> DataLoader[Any]:
        """The steps of training, from `first_step` on."""
        assert self.trainer is not None
        split = TrainSplit(self.tables["train"], **self.parts())
        steps = TrainSteps(
            num_samples=len(split),
            batch_size=self.batch_size,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            num_micro_batches=self.num_micro_batches,
            first_step=self.first_step,
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
