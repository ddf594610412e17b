"""Run folders of a stranger: what their configuration may name to run code, and in which place."""

import copy
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

Node = dict[str, Any]


class Payload:
    """Unpickling this runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


class Stranger:
    """A folder with what gadgets need, and the file that is there once one of them has run."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.proof = folder, folder / "proof"
        torch.save(Payload(f"touch {self.proof}"), folder / "evil.pth")
        touch = f"from pathlib import Path\nPath({str(self.proof)!r}).touch()\n"
        (folder / "evil_module.py").write_text(f"{touch}\n\nclass Evil:\n    pass\n")

    @property
    def ran(self) -> bool:
        return self.proof.exists()

    def gadgets(self, run: Path) -> dict[str, Node]:
        """By name, nodes that run code when Hydra instantiates them. `run` is the run folder that contains them."""
        proof, evil = str(self.proof), str(self.folder / "evil.pth")
        path: Node = {"_target_": "pathlib.Path", "_args_": [proof]}
        write: Node = {"_target_": "pathlib.Path.write_text", "_args_": [path, "x"]}
        return {
            "torch.hub": {
                "_target_": "torch.hub.load_state_dict_from_url",
                "url": f"file://{evil}",
                "model_dir": str(self.folder / "cache"),
                "weights_only": False,
            },
            "torch.load": {"_target_": "torch.load", "f": evil, "weights_only": False},
            "pathlib": write,
            "reexported os": {"_target_": "mmtrain.modes.run.os.system", "_args_": [f"touch {proof}"]},
            "reexported subprocess": {
                "_target_": "mmtrain.training.callbacks.run_summary.subprocess.run",
                "_args_": [["touch", proof]],
            },
            "reexported torch": {"_target_": "mmtrain.build.torch.load", "f": evil, "weights_only": False},
            "own writer": {"_target_": "mmtrain.modes.run._write", "path": path, "text": "x"},
            "own runner": {
                "_target_": "mmtrain.data.sources.fetch._run",
                "command": ["touch", proof],
                "folder": str(self.folder),
                "fix": "",
            },
            "own wrapper": {"_target_": "mmtrain.config.instantiate.instantiate", "config": write},
            "os": {"_target_": "os.system", "command": f"touch {proof}"},
            "subprocess": {"_target_": "subprocess.Popen", "args": ["touch", proof]},
            "eval": {"_target_": "builtins.eval", "_args_": [f"open({proof!r}, 'w')"]},
            "exec": {"_target_": "builtins.exec", "_args_": [f"open({proof!r}, 'w')"]},
            "pickle": {"_target_": "pickle.loads", "_args_": [pickle.dumps(Payload(f"touch {proof}"))]},
            "import_module": {"_target_": "importlib.import_module", "name": "evil_module"},
            "run_path": {"_target_": "runpy.run_path", "path_name": str(self.folder / "evil_module.py")},
            "hydra instantiate": {"_target_": "hydra.utils.instantiate", "config": write},
            "hydra call": {"_target_": "hydra.utils.call", "config": write},
            "module in the working folder": {"_target_": "evil_module.Evil"},
            "module in the run folder": {"_target_": f"{run.name}.evil_module.Evil"},
            "timeit": {"_target_": "timeit.timeit", "stmt": f"open({proof!r}, 'w')", "number": 1},
            "yaml": {"_target_": "yaml.unsafe_load", "stream": f"!!python/object/apply:os.mknod [{proof}]"},
        }


