"""Rows of measurements in one JSON file: a time budget, and resumption.

The file is written before the first row and after each one, as a new file that replaces
the old one, so that whatever ends the process, the rows before are kept.
"""

import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DONE, DIFFERS, FAILED = "done", "differs", "failed"
OUT_OF_MEMORY = "out of memory"
NOT_HERE = "not run here"
NO_TIME = "not run: out of time"
STOPPED = "stopped: out of time"
RUNNING = "running"  # of a row during which the process ended

FINISHED = (DONE, DIFFERS, OUT_OF_MEMORY, NOT_HERE)
"""States of rows that are not measured again."""

EXIT_STOPPED = 3
"""Exit status where the budget ended during a row."""


class NotHere(Exception):
    """A row that cannot be measured on this machine; the message has the reason."""


class Different(Exception):
    """Values that differ by more than their tolerance.

    Attributes:
        figures: Figures of the row.
    """

    def __init__(self, figures: dict[str, Any]):
        super().__init__("values differ")
        self.figures = figures


@dataclasses.dataclass(frozen=True)
class Row:
    """A measurement.

    Attributes:
        name: Stage and details, such as "step/mea/bfloat16".
        estimate: Seconds that it is expected to take; without as much time left it is
            not started.
        measure: Returns its figures, JSON values by name.
    """

    name: str
    estimate: float
    measure: Callable[[], dict[str, Any]]


class RowFile:
    """The JSON file of the rows.

    Attributes:
        path: The file.
        content: Its content; "rows" maps the name of a row to its state, its figures,
            and the seconds that it took.
    """

    def __init__(self, path: Path, header: dict[str, Any], names: Sequence[str]):
        """Reads the file, or creates it with all rows of `names`.

        Args:
            path: The file.
            header: Machine, versions and options; those on which figures depend are in
                "same", which must be those of the file.
            names: All rows, in the order of the table.

        Raises:
            SystemExit: The file has measurements of another machine or other versions.
        """
        self.path = path
        self.content = header | {"rows": {}}
        old = json.loads(path.read_text()) if path.exists() else None
        if old is not None:
            _check_same(path, old["same"], header["same"])
        rows = {} if old is None else old["rows"]
        empty = {"state": NO_TIME, "figures": {}}
        # Rows that are not asked for in this call are kept too.
        for name in (*names, *rows):
            self.content["rows"][name] = rows.get(name, empty)
        self._lock = threading.Lock()
        self.write()

    def set(self, name: str, state: str, figures: dict[str, Any], seconds: float = 0):
        """Sets a row and writes the file."""
        row = {"state": state, "figures": figures, "seconds": round(seconds, 2)}
        self.content["rows"][name] = row
        self.write()

    def state(self, name: str) -> str:
        """Returns the state of a row."""
        return self.content["rows"][name]["state"]

    def write(self) -> None:
        """Replaces the file."""
        with self._lock:  # the timer writes from another thread
            new = self.path.with_name(f"{self.path.name}.new")
            new.write_text(json.dumps(self.content, indent=1) + "\n")
            os.replace(new, self.path)


def _check_same(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raises SystemExit with the first thing that is not that of the file."""
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            raise SystemExit(
                f"{path} was measured with {key} {old.get(key)!r}, and here it is "
                f"{new.get(key)!r}: --out=ANOTHER_FILE, or delete it."
            )


def run_rows(
    rows: Sequence[Row],
    file: RowFile,
    seconds: float,
    on_stop: Callable[[], None] = lambda: None,
) -> None:
    """Measures the rows that are not finished, until the time is over.

    A row that fails is recorded and the next one follows. Rows that failed or were
    stopped in an earlier call come last. A row that runs at the end of the time ends
    the process, with the exit status `EXIT_STOPPED`.

    Args:
        rows: The rows, the most useful first.
        file: Where the figures go.
        seconds: The budget of this call.
        on_stop: Called before the process ends.
    """
    deadline = time.monotonic() + seconds
    todo = [row for row in rows if file.state(row.name) not in FINISHED]
    todo.sort(key=lambda row: file.state(row.name) != NO_TIME)
    for row in todo:
        left = deadline - time.monotonic()
        if row.estimate > left:
            # A later row may be short enough.
            if file.state(row.name) == NO_TIME:
                file.set(row.name, NO_TIME, {"estimate_s": row.estimate})
            continue
        begun = time.monotonic()
        file.set(row.name, RUNNING, {})
        # Compilation cannot be interrupted from Python, so the process ends.
        timer = threading.Timer(left, _stop, (row.name, file, begun, on_stop))
        timer.daemon = True
        timer.start()
        print(f"{row.name} ...", end=" ", flush=True)
        state, figures = _measured(row)
        timer.cancel()
        file.set(row.name, state, figures, time.monotonic() - begun)
        print(f"{state}, {time.monotonic() - begun:.1f} s", flush=True)


def _measured(row: Row) -> tuple[str, dict[str, Any]]:
    """Returns the state and the figures of a row."""
    try:
        return DONE, row.measure()
    except Different as error:
        return DIFFERS, error.figures
    except NotHere as error:
        return NOT_HERE, {"reason": str(error)}
    except Exception as error:
        figures = {"error": f"{type(error).__name__}: {str(error)[:500]}"}
        return (OUT_OF_MEMORY if is_out_of_memory(error) else FAILED), figures


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether an error of JAX or PyTorch means that memory is exhausted."""
    text = f"{type(error).__name__} {error}".lower()
    parts = ("resource_exhausted", "out of memory", "outofmemory", "out_of_memory")
    return any(part in text for part in parts)


def _stop(name: str, file: RowFile, begun: float, on_stop: Callable[[], None]) -> None:
    """Records that the time is over, and ends the process."""
    file.set(name, STOPPED, {}, time.monotonic() - begun)
    print(STOPPED, flush=True)
    on_stop()
    os._exit(EXIT_STOPPED)
