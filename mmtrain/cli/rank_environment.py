"""Torchrun's variables in the environment: those of another job are dropped, and contradictions are reported.

A shell inside a job, a container or a notebook may still have the RANK of another program. A single process should
ignore it, but Lightning and mmtrain would take the process for the second rank, which writes no files.
"""

from collections.abc import Mapping, MutableMapping

from mmtrain.cli.slurm import is_rank

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
TORCHRUN = "TORCHELASTIC_RUN_ID"  # by which Lightning recognizes torchrun


def drop_rank_of_one_process(environment: MutableMapping[str, str]) -> str | None:
    """Remove the variables of a rank if WORLD_SIZE is 1 or not set.

    Args:
        environment: of this process, before the variables of `srun` are used; it is changed.

    Returns:
        A note about ignored variables; None if there were none.
    """
    size = environment.get("WORLD_SIZE")
    alone = size in (None, "1")
    without_rank = not any(name in environment for name in ("RANK", "LOCAL_RANK"))
    if not alone and (not without_rank or is_rank(environment)):
        return None
    dropped = {name: environment[name] for name in RANK_VARIABLES if name in environment}
    if not alone and size is not None:
        dropped["WORLD_SIZE"] = size
    for name in dropped:
        if alone and TORCHRUN in environment:
            environment[name] = "0"  # Lightning reads it
        else:
            del environment[name]
    if not is_rank(environment) and environment.get("SLURM_PROCID", "0") != "0":
        dropped["SLURM_PROCID"], environment["SLURM_PROCID"] = environment["SLURM_PROCID"], "0"
    if not any(name == "WORLD_SIZE" or value != "0" for name, value in dropped.items()):
        return None
    message = " ".join(f"{name}={value}" for name, value in dropped.items())
    why = "WORLD_SIZE is not set" if size is None else f"WORLD_SIZE={size}" if alone else "RANK is not set"
    return f"{message} (environment): ignored, because {why}"


def faults_of_rank(environment: Mapping[str, str]) -> list[str]:
    """Contradictions in the variables of one rank of several, each with its fix.

    Args:
        environment: of this process.
    """
    if environment.get("WORLD_SIZE", "1") == "1":
        return []
    fix = "\n    fix: start the processes with torchrun or srun, or unset RANK LOCAL_RANK WORLD_SIZE for one process"
    numbers = {name: environment[name] for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK") if name in environment}
    if wrong := [f"{name}={value}" for name, value in numbers.items() if not value.isdecimal()]:
        return [f"{' '.join(wrong)} (environment): not a number from 0{fix}"]
    size = environment["WORLD_SIZE"]
    missing = [name for name in ("RANK", "LOCAL_RANK", *ADDRESS) if name not in environment]
    faults = [f"{name} (environment): not set, but WORLD_SIZE={size}{fix}" for name in missing]
    if "RANK" in environment and int(environment["RANK"]) >= int(size):
        faults.append(f"RANK={environment['RANK']} (environment): not below WORLD_SIZE={size}{fix}")
    return faults