# Gadgets that are refused by their name. Some have an effect, some are a step to one.
NAMES = (
    *(
        "hydra.utils.get_method",
        "hydra.utils.get_class",
        "functools.partial",
        "operator.methodcaller",
        "webbrowser.open",
    ),
    *("shutil.rmtree", "torch.utils.cpp_extension.load", "torch.package.PackageImporter", "torch.jit.load"),
    *("ctypes.CDLL", "logging.config.dictConfig", "multiprocessing.Process", "code.interact", "numpy.load"),
    *("pandas.read_pickle", "joblib.load", "cloudpickle.loads", "datasets.load_dataset", "webdataset.WebDataset"),
    *("transformers.pipeline", "transformers.AutoModel.from_pretrained", "peft.PeftModel.from_pretrained"),
    *(
        "peft.PromptTuningConfig",
        "peft.auto.importlib.import_module",
        "optuna.load_study",
        "optuna.samplers.TPESampler",
    ),
    *("pytorch_lightning.callbacks.LambdaCallback", "pytorch_lightning.Trainer", "torchmetrics.text.BERTScore"),
    *(
        "torch.nn.Module.load_state_dict",
        "torch.nn.modules.module.Module",
        "torch.nn.Linear",
        "torch.utils.data.random",
    ),
    *("torch.optim.optimizer.Optimizer", "torch.optim.lr_scheduler.LambdaLR", "torch.optim.adamw.torch.load"),
    *(
        "mmtrain.cli.launch.launch",
        "mmtrain.modes.chat.repl.chat",
        "mmtrain.config.instantiate.make",
        "mmtrain.build.compose",
        "mmtrain.modes.run.run",
    ),
    *(
        "mmtrain.data.sources.fetch.write_folder",
        "mmtrain.data.sources.fetch.unpacked_debs",
        "mmtrain.training.checkpoint.io.write_checkpoint",
    ),
    *(
        "mmtrain.encoders.image.vit.ViT.load_state_dict",
        "mmtrain.encoders.image.vit",
        "mmtrain.encoders.image.vit.nn.Linear",
    ),
    *(
        "mmtrain.encoders.image.timm.timm_model",
        "mmtrain.layers.timm_model.timm.create_model",
        "mmtrain.tasks.task.torch.load",
    ),
    *("mmtrain", "mmtrain.", ".mmtrain.encoders.image.vit.ViT", "mmtrain..encoders.image.vit.ViT", "", "mine.Mine"),
    *(
        "mmtrain.encoders.image.vit.ViT\n",
        " mmtrain.encoders.image.vit.ViT",
        "hydra_plugins.mmtrain_ray_launcher.RayLauncher",
    ),
)

RECORD: Node = {
    "seed": 0,
    "trust": ["builtins", "os", "mmtrain", "torch", "mine"],  # a record's own word does not count
    "data": {
        "_target_": "mmtrain.data.module.DataModule",
        "source": {"_target_": "mmtrain.data.sources.files.existing_folder", "_partial_": True, "root": "."},
        "split": {"_target_": "mmtrain.data.tables.splits.Split", "column": None},
        "inputs": {"image": {"_target_": "mmtrain.data.inputs.image.ImageInput", "size": 16}},
        "targets": {"label": {"_target_": "mmtrain.data.targets.label.ClassLabel"}},
    },
    "encoder": {"image": {"_target_": "mmtrain.encoders.image.vit.ViT", "depth": 1}},
    "fusion": {"_target_": "mmtrain.fusion.concat.Concat", "dim": 8},
    "task": {"classification": {"_target_": "mmtrain.tasks.classification.Classification", "loss": "cross_entropy"}},
    "balance": {"_target_": "mmtrain.balance.fixed.Fixed"},
    "modality_balance": {},
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.001},
    "schedule": {"_target_": "mmtrain.training.optim.schedules.cosine", "_partial_": True},
    "trainer": {"accelerator": "cpu"},
    "callbacks": {"ema": {"_target_": "mmtrain.training.callbacks.ema.EMA"}},
    "logger": {"csv": {}},
    "trial": None,
    "overrides": [],
}

# Places of a node in config.yaml: a dotted key, at which it replaces what is there. [] is a list around it.
PLACES = (
    *("data", "data.source", "data.split", "data.split.column", "data.inputs.image", "data.inputs.image.size"),
    *("data.targets.label", "data.bucket", "encoder.image", "encoder.image.depth", "encoder.image.peft", "fusion"),
    *("fusion._args_.[]", "task.classification", "task.classification.loss", "task.classification.policy.lm.peft"),
    *(
        "balance",
        "modality_balance",
        "optimizer",
        "optimizer.lr",
        "schedule",
        "schedule.warmup_ratio",
        "trainer.plugins.[]",
    ),
    *("callbacks.mine", "logger.mine", "trial.pruner", "hidden", "hidden.deep.[].[].node"),
)


def planted(record: Node, place: str, node: Any) -> Node:
    """A record with a node at a place."""
    changed = copy.deepcopy(record)
    *above, last = place.replace(".[]", "[]").split(".")
    where = changed
    for word in above:
        name, lists = word.rstrip("[]"), word.count("[]")
        inner: Node = {} if lists or not isinstance(where.get(name), dict) else where[name]
        where[name] = inner
        for _ in range(lists):
            where[name] = [where[name]]
        where = inner
    name = last.rstrip("[]")
    for _ in range(last.count("[]")):
        node = [node]
    where[name] = node
    return changed


def write_record(folder: Path, record: Node) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(record, sort_keys=False))
    return folder


def spelled(value: Any) -> str:
    """A value as an override spells it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{spelled(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(spelled, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, bytes):
        return spelled(value.decode("latin-1"))
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)


Reader = Callable[[Path], Any]
