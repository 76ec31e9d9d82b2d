"""What a run says and writes while it goes on: metrics.jsonl, TensorBoard, a bar."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from tensorboardX import SummaryWriter


class MetricsLogger:
    """Keeps the scalars of a run and shows where it is.

    Lines of `metrics.jsonl` after the step that a run resumes from belong to work that
    was lost; they are cut off, so that the file reads as if nothing had happened.
    Close it, or use it as a context manager.

    Args:
        folder: where `metrics.jsonl` and the TensorBoard events go; None writes
            nothing.
        title: shown before the bar.
        resume: step the run resumes from.
        out: where progress is shown; a bar on a terminal, plain lines elsewhere.
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
            path = folder / "metrics.jsonl"
            _cut_after(path, resume)
            self._lines = path.open("a", encoding="utf-8")
            self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=resume)
        self._title = title
        self._console = Console(file=out or sys.stderr, highlight=False)
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> "MetricsLogger":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, step: int, steps: int) -> None:
        """Shows the bar of a run of `steps` steps that stands at `step`."""
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

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Writes one line of scalars.

        Args:
            kind: "train" or "eval".
            step: the number of steps done.
            values: JSON scalars; a number that is not finite is written as a string.
        """
        if self._lines is None or self._events is None:
            return
        line = {"step": step, "kind": kind, **values}
        self._lines.write(json.dumps({k: _plain(v) for k, v in line.items()}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            if isinstance(value, int | float) and math.isfinite(value):
                tag = name if "/" in name else f"{kind}/{name}"
                self._events.add_scalar(tag, value, step)

    def progress(self, step: int, note: str) -> None:
        """Moves the bar; `note` stands behind it."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, note=note)

    def log(self, line: str) -> None:
        """Prints one line, above the bar if there is one."""
        self._console.print(line, markup=False, soft_wrap=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._lines is not None and self._events is not None:
            self._lines.close()
            self._events.close()
            self._lines, self._events = None, None


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; a line that was cut off by a kill is left out."""
    path = folder / "metrics.jsonl"
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def _cut_after(path: Path, step: int) -> None:
    """Drops the lines of steps after `step`, by way of a new file."""
    if not path.exists():
        return
    kept = [line for line in read_metrics(path.parent) if line["step"] <= step]
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
    fresh.replace(path)


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
