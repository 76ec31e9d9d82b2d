"""`metrics.jsonl`: the scalars that a run logs, one JSON object per line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from mmfusion_jax.errors import CheckpointError, shorten
from mmfusion_jax.results.json_file import (
    FORMAT_VERSION,
    INVALID,
    VERSION_FIELD,
    Number,
    check_version,
    dumps,
    parse,
    write_text,
)

METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True)
class MetricsLine:
    """Scalars of one step.

    In the file they are one flat object, which tools for tables read as a row.

    Example:
        >>> import mmfusion_jax as mmf
        >>> line = mmf.results.MetricsLine(
        ...     20, "train", epoch=0.5, values={"loss": 1.25}
        ... )
        >>> print(line.dumps())
        {"format_version": 2, "step": 20, "kind": "train", "epoch": 0.5, "loss": 1.25}

    Attributes:
        step: Number of completed steps.
        kind: "train" for the training step, "eval" for an evaluation, "gradients" for
            the gradients of the loss terms in the training step.
        epoch: Number of completed epochs.
        values: Name -> value; None, or NaN, where it is not finite.
    """

    step: int
    kind: Literal["train", "eval", "gradients"]
    epoch: float
    values: dict[str, Number]

    def dumps(self) -> str:
        """Returns the line of the file."""
        first = {"step": self.step, "kind": self.kind, "epoch": self.epoch}
        version = {VERSION_FIELD: FORMAT_VERSION}
        return dumps({**version, **first, **self.values}, indent=None) + "\n"


def read_metrics(folder: Path) -> list[MetricsLine]:
    """Reads `metrics.jsonl`; a last line that a kill cut off is left out.

    Example:
        >>> from pathlib import Path
        >>> import mmfusion_jax as mmf
        >>> line = mmf.results.read_metrics(Path("runs/cfn_sr"))[-1]
        >>> line.step, line.values["loss"]
        (20, 1.25)

    Args:
        folder: Folder of a run; without the file the result is empty.

    Raises:
        CheckpointError: The file is corrupted or has another format version.
    """
    path = folder / METRICS_FILE
    if not path.exists():
        return []
    fix = f"delete {path}: only the learning curves are lost"
    try:
        # Bytes that are not UTF-8 make their line invalid, which is then reported with
        # its number.
        text = path.read_text("utf-8", errors="replace")
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}."
        raise CheckpointError("K05", message, fix) from error
    # A write ends with a line break: what is behind the last one was being written.
    *lines, _ = text.split("\n")
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(_line(parse(line), f"{path}, line {number},"))
        except INVALID as error:
            message = f"{path}, line {number} is corrupted: {shorten(error)}."
            raise CheckpointError("K05", message, fix) from error
    return found


def _line(found: dict[str, Any], where: str) -> MetricsLine:
    """Returns the line of the fields of its JSON object."""
    check_version(found, where)
    first = {name: found.pop(name, None) for name in ("step", "kind", "epoch")}
    return msgspec.convert({**first, "values": found}, MetricsLine)


def drop_lines_after(folder: Path, step: int) -> None:
    """Removes the lines of steps after `step`, and a line that a kill cut off."""
    # A run resumes from its last checkpoint and logs the steps after it again.
    path = folder / METRICS_FILE
    if path.exists():
        kept = [line for line in read_metrics(folder) if line.step <= step]
        write_text(path, "".join(line.dumps() for line in kept))
