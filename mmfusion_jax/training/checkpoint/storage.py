"""A directory of checkpoints, written atomically through Orbax and verified.

    STEP/       checkpoint: state/ (arrays), meta/ (record), metrics/ (score)
    corrupted/  corrupted checkpoints, kept for inspection
    trash/      checkpoints that are being deleted

Only this module uses Orbax; `CheckpointManager` decides what to save and restore.
"""

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax import checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN
from orbax.checkpoint.multihost import get_barrier_sync_fn

from mmfusion_jax.errors import CheckpointError, shorten, shown_name
from mmfusion_jax.training.checkpoint.integrity import (
    CorruptedCheckpointError,
    array_specs,
    differences,
    digests,
    make_record,
    read_record,
)
from mmfusion_jax.training.checkpoint.orbax_logging import silence_orbax
from mmfusion_jax.types import PyTree

Score: TypeAlias = dict[str, Any]
"""{"step": int, "score": float, or None for NaN}, as JSON."""

Restored: TypeAlias = tuple[PyTree, dict[str, Any]]

CORRUPTED = "corrupted"
"""Subdirectory of corrupted checkpoints."""


class CheckpointStorage:
    """Writes, verifies, quarantines and deletes steps through Orbax.

    Every process of a run opens the directory and makes the same calls; only process 0
    renames, deletes, reports and writes records.

    Attributes:
        path: Absolute path of the directory.
        keep: Number of newest steps to keep in addition to the best one.
        read_only: Write, rename and delete nothing.
        saved: Step -> its score, for every valid step on disk.
        fault: The last step that could not be written and the reason; else None.
    """

    def __init__(
        self,
        path: Path,
        *,
        keep: int,
        read_only: bool,
        log: Callable[[str], None],
        on_saved: Callable[[int], None] = lambda _: None,
    ):
        self.path, self.keep, self.read_only = path, keep, read_only
        self.saved: dict[int, Score | None] = {}
        self.fault: tuple[int, str] | None = None
        self._log, self._on_saved = log, on_saved
        self._pending: tuple[int, Score | None] | None = None
        silence_orbax()
        self._open()

    @property
    def used(self) -> bool:
        """True if there is or was any step, valid or corrupted."""
        return (self.path / CORRUPTED).exists() or bool(self._steps_on_disk())

    def write(
        self, step: int, state: PyTree, meta: Mapping[str, Any], scored: Score | None
    ) -> bool:
        """Starts to save a step, replacing an existing one; False if it failed.

        No save may be pending.
        """
        # Digests are of the arrays in memory, before anything is written: whatever
        # changes on the way to the disk is found when they are read. Both items are in
        # one folder with a temporary name, which Orbax renames to STEP when they are
        # complete. A kill before the rename leaves the earlier steps and a temporary
        # folder, which the next start deletes; a kill after it leaves the new step, at
        # worst with old ones that are not deleted yet.
        record = make_record(step, state, meta, scored) if _is_first() else {}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(record)
        )
        try:
            # Orbax does not overwrite. A kill between the two calls leaves the previous
            # step as the newest.
            if step in self.saved:
                self._manager.delete(step)
            # It returns False, without an error, for a step that is not newer.
            if not self._manager.save(step, metrics=scored, args=items):
                raise RuntimeError("Orbax skipped it")
        except Exception as error:
            self._recover(step, error)
            return False
        self._pending = step, scored
        return True

    def wait_for_save(self) -> bool:
        """Waits for the pending save, if any; False if its step is not on disk."""
        if self._pending is None:
            return True
        (step, scored), self._pending = self._pending, None
        fault = None
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            fault = error
        # A save that failed in one process is not complete for any of them.
        if not all_processes(fault is None):
            self._recover(step, fault)
            return step in self.saved and self.saved[step] == scored
        saved = {**self.saved, step: scored}
        self.saved = {step: saved[step] for step in self._manager.all_steps()}
        # Orbax moves deleted steps to trash/ and leaves them there.
        self._empty_trash()
        if _is_first():
            self._on_saved(step)
        return True

    def load(self, step: int, target: PyTree) -> Restored | None:
        """Returns the state and `meta` of a step; None if it is corrupted.

        A corrupted step is quarantined, or ignored if read-only.

        Raises:
            CheckpointError: K02, the step does not have the arrays of `target`.
        """
        found = fault = None
        try:
            found = self._load(step, target)
        # Not corrupted: the step is valid and belongs to another model.
        except CheckpointError:
            raise
        except Exception as error:
            fault = error
        if all_processes(fault is None):
            return found
        if self.read_only:
            self._skip_corrupted(step, fault)
        else:
            if _is_first():
                self._quarantine(step, fault)
            self._reopen()
        return None

    def delete(self, steps: Iterable[int]) -> None:
        """Deletes steps; no save may be pending."""
        for step in steps:
            self._manager.delete(step)
            del self.saved[step]
        self._empty_trash()
        self._reopen()

    def describe_saved(self) -> str:
        """Returns which steps are on disk, for a message."""
        if not self.saved:
            return "no step is on disk"
        steps = ", ".join(f"{step:d}" for step in sorted(self.saved))
        return f"on disk: step {steps}" if len(self.saved) == 1 else (
            f"on disk: steps {steps}"
        )  # fmt: skip

    def report(self, message: str) -> None:
        """Logs one line on process 0."""
        if _is_first():
            self._log(f"checkpoint: {message}")

    def close(self) -> None:
        """Waits for the pending save and closes the directory."""
        self._manager.close()

    def _open(self) -> None:
        """Cleans up and opens the directory and finds the steps with valid records."""
        try:
            if not self.read_only and _is_first():
                self._clean_up()
            self._manager = ocp.CheckpointManager(self.path, options=self._options())
        except OSError as error:
            raise CheckpointError(
                "K04",
                f"{self.path}: cannot store checkpoints ({_first_line(error)})",
                "choose another directory with --workdir",
            ) from error
        self.saved = {}
        for step in self._manager.all_steps():
            try:
                self.saved[step] = read_record(self.path / str(step))["score"]
            except (CorruptedCheckpointError, OSError) as error:
                # Only if read-only; else `_clean_up` has removed it.
                self._skip_corrupted(step, error)

    def _reopen(self) -> None:
        """Closes the directory and opens it again."""
        with contextlib.suppress(Exception):  # the same fault again
            self._manager.close()
        self._open()

    def _options(self) -> ocp.CheckpointManagerOptions:
        """Options with which Orbax survives kills and full disks."""
        if self.read_only:
            return ocp.CheckpointManagerOptions(
                read_only=True, lightweight_initialize=True
            )
        # SIGKILL before each of the 101 file-system calls of a save with Orbax's
        # default options: after one of them no checkpoint could be restored, after 6
        # some steps were unreadable, and 81 left temporary folders. With these options,
        # 98 of 98 were clean, also with ENOSPC and EIO. Not `max_to_keep` with
        # `best_fn`: it deleted the newest step.
        best = BestN(get_metric_fn=rank, n=1, keep_checkpoints_without_metrics=False)
        return ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(self.keep), best]),
            best_fn=rank,
            best_mode="max",
            todelete_subdir="trash",
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
        )

    def _clean_up(self) -> None:
        """Deletes remains of earlier runs and quarantines invalid steps."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._empty_trash()
        for path in self._steps_on_disk():
            try:
                read_record(path)
            except (CorruptedCheckpointError, OSError) as error:
                self._quarantine(int(path.name), error)

    def _steps_on_disk(self) -> list[Path]:
        return [p for p in self.path.glob("[0-9]*") if p.name.isdecimal()]

    def _empty_trash(self) -> None:
        """Deletes the trash and unfinished saves; no save may be pending."""
        if _is_first():
            # Orbax removes its own unfinished saves when it opens the directory, but
            # not after a failed save in a running process.
            unfinished = self.path.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}")
            for path in [self.path / "trash", *unfinished]:
                shutil.rmtree(path, ignore_errors=True)

    def _recover(self, step: int, fault: Exception | None) -> None:
        """Cleans up after a failed save."""
        self.fault = step, _first_line(fault)
        # Orbax would report the failed save at the next one, and skip that.
        self._reopen()

    def _load(self, step: int, target: PyTree) -> Restored:
        """Reads and verifies a step."""
        # Record and shapes first: a step of another model is an error of the user and
        # not a corrupted step.
        record = read_record(self.path / str(step))
        self._check_model(step, record["arrays"], array_specs(target))
        # With a target: without it, Orbax returns dictionaries, and fails on another
        # number of devices.
        abstract = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(jax.tree.map(abstract, target))
        )
        state = self._manager.restore(step, args=items)["state"]
        if wrong := differences(digests(state), record["sha256"]):
            raise CorruptedCheckpointError(
                f"{shorten(wrong[0])} differs from its SHA-256"
            )
        return state, record["meta"]

    def _check_model(
        self, step: int, found: Mapping[str, str], wanted: Mapping[str, str]
    ) -> None:
        """Raises CheckpointError K02 if a step does not match the model."""
        if wrong := differences(found, wanted):
            parts = [
                f"{shorten(name)}: {shown_name(found.get(name, 'missing'))} in the "
                f"checkpoint, {shown_name(wanted.get(name, 'missing'))} in the model"
                for name in wrong[:3]
            ]
            more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise CheckpointError(
                "K02",
                f"{self.path}: step {step} does not match the model: "
                f"{'; '.join(parts)}{more}",
                "choose another --workdir, or use the config of this one",
            )

    def _skip_corrupted(self, step: int, fault: Exception | None) -> None:
        """Ignores `step` without moving it."""
        self.saved.pop(step, None)
        self.report(f"step {step} is corrupted ({_first_line(fault)}); skipped")

    def _quarantine(self, step: int, fault: Exception | None) -> None:
        """Moves `step` to corrupted/STEP, or corrupted/STEP.2 etc. if that exists."""
        # Moved and not deleted: a rename within the directory is atomic, and the data
        # may still be of use.
        corrupted = self.path / CORRUPTED
        corrupted.mkdir(exist_ok=True)
        names = itertools.chain(
            [f"{step}"], (f"{step}.{n}" for n in itertools.count(2))
        )
        name = next(name for name in names if not (corrupted / name).exists())
        (self.path / str(step)).rename(corrupted / name)
        self.report(
            f"step {step} is corrupted ({_first_line(fault)}); "
            f"moved to {CORRUPTED}/{shown_name(name)}"
        )


def rank(scored: Score) -> Any:
    """Sort key: NaN first, then by score; the earlier of equal scores last."""
    value = scored["score"]
    # BestN and best_fn keep the maximum; of equal scores the first step won the
    # selection, and must not be deleted for a later one.
    return value is not None, value or 0.0, -scored["step"]


def _is_first() -> bool:
    return jax.process_index() == 0


def all_processes(condition: bool) -> bool:
    """Returns whether `condition` is true in every process of the run."""
    if jax.process_count() == 1:
        return condition
    return bool(np.all(multihost_utils.process_allgather(np.asarray(condition))))


def meet(what: str, timeout: int) -> None:
    """Returns when all processes of the run have called it.

    The barriers of Orbax wait forever for a process that lives and does not come.

    Args:
        what: What they will do together.
        timeout: Seconds.

    Raises:
        CheckpointError: K11, a process did not come in time.
    """
    if jax.process_count() == 1:
        return
    try:
        get_barrier_sync_fn()(key=what, timeout_ms=timeout * 1000)
    except jax.errors.JaxRuntimeError as error:
        raise CheckpointError(
            "K11",
            f"{shorten(what)}: not all of {jax.process_count():d} processes came "
            f"within {timeout:d} s: {_first_line(error)}",
            "look at the log of the others, and rerun the same command in all "
            "processes: it resumes; --config.distributed.save_timeout waits longer",
        ) from error


def _first_line(fault: Exception | None) -> str:
    """Returns the first line of an error message, shortened to fit one line."""
    if fault is None:
        return "another process failed"
    if code := re.search(r"os_error_code='(\d+)'", str(fault)):
        return os.strerror(int(code[1]))
    if isinstance(fault, OSError) and fault.strerror:
        file = shorten(Path(fault.filename or "").name)
        return f"{fault.strerror}: {file}".removesuffix(": ")
    text = (str(fault).strip() or type(fault).__name__).splitlines()[0]
    return shorten(text, 120)
