"""`saved.json`: that a run had a checkpoint, also if its checkpoints are deleted."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from mmfusion_jax.results.json_file import read_json, write_json

SAVED_FILE = "saved.json"


@dataclass(frozen=True)
class SavedStep:
    """The newest step of a run that was on disk."""

    step: int


def read_saved(folder: Path) -> SavedStep | None:
    """Reads the newest step that was on disk; None if no step ever was.

    Args:
        folder: Folder of the run.

    Raises:
        CheckpointError: The file is corrupted or has another format version.
    """
    path = folder / SAVED_FILE
    fix = f"delete {path} if the checkpoints beside it are complete"
    return read_json(path, SavedStep, fix) if path.exists() else None


def write_saved(folder: Path, step: int) -> None:
    """Records a step that is on disk."""
    # On a full disk the file keeps an earlier step; only that it exists is important.
    with contextlib.suppress(OSError):
        write_json(folder / SAVED_FILE, SavedStep(step))
