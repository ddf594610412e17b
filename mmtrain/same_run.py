"""Whether a run that goes on is the one that stopped: every knob that its weights depend on, and the rows it reads.

What may differ: where and how fast it runs (`FREE`), and how long (`LENGTH`), which is said.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmtrain.errors import ConfigError

FREE = (
    *(
        "mode",
        "run_dir",
        "resume",
        "resume_allow",
        "init_from",
        "overrides",
        "hydra",
        "logger",
        "checkpoint",
        "test",
        "search",
    ),
    *(
        "trainer.accelerator",
        "trainer.devices",
        "trainer.num_nodes",
        "trainer.strategy",
        "trainer.accumulate_grad_batches",
    ),
    *(
        "trainer.log_every_n_steps",
        "trainer.max_time",
        "trainer.compile",
        "trainer.profile",
        "trainer.limit_test_batches",
    ),
    *("plan", "trial", "trainer.find_batch_size", "optimizer.fused"),
    *("data.num_workers", "data.pin_memory", "data.eval_batch_size", "data.max_bad", "data.license", "data.languages"),
)
LENGTH = ("trainer.max_epochs", "trainer.max_steps")
ROWS = "rows of the training split"


def facts_of(cfg: DictConfig, rows: str) -> dict[str, Any]:
    """By dotted key, what decides how a run learns.

    Args:
        cfg: the resolved configuration.
        rows: which rows it learns from, in which order; `DataModule.digest`.
    """
    facts = _leaves(OmegaConf.to_container(cfg, resolve=True))
    return {key: value for key, value in facts.items() if not _is_free(key)} | {ROWS: rows}


def _leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of what is no mapping; an empty mapping is a value."""
    if not isinstance(node, Mapping) or not node:
        return {prefix: node}
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _is_free(key: str) -> bool:
    """Folders that the data lies in are free, too: a cluster gives each job another, and the rows are compared.

    So is the run folder where a part is told of it: it may have been moved.
    """
    parts = key.split(".")
    return any(key == free or key.startswith(f"{free}.") for free in FREE) or (
        parts[-1] == "run_dir" or (parts[0] == "data" and parts[-1] in ("root", "cache"))
    )


def check_same_run(
    before: Mapping[str, Any], now: Mapping[str, Any], path: Path, *, allow: Sequence[str] = ()
) -> list[str]:
    """Refuse to go on as another run.

    Args:
        before: the facts in the checkpoint.
        now: those of this run.
        path: of the checkpoint.
        allow: keys, or what they begin with, that may differ.

    Returns:
        What differs and was let pass, a line each.

    Raises:
        ConfigError: with each value that differs, and what could let it pass.
    """
    absent = "not there"
    differing = {
        key: f"{key} was {before.get(key, absent)} and is {now.get(key, absent)} now"
        for key in [*before, *(k for k in now if k not in before)]
        if before.get(key, absent) != now.get(key, absent)
    }
    passed = [key for key in differing if key in LENGTH or any(key == a or key.startswith(f"{a}.") for a in allow)]
    refused = [key for key in differing if key not in passed]
    if not refused:
        return [differing[key] for key in passed]
    lines = "\n".join(f"    {differing[key]}" for key in refused)
    knobs = [key for key in refused if key != ROWS]
    pass_by = f"let it pass by 'resume.allow=[{','.join(knobs)}]'" if knobs and ROWS not in refused else ""
    raise ConfigError(
        f"{path} cannot go on exactly\n{lines}\n    set what differs back, "
        + (f"{pass_by}, " if pass_by else "")
        + f"or start a new run with init_from={path}"
    )


def retuned(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The options of the optimizer that differ from those of the checkpoint, such as weight_decay."""
    of_optimizer = [key for key in now if key.startswith("optimizer.") and now[key] != before.get(key)]
    return [key.removeprefix("optimizer.") for key in of_optimizer]
