"""The plan as tables for a terminal, and as rows for a report."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from mmtrain.training.callbacks.parts import model_summary
from mmtrain.units import format_bytes


def plan_tables(plan: Mapping[str, Any]) -> Iterator[Table]:
    """The parts, the memory of a device, and the rest."""
    yield model_summary(plan["parts"])
    machine = plan["machine"]
    count = "the device" if machine["devices"] == 1 else f"each of {machine['devices']} devices"
    memory = Table(title=f"memory of {count}", title_justify="left", title_style="bold")
    memory.add_column("what")
    memory.add_column("size", justify="right")
    for kind, size in plan["memory"].items():
        if kind == "total":
            memory.add_section()
        if size:
            memory.add_row(kind, format_bytes(size))
    yield memory
    rest = Table(title="the run", title_justify="left", title_style="bold", show_header=False)
    rest.add_column("what")
    rest.add_column("figures")
    for row in described(plan):
        rest.add_row(*row)
    yield rest


def described(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The remaining lines, each with its name."""
    machine, batch, run, network = plan["machine"], plan["batch"], plan["run"], plan["network"]
    yield (
        "batch",
        f"{batch['size']:,}: {batch['rows']:,} rows at once on a device, {batch['micro_batches']} times per step",
    )
    yield "precision", f"{machine['precision']}, {machine['strategy']}"
    if machine["memory"] is None:
        yield "fits", "unknown: set plan.memory=80GB"
    else:
        usable = f"{format_bytes(machine['usable'])} of {format_bytes(machine['memory'])} are usable"
        fits = "yes" if plan["memory"]["total"] <= machine["usable"] else "no"
        yield "fits", f"{fits}: {format_bytes(plan['memory']['total'])}; {usable}"
        if batch["largest_rows"]:
            parts = f", data.batch_size={batch['largest_size']}"
            yield "largest batch", f"{batch['largest_rows']:,} rows at once on a device{parts}"
        else:
            yield "largest batch", "none: not even one row fits"
    flops = plan["flops"]
    yield "computation", f"{operations(flops['sample'])} per sample, {operations(flops['step'])} per step"
    if machine["devices"] > 1:
        sent = f"{format_bytes(network['bytes_per_step'])} per step from each device"
        seconds = network["seconds_per_step"]
        yield (
            "network",
            f"{sent}, {seconds:.3g} s" if seconds is not None else f"{sent}; set plan.bandwidth=50GB for the time",
        )
    yield "steps", f"{run['steps']:,}, {run['steps_per_epoch']:,} per epoch; {run['samples']:,} samples"
    if run["seconds"] is None:
        yield "time", "unknown: set plan.samples_per_second, or plan.flops_per_second of a device"
    else:
        yield "time", f"{clock(run['seconds'])} at {run['samples_per_second']:,.0f} samples per second"
    disk = plan["disk"]
    yield (
        "disk",
        f"{format_bytes(disk['all'])}: a checkpoint has {format_bytes(disk['checkpoint'])}, up to three exist at once",
    )


def operations(number: float) -> str:
    """Format a number of floating-point operations.

    >>> operations(22_728_081_408)
    '22.7 GFLOP'
    """
    power = min(5, int(math.log(max(number, 1), 1000)))
    return f"{number / 1000**power:#.3g}".rstrip(".") + f" {('', 'K', 'M', 'G', 'T', 'P')[power]}FLOP"


def clock(seconds: float) -> str:
    """Format a duration.

    >>> clock(90), clock(100_000), clock(1_000_000)
    ('1 min 30 s', '27 h 46 min', '11.6 days')
    """
    if seconds >= 3 * 24 * 3600:
        return f"{seconds / 24 / 3600:.1f} days"
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
