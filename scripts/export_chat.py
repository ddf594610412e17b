"""Write a trained language model that reads images in the format of transformers, without mmtrain.

    python scripts/export_chat.py RUN --out DIR [--task language_model] [--trust mine]

RUN is a run folder, whose best checkpoint is used, or a checkpoint in it. The folder has the model, the tokenizer with
its chat template, and the image processor. The decoding options (task.*.decoding) are in generation_config.json. A
model without an architecture in transformers is reported. Its run can be used with `mmtrain.modes.chat.pipeline`.
"""

import argparse
import sys
from pathlib import Path

from mmtrain.build import rebuild_from_run
from mmtrain.config.instantiate import TRUST, add_working_folder
from mmtrain.data.inputs.image import ImageInput
from mmtrain.data.sources.fetch import exit_status
from mmtrain.data.targets.chat import ChatTarget
from mmtrain.errors import ConfigError
from mmtrain.io.atomic import replacing_files
from mmtrain.modes.export.llava import export_chat
from mmtrain.tasks.language_model import LanguageModel
from mmtrain.tasks.policy import writer_of
from mmtrain.training.checkpoint.load_run import load_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, or a checkpoint in it")
    parser.add_argument("--task", default="language_model", help="name of the task")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=TRUST)
    arguments = parser.parse_args()
    if arguments.trust:
        add_working_folder(arguments.run)
    if arguments.out.exists() and any(arguments.out.iterdir()):
        raise ConfigError(f"--out {arguments.out} is not empty\n    fix: name another folder")
    lit, data, _, path, step = load_run(arguments.run, rebuild_from_run, trust=arguments.trust)
    tasks = lit.model.named_tasks()
    chosen = writer_of(tasks.get(arguments.task))
    if not isinstance(chosen, LanguageModel):
        raise ConfigError(f"--task {arguments.task} is not a language model; the model has {', '.join(tasks)}")
    picture, dialogues = data.inputs.get("image"), data.targets[chosen.targets[0]]
    assert isinstance(dialogues, ChatTarget)
    if not isinstance(picture, ImageInput):
        raise ConfigError(f"task.{arguments.task} does not read a single image, as models of transformers do")
    with replacing_files(arguments.out) as out:
        code = export_chat(lit.model, arguments.task, picture, dialogues, out).replace(str(out), str(arguments.out))
    print(f"{arguments.out}: weights of {path} (step {step})\n    {code}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
