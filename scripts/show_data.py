"""Show a data set before training: what it has, what is missing, and the inputs as the model receives them.

    python scripts/show_data.py data=files data.root=DIR [group=option ...] [key=value ...] [out=sheet.png]

Overrides are those of train.py. Every input and target with a column is shown, even if no task reads it. The script
prints tables and writes a contact sheet: some training rows, as in evaluation and with the augmentation of training.
"""

import copy
import inspect
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser

from mmtrain.config.compose import config_dir
from mmtrain.config.instantiate import add_working_folder
from mmtrain.config.validate import faults_of
from mmtrain.io.escape import print_escaped
from mmtrain.io.run_files import write_picture

OUT = "data_sheet.png"
MAX_ROWS = 100_000  # per split
NUM_BANDS = 8
NUM_DRAWS = 3
TOP_CLASSES = 15
SHOWN = 5  # examples per fault


def main() -> int:
    """Return the exit status: 0, or 2 for errors that the user can fix."""
    add_working_folder(None)
    outs = [a for a in sys.argv[1:] if a.startswith("out=")]
    args = get_args_parser().parse_args([a for a in sys.argv[1:] if not a.startswith("out=")])
    if args.help:
        print(__doc__)
        return 0
    out = Path(outs[-1].removeprefix("out=") if outs else OUT)
    requested = [
        *args.overrides,
        "mode=test",
    ]  # rows, classes and the batch size are not checked here
    faults = faults_of(config_dir(), args.config_dir, requested, multirun=False) or faults_of_out(out)
    if faults:
        print_escaped("\n".join(faults), stderr=True)
        return 2
    from mmtrain.errors import ConfigError

    extra = [f"hydra.searchpath=['file://{Path(args.config_dir).resolve()}']"] if args.config_dir else []
    try:
        with tempfile.TemporaryDirectory() as folder:
            show([*args.overrides, *extra], out, Path(folder))
    except ConfigError as error:
        print_escaped(error, stderr=True)
        return 2
    return 0


def faults_of_out(out: Path) -> list[str]:
    """Faults in the name of the contact sheet."""
    if out.suffix.lower() != ".png" or not out.parent.is_dir() or out.is_dir():
        return [f"out={out}: cannot be written\n    fix: name a .png file in an existing folder"]
    return []


def show(overrides: list[str], out: Path, folder: Path) -> None:
    """Print the tables and write the contact sheet. Vocabularies are written to a temporary folder."""
    from mmtrain.build import compose
    from mmtrain.data.survey.survey import Limits, survey_of
    from mmtrain.io.console import Terminal
    from mmtrain.report.contact_sheet import contact_sheet

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    console = Terminal(width=None if sys.stdout.isatty() else 120)
    cfg = compose(overrides)
    result = Found.read(cfg, folder)
    limits = Limits(heavy=2000, measured=2000, decoded=100, files=20_000, file_bytes=1 << 30)
    survey = survey_of(result.data, limits)
    for table in tables_of(result, survey):
        console.print(table)
    unread = result.data.columns_not_read()
    not_read = [f"not read: {', '.join(unread)}"] if unread else []
    if unused := [name for name in [*result.data.inputs, *result.data.targets] if name not in result.used]:
        not_read.append(f"shown here, but used by no task of this command: {', '.join(unused)}")
    for note in [*result.notes, *result.data.notes, *not_read, *survey.notes, *faults_in(survey)]:
        console.print(note, markup=False, soft_wrap=True)
    bands = bands_of(result, cfg)
    columns = ["evaluation", *(f"training, draw {n}" for n in range(1, NUM_DRAWS + 1))]
    name = " ".join(o for o in overrides if o.startswith("data")) or "the default data"
    write_picture(out, contact_sheet(bands, columns=columns, title=f"{name}: {len(bands)} training rows"))
    console.print(f"sheet: {out}", markup=False, soft_wrap=True)


