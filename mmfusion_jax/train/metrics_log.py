"""Logs metrics to JSONL, TensorBoard and the console."""

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

from mmfusion_jax.errors import printable


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
            path = folder / "metrics.jsonl"
            _drop_lines_after(path, resume)
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

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Writes one line of scalars.

        Args:
            kind: "train" or "eval".
            step: Number of completed steps.
            values: JSON scalars; a non-finite number is written as a string.
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
        """Updates the bar and the `note` next to it."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, note=note)

    def log(self, line: str) -> None:
        """Prints one line, above the bar if there is one."""
        self._console.print(printable(line), markup=False, soft_wrap=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._lines is not None and self._events is not None:
            self._lines.close()
            self._events.close()
            self._lines, self._events = None, None


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Reads the lines of `metrics.jsonl`; skips lines truncated by a kill."""
    path = folder / "metrics.jsonl"
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def _drop_lines_after(path: Path, step: int) -> None:
    """Drops the lines of steps after `step` by writing a new file."""
    if not path.exists():
        return
    kept = [line for line in read_metrics(path.parent) if line["step"] <= step]
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
    fresh.replace(path)


def _plain(value: Any) -> Any:
    """Returns `value` as a valid JSON value."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
