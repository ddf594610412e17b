"""Records steps that are not finite in skipped.jsonl, and stops training if there are too many in a row."""

import json
from pathlib import Path

from mmtrain.distributed import is_main
from mmtrain.io.escape import one_line, print_escaped
from mmtrain.io.run_files import append_line, read_json_lines, write_json_lines
from mmtrain.training.checkpoint.load import describe_newest
from mmtrain.training.nonfinite import Diverged, SkippedStep

NUM_SHOWN = 5


class NonFiniteGuard:
    """Writes RUN/skipped.jsonl: one `Skipped.record` per line. Every rank calls it at the same step; the first writes.

    Args:
        run_dir: run folder.
        max_in_row: number of consecutive steps that may be skipped; the next one ends training.
    """

    def __init__(self, run_dir: str | Path, *, max_in_row: int) -> None:
        self.folder = Path(run_dir)
        self.path = self.folder / "skipped.jsonl"
        self.max_in_row = max_in_row

    def begin(self, step: int) -> None:
        """Discard steps after this one, which will be repeated."""
        if not is_main() or not self.path.exists():
            return
        kept = [row for row in read_json_lines(self.path, keys=("step",)) if row["step"] <= step]
        write_json_lines(self.path, kept) if kept else self.path.unlink()

    def __call__(self, skipped: SkippedStep) -> None:
        """Record a step.

        Raises:
            Diverged: if there are too many in a row.
        """
        if is_main():
            append_line(self.path, json.dumps(skipped.record(), ensure_ascii=False))
            print_escaped(_skip_message(skipped), stderr=True)
        if skipped.in_row > self.max_in_row:
            raise Diverged(self._too_many(skipped))

    def _too_many(self, skipped: SkippedStep) -> str:
        return (
            f"training stopped at step {skipped.step}: {skipped.in_row} steps in a row were not finite, and"
            f" trainer.max_nonfinite_steps={self.max_in_row} allows no more\n"
            f"    the first tensor that is not finite: {skipped.first}\n"
            f"    {describe_newest(self.folder)}; {self.path} lists the steps\n"
            "    fix: repair or remove these samples; or resume with resume=auto and a lower optimizer.lr or"
            " trainer.gradient_clip_val ('resume_allow=[optimizer.lr,trainer.gradient_clip_val]')"
        )


def _skip_message(skipped: SkippedStep) -> str:
    more = len(skipped.ids) - NUM_SHOWN
    shown = ", ".join(map(one_line, skipped.ids[:NUM_SHOWN])) + (f" and {more} more" if more > 0 else "")
    samples = f" (samples {shown})" if skipped.ids else ""
    return f"step {skipped.step} is skipped, because it is not finite: {skipped.first}{samples}"
