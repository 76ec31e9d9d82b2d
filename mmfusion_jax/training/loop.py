"""Training loop: steps, evaluation, logging and checkpoints."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax

from mmfusion_jax.errors import (
    CheckpointError,
    DivergedError,
    Interrupted,
    join_names,
    shown_name,
)
from mmfusion_jax.metrics.nonfinite import describe_undefined
from mmfusion_jax.results.metrics_file import MetricsLine
from mmfusion_jax.results.model_result import BestTest, Evaluation
from mmfusion_jax.training.gradient_record import GradientRecorder, gradient_scalars
from mmfusion_jax.training.metrics_log import MetricsLogger, ScoreLine
from mmfusion_jax.training.optimizer import reduce_lr
from mmfusion_jax.training.plan import SelectionState, TrainPlan
from mmfusion_jax.training.signals import GracefulShutdown
from mmfusion_jax.training.state import TrainState
from mmfusion_jax.training.step import Metrics, Step
from mmfusion_jax.training.timing import StepTimer, is_ready
from mmfusion_jax.types import Batch, PyTree


class CheckpointSaver(Protocol):
    """Interface of `train.checkpoint.manager.CheckpointManager` that the loop uses."""

    def save(
        self,
        step: int,
        state: PyTree,
        meta: Mapping[str, Any],
        score: float | None = None,
        *,
        wait: bool = False,
    ) -> bool:
        """Returns whether the step is, or without `wait` will be, on disk."""
        ...


@dataclasses.dataclass
class Loop:
    """Trains from `state` until `plan` ends.

    Attributes:
        plan: Length of the training and intervals between evaluations.
        step: Compiled step; takes a state and a batch that is on the devices.
        batches: (start, stop) -> batches of those steps, on the devices.
        evaluate: State -> split -> scores; "valid", if present, selects the checkpoint.
        state: Initial state; its step is the position in the data.
        saver: Saves checkpoints.
        logger: Logs scalars and messages.
        shutdown: Signals of the user and the system.
        progress: Selection state of the run that this one resumes.
        identity: What every checkpoint records of the run, JSON values by name.
        require_best: Called before a save with the best step, if that is an earlier
            one; raises CheckpointError if it is not on disk, since the run could then
            not give a result.
        reported_split: Split whose best score is recorded but not used.
        gradients: Records the gradients of the loss terms at some steps.
        clock: Timer of the steps.
        stopped_early: True if the score stopped improving.
        nonfinite_limit_reached: True after too many consecutive non-finite steps.
        done: Number of completed steps.
    """

    plan: TrainPlan
    step: Step
    batches: Callable[[int, int], Iterator[Batch]]
    evaluate: Callable[[TrainState], Mapping[str, Evaluation]]
    state: TrainState
    saver: CheckpointSaver
    logger: MetricsLogger
    shutdown: GracefulShutdown
    progress: SelectionState = dataclasses.field(default_factory=SelectionState)
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    require_best: Callable[[int], None] = lambda step: None
    reported_split: str = "test"
    gradients: GradientRecorder = GradientRecorder()
    clock: StepTimer = dataclasses.field(default_factory=StepTimer)
    stopped_early: bool = False
    nonfinite_limit_reached: bool = False
    done: int = 0
    _train_terms: dict[str, float] = dataclasses.field(default_factory=dict, init=False)
    _pending: list[tuple[int, Metrics]] = dataclasses.field(
        default_factory=list, init=False
    )

    def run(self) -> TrainState:
        """Trains and returns the last state.

        Raises:
            Interrupted: A signal arrived; the state is saved.
            DivergedError: Too many consecutive steps were not finite; the weights from
                before them are saved.
        """
        started = time.perf_counter()
        if self.begin():
            self._train()
        self.clock.total = time.perf_counter() - started
        return self.state

    def begin(self) -> bool:
        """Shows the progress; returns whether there are steps to train.

        Raises:
            DivergedError: The state is that of a run that such steps have ended.
        """
        self.done = int(self.state.step)
        # From there on no step changes the weights. A run that was killed before it
        # noticed that ends here, as it would have.
        skipped = int(self.state.skipped_steps["consecutive"])
        if skipped >= self.plan.max_nonfinite_steps:
            raise _diverged(self.done, skipped, "")
        self.logger.start(self.done, self.plan.steps)
        # The untrained model is evaluated and saved, so that every run has a result.
        if self.plan.steps == 0:
            self._evaluate(0)
            self._save(0, scored=True)
        # A run that was killed between early stopping and its result stops again here.
        self.stopped_early = self.done < self.plan.steps and self._is_stale()
        return self.is_running

    @property
    def is_running(self) -> bool:
        """Whether there are steps to train."""
        return self.done < self.plan.steps and not self.stopped_early

    def _train(self) -> None:
        """Runs steps until the end of the plan, early stopping or a signal."""
        batches = self.batches(self.done, self.plan.steps)
        since = time.perf_counter()
        while self.is_running:
            requested = time.perf_counter()
            batch = next(batches)
            # If the previous step still runs, the devices did not wait for this batch.
            stalled = is_ready(self._pending[-1:])
            waited = time.perf_counter() - requested if stalled else 0.0
            since += self._record_gradients(batch)
            # Dispatched asynchronously; the old state may be donated and must not be
            # used again. After it, the host waits for the step before: so the devices
            # always have a step to run while the host reads a batch, and the host is
            # never more than one step ahead, which bounds the memory of batches in
            # flight and makes the times those of steps.
            self.state, metrics = self.step(self.state, batch)
            since = self._sync_previous_step(since, waited, metrics)
            # A signal only sets a flag, which is read here, between steps: the state is
            # complete, and is saved with `wait`, since the process ends afterwards.
            if self.after_step(metrics, stop=self.shutdown.signal is not None):
                since = time.perf_counter()

    def _record_gradients(self, batch: Batch) -> float:
        """Records the gradients of the next step, if due; returns the time it took."""
        if not self.gradients.is_due(self.done + 1):
            return 0.0
        # Without this the time would contain the rest of the previous step.
        jax.block_until_ready(self._pending[-1:])
        started = time.perf_counter()
        self.log_gradients(*self.gradients(self.state, batch))
        return time.perf_counter() - started

    def log_gradients(
        self, norms: Mapping[str, Any], cosines: Mapping[str, Any]
    ) -> None:
        """Logs the gradients of the next step.

        Args:
            norms: Module -> norms of the gradients of the loss terms, (K).
            cosines: Module -> cosines between them, (K K).
        """
        step = self.done + 1
        values = gradient_scalars(self.gradients.terms, norms, cosines)
        epoch = step / self.plan.steps_per_epoch
        self.logger.record(MetricsLine(step, "gradients", epoch, values))

    def after_step(self, metrics: Metrics, *, stop: bool) -> bool:
        """Counts a step; logs, evaluates and saves if the plan has it there.

        Args:
            metrics: Metrics of the step.
            stop: True to save the state and to end, after a signal.

        Returns:
            Whether anything was logged or saved, which takes time.

        Raises:
            Interrupted: As `stop` asks; the state is saved.
            DivergedError: Too many consecutive steps were not finite; the weights from
                before them are saved.
        """
        self.done += 1
        self._pending.append((self.done, metrics))
        done, saved = self.done, False
        ends, saves = self.plan.evaluates_after(done), self.plan.saves_after(done)
        logs = (
            ends
            or stop
            or self.nonfinite_limit_reached
            or done % self.plan.log_every == 0
        )
        if logs:
            self._log_metrics()
        if ends:
            # Before the save: the checkpoint contains its own score, the selection
            # state after it and the reduced learning rate, so a resumed run does
            # not evaluate it again.
            self._evaluate(done)
            self._reduce_lr(done)
            self.stopped_early = done < self.plan.steps and self._is_stale()
        if ends or stop or saves:
            saved = self._save(done, scored=ends, wait=stop)
        # A signal during the last step ends nothing early: the run is complete.
        if stop and self.is_running:
            raise self._interrupted(done, saved)
        return logs or saves

    def _sync_previous_step(
        self, since: float, waited: float, metrics: Metrics
    ) -> float:
        """Waits for the previous step: one step is dispatched ahead of the host."""
        # The first step of a process compiles, and is waited for.
        previous = self._pending[-1][1] if self._pending else None
        awaited = previous if self.clock.compile else metrics
        jax.block_until_ready(awaited)
        self.add_time(time.perf_counter() - since, waited, previous)
        return time.perf_counter()

    def add_time(self, seconds: float, waited: float, previous: Metrics | None) -> None:
        """Counts the time of a step; without a step before, only the first one's.

        Args:
            seconds: Time of the step.
            waited: The part of it for which the devices waited for data.
            previous: Metrics of the step before, which has ended.
        """
        if not self.clock.compile:
            self.clock.compile = seconds
        elif previous is not None:
            self.clock.steps.append(seconds)
            self.clock.data_stall += waited
        limit = self.plan.max_nonfinite_steps
        # The only number that leaves the devices between two log entries: one in as
        # many steps as end a run, so that is noticed at most that many steps late. Once
        # it is at the limit it stays there.
        if self._pending and self.done % limit == 0:
            name = "nonfinite/consecutive_steps"
            skipped = int(self.fetch({name: self._pending[-1][1][name]})[name])
            self.nonfinite_limit_reached = skipped >= limit

    def fetch(self, metrics: Metrics) -> Metrics:
        """Returns the metrics of this run, on the host."""
        return jax.device_get(metrics)

    def _log_metrics(self) -> None:
        """Fetches the metrics of the last steps, logs them and checks them."""
        # Metrics stay on the devices until here: to fetch them is to wait for the step.
        # All of them at once first, which overlaps the copies; JAX keeps them.
        jax.device_get([metrics for _, metrics in self._pending])
        fetched = [(number, self.fetch(metrics)) for number, metrics in self._pending]
        self._pending.clear()
        for number, metrics in fetched:
            bad = [name for name, x in metrics.items() if _is_nonfinite(name, x)]
            if bad:
                names = [name.removeprefix("nonfinite/") for name in bad]
                # A long list is cut: inputs are the cause of the others.
                names.sort(key=lambda name: not name.startswith("input/"))
                self.logger.log(
                    f"step {number}: non-finite {join_names(names)}; update skipped"
                )
        step, metrics = fetched[-1]
        values = {
            k: float(v) for k, v in metrics.items() if not k.startswith("nonfinite/")
        }
        recent = self.clock.steps[-len(fetched) :]
        # The first step includes compilation and is not in `clock.steps`.
        rate = self.plan.batch_size * len(recent) / sum(recent) if recent else 0.0
        epoch = step / self.plan.steps_per_epoch
        values |= {"examples_per_s": rate} if recent else {}
        self.logger.record(MetricsLine(step, "train", epoch, {**values}))
        parts = [
            f"{shown_name(name.removeprefix('loss/'))} {value:.3f}"
            for name, value in _parts(values)
        ]
        speed = f"  {rate:.0f} examples/s" if recent else ""
        self.logger.progress(step, f"{', '.join(parts)}{speed}")
        self._train_terms = dict(_parts(values))
        self._abort_if_nonfinite(step, int(metrics["nonfinite/consecutive_steps"]))

    def _abort_if_nonfinite(self, step: int, consecutive: int) -> None:
        """Ends a run after too many consecutive non-finite steps."""
        if consecutive < self.plan.max_nonfinite_steps:
            return
        # Neither the non-finite steps nor those after the limit changed anything, so
        # this state has the weights from before them.
        self._save(step, scored=False, wait=True)
        raise _diverged(step, consecutive, " (listed above)")

    def _evaluate(self, step: int) -> None:
        """Scores every split and updates the selection state."""
        started = time.perf_counter()
        results = self.evaluate(self.state)
        self.clock.evaluate += time.perf_counter() - started
        selected = results.get(self.plan.selection_split)
        if selected is not None:
            self.progress.update(step, self.plan.score(selected))
            self.progress.update_lr(self.plan.lr_score(selected))
        reported = results.get(self.reported_split)
        if reported is not None:
            self._track_best_test(step, reported)
        values = {
            f"{split}/{name}": value
            for split, evaluation in results.items()
            for name, value in evaluation.scores.items()
        }
        epoch = step / self.plan.steps_per_epoch
        self.logger.record(MetricsLine(step, "eval", epoch, values))
        for split, evaluation in results.items():
            if line := describe_undefined(split, evaluation):
                self.logger.log(f"step {step}: {line}")
        split = (
            self.plan.selection_split
            if self.plan.selection_split in results
            else self.reported_split
        )
        scores, metric = results[split].scores, self.plan.selection_metric
        when = f"epoch {epoch:.0f}, step {step}/{self.plan.steps}"
        self.logger.log_scores(
            ScoreLine(
                when, split, metric, scores[metric], scores["loss"], self._train_terms
            )
        )

    def _reduce_lr(self, step: int) -> None:
        """Reduces the learning rate if the score has stopped improving."""
        # As PyTorch's ReduceLROnPlateau, after patience + 1 evaluations without
        # improvement; early stopping is after `patience` of them.
        if 0 < self.plan.lr_patience < self.progress.evals_since_lr_drop:
            self.progress.evals_since_lr_drop = 0
            self.state = reduce_lr(self.state, self.plan.lr_factor)
            self.logger.log(
                f"step {step}: learning rate reduced by factor {self.plan.lr_factor:g}"
            )

    def _interrupted(self, step: int, saved: bool) -> Exception:
        """Returns the exception that ends a run after a signal."""
        if saved:
            return Interrupted(step, self.shutdown.exit_code)
        return CheckpointError(
            "K03",
            f"stopped at step {step} by a signal, but step {step} could not be saved "
            "(see above).",
            "free disk space or fix the disk, then rerun the same command to resume "
            "from the newest saved step",
        )

    def _track_best_test(self, step: int, evaluation: Evaluation) -> None:
        """Records the best score of the split that selects nothing."""
        score, rank = self.plan.metric(evaluation), self.plan.score(evaluation)
        best = self.progress.best_test
        # Compared by rank, where higher is better, and reported as the score.
        if math.isfinite(rank) and (best is None or rank > best.rank):
            self.progress.best_test = BestTest(score, rank, step)

    def _save(self, step: int, *, scored: bool, wait: bool = False) -> bool:
        """Saves the state; returns whether it succeeded, as far as is known."""
        started = time.perf_counter()
        meta = {**self.identity, "progress": dataclasses.asdict(self.progress)}
        score = self.progress.last_score if scored else None
        best = self.progress.best_step
        # Before: a run that ends here resumes from a step before the missing one.
        if self.progress.best_score is not None and best < step:
            self.require_best(best)
        saved = self.saver.save(step, self.state, meta, score, wait=wait)
        self.clock.save += time.perf_counter() - started
        return saved

    def save_again(self) -> None:
        """Saves the last state once more, after a save of it that failed."""
        self._save(self.done, scored=self.plan.evaluates_after(self.done), wait=True)

    def _is_stale(self) -> bool:
        """Returns whether the score has stopped improving."""
        return 0 < self.plan.patience <= self.progress.evals_since_best


def _diverged(step: int, consecutive: int, where: str) -> DivergedError:
    """Returns the error that ends a run after non-finite steps.

    Args:
        step: Number of completed steps.
        consecutive: Number of consecutive non-finite steps.
        where: Where they are listed; "" if they are not.
    """
    return DivergedError(
        "N01",
        f"stopped at step {step:d}: {consecutive:d} consecutive steps with non-finite "
        f"loss or gradients{where}; the weights from before them are kept.",
        "lower --config.optim.learning_rate, set --config.optim.clip_norm=1.0, or "
        "check the data for NaN",
    )


def _is_nonfinite(name: str, value: Any) -> bool:
    """Returns whether a metric marks something that was not finite."""
    flag = name.startswith("nonfinite/") and name != "nonfinite/consecutive_steps"
    return flag and bool(value)


def _parts(values: Mapping[str, float]) -> list[tuple[str, float]]:
    """Returns the loss and, if there are several, its terms."""
    terms = [(k, v) for k, v in values.items() if k.startswith("loss/")]
    return [("loss", values["loss"]), *(terms if len(terms) > 1 else [])]
