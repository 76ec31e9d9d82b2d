"""Logs metrics to JSONL, TensorBoard and the console."""

import dataclasses
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from tensorboardX import SummaryWriter

from mmfusion_jax.data.storage.progress import progress_console
from mmfusion_jax.errors import printable, shown_name
from mmfusion_jax.results.json_file import Number
from mmfusion_jax.results.metrics_file import (
    METRICS_FILE,
    MetricsLine,
    drop_lines_after,
)
from mmfusion_jax.results.rounding import format_number


@dataclasses.dataclass(frozen=True)
class ScoreLine:
    """The scores of an evaluation that are shown.

    Attributes:
        when: Epoch and step, such as "epoch 1, step 4/16".
        split: The split.
        metric: The selection metric.
        score: Its value; None where it is not defined.
        loss: The loss.
        terms: Loss and loss terms of the last logged training step, unweighted.
    """

    when: str
    split: str
    metric: str
    score: Number
    loss: Number
    terms: Mapping[str, float] = dataclasses.field(default_factory=dict)


def describe_terms(terms: Mapping[str, float]) -> str:
    """Returns the loss terms of a training step, such as "; train loss 0.31 (a 0.2)".

    Args:
        terms: "loss", and "loss/TERM" of every term if there are several.
    """
    if "loss" not in terms:
        return ""
    listed = ", ".join(
        f"{shown_name(name.removeprefix('loss/'))} {format_number(value)}"
        for name, value in terms.items()
        if name != "loss"
    )
    more = f" ({listed})" if listed else ""
    return f"; train loss {format_number(terms['loss'])}{more}"


class MetricsLogger:
    """Logs the scalars of a run and shows its progress.

    When a run resumes from a step, the lines of later steps in `metrics.jsonl` are
    removed, so that the file has no duplicates. Close it, or use it as a context
    manager.

    Args:
        folder: Directory of `metrics.jsonl` and the TensorBoard events; None writes
            nothing.
        title: Label of the progress bar.
        resume: Step that the run resumes from.
        out: Stream that shows progress; a bar on a terminal, plain lines elsewhere.
    """

    def __init__(
        self,
        folder: Path | None,
        title: str,
        resume: int = 0,
        out: TextIO | None = None,
    ):
        self._lines, self._events = None, None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            drop_lines_after(folder, resume)
            self._lines = (folder / METRICS_FILE).open("a", encoding="utf-8")
            # TensorBoard then hides events of later steps, which the interrupted run
            # may have written after its last checkpoint, in another file.
            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=resume)
        self._title = title
        self._console = progress_console(out or sys.stderr)
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> "MetricsLogger":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, step: int, steps: int) -> None:
        """Shows a progress bar for `steps` steps, at `step`."""
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
            )
            self._task = self._bar.add_task(
                self._title, total=steps, completed=step, note=""
            )
            self._bar.start()

    def record(self, line: MetricsLine) -> None:
        """Writes one line of scalars."""
        if self._lines is None or self._events is None:
            return
        self._lines.write(line.dumps())
        # A killed run then lacks at most the line that it was writing.
        self._lines.flush()
        for name, value in {"epoch": line.epoch, **line.values}.items():
            if value is not None and math.isfinite(value):
                # TensorBoard groups scalars by what is in front of the slash, which
                # names of evaluations have: "valid/accuracy".
                tag = name if "/" in name else f"{line.kind}/{name}"
                self._events.add_scalar(tag, value, line.step)

    def progress(self, step: int, note: str) -> None:
        """Updates the bar and the `note` next to it."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, note=note)

    def log_scores(self, line: ScoreLine) -> None:
        """Prints the scores of an evaluation."""
        self.log(
            f"{line.when}: {line.split} {shown_name(line.metric)} "
            f"{format_number(line.score)}, loss {format_number(line.loss)}"
            f"{describe_terms(line.terms)}"
        )

    def log(self, line: str) -> None:
        """Prints one line, above the bar if there is one."""
        # Without soft_wrap rich breaks lines at the width of the terminal, and paths
        # and commands could not be copied.
        self._console.print(printable(line), soft_wrap=True)

    def close(self) -> None:
        """Closes the bar and the files; may be called again."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._lines is not None and self._events is not None:
            self._lines.close()
            self._events.close()
            self._lines, self._events = None, None
