"""A folder of saved steps: whole or absent, sealed, and emptied of what is left over.

    STEP/    a saved step: state/ (arrays), meta/ (the sealed record), metrics/ (score)
    bad/     damaged steps, kept for inspection
    trash/   steps that are being deleted

All that is known of orbax is here; `CheckpointManager` decides what to save and to
restore.
"""

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax import checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from mmfusion_jax.errors import CheckpointError
from mmfusion_jax.train.checkpoint.integrity import (
    CorruptedCheckpointError,
    differences,
    digests,
    layout,
    read_sealed,
    seal,
)
from mmfusion_jax.train.checkpoint.orbax_logging import silence_orbax
from mmfusion_jax.types import PyTree

Score: TypeAlias = dict[str, Any]
"""{"step": int, "score": float, or None for NaN}: JSON, and enough to rank steps."""

Restored: TypeAlias = tuple[PyTree, dict[str, Any]]


class CheckpointStorage:
    """Writes, verifies, sets aside and deletes steps through orbax.

    Every process of a run opens the folder and makes the same calls; process 0 alone
    renames, deletes, reports and writes records.

    Attributes:
        path: of the folder, absolute.
        keep: how many of the newest steps stay; the best one stays as well.
        read_only: nothing is written, renamed or deleted.
        saved: step -> its score, for every step that is on disk and not damaged.
        fault: the step that failed to be written last and why; None if none did.
    """

    def __init__(
        self, path: Path, *, keep: int, read_only: bool, say: Callable[[str], None]
    ):
        self.path, self.keep, self.read_only = path, keep, read_only
        self.saved: dict[int, Score | None] = {}
        self.fault: tuple[int, str] | None = None
        self._say = say
        self._pending: tuple[int, Score | None] | None = None
        silence_orbax()
        self._open()

    @property
    def used(self) -> bool:
        """Whether there is, or was, any step, be it damaged."""
        return (self.path / "bad").exists() or bool(self._steps_on_disk())

    def write(
        self, step: int, state: PyTree, meta: Mapping[str, Any], scored: Score | None
    ) -> bool:
        """Starts to save a step, in the place of one of that name; False if it failed.

        The save before must be settled.
        """
        record = seal(step, state, meta, scored) if _is_first() else {}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(record)
        )
        try:
            if step in self.saved:
                self._manager.delete(step)
            if not self._manager.save(step, metrics=scored, args=items):
                raise RuntimeError("orbax skipped it")
        except Exception as error:
            self._recover(step, error)
            return False
        self._pending = step, scored
        return True

    def wait_for_save(self) -> bool:
        """Waits for the save under way, if any; False if its step is not on disk."""
        if self._pending is None:
            return True
        (step, scored), self._pending = self._pending, None
        fault = None
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            fault = error
        if not _agreed(fault is None):
            self._recover(step, fault)
            return step in self.saved and self.saved[step] == scored
        saved = {**self.saved, step: scored}
        self.saved = {step: saved[step] for step in self._manager.all_steps()}
        self._empty_trash()
        return True

    def load(self, step: int, target: PyTree) -> Restored | None:
        """The state and the `meta` of a step; None if it is damaged, and set aside.

        Raises:
            CheckpointError: K02, the step has not the arrays of `target`.
        """
        found = fault = None
        try:
            found = self._load(step, target)
        except CheckpointError:
            raise
        except Exception as error:
            fault = error
        if _agreed(fault is None):
            return found
        if self.read_only:
            self._skip_corrupted(step, fault)
        else:
            if _is_first():
                self._quarantine(step, fault)
            self._reopen()
        return None

    def report(self, text: str) -> None:
        """One line to the user, from process 0."""
        if _is_first():
            self._say(f"checkpoint: {text}")

    def close(self) -> None:
        """Lets go of the folder; a save under way is waited for."""
        self._manager.close()

    def _open(self) -> None:
        """Clears the folder, opens it, and notes the steps whose records are whole."""
        try:
            if not self.read_only and _is_first():
                self._clean_up()
            self._manager = ocp.CheckpointManager(self.path, options=self._options())
        except OSError as error:
            raise CheckpointError(
                "K04",
                f"{self.path}: cannot hold checkpoints ({_brief(error)})",
                "choose another folder with --workdir",
            ) from error
        self.saved = {}
        for step in self._manager.all_steps():
            try:
                self.saved[step] = read_sealed(self.path / str(step))["score"]
            except (
                CorruptedCheckpointError,
                OSError,
            ) as error:  # read-only: it was not swept away
                self._skip_corrupted(step, error)

    def _reopen(self) -> None:
        """Forgets all but what is on disk."""
        with contextlib.suppress(Exception):  # the fault that brought us here, again
            self._manager.close()
        self._open()

    def _options(self) -> ocp.CheckpointManagerOptions:
        """The options under which orbax survives kills and full disks."""
        if self.read_only:
            return ocp.CheckpointManagerOptions(
                read_only=True, lightweight_initialize=True
            )
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
        """Deletes what is left over, and sets aside steps with damaged records."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._empty_trash()
        for path in self._steps_on_disk():
            try:
                read_sealed(path)
            except (CorruptedCheckpointError, OSError) as error:
                self._quarantine(int(path.name), error)

    def _steps_on_disk(self) -> list[Path]:
        return [p for p in self.path.glob("[0-9]*") if p.name.isdecimal()]

    def _empty_trash(self) -> None:
        """Deletes the trash and unfinished saves; no save may be under way."""
        if _is_first():
            unfinished = self.path.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}")
            for path in [self.path / "trash", *unfinished]:
                shutil.rmtree(path, ignore_errors=True)

    def _recover(self, step: int, fault: Exception | None) -> None:
        """Clears what a failed save left."""
        self.fault = step, _brief(fault)
        self._reopen()

    def _load(self, step: int, target: PyTree) -> Restored:
        """Reads a step and verifies it."""
        record = read_sealed(self.path / str(step))
        self._check_model(step, record["layout"], layout(target))
        abstract = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(jax.tree.map(abstract, target))
        )
        state = self._manager.restore(step, args=items)["state"]
        if wrong := differences(digests(state), record["sha256"]):
            raise CorruptedCheckpointError(f"{wrong[0]} differs from its SHA-256")
        return state, record["meta"]

    def _check_model(
        self, step: int, found: Mapping[str, str], wanted: Mapping[str, str]
    ) -> None:
        """Raises CheckpointError K02 if a step does not have the arrays wanted."""
        if wrong := differences(found, wanted):
            shown = [
                f"{name}: {found.get(name, 'absent')} in the checkpoint, "
                f"{wanted.get(name, 'absent')} in the model"
                for name in wrong[:3]
            ]
            more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise CheckpointError(
                "K02",
                f"{self.path}: step {step} is of another model: "
                f"{'; '.join(shown)}{more}",
                "choose another folder with --workdir, or the config of this one",
            )

    def _skip_corrupted(self, step: int, fault: Exception | None) -> None:
        """Does not look at `step` again, but lets it lie."""
        self.saved.pop(step, None)
        self.report(f"step {step} is damaged ({_brief(fault)}); left out")

    def _quarantine(self, step: int, fault: Exception | None) -> None:
        """Moves `step` to bad/STEP, or to bad/STEP.2 and so on if that exists."""
        bad = self.path / "bad"
        bad.mkdir(exist_ok=True)
        names = itertools.chain(
            [f"{step}"], (f"{step}.{n}" for n in itertools.count(2))
        )
        name = next(name for name in names if not (bad / name).exists())
        (self.path / str(step)).rename(bad / name)
        self.report(f"step {step} is damaged ({_brief(fault)}); moved to bad/{name}")


def rank(scored: Score) -> Any:
    """Sorts NaN first, then by score, and of equal scores the earlier one last."""
    value = scored["score"]
    return value is not None, value or 0.0, -scored["step"]


def _is_first() -> bool:
    return jax.process_index() == 0


def _agreed(good: bool) -> bool:
    """Whether `good` holds in every process of the run."""
    if jax.process_count() == 1:
        return good
    return bool(np.all(multihost_utils.process_allgather(np.asarray(good))))


def _brief(fault: Exception | None) -> str:
    """The first line of a fault, cut to a width that fits one line."""
    if fault is None:
        return "another process failed"
    if code := re.search(r"os_error_code='(\d+)'", str(fault)):
        return os.strerror(int(code[1]))
    if isinstance(fault, OSError) and fault.strerror:
        return f"{fault.strerror}: {Path(fault.filename or '').name}".removesuffix(": ")
    text = (str(fault).strip() or type(fault).__name__).splitlines()[0]
    return text if len(text) <= 120 else f"{text[:117]}..."
