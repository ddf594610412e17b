"""Write a trained encoder, or the complete model, for programs without mmtrain.

    python scripts/export.py RUN [--part image | --part pair [--library open_clip]] [--trust mine] --out DIR

RUN is a run folder, whose best checkpoint is used, or a checkpoint in it. Without --part the complete model is written:
a program that maps tensors to the predictions of the tasks. Each modality has a tensor "present" for the rows that have
it. Missing numbers are NaN. config.json has the shape of each tensor. With --part it is the encoder of that modality,
in the format of the library with its architecture, transformers or timm, or otherwise as a program of torch. With
--part pair it is a complete pretrained pair (encoder=clip), with projections, scale, tokenizer and image processor,
in the format of transformers, or with --library open_clip in that of open_clip. Next to it is everything that was
learned from the training split: tokenizers, means and deviations of numbers, names of classes. preprocessing.json
describes the preprocessing. An encoder of transformers also gets preprocessor_config.json or the tokenizer's files, so
the Auto classes load them from DIR. At the end, the code that loads the model is printed.
"""

import argparse
import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf

from mmtrain.build import rebuild_from_run
from mmtrain.config.instantiate import TRUST, add_working_folder
from mmtrain.data.protocols import FittedKind
from mmtrain.data.sources.fetch import exit_status
from mmtrain.errors import ConfigError
from mmtrain.io.atomic import replacing_files
from mmtrain.io.run_files import write_json
from mmtrain.modes.export.export import export_encoder, export_model, export_preprocessing
from mmtrain.modes.export.pair import LIBRARIES, export_pair
from mmtrain.training.checkpoint.load_run import load_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, or a checkpoint in it")
    parser.add_argument(
        "--part", metavar="MODALITY", help="the encoder of this modality, or pair; otherwise the complete model"
    )
    parser.add_argument("--library", choices=LIBRARIES, default=LIBRARIES[0], help="the format of --part pair")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=TRUST)
    arguments = parser.parse_args()
    if arguments.trust:
        add_working_folder(arguments.run)
    if arguments.out.exists() and any(arguments.out.iterdir()):
        raise ConfigError(f"--out {arguments.out} is not empty\n    fix: name another folder")
    lit, data, cfg, path, step = load_run(arguments.run, rebuild_from_run, trust=arguments.trust)
    if arguments.part == "pair":
        with replacing_files(arguments.out) as out:
            code = export_pair(lit.model, data.inputs, out, library=arguments.library)
        code = code.replace(str(out), str(arguments.out))
        print(f"{arguments.out}: weights of {path} (step {step})\n    {code}")
        return
    batch = data.example()
    inputs = {
        m: {"values": padded.values} | ({} if padded.mask is None else {"mask": torch.ones_like(padded.mask)})
        for m, padded in batch.inputs.items()
    }
    inputs = {m: {k: torch.cat([t, t])[:2] for k, t in tensors.items()} for m, tensors in inputs.items()}
    encoders = lit.model.encoders
    if arguments.part is not None and arguments.part not in encoders:
        raise ConfigError(f"--part {arguments.part}: the model has {', '.join(encoders)}, and pair")
    gaps = [m for m in encoders if data.inputs[m].kind == "vector"]
    with replacing_files(arguments.out) as out:
        if arguments.part is None:
            code = export_model(lit.model, {m: inputs[m] for m in encoders}, out, with_gaps=gaps)
        else:
            part = arguments.part
            code = export_encoder(encoders[part], inputs[part], out, fills_gaps=part in gaps)
        parts = [m for m in encoders if arguments.part in (None, m)]
        columns = OmegaConf.to_container(cfg.data.columns)
        assert isinstance(columns, dict)
        prepared = {m: OmegaConf.to_container(cfg.data.inputs[m]) | {"columns": columns.get(m)} for m in parts}
        write_json(out / "preprocessing.json", prepared, indent=1)
        learned = {m: data.inputs[m] for m in parts} | ({} if arguments.part else data.targets)
        for name, kind in learned.items():
            if isinstance(kind, FittedKind):
                kind.save(out, name)
        if arguments.part is not None:
            export_preprocessing(data.inputs[arguments.part], out)
    code = code.replace(str(out), str(arguments.out))
    print(f"{arguments.out}: weights of {path} (step {step})\n    {code}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
