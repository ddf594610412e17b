"""mode=predict predict.index=DIR and mode=search: create an index of a model's vectors, and search it."""

import os
from pathlib import Path

import torch
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.table import Table

from mmtrain.build import rebuild_from_run
from mmtrain.config.run_config import read_run_config
from mmtrain.data.dataset import EvalSplit
from mmtrain.data.inputs.video import VideoInput
from mmtrain.data.loader import EvalSteps, make_loader
from mmtrain.data.module import DataModule
from mmtrain.data.tables.columns import content_of
from mmtrain.data.tables.sample_errors import read_or
from mmtrain.data.tables.tables import readable_cell, row_at
from mmtrain.errors import ConfigError
from mmtrain.io.console import plain_text
from mmtrain.io.escape import one_line
from mmtrain.io.run_files import write_json_lines, write_picture
from mmtrain.modes.search.finder import Finder, Query, SearchResult
from mmtrain.modes.search.index import Row, SearchIndex, first_of_each
from mmtrain.modes.search.towers import Towers
from mmtrain.report.found import QueryRow, Result, results_sheet
from mmtrain.training.checkpoint.load import best_checkpoint, check_same_model, check_same_names, load_checkpoint
from mmtrain.training.checkpoint.load_run import differing_input
from mmtrain.types import Bad

NUM_SHOWN = 5  # rows that cannot be read


def make_index(cfg: DictConfig, console: Console) -> None:
    """Compute the vectors of a run for every row of its data, or of other data, and write the index.

    Raises:
        ConfigError: if the run has no contrastive task, its preprocessing differs from that of `cfg`, or too many rows
            cannot be read.
    """
    run = Path(cfg.run_dir)
    path = best_checkpoint(run)
    checkpoint = load_checkpoint(path)
    lit, data = rebuild_from_run(cfg, run)
    check_same_names(checkpoint, data.names(), path)
    check_same_model(checkpoint, lit, path)
    lit.load_state_dict(checkpoint["state_dict"])
    towers = Towers(lit.model, data.inputs, where=str(run))
    _check_inputs(cfg, run, towers)
    if cfg.trainer.accelerator in ("gpu", "cuda"):
        lit.to("cuda")
    splits = _splits(data, cfg.predict.split)
    index, bad = vectors_of(data, splits, towers, step=checkpoint["global_step"])
    num_rows = sum(len(data.tables[name]) for name in splits)
    if len(bad) > data.max_bad_fraction * num_rows:
        shown = [f"    {one_line(f'{b.id}: {b.file}: {b.reason}')}" for b in bad[:NUM_SHOWN]]
        raise ConfigError("\n".join([f"{len(bad)} of {num_rows} rows cannot be read", *shown]))
    folder = Path(cfg.predict.index)
    index.write(folder)
    for one in bad:
        left_out = one_line(f"{one.id}: {one.file}: {one.reason}")
        console.print(f"left out: {left_out}", markup=False, soft_wrap=True)
    counts = ", ".join(f"{m} {len(v)}" for m, v in index.vectors.items())
    console.print(f"weights of {path} (step {index.step})", markup=False, soft_wrap=True)
    console.print(f"index: {folder} ({counts}; {num_rows} rows of {', '.join(splits)})", markup=False, soft_wrap=True)


def _check_inputs(cfg: DictConfig, run: Path, towers: Towers) -> None:
    before = read_run_config(run)
    for modality in towers.modalities:
        result = differing_input(before.data.inputs, cfg.data.inputs, modality)
        if result is not None:
            key, theirs, mine = result
            raise ConfigError(f"{key}={mine}: {run} was trained with {key}={theirs}\n    fix: set {key}={theirs}")


def _splits(data: DataModule, wanted: str | None) -> list[str]:
    if wanted is None:
        return list(data.tables)
    data.split(wanted)  # raises if it does not exist
    return [wanted]