@dataclass
class Found:
    """The data.

    Attributes:
        data: the DataModule.
        num_rows: number of rows by split, before the limit.
        notes: notes about reading.
        used: the inputs and targets that tasks use.
    """

    data: Any
    num_rows: dict[str, int]
    notes: list[str]
    used: frozenset[str] = frozenset()

    @classmethod
    def read(cls, cfg: Any, folder: Path) -> "Found":
        """Read all inputs and targets; if that fails, only those that tasks read, as in train.py.

        Raises:
            ConfigError: as in train.py.
        """
        from mmtrain.build import build_data
        from mmtrain.errors import ConfigError

        requested = set(build_data(cfg)._inputs) | set(build_data(cfg)._targets)
        try:
            result = cls._read(cfg, None, folder / "all")
            result.used = frozenset(requested)
            return result
        except ConfigError as error:
            result = cls._read(cfg, requested, folder / "asked")
            result.used = frozenset(requested)
            result.notes.append(f"only what tasks read is shown, because reading the rest failed: {error}")
            return result

    @classmethod
    def _read(cls, cfg: Any, only: set[str] | None, folder: Path) -> "Found":
        from omegaconf import OmegaConf

        from mmtrain.config.instantiate import get_class, make
        from mmtrain.data.survey.subsample import SubsampledSource

        taken = {"_target_", *inspect.signature(get_class(cfg.data._target_)).parameters} - {"source"}
        parts = OmegaConf.masked_copy(cfg.data, [k for k in cfg.data if k in taken])
        for group in ("inputs", "targets"):
            parts[group] = OmegaConf.masked_copy(parts[group], [k for k in parts[group] if only is None or k in only])
        parts.batch_size = 1  # a data set may be smaller than a step
        split = make(cfg.data.split, "data.split")
        given = make(cfg.data.source, "data.source")
        source = SubsampledSource(given, split=split, most=MAX_ROWS, restrict_paths=cfg.data.restrict_paths)
        data = make(parts, "data", source=source, seed=cfg.seed, num_micro_batches=1)
        data.read(folder, training=True)
        notes = [
            f"{split}: {MAX_ROWS:,} of {num:,} rows are used, evenly spaced"
            + ("" if "id" in data.tables[split].column_names else "; their names are indices among these")
            for split, num in source.num_rows.items()
            if num > MAX_ROWS
        ]
        if source.num_rows["train"] < cfg.data.batch_size:
            notes.append(
                f"data.batch_size={cfg.data.batch_size}: larger than the training split of"
                f" {source.num_rows['train']} rows, which train.py does not accept"
            )
        return cls(data, source.num_rows, notes)


# ------------------------------------------------------------------ in tables


def tables_of(found: Found, survey: Any) -> Iterable[Any]:
    """The tables of a survey for the terminal."""
    yield rows_table(found, survey)
    lengths = lengths_table(survey)
    if lengths.row_count:
        yield lengths
    for name, counts in survey.balance.items():
        yield balance_table(name, counts, survey.labelled[name])


def rows_table(found: Found, survey: Any) -> Any:
    """Numbers of rows by split, and of rows with missing inputs."""
    from rich.table import Table

    from mmtrain.io.console import plain_text

    splits = list(survey.missing)
    table = Table("", "column", *splits, title="rows, and rows with missing values")
    table.add_row("rows", "", *(f"{found.num_rows[split]:,}" for split in splits))
    table.add_section()
    names = list(dict.fromkeys([*found.data.inputs, *found.data.targets]))
    for name in names:
        column = found.data.columns[name]
        cells = [_rate(survey.missing[s].get(name), survey.seen[s].get(name), found.num_rows[s]) for s in splits]
        table.add_row(name, plain_text(column if isinstance(column, str) else ", ".join(column)), *cells)
        for part in [] if isinstance(column, str) else column:
            gaps = [survey.gaps[s].get(name, {}).get(part) for s in splits]
            rates = [_rate(n, survey.seen[s].get(name), found.num_rows[s]) for n, s in zip(gaps, splits, strict=True)]
            table.add_row("", plain_text(part), *rates)
    table.add_section()
    table.add_row("no input at all", "", *(f"{len(survey.nothing[s]):,}" for s in splits))
    table.add_row("cannot be read", "", *(f"{len(survey.bad[s]):,} of {survey.decoded[s]:,} tried" for s in splits))
    return table


def _rate(missing: int | None, seen: int | None, rows: int) -> str:
    if missing is None or not seen:
        return "no column"
    sampled = f" of {seen:,} sampled" if seen < rows else ""
    return f"{missing:,} ({missing / seen:.1%}){sampled}" if missing else f"0{sampled}"


def lengths_table(survey: Any) -> Any:
    """Minimum, median and maximum."""
    from rich.table import Table

    from mmtrain.io.console import plain_text

    table = Table("", "split", "unit", "least", "median", "most", "of", "", title="lengths")
    for name in dict.fromkeys(name for split in survey.lengths.values() for name in split):
        for split, of in survey.lengths.items():
            for result in of.get(name, []):
                figures = (result.low, result.median, result.high, f"{result.num:,}")
                table.add_row(name, split, plain_text(result.unit), *figures, plain_text(result.note))
        table.add_section()
    return table


