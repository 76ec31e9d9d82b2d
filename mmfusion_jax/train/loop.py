"""The one training loop: data in, steps, evaluation, checkpoints, and out again."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax

from mmfusion_jax.errors import CheckpointError, DivergedError, Interrupted
from mmfusion_jax.metrics.rounding import format_number
from mmfusion_jax.tasks import describe_undefined
from mmfusion_jax.train.metrics_log import MetricsLogger
from mmfusion_jax.train.optimizer import reduce_lr
from mmfusion_jax.train.plan import SelectionState, TrainPlan
from mmfusion_jax.train.signals import GracefulShutdown
from mmfusion_jax.train.state import TrainState
from mmfusion_jax.train.step import Metrics, Step
from mmfusion_jax.train.timing import StepTimer, is_ready
from mmfusion_jax.types import Batch, PyTree

Evaluation = dict[str, Any]
"""Scores of a split by name, "loss" among them."""


class CheckpointSaver(Protocol):
    """What the loop asks of checkpoints; `train.checkpoints.Checkpoints` is one."""

    def save(
        self,
        step: int,
        state: PyTree,
        meta: Mapping[str, Any],
        score: float | None = None,
        *,
        wait: bool = False,
    ) -> bool:
        """Whether the step is, or will be, on disk; with `wait`, whether it is."""
        ...


@dataclasses.dataclass
class Loop:
    """Trains from `state` to the end of `plan`.

    Attributes:
        plan: how long, how often.
        step: compiled; takes a state and a batch that lies on the devices.
        batches: (start, stop) -> the batches of those steps, on the devices.
        evaluate: state -> split -> scores; "valid", if it is there, chooses the step.
        state: where to begin; its step is the position in the data.
        saver: of checkpoints.
        journal: of scalars and messages.
        interrupt: the signals of the user and the system.
        progress: of the run that this one resumes.
        watch: a split whose best score is noted and decides nothing.
        stopped_early: the score no longer rose.
        nonfinite_limit_reached: too many steps in a row were not finite.
    """

    plan: TrainPlan
    step: Step
    batches: Callable[[int, int], Iterator[Batch]]
    evaluate: Callable[[TrainState], Mapping[str, Evaluation]]
    state: TrainState
    saver: CheckpointSaver
    journal: MetricsLogger
    interrupt: GracefulShutdown
    progress: SelectionState = dataclasses.field(default_factory=SelectionState)
    watch: str = "test"
    clock: StepTimer = dataclasses.field(default_factory=StepTimer)
    stopped_early: bool = False
    nonfinite_limit_reached: bool = False

    def run(self) -> TrainState:
        """Trains; returns the last state.

        Raises:
            Interrupted: after saving, when a signal came.
            DivergedError: after too many steps that were not finite; the weights
                before them are saved.
        """
        begun = time.perf_counter()
        done = int(self.state.step)
        self.journal.start(done, self.plan.steps)
        if self.plan.steps == 0:
            self._evaluate(0)
            self._save(0, scored=True)
        self.stopped_early = done < self.plan.steps and self._is_stale()
        if done < self.plan.steps and not self.stopped_early:
            self._train(done)
        self.clock.total = time.perf_counter() - begun
        return self.state

    def _train(self, done: int) -> None:
        """Steps until the plan, the patience or a signal ends it."""
        batches = self.batches(done, self.plan.steps)
        pending: list[tuple[int, Metrics]] = []
        since = time.perf_counter()
        while done < self.plan.steps and not self.stopped_early:
            asked = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - asked if is_ready(pending[-1:]) else 0.0
            self.state, metrics = self.step(self.state, batch)
            done += 1
            since = self._sync_previous_step(since, waited, pending, metrics)
            pending.append((done, metrics))
            ends, saved = self.plan.evaluates_after(done), False
            stop = self.interrupt.signal is not None
            if (
                ends
                or stop
                or self.nonfinite_limit_reached
                or done % self.plan.log_every == 0
            ):
                self._log_metrics(pending)
                since = time.perf_counter()
            if ends:
                self._evaluate(done)
                self._reduce_lr(done)
                self.stopped_early = done < self.plan.steps and self._is_stale()
            if ends or stop or self.plan.saves_after(done):
                saved = self._save(done, scored=ends, wait=stop)
                since = time.perf_counter()
            if stop and done < self.plan.steps and not self.stopped_early:
                raise self._interrupted(done, saved)

    def _sync_previous_step(
        self, since: float, waited: float, pending: list[Any], metrics: Metrics
    ) -> float:
        """Waits for the step before this one, so that one step is in flight."""
        if not self.clock.compile:  # the first step of a process compiles
            jax.block_until_ready(metrics)
            self.clock.compile = time.perf_counter() - since
        elif pending:
            before = jax.block_until_ready(pending[-1][1])
            self.nonfinite_limit_reached = (
                int(before["bad/in_a_row"]) >= self.plan.max_nonfinite_steps
            )
            self.clock.steps.append(time.perf_counter() - since)
            self.clock.data += waited
        return time.perf_counter()

    def _log_metrics(self, pending: list[tuple[int, Metrics]]) -> None:
        """Fetches the numbers of the last steps, writes them down, checks them."""
        if not pending:
            return
        seen = [(number, jax.device_get(metrics)) for number, metrics in pending]
        pending.clear()
        for number, metrics in seen:
            bad = [name for name, value in metrics.items() if _is_bad(name, value)]
            if bad:
                names = ", ".join(name.removeprefix("bad/") for name in bad)
                self.journal.log(f"step {number}: not finite: {names}; weights kept")
        step, metrics = seen[-1]
        values = {k: float(v) for k, v in metrics.items() if not k.startswith("bad/")}
        recent = self.clock.steps[-len(seen) :]
        pace = self.plan.batch_size * len(recent) / sum(recent) if recent else 0.0
        epoch = step / self.plan.steps_per_epoch
        self.journal.record(
            "train", step, {"epoch": epoch, **values, "examples_per_s": pace}
        )
        parts = [f"{k.removeprefix('loss/')} {v:.3f}" for k, v in _parts(values)]
        self.journal.progress(step, f"{', '.join(parts)}  {pace:.0f} examples/s")
        self._abort_if_nonfinite(
            step, max(int(metrics["bad/in_a_row"]) for _, metrics in seen)
        )

    def _abort_if_nonfinite(self, step: int, in_a_row: int) -> None:
        """Ends a run whose steps are no longer finite."""
        if in_a_row < self.plan.max_nonfinite_steps:
            return
        self._save(step, scored=False, wait=True)
        raise DivergedError(
            "N01",
            f"stopped at step {step}: {in_a_row} steps in a row had a loss or a "
            "gradient that is not finite (named above); the weights before them are "
            "kept.",
            "lower --config.optim.learning_rate, set --config.optim.clip_norm=1.0, or "
            "look for NaN in the data",
        )

    def _evaluate(self, step: int) -> None:
        """Scores every split and takes the validation score in."""
        begun = time.perf_counter()
        results = self.evaluate(self.state)
        self.clock.evaluate += time.perf_counter() - begun
        chosen = results.get(self.plan.selection_split)
        self.progress.update(step, self.plan.score(chosen))
        self.progress.update_lr(self.plan.lr_score(chosen))
        watched = results.get(self.watch)
        if watched is not None:
            self._track_best_test(step, watched)
        values = {
            f"{split}/{name}": value
            for split, scores in results.items()
            for name, value in scores.items()
            if isinstance(value, float)
        }
        epoch = step / self.plan.steps_per_epoch
        self.journal.record("eval", step, {"epoch": epoch, **values})
        for split, scores in results.items():
            if line := describe_undefined(split, scores):
                self.journal.log(f"step {step}: {line}")
        split = (
            self.plan.selection_split
            if self.plan.selection_split in results
            else self.watch
        )
        told, metric = results[split], self.plan.selection_metric
        self.journal.log(
            f"epoch {epoch:.0f}, step {step}/{self.plan.steps}: {split} "
            f"{metric} {format_number(told[metric])}, "
            f"loss {format_number(told['loss'])}"
        )

    def _reduce_lr(self, step: int) -> None:
        """Makes later steps shorter where the score has not risen for long."""
        if 0 < self.plan.lr_patience < self.progress.evals_since_lr_drop:
            self.progress.evals_since_lr_drop = 0
            self.state = reduce_lr(self.state, self.plan.lr_factor)
            self.journal.log(f"step {step}: learning rate x {self.plan.lr_factor:g}")

    def _interrupted(self, step: int, saved: bool) -> Exception:
        """What ends a run after a signal: it says what is safe, and only that."""
        if saved:
            return Interrupted(step, self.interrupt.exit_code)
        return CheckpointError(
            "K03",
            f"stopped at step {step} by a signal, and step {step} could not be saved "
            "(see above).",
            "make room or mend the disk, then run the same command again: it goes on "
            "from the newest step that is saved",
        )

    def _track_best_test(self, step: int, scores: Evaluation) -> None:
        """Notes the best score of a split that decides nothing."""
        rank = self.plan.score(scores) or 0.0
        best = self.progress.best_test
        if math.isfinite(rank) and (best is None or rank > best["rank"]):
            score = scores[self.plan.selection_metric]
            self.progress.best_test = {"rank": rank, "score": score, "step": step}

    def _save(self, step: int, *, scored: bool, wait: bool = False) -> bool:
        """Saves the state; whether it worked, as far as is known."""
        begun = time.perf_counter()
        meta = {"progress": dataclasses.asdict(self.progress)}
        score = self.progress.last_score if scored else None
        saved = self.saver.save(step, self.state, meta, score, wait=wait)
        self.clock.save += time.perf_counter() - begun
        return saved

    def _is_stale(self) -> bool:
        return 0 < self.plan.patience <= self.progress.evals_since_best


def _is_bad(name: str, value: Any) -> bool:
    return name.startswith("bad/") and name != "bad/in_a_row" and bool(value)


def _parts(values: Mapping[str, float]) -> list[tuple[str, float]]:
    """The loss and, if there are several, its terms."""
    terms = [(k, v) for k, v in values.items() if k.startswith("loss/")]
    return [("loss", values["loss"]), *(terms if len(terms) > 1 else [])]
