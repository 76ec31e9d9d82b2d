"""The states of a run on disk: the newest, the best, and never a damaged one."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from mmfusion_jax.errors import CheckpointError
from mmfusion_jax.train.checkpoint.storage import CheckpointStorage, Restored, rank
from mmfusion_jax.types import PyTree


class CheckpointManager:
    """Saves the state of a run while it goes on, and gives back only what was saved.

    Every array is read against the SHA-256 noted when it was saved. In a run of
    several processes all of them make the same calls.

    Attributes:
        folder: where the steps are.
        required: a state that cannot be saved ends the run; else it is a warning.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        say: Callable[[str], None],
        keep: int = 2,
        required: bool = False,
        read_only: bool = False,
    ):
        """Opens `folder` and clears what interrupted saves left.

        Args:
            folder: created if it does not exist, unless read_only.
            say: gets one line for every fault.
            keep: how many of the newest steps stay beside the best one; at least 2,
                or one damaged step would end the run.
            required: see the class.
            read_only: for evaluation, also beside a run that writes: nothing is
                written, renamed or deleted.

        Raises:
            CheckpointError: K04, the folder cannot be used.
        """
        if keep < 2:
            raise ValueError(f"keep={keep} leaves nothing to fall back on; at least 2")
        self.folder, self.required = Path(folder).absolute(), required
        self._steps = CheckpointStorage(
            self.folder, keep=keep, read_only=read_only, say=say
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def latest_step(self) -> int | None:
        """The newest step that is safely on disk."""
        self.wait()
        return max(self._steps.saved, default=None)

    @property
    def best_step(self) -> int | None:
        """The step of the highest score, the first of several; None without scores."""
        self.wait()
        scores = [score for score in self._steps.saved.values() if score]
        return max(scores, key=rank)["step"] if scores else None

    def save(
        self,
        step: int,
        state: PyTree,
        meta: Mapping[str, Any],
        score: float | None = None,
        *,
        wait: bool = False,
    ) -> bool:
        """Starts to write `state`; its arrays may be donated as soon as this returns.

        After a fault, also of the save before, this state is tried once more. A step
        that is there already is left alone, unless it has no score and now gets one.

        Args:
            step: not older than the newest step of the folder.
            state: a pytree of arrays; typed PRNG keys are fine.
            meta: JSON values that `restore_latest` gives back.
            score: of an evaluated step, the higher the better; NaN is the worst.
            wait: return when the step is on disk.

        Returns:
            Whether the step is, or is being, written.

        Raises:
            CheckpointError: K03, the state could not be saved and `required` is set.
        """
        steps = self._steps
        steps.wait_for_save()
        if step < max(steps.saved, default=step):
            raise ValueError(f"step {step} is older than step {max(steps.saved)}")
        scored = None if score is None else {"step": step, "score": _number(score)}
        is_saved = lambda: (
            step in steps.saved and bool(scored is None or steps.saved[step])
        )
        for _ in range(2):
            if is_saved():
                break
            written = steps.write(step, state, meta, scored)
            if written and not (wait or steps.fault):
                return True
            steps.wait_for_save()
        return self._answer(saved=is_saved())

    def restore_latest(self, target: PyTree) -> Restored | None:
        """The newest intact state and its `meta`; None in a new folder.

        A damaged step is one line and moves to the subfolder bad/; the next older one
        is tried.

        Args:
            target: the state wanted, abstract or not; its leaves carry the type,
                shape and sharding to restore to.

        Raises:
            CheckpointError: K01, every step is damaged; K02, the steps are of
                another model.
        """
        while (step := self.latest_step) is not None:
            if found := self._steps.load(step, target):
                return found
        if self._steps.used:
            raise self._nothing_left()
        return None

    def restore_best(self, target: PyTree) -> Restored:
        """The best intact state and its `meta`; the newest where no step has a score.

        Args:
            target: as for `restore_latest`.

        Raises:
            CheckpointError: K01, there is no intact step; K02, the steps are of
                another model.
        """
        while (step := self.best_step) is not None:
            if found := self._steps.load(step, target):
                return found
        if found := self.restore_latest(target):
            return found
        raise self._nothing_left()

    def wait(self) -> bool:
        """Waits for the save under way.

        Returns:
            Whether it is on disk; True if there was none.

        Raises:
            CheckpointError: K03, it failed and `required` is set.
        """
        return self._answer(saved=self._steps.wait_for_save())

    def close(self) -> None:
        """Waits for the save under way and lets go of the folder."""
        try:
            self.wait()
        finally:
            self._steps.close()

    def _answer(self, *, saved: bool) -> bool:
        """Reports the last fault, if any, in one line; returns `saved`."""
        steps = self._steps
        if steps.fault is None:
            return saved
        (step, why), steps.fault = steps.fault, None
        newest = max(steps.saved, default=None)
        last = "there is none" if newest is None else f"the newest is step {newest}"
        text = f"step {step} could not be saved ({why}); {last}"
        if step in steps.saved:
            text = f"step {step} is saved, after a fault ({why})"
        if self.required and not saved:
            raise CheckpointError(
                "K03",
                f"{self.folder}: {text}",
                "make room or mend the disk, then run the same command again",
            )
        steps.report(text)
        return saved

    def _nothing_left(self) -> CheckpointError:
        if self._steps.used:
            return CheckpointError(
                "K01",
                f"{self.folder}: every checkpoint is damaged",
                "start again with another --workdir, or delete this one",
            )
        return CheckpointError(
            "K01",
            f"{self.folder}: there is no checkpoint",
            "train first: the same command with --mode=train",
        )


def _number(score: float) -> float | None:
    """`score` as JSON has it: None for NaN."""
    return None if math.isnan(score) else float(score)