def vectors_of(data: DataModule, splits: list[str], towers: Towers, *, step: int) -> tuple[SearchIndex, list[Bad]]:
    """An index of some splits, and their rows that cannot be read."""
    vectors: dict[str, list[torch.Tensor]] = {m: [] for m in towers.modalities}
    owners: dict[str, list[int]] = {m: [] for m in towers.modalities}
    keys: dict[str, list[int]] = {m: [] for m in towers.modalities}
    rows: list[Row] = []
    bad: list[Bad] = []
    for name in splits:
        split, first = data.split(name), len(rows)
        rows += [_row(split, position, name, data) for position in range(len(split))]
        steps = EvalSteps(num_samples=len(split), batch_size=data.eval_batch_size)
        for (batch,) in make_loader(split, steps, data.collate(), num_workers=data.num_workers, pin_memory=False):
            bad += batch.bad
            for m in [m for m in towers.modalities if batch.present[m].any()]:
                present = batch.present[m]
                mine = towers.of_batch(batch, m)[present]
                if not mine.isfinite().all():
                    raise FloatingPointError(f"an embedding of {m} is not finite, and must not be in the index")
                vectors[m].append(mine)
                owners[m] += (batch.rows[present] + first).tolist()
                keys[m] += batch.keys[m][present].tolist()
    joined = {m: torch.cat(parts) for m, parts in vectors.items() if parts}
    kept = {m: first_of_each(keys[m]) for m in joined}
    index = SearchIndex(
        vectors={m: v[kept[m]] for m, v in joined.items()},
        owners={m: torch.tensor(owners[m])[kept[m]] for m in joined},
        rows=rows,
        folder=data.folder,
        weights=towers.digest(),
        step=step,
    )
    return index, bad


def _row(split: EvalSplit, position: int, name: str, data: DataModule) -> Row:
    files: dict[str, str] = {}
    if position < len(split.table):
        cells = row_at(split.table, position)
        contents = {m: content_of(readable_cell(cells, split.columns.get(m))) for m in data.inputs}
        named = {m: c for m, c in contents.items() if isinstance(c, str) and data.inputs[m].kind != "text"}
        folder = data.folder_of(name)
        files = {m: c if folder == data.folder else os.path.relpath(folder / c, data.folder) for m, c in named.items()}
    return Row(split.name(position), name, split.text(position), files)


def search(cfg: DictConfig, console: Console) -> None:
    """Search for every query: a table in the terminal, images on a contact sheet.

    Raises:
        ConfigError: if a query, the index or the run cannot be used.
    """
    query_values = [cfg.search.query] if isinstance(cfg.search.query, str) else list(cfg.search.query)
    finder = Finder.load(cfg.run_dir, index=cfg.search.index, trust=cfg.trust)
    queries = [finder.query(str(one)) for one in query_values]
    result = finder.find_all(queries, within=cfg.search.within, k=cfg.search.k)
    for query, results in zip(queries, result, strict=True):
        console.print(_table(query, results, finder))
    path = Path(cfg.search.sheet)
    shown = [_asked(finder, query, results) for query, results in zip(queries, result, strict=True)]
    write_picture(path, results_sheet(shown, title=f"{len(queries)} queries of {Path(cfg.run_dir).name}"))
    answers = path.with_suffix(".jsonl")
    pairs = zip(queries, result, strict=True)
    write_json_lines(answers, ({"query": q.value, "found": [_plain(one) for one in results]} for q, results in pairs))
    console.print(f"found: {path}, {answers}", markup=False, soft_wrap=True)


def _plain(result: SearchResult) -> dict[str, object]:
    return {**result._asdict(), "file": None if result.file is None else str(result.file)}


def _table(query: Query, results: list[SearchResult], finder: Finder) -> Table:
    """Results as a table. Files have their names in the indexed table; found.jsonl has the full paths."""
    assert finder.index is not None
    table = Table(title=plain_text(f"{query.modality}: {query.value}"), title_justify="left")
    table.add_column("similarity", justify="right")
    for name in ("id", "text", "file"):
        table.add_column(name, overflow="fold")
    for one in results:
        file = "" if one.file is None else os.path.relpath(one.file, finder.index.folder)
        table.add_row(f"{one.score:.3f}", plain_text(one.id), plain_text(one.text or ""), plain_text(file))
    return table


def _asked(finder: Finder, query: Query, results: list[SearchResult]) -> QueryRow:
    is_text = finder.towers.kinds[query.modality] == "text"
    words = str(query.value) if is_text else f"{query.modality}: {Path(query.value).name}"
    picture = None if is_text else _picture(finder, query.modality, Path(query.value))
    return QueryRow(
        words=words if picture is None else None,
        picture=picture,
        results=[
            Result(picture=_picture(finder, one.modality, one.file), words=one.text or one.id, score=one.score)
            for one in results
        ],
    )


def _picture(finder: Finder, modality: str, file: Path | None) -> Path | Image.Image | None:
    """What a contact sheet shows of a file: an image, the middle frame of a video; None for other content."""
    reader = finder.towers.readers[modality]
    if file is None or finder.towers.kinds[modality] == "image":
        return file
    if not isinstance(reader, VideoInput):
        return None
    frames = read_or([], str(file), lambda path: reader.frames(path, Path()))
    return frames[len(frames) // 2] if frames else None