def balance_table(name: str, counts: Mapping[str, Any], labelled: Mapping[str, int]) -> Any:
    """Frequency of each class, as a fraction of the labelled rows of its split."""
    from rich.table import Table

    from mmtrain.data.survey.survey import NO_CLASS, shares
    from mmtrain.io.console import plain_text

    top, rest = shares(counts, TOP_CLASSES)
    table = Table(name, *counts, title=plain_text(f"balance of {name}"))

    def cells(numbers: Mapping[str, int]) -> list[str]:
        return [f"{numbers[s]:,} ({numbers[s] / labelled[s]:.1%})" if numbers[s] else "0" for s in counts]

    for label in top:
        table.add_row(plain_text(label), *cells({split: of[label] for split, of in counts.items()}))
    if any(rest.values()):
        num = len(set().union(*counts.values()) - {*top, NO_CLASS})
        table.add_section()
        table.add_row(f"the other {num:,}", *cells(rest))
    if any(of[NO_CLASS] for of in counts.values()):
        table.add_row(NO_CLASS, *cells({split: of[NO_CLASS] for split, of in counts.items()}))
    return table


def faults_in(survey: Any) -> Iterable[str]:
    """Overlap between splits, and faults of rows, with a few examples each."""
    yield from _shared("ids: {} in several splits", survey.shared_ids)
    for name, shared in survey.shared_files.items():
        yield from _shared(f"{name}: {{}} contents are in several splits", shared)
    for name, shared in survey.shared_texts.items():
        yield from _shared(f"{name}: {{}} of {survey.num_texts[name]:,} different texts are in several splits", shared)
    if survey.shared_ids or any([*survey.shared_files.values(), *survey.shared_texts.values()]):
        yield (
            "    fix: if the test should measure unseen contents, move their rows into one split;"
            " in a single table, data.split.group=COLUMN keeps the rows of a group together"
        )
    for split, ids in survey.nothing.items():
        if ids:
            yield f"{split}: rows without any input: {len(ids):,} ({_some(ids)})"
    for split, bad in survey.bad.items():
        if bad:
            yield f"{split}: rows that cannot be read: {len(bad):,} of {survey.decoded[split]:,} tried"
        for one in bad[:SHOWN]:
            yield f"    {one.id}: {one.file}: {one.reason}"
        if len(bad) > SHOWN:
            yield f"    and {len(bad) - SHOWN:,} more"


def _shared(what: str, shared: list[Any]) -> Iterable[str]:
    """Those in most splits first, then those in fewest rows, because frequent ones are likely to be intended."""
    if not shared:
        return
    yield what.format(f"{len(shared):,}")
    for one in sorted(shared, key=lambda s: (-len(s.rows), sum(map(len, s.rows.values()))))[:SHOWN]:
        places = "; ".join(f"{split}: {_some(ids)}" for split, ids in one.rows.items())
        yield f"    {one.what if len(one.what) < 60 else one.what[:59] + '…'}  ({places})"
    if len(shared) > SHOWN:
        yield f"    and {len(shared) - SHOWN:,} more"


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (f" and {len(ids) - 3:,} more" if len(ids) > 3 else "")


# -------------------------------------------------------- on the contact sheet


