"""The checkpoints of a run: what must be on disk, and where training resumes."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import msgspec

from mmfusion_jax.errors import CheckpointError, join_names, shown_name
from mmfusion_jax.results.model_result import RUN_FILE, DeviceSpan, read_run
from mmfusion_jax.results.saved_file import write_saved
from mmfusion_jax.runner.workdir import CHECKPOINTS
from mmfusion_jax.training.checkpoint.manager import CheckpointManager
from mmfusion_jax.training.metrics_log import MetricsLogger
from mmfusion_jax.training.plan import SelectionState
from mmfusion_jax.types import PyTree


def open_checkpoints(folder: Path, timeout: int) -> CheckpointManager:
    """Opens the checkpoints of a run, to train it.

    Args:
        folder: Folder of the run.
        timeout: Seconds in which all processes must reach a save.
    """
    return CheckpointManager(
        folder / CHECKPOINTS,
        log=log,
        on_saved=functools.partial(write_saved, folder),
        timeout=timeout,
    )


def discard_after_missing_best(
    checkpoints: CheckpointManager, step: int, progress: SelectionState
) -> bool:
    """Deletes steps after a missing best one; returns whether it did.

    Training is deterministic: the steps that are trained again are the same ones.

    Args:
        checkpoints: Those of the run.
        step: The newest one.
        progress: Its selection state.

    Raises:
        CheckpointError: The steps before the best one are missing too.
    """
    best = progress.best_step
    if progress.best_score is None or checkpoints.is_saved(best, scored=True):
        return False
    earlier = [saved for saved in checkpoints.steps if saved < best]
    if not earlier:
        raise CheckpointError(
            "K01",
            f"{checkpoints.folder}: step {best:d}, the best one of the first {step:d} "
            "steps, is missing, and so is every earlier one.",
            "use another --workdir",
        )
    log(
        f"checkpoint: step {best:d}, the best one so far, is missing: resuming from "
        f"step {max(earlier):d}, deleting later ones"
    )
    checkpoints.discard_after(max(earlier))
    return True


def device_spans(saved: Sequence[Any], step: int) -> list[DeviceSpan]:
    """Returns the devices of a run so far, and prints a line if they are new ones.

    Args:
        saved: Those of the checkpoint at `step`, as JSON values.
        step: Number of completed steps.
    """
    spans = msgspec.convert(saved, list[DeviceSpan])
    now = DeviceSpan(step, jax.devices()[0].device_kind, jax.device_count())
    if not spans:
        return [now]
    old = spans[-1]
    if (old.kind, old.count) == (now.kind, now.count):
        return spans
    log(
        f"resuming on {now.count:d} x {shown_name(now.kind)}; step {old.step:d} to "
        f"{step:d} were trained on {old.count:d} x {shown_name(old.kind)}: results may "
        "differ in the last digits"
    )
    return [*spans, now]


def require_saved(
    checkpoints: CheckpointManager, step: int, *, scored: bool = True
) -> None:
    """Raises CheckpointError K03 unless a step is on disk.

    Args:
        checkpoints: Those of the run.
        step: The selected step.
        scored: Whether it has a score.
    """
    if not checkpoints.is_saved(step, scored=scored):
        raise not_saved(checkpoints, step)


def not_saved(checkpoints: CheckpointManager, step: int) -> CheckpointError:
    """Returns the error for a run whose selected step is not on disk."""
    steps = checkpoints.steps
    earlier = [saved for saved in steps if saved < step]
    how = "rerun the same command"
    if earlier:
        how = f"{how}: it resumes from step {max(earlier):d}"
    elif steps:
        how = "train again with another --workdir"
    return CheckpointError(
        "K03",
        f"{checkpoints.folder}: step {step:d}, the selected one, is not on disk; on "
        f"disk: {join_names(steps)}.",
        f"free disk space or fix the disk, then {how}",
    )


def restore_selected(folder: Path, target: PyTree) -> Any:
    """Returns the selected state of a trained run.

    Args:
        folder: Folder of the run.
        target: Shapes, types and shardings of the state.

    Raises:
        CheckpointError: The folder has no checkpoint, or another one than that of its
            result.
    """
    path = folder / CHECKPOINTS
    found = None
    if path.is_dir():
        with CheckpointManager(path, log=log, read_only=True) as saved:
            scored = saved.best_step is not None
            restore = saved.restore_best if scored else saved.restore_latest
            found = restore(target)
    result = read_run(folder)
    if found is None:
        raise CheckpointError(
            "K01",
            f"{path} does not contain a checkpoint.",
            "train first, with the same config and --workdir"
            if result is None
            else "restore it, or train again with another --workdir",
        )
    state = found[0]
    if result is not None:
        check_step(folder / RUN_FILE, result.step, int(state.step))
    return state


def check_step(path: Path, result: int, checkpoint: int) -> None:
    """Raises CheckpointError unless a result is of the step of a checkpoint.

    Args:
        path: File of the result.
        result: Its step.
        checkpoint: Step of the selected checkpoint.
    """
    if result != checkpoint:
        raise CheckpointError(
            "K01",
            f"the result in {path} is of step {result:d}, but the selected checkpoint "
            f"on disk is of step {checkpoint:d}.",
            f"restore the checkpoint; or delete {path} and rerun the training, which "
            "resumes from an earlier step",
        )


def log(line: str) -> None:
    """Prints a line to stderr, as the loggers of runs do."""
    MetricsLogger(None, "").log(line)
