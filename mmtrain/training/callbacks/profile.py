"""Profiles some steps: profile.csv with the time of each component, and trace.json.gz for a trace viewer.

The first five steps are skipped. Ten are timed, and a GPU is synchronized between components, so each time is that of
its own computation. Two more are traced by torch's profiler, without synchronization. A shorter run is profiled as far
as possible. The time of a component does not include the components that it calls.
"""

import re
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.profilers import Profiler
from rich.table import Table
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from mmtrain.distributed import is_main
from mmtrain.io.atomic import replacing_files
from mmtrain.io.console import Terminal
from mmtrain.io.escape import print_escaped
from mmtrain.io.run_files import write_csv

FIRST, TIMED, TRACED = 5, 10, 2  # numbers of steps that are skipped, timed, traced
DATA, REST = "waiting for data", "rest of the step"
ACTIONS = ("backward", "optimizer")  # as the LightningModule names them to the Trainer's profiler
COMMUNICATION = re.compile(r"^(nccl|gloo|c10d)|all_?reduce|all_?gather|reduce_?scatter", re.IGNORECASE)


class Spans:
    """Seconds by name. Of nested spans only the innermost one counts.

    Args:
        wait: waits until the device has finished.
        clock: returns seconds, for tests.
    """

    def __init__(self, wait: Callable[[], None], clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._wait = wait
        self._clock = clock
        self._open: list[tuple[str, record_function]] = []
        self._since = 0.0

    def start(self, name: str) -> None:
        """Open a span inside the ones that are open."""
        self._turn()
        self._open.append((name, record_function(name)))
        self._open[-1][1].__enter__()

    def stop(self) -> None:
        """Close the innermost span."""
        self._turn()
        _, record = self._open.pop()
        record.__exit__(None, None, None)

    def do_not_wait(self) -> None:
        """Measure without waiting for the device from now on."""
        self._wait = lambda: None

    def _turn(self) -> None:
        self._wait()
        now = self._clock()
        if self._open:
            self.seconds[self._open[-1][0]] += now - self._since
        self._since = now


class SpanProfiler(Profiler):
    """Lightning's profiler interface: the actions that the LightningModule names in a training step become spans.

    Attributes:
        spans: where actions are timed; None while they are not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spans: Spans | None = None

    def begin(self, spans: Spans) -> None:
        """Time actions from now on."""
        self.spans = spans

    def end(self) -> None:
        """Stop timing actions."""
        self.spans = None

    def start(self, action_name: str) -> None:
        """Start an action; Lightning's own actions are not timed."""
        if self.spans is not None and action_name in ACTIONS:
            self.spans.start(action_name)

    def stop(self, action_name: str) -> None:
        """Stop an action."""
        if self.spans is not None and action_name in ACTIONS:
            self.spans.stop()


class Profile(Callback):
    """Times and traces some steps on the first rank.

    Args:
        run_dir: folder of the run.

    Attributes:
        profiler: must be the Trainer's, for the times of the backward pass and the optimizer.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.profiler = SpanProfiler()
        self.folder = Path(run_dir)
        self.steps = 0
        self.communication = 0.0
        self._hooks: list[Any] = []
        self._in_step = False
        self._trace: profile | None = None
        self._ended = 0.0
        self._timed: dict[str, float] = {}
        self._spans: Spans | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start, on the first rank only."""
        if is_main():
            gpu = pl_module.device.type == "cuda"
            self._spans = Spans(torch.cuda.synchronize if gpu else lambda: None)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin a step, if it is one of the profiled ones."""
        if self._spans is None:
            return
        self.steps += 1
        place = self.steps - FIRST
        if place == 1:
            self._follow(pl_module, self._spans)
        if 1 < place <= TIMED:
            self._spans.seconds[DATA] += time.perf_counter() - self._ended
        if 1 <= place <= TIMED:
            self._spans.start(REST)
            self._in_step = True
        if place == TIMED + 1:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
            self._trace = profile(activities=activities)
            self._trace.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End a step. After the last one, write the files."""
        if self._spans is None:
            return
        if self._in_step:
            self._spans.stop()
            self._in_step = False
        if self.steps == FIRST + TIMED:  # the steps that follow are traced, not timed
            self._spans.do_not_wait()
            self._timed = dict(self._spans.seconds)
        if self.steps == FIRST + TIMED + TRACED:
            self._write()
        self._ended = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write an incomplete profile of a short run, or a message if there is none."""
        if self._spans is None:
            return
        if self.steps > FIRST:
            self._timed = self._timed or dict(self._spans.seconds)
            self._write()
            return
        print_escaped(
            f"trainer.profile=true: no profile: the first {FIRST} steps are not timed; steps of this run: {self.steps}"
            "\n"
            f"    fix: train {FIRST + TIMED + TRACED} steps or more: raise trainer.max_epochs or lower data.batch_size"
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ignore the time of the validation when waiting for data."""
        self._ended = time.perf_counter()

    def _follow(self, lit: Any, spans: Spans) -> None:
        """Open a span around each part's forward pass, and around the actions of the step."""
        self.profiler.begin(spans)
        parts: dict[str, nn.Module] = {f"encoder.{name}": part for name, part in lit.model.encoders.items()}
        parts |= {} if lit.model.fusion is None else {"fusion": lit.model.fusion}
        parts |= {f"task.{name}": part for name, part in lit.model.tasks.items()}
        for name, part in parts.items():

            def enter(module: nn.Module, inputs: Any, name: str = name) -> None:
                spans.start(name)

            def leave(module: nn.Module, inputs: Any, out: Any) -> None:
                spans.stop()

            self._hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]

    def _write(self) -> None:
        if self._trace is not None:
            self._trace.stop()
        for hook in self._hooks:
            hook.remove()
        self.profiler.end()
        self._spans = None
        num_timed, num_traced = min(self.steps - FIRST, TIMED), self.steps - FIRST - TIMED
        if self._trace is not None:
            events = [e for e in self._trace.key_averages() if COMMUNICATION.search(e.key)]
            total = sum(max(e.self_cpu_time_total, e.self_device_time_total) for e in events)
            self.communication = total / 1e6 / num_traced
        rows = [(name, seconds / num_timed) for name, seconds in sorted(self._timed.items(), key=lambda item: -item[1])]
        all_seconds = sum(seconds for _, seconds in rows)
        lines = [[name, f"{seconds:.6f}", f"{seconds / all_seconds:.4f}"] for name, seconds in rows]
        lines.append(["communication, within the others", f"{self.communication:.6f}", ""])
        with replacing_files(self.folder) as part:
            if self._trace is not None:
                self._trace.export_chrome_trace(str(part / "trace.json.gz"))
            write_csv(part / "profile.csv", ["part", "seconds_per_step", "share"], lines)
        table = Table(title=f"time of a step: {1000 * all_seconds:.1f} ms", title_justify="left", title_style="bold")
        table.add_column("part")
        for column in ("ms", "share"):
            table.add_column(column, justify="right")
        for name, seconds in rows:
            table.add_row(name, f"{1000 * seconds:.2f}", f"{seconds / all_seconds:.1%}")
        if self.communication:
            table.add_row("communication, within the others", f"{1000 * self.communication:.2f}", "")
        console = Terminal()
        console.print(table)
        files = f"{self.folder / 'profile.csv'}" + ("" if self._trace is None else ", trace.json.gz")
        console.print(f"profile: {files}", markup=False, soft_wrap=True)
        if num_traced < TRACED:
            needed = f"a complete profile needs {FIRST + TIMED + TRACED} steps, this run has {self.steps}"
            console.print(f"profile of {num_timed} timed steps; {needed}", markup=False, soft_wrap=True)