def bands_of(found: Found, cfg: Any) -> list[Any]:
    """Training rows for the contact sheet: most of those with all inputs, and some with missing ones."""
    from mmtrain.data.dataset import TrainSplit
    from mmtrain.data.order import draw_seed
    from mmtrain.data.survey.subsample import evenly_spaced
    from mmtrain.errors import SampleError
    from mmtrain.report.contact_sheet import Band, Nothing

    split = TrainSplit(found.data.tables["train"], **found.data.parts())
    parts = [*found.data.inputs, *found.data.targets]
    full: list[Any] = []
    with_gaps: list[Any] = []
    for row in evenly_spaced(len(split.table), 8 * NUM_BANDS):
        try:
            sample = split.sample(row, seed=0, train=False)
        except SampleError:
            continue
        (full if len(sample.inputs) + len(sample.targets) == len(parts) else with_gaps).append(sample)
    num_gaps = min(len(with_gaps), max(NUM_BANDS - len(full), NUM_BANDS // 4))
    picked = [
        of[n] for of, num in ((full, NUM_BANDS - num_gaps), (with_gaps, num_gaps)) for n in evenly_spaced(len(of), num)
    ]
    bands = []
    for sample in picked:
        seeds = [draw_seed(found.data.seed, epoch, sample.row) for epoch in range(NUM_DRAWS)]
        draws = [views_of(found, cfg, sample, seed=0, train=False)]
        for seed in seeds:
            try:
                drawn = split.sample(sample.row, seed=seed, train=True)
                draws.append(views_of(found, cfg, drawn, seed=seed, train=True))
            except SampleError as error:  # a random part of a damaged file, whose middle can be read
                draws.append(dict.fromkeys(found.data.inputs, Nothing(str(error))))
        bands.append(Band(name=sample.id, draws=draws, targets=targets_of(found, sample)))
    return bands


def views_of(found: Found, cfg: Any, sample: Any, *, seed: int, train: bool) -> dict[str, Any]:
    """Inputs of a sample, as the model receives them."""
    from mmtrain.report.contact_sheet import Frames, Nothing, Numbers, Picture, Sound

    views: dict[str, Any] = {}
    for name, reader in found.data.inputs.items():
        value, knobs = sample.inputs.get(name), cfg.data.inputs[name]
        if value is None:
            views[name] = Nothing(f"no {name}")
        elif reader.kind == "image":
            views[name] = Picture(_pixels(value, knobs))
        elif reader.kind == "video":
            views[name] = Frames(_pixels(value, knobs))
        elif reader.kind == "audio":
            views[name] = Sound(value, reader.sample_rate)
        elif reader.kind == "text":
            views[name] = _tokens(found, name, sample, seed=seed, train=train)
        else:
            views[name] = Numbers(value)
    return views


def _pixels(value: Any, knobs: Any) -> Any:
    """Undo the normalization of pixels (..., 3, H, W), to 0..1."""
    import torch

    mean, std = (torch.tensor(list(knobs[key]), dtype=torch.float32).view(3, 1, 1) for key in ("mean", "std"))
    return value * std + mean


def _tokens(found: Found, name: str, sample: Any, *, seed: int, train: bool) -> Any:
    """The tokens of a text; for a masked one, the original token."""
    from mmtrain.data.tables.columns import cell_of
    from mmtrain.report.contact_sheet import HIDDEN, PLAIN, SPECIAL, UNKNOWN, Tokens

    plain = copy.copy(found.data.inputs[name])
    plain.word_dropout = 0.0
    cell = cell_of(found.data.tables["train"][sample.row], found.data.columns[name])
    loaded = plain.load(cell, found.data.folder, seed=seed, train=train)
    kinds = dict.fromkeys(plain.special, SPECIAL) | {plain.unknown: UNKNOWN}
    tokenizer, pieces = plain.tokenizer, []
    for seen, was in zip(sample.inputs[name].tolist(), loaded[0].tolist(), strict=True):
        token = tokenizer.id_to_token(was)
        pieces.append((token, HIDDEN if seen != was else kinds.get(token, PLAIN)))
    return Tokens(pieces)


def targets_of(found: Found, sample: Any) -> dict[str, str]:
    """The targets of a sample as text; "-" for a missing one."""
    return {
        name: "-" if name not in sample.targets else _in_words(target, sample.targets[name])
        for name, target in found.data.targets.items()
    }


def _in_words(target: Any, value: Any) -> str:
    from mmtrain.types import AnswerTarget, ClassTarget, MultiLabelTarget, NumberTarget, TokenTarget

    known = target.known
    if isinstance(known, ClassTarget):
        return known.names[int(value)]
    if isinstance(known, MultiLabelTarget):
        return ", ".join(known.names[n] for n in value.nonzero().flatten().tolist()) or "(none of them)"
    if isinstance(known, AnswerTarget):
        order = sorted(value.nonzero().flatten().tolist(), key=lambda n: -float(value[n]))
        return ", ".join(f"{known.names[n]} {float(value[n]):.2g}" for n in order) or "(no known answer)"
    if isinstance(known, NumberTarget):
        scaled = zip(value.tolist(), known.mean, known.std, strict=True)
        return ", ".join(f"{v * std + mean:.4g} (seen as {v:.2f})" for v, mean, std in scaled)
    assert isinstance(known, TokenTarget)
    return target.words(value.tolist())


if __name__ == "__main__":
    sys.exit(main())
