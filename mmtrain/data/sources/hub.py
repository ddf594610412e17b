"""A data set of the Hugging Face hub, or a local folder in its format, as tables."""

import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmtrain.data.sources.caches import datasets_cache_error
from mmtrain.data.sources.files import of_datasets
from mmtrain.data.tables.class_folders import KIND_OF
from mmtrain.data.tables.folder_tables import is_saved
from mmtrain.data.tables.paths import data_folder, refuse_outside
from mmtrain.data.tables.row_tables import rows_table
from mmtrain.data.tables.splits import Split
from mmtrain.data.tables.tables import Tables
from mmtrain.errors import ConfigError

_WILD = re.compile(r"[*?\[\]]")


def hub_tables(
    *, name: str, config: str | None, revision: str | None, split: Split, restrict_paths: bool = True
) -> Tables:
    """The tables of a data set for `datasets.load_dataset`; downloaded once, into the cache of `datasets`.

    Args:
        name: name on the hub, such as user/birds, or a local folder.
        config: one of its configurations (languages, versions ...); None if it has only one.
        revision: branch, tag or commit of its repository; None for the newest. A commit makes a run reproducible.
        split: how a single table is split.
        restrict_paths: whether all of its files must be in its folder.

    Raises:
        ConfigError: if it does not exist, cannot be reached, needs another configuration or its own program, cannot be
            read, or uses a file from outside of its folder.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)  # it logs the errors that it raises
    local = Path(name).expanduser().absolute()
    is_local = local.is_dir()
    folder = local if is_local else _cache()
    if is_local and is_saved(local):
        raise ConfigError(f"{name} was written by save_to_disk\n    fix: read it with data=files data.root={local}")
    errors = (OSError, ValueError, RuntimeError, StopIteration, datasets.exceptions.DatasetsError)
    try:  # OSError: missing, not reachable; RuntimeError: a program; StopIteration: an empty jsonl
        files = _named_files(local) if is_local and _WILD.search(str(local)) else None
        where = str(local) if is_local else name
        builder = datasets.load_dataset_builder(where, config, revision=revision, data_files=files)
        for file in _local_files(builder):
            refuse_outside(data_folder(folder, restrict_paths=restrict_paths), file)
        result = _of_json(builder) if is_local else None
        if result is None:
            builder.download_and_prepare()
            result = builder.as_dataset()
    except ConfigError:
        raise
    except errors as error:
        cache = datasets_cache_error(error, None)
        raise cache or _explained(error, name, config, revision) from error
    return of_datasets(result, name, folder, split)


def _named_files(folder: Path) -> dict[str, list[str]]:
    """Patterns of files by split, for a folder whose name contains special characters of patterns."""
    from datasets.data_files import get_data_patterns

    plain = glob.escape(str(folder))
    return {str(split): [f"{plain}/{p}" for p in result] for split, result in get_data_patterns(plain).items()}


def _of_json(builder: Any) -> Any:
    """A data set with one JSON file per split, read as in data=files; None for another data set."""
    import datasets
    from datasets.packaged_modules.json.json import Json

    files = {str(split): list(map(Path, result)) for split, result in (builder.config.data_files or {}).items()}
    plain = isinstance(builder, Json) and builder.config.features is None and builder.config.field is None
    if not plain or any(len(result) > 1 or result[0].suffix not in (".json", ".jsonl") for result in files.values()):
        return None
    tables = {split: rows_table(file)[0] for split, (file,) in files.items()}
    if not all(map(len, tables.values())):
        raise ValueError("a table in it is empty")
    return datasets.DatasetDict(tables)


def _local_files(builder: Any) -> Iterator[Path]:
    """Local tables and archives of a data set. Its README.md may name any.

    Images, sounds and videos are not included, because readers check each when they open it.
    """
    for files in (builder.config.data_files or {}).values():
        for file in files:
            last = str(file).rpartition("::")[2]  # from zip://a.csv::/data/b.zip
            if "://" not in last and Path(last).suffix.lower() not in KIND_OF:
                yield Path(last)


def _cache() -> Path:
    """The folder of all downloads."""
    import datasets

    return Path(datasets.config.HF_CACHE_HOME).expanduser().absolute()


def _explained(error: Exception, name: str, config: str | None, revision: str | None) -> ConfigError:
    """The error with a fix. `datasets` has few error classes, so the message is checked."""
    import datasets

    message = str(error.__cause__ or error).strip() or "a table in it is empty"
    configs = re.search(r"(?:available configs|Available): \[(.*?)\]", message, re.DOTALL)
    if configs is not None:
        names = [n.strip().strip("'\"") for n in configs[1].split(",")]
        what = "has several configurations" if config is None else f"has no configuration {config}"
        return ConfigError(f"{name} {what}; it has {', '.join(names)}\n    fix: choose one: config={names[0]}")
    if "scripts are no longer supported" in message or "trust_remote_code" in message:
        return ConfigError(
            f"{name} is a program of its author ({message.splitlines()[0]}), which is never run here\n"
            "    fix: use a copy with data (its branch refs/convert/parquet, if the hub has one, with revision=...),"
            " or save it once with save_to_disk and use data=files"
        )
    if "gated" in message or "private" in message or "401" in message:
        return ConfigError(
            f"{name} is gated or private\n"
            "    fix: accept its terms on its page, then log in: hf auth login (or set HF_TOKEN)"
        )
    if revision is not None and "evision" in message:
        return ConfigError(f"{name} has no revision {revision}\n    fix: name a branch, a tag or a commit, or null")
    if isinstance(error, ConnectionError | TimeoutError):
        offline = "HF_HUB_OFFLINE is set" if _is_offline() else "the hub cannot be reached"
        return ConfigError(
            f"{name} is neither a folder nor in the cache of datasets, and {offline}\n"
            "    fix: name an existing folder, or run once with a network (and without HF_HUB_OFFLINE)"
        )
    if isinstance(error, datasets.exceptions.DatasetNotFoundError | FileNotFoundError):
        return ConfigError(
            f"{name} is not a data set: {message.splitlines()[0]}\n"
            "    fix: check the name on https://huggingface.co/datasets (USER/NAME), or name a folder with tables"
        )
    return ConfigError(
        f"{name} cannot be read: {message.splitlines()[0]}\n    fix: correct the data set, or name another"
    )


def _is_offline() -> bool:
    import datasets

    return bool(datasets.config.HF_HUB_OFFLINE)
