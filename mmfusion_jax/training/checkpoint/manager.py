"""Saves and restores checkpoints; keeps the newest and the best."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from mmfusion_jax.errors import CheckpointError
from mmfusion_jax.training.checkpoint.storage import (
    CheckpointStorage,
    Restored,
    meet,
    rank,
)
from mmfusion_jax.types import PyTree


class CheckpointManager:
    """Saves checkpoints during a run and restores verified ones.

    Every array is verified with the SHA-256 computed when it was saved. In a run of
    several processes, all processes make the same calls.

    Attributes:
        folder: Directory of the checkpoints.
        required: True if a failed save ends the run, rather than being a warning.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        log: Callable[[str], None],
        keep: int = 2,
        required: bool = False,
        read_only: bool = False,
        on_saved: Callable[[int], None] = lambda _: None,
        timeout: int = 600,
    ):
        """Opens `folder` and deletes the remains of interrupted saves.

        Args:
            folder: Directory; created if it does not exist, unless read_only.
            log: Called with one line for every fault.
            keep: Number of newest checkpoints to keep in addition to the best one; at
                least 2, so that one corrupted checkpoint does not end the run.
            required: See the class.
            read_only: Write, rename and delete nothing; for evaluation, also while a
                run is writing.
            on_saved: Called with a step when it is known to be on disk, on process 0.
            timeout: Seconds in which all processes of the run must reach a save.

        Raises:
            CheckpointError: K04, the directory cannot be used.
        """
        if keep < 2:
            raise ValueError(f"keep={keep:d} leaves no fallback; it must be at least 2")
        self.folder, self.required = Path(folder).absolute(), required
        self._timeout = timeout
        self._steps = CheckpointStorage(
            self.folder, keep=keep, read_only=read_only, log=log, on_saved=on_saved
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def latest_step(self) -> int | None:
        """The newest step on disk."""
        self.wait()
        return max(self._steps.saved, default=None)

    @property
    def best_step(self) -> int | None:
        """The first step with the highest score; None without scores."""
        self.wait()
        scores = [score for score in self._steps.saved.values() if score]
        return max(scores, key=rank)["step"] if scores else None

    @property
    def steps(self) -> list[int]:
        """The steps on disk."""
        self.wait()
        return sorted(self._steps.saved)

    def is_saved(self, step: int, *, scored: bool) -> bool:
        """Returns whether a step is on disk, with its score if it has one."""
        self.wait()
        saved = self._steps.saved
        return step in saved and (not scored or saved[step] is not None)

    def discard_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps, which will be trained again."""
        self.wait()
        self._steps.delete([later for later in self._steps.saved if later > step])

    def save(
        self,
        step: int,
        state: PyTree,
        meta: Mapping[str, Any],
        score: float | None = None,
        *,
        wait: bool = False,
    ) -> bool:
        """Starts to write `state`; its arrays may be donated once this returns.

        After a fault, also of the previous save, this state is retried once. A step
        that is already on disk is unchanged, unless it has no score and now gets one.

        Args:
            step: Training step; not older than the newest step on disk.
            state: Pytree of arrays; typed PRNG keys are supported.
            meta: JSON values that `restore_latest` returns.
            score: Score of an evaluated step, higher is better; NaN is the lowest.
            wait: Return when the step is on disk.

        Returns:
            True if the step is written or being written.

        Raises:
            CheckpointError: K03, the state could not be saved and `required` is set;
                K11, a process did not come.
        """
        meet(f"save {step:d}", self._timeout)
        steps = self._steps
        steps.wait_for_save()
        # Orbax would skip it silently.
        if step < max(steps.saved, default=step):
            raise ValueError(f"step {step} is older than step {max(steps.saved):d}")
        scored = None if score is None else {"step": step, "score": _json_score(score)}
        is_saved = lambda: (
            step in steps.saved and bool(scored is None or steps.saved[step])
        )
        # Normally the save is asynchronous, and its fault, such as a full disk, is
        # noticed at the next one, which then writes the newer state. After a fault this
        # save is awaited, so that the retry is of this state and not of the next.
        for _ in range(2):
            if is_saved():
                break
            written = steps.write(step, state, meta, scored)
            if written and not (wait or steps.fault):
                return True
            steps.wait_for_save()
        return self._report_fault(saved=is_saved())

    def restore_latest(self, target: PyTree) -> Restored | None:
        """Restores the newest valid state and its `meta`; None in a new directory.

        A corrupted step is logged and moved to the subdirectory corrupted/; the next
        older step is tried.

        Args:
            target: State, abstract or not, whose leaves define the type, shape and
                sharding of the result.

        Raises:
            CheckpointError: K01, all checkpoints are corrupted; K02, they do not match
                the model.
        """
        # `load` moves a corrupted step away, so the next turn finds an older one.
        while (step := self.latest_step) is not None:
            if found := self._steps.load(step, target):
                return found
        if self._steps.used:
            raise self._no_checkpoint()
        return None

    def restore_best(self, target: PyTree) -> Restored:
        """Restores the best valid state and its `meta`; the newest without scores.

        Args:
            target: See `restore_latest`.

        Raises:
            CheckpointError: K01, no checkpoint is valid; K02, they do not match the
                model.
        """
        while (step := self.best_step) is not None:
            if found := self._steps.load(step, target):
                return found
        if found := self.restore_latest(target):
            return found
        raise self._no_checkpoint()

    def wait(self) -> bool:
        """Waits for the pending save.

        Returns:
            True if it is on disk or there was none.

        Raises:
            CheckpointError: K03, it failed and `required` is set.
        """
        return self._report_fault(saved=self._steps.wait_for_save())

    def close(self) -> None:
        """Waits for the pending save and closes the directory."""
        try:
            self.wait()
        finally:
            self._steps.close()

    def _report_fault(self, *, saved: bool) -> bool:
        """Reports the last fault, if any; returns `saved`."""
        steps = self._steps
        if steps.fault is None:
            return saved
        (step, reason), steps.fault = steps.fault, None
        what = steps.describe_saved()
        message = f"step {step} could not be saved ({reason}); {what}"
        if step in steps.saved:
            message = f"step {step} was saved after a fault ({reason})"
        if self.required and not saved:
            raise CheckpointError(
                "K03",
                f"{self.folder}: {message}",
                "free disk space or fix the disk, then rerun the same command",
            )
        steps.report(message)
        return saved

    def _no_checkpoint(self) -> CheckpointError:
        if self._steps.used:
            return CheckpointError(
                "K01",
                f"{self.folder}: all checkpoints are corrupted",
                "start over with a new --workdir, or delete this one",
            )
        return CheckpointError(
            "K01",
            f"{self.folder}: no checkpoint found",
            "train first: rerun the command with --mode=train",
        )


def _json_score(score: float) -> float | None:
    """Returns `score` as a JSON value: None for NaN."""
    return None if math.isnan(score) else float(score)
