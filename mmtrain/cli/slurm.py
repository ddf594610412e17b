"""Ranks that `srun` has started: SLURM's variables under the names of torchrun."""

import re
from collections.abc import MutableMapping

FIRST_PORT, NUM_PORTS = 15000, 10000


def take_rank(environment: MutableMapping[str, str]) -> None:
    """Set RANK and related variables if `srun` has started several tasks. Existing variables are kept.

    Args:
        environment: of this process.
    """
    if "RANK" in environment or not is_rank(environment):
        return
    environment["RANK"] = environment["SLURM_PROCID"]
    environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
    environment["NODE_RANK"] = environment["GROUP_RANK"] = environment["SLURM_NODEID"]
    environment["WORLD_SIZE"] = environment["SLURM_NTASKS"]
    environment.setdefault("MASTER_ADDR", first_host(environment["SLURM_JOB_NODELIST"]))
    job = int(environment.get("SLURM_JOB_ID", "0"))
    environment.setdefault("MASTER_PORT", str(FIRST_PORT + job % NUM_PORTS))  # jobs may share a machine


def is_rank(environment: MutableMapping[str, str]) -> bool:
    """Whether this process is one of several tasks of a step. A shell in an allocation is not."""
    return "SLURM_PROCID" in environment and int(environment.get("SLURM_NTASKS", "1")) > 1


def without_slurm(environment: MutableMapping[str, str]) -> dict[str, str]:
    """An environment for ranks that this process starts, which are not tasks of SLURM."""
    return {name: value for name, value in environment.items() if name != "SLURM_NTASKS"}


def first_host(nodes: str) -> str:
    """The first machine of a list such as `gpu[07-09,12],big1`.

    >>> [first_host(nodes) for nodes in ("gpu[07-09,12],big1", "big1,big2", "a[3]-x")]
    ['gpu07', 'big1', 'a3-x']
    """
    match = re.match(r"([^\[,]*)(?:\[([^\],-]+)[^\]]*\])?([^,]*)", nodes)
    assert match is not None
    return "".join(part or "" for part in match.groups())
