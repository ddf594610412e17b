"""Where the time of a step goes: profile.csv by part, and trace.json.gz for a viewer of traces.

The first five steps are left out, ten are timed, with a GPU waited for at each border, so that what is measured is what
was computed there; two more are traced by torch's profiler, without waiting. A shorter run is profiled as far as it
goes. Times are of a part alone: what it calls counts for what is called.
"""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rich.table import Table
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from mmtrain.distributed import is_main
from mmtrain.io.atomic import replacing_files
from mmtrain.io.console import Terminal
from mmtrain.io.escape import print_escaped
from mmtrain.io.run_files import write_csv

FIRST, TIMED, TRACED = 5, 10, 2  # steps: that are let pass, timed, traced
DATA, REST = "waiting for data", "rest of the step"
COMMUNICATION = re.compile(r"^(nccl|gloo|c10d)|all_?reduce|all_?gather|reduce_?scatter", re.IGNORECASE)


class Spans:
    """Seconds by name; of nested spans the inner one counts.

    Args:
        wait: for what was begun and may still be computed.
        clock: seconds, for tests.
    """

    def __init__(self, wait: Callable[[], None], clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._wait = wait
        self._clock = clock
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        self._turn()
        self._open.append(name)
        try:
            with record_function(name):
                yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        self._wait()
        now = self._clock()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


class Profile(Callback):
    """Times and traces some steps of the first rank.

    Args:
        run_dir: folder of the run.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.folder = Path(run_dir)
        self.steps = 0
        self.communication = 0.0
        self._hooks: list[Any] = []
        self._step: Any = None
        self._trace: profile | None = None
        self._ended = 0.0
        self._timed: dict[str, float] = {}
        self._spans: Spans | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Only the first rank looks."""
        if is_main():
            gpu = pl_module.device.type == "cuda"
            self._spans = Spans(torch.cuda.synchronize if gpu else lambda: None)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin a step, if it is one of those."""
        if self._spans is None:
            return
        self.steps += 1
        place = self.steps - FIRST
        if place == 1:
            self._follow(pl_module, self._spans)
        if 1 < place <= TIMED:
            self._spans.seconds[DATA] += time.perf_counter() - self._ended
        if 1 <= place <= TIMED:
            self._step = self._spans(REST)
            self._step.__enter__()
        if place == TIMED + 1:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
            self._trace = profile(activities=activities)
            self._trace.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End it; after the last one all is written."""
        if self._spans is None:
            return
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None
        if self.steps == FIRST + TIMED:  # what is traced is not timed
            self._spans._wait = lambda: None
            self._timed = dict(self._spans.seconds)
        if self.steps == FIRST + TIMED + TRACED:
            self._write(pl_module)
        self._ended = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that was too short for all of it has what there is, or a word."""
        if self._spans is None:
            return
        if self.steps > FIRST:
            self._timed = self._timed or dict(self._spans.seconds)
            self._write(pl_module)
            return
        print_escaped(
            f"trainer.profile=true: no profile: the first {FIRST} steps are not timed; steps of this run: {self.steps}"
            "\n"
            f"    fix: train {FIRST + TIMED + TRACED} steps or more, by trainer.max_epochs or a smaller data.batch_size"
        )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """It is not the loader that was waited for."""
        self._ended = time.perf_counter()

    def _follow(self, lit: Any, spans: Spans) -> None:
        """Open a span around each part's forward pass, and have the step open its own."""
        lit.span = spans
        parts: dict[str, nn.Module] = {f"encoder.{name}": part for name, part in lit.model.encoders.items()}
        parts |= {} if lit.model.fusion is None else {"fusion": lit.model.fusion}
        parts |= {f"task.{name}": part for name, part in lit.model.tasks.items()}
        for name, part in parts.items():
            inside: list[Any] = []

            def enter(module: nn.Module, inputs: Any, name: str = name, inside: list[Any] = inside) -> None:
                inside.append(spans(name))
                inside[-1].__enter__()

            def leave(module: nn.Module, inputs: Any, out: Any, inside: list[Any] = inside) -> None:
                inside.pop().__exit__(None, None, None)

            self._hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]

    def _write(self, lit: Any) -> None:
        if self._trace is not None:
            self._trace.stop()
        for hook in self._hooks:
            hook.remove()
        del lit.span
        self._spans = None
        num_timed, num_traced = min(self.steps - FIRST, TIMED), self.steps - FIRST - TIMED
        if self._trace is not None:
            events = [e for e in self._trace.key_averages() if COMMUNICATION.search(e.key)]
            total = sum(max(e.self_cpu_time_total, e.self_device_time_total) for e in events)
            self.communication = total / 1e6 / num_traced
        rows = [(name, seconds / num_timed) for name, seconds in sorted(self._timed.items(), key=lambda item: -item[1])]
        whole = sum(seconds for _, seconds in rows)
        lines = [[name, f"{seconds:.6f}", f"{seconds / whole:.4f}"] for name, seconds in rows]
        lines.append(["communication, within the others", f"{self.communication:.6f}", ""])
        with replacing_files(self.folder) as part:
            if self._trace is not None:
                self._trace.export_chrome_trace(str(part / "trace.json.gz"))
            write_csv(part / "profile.csv", ["part", "seconds_per_step", "share"], lines)
        table = Table(title=f"where a step's {1000 * whole:.1f} ms go", title_justify="left", title_style="bold")
        table.add_column("part")
        for column in ("ms", "share"):
            table.add_column(column, justify="right")
        for name, seconds in rows:
            table.add_row(name, f"{1000 * seconds:.2f}", f"{seconds / whole:.1%}")
        if self.communication:
            table.add_row("communication, within the others", f"{1000 * self.communication:.2f}", "")
        console = Terminal()
        console.print(table)
        files = f"{self.folder / 'profile.csv'}" + ("" if self._trace is None else ", trace.json.gz")
        console.print(f"profile: {files}", markup=False, soft_wrap=True)
        if num_traced < TRACED:
            needed = f"{FIRST + TIMED + TRACED} steps are needed for all of it, there were {self.steps}"
            console.print(f"profile of {num_timed} timed steps; {needed}", markup=False, soft_wrap=True)
