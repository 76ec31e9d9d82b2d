"""Training schedule, and the selection state that the host tracks."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from mmfusion_jax.results.model_result import BestTest, Evaluation


@dataclasses.dataclass(frozen=True)
class TrainPlan:
    """Length of the training, and when to evaluate, save and stop.

    Attributes:
        steps: Total number of training steps.
        steps_per_epoch: Number of steps per epoch; every epoch ends with an evaluation
            and a checkpoint.
        selection_split: Split that selects the checkpoint and stops early: "valid", or
            "test" for a paper that did so. A run without that split trains to the end.
        selection_metric: Metric that selects the checkpoint.
        lower_is_better: True if a lower score is better.
        patience: Epochs without improvement before early stopping; 0 disables it.
        lr_patience: Epochs without improvement before the learning rate is reduced; 0
            disables it.
        lr_factor: Factor of the reduction; the optimizer must contain
            `scale_by_lr_multiplier`.
        log_every: Steps between two log entries.
        save_every: Steps between two checkpoints within an epoch; 0 for none.
        max_nonfinite_steps: Consecutive skipped steps that end the run.
        batch_size: Examples per step, to compute the throughput.
        lr_monitors_loss: The learning rate is reduced on the loss, not on the score.
    """

    steps: int
    steps_per_epoch: int
    selection_split: str = "valid"
    selection_metric: str = "accuracy"
    lower_is_better: bool = False
    patience: int = 0
    lr_patience: int = 0
    lr_factor: float = 0.5
    log_every: int = 20
    save_every: int = 0
    max_nonfinite_steps: int = 3
    batch_size: int = 1
    lr_monitors_loss: bool = False

    def evaluates_after(self, step: int) -> bool:
        """Returns whether an evaluation and a checkpoint follow a step."""
        return step % self.steps_per_epoch == 0 or step == self.steps

    def saves_after(self, step: int) -> bool:
        """Returns whether a step is saved that may be within an epoch."""
        return self.save_every > 0 and step % self.save_every == 0

    def metric(self, evaluation: Evaluation) -> float:
        """Returns the selection metric; NaN where it is not defined."""
        value = evaluation.scores[self.selection_metric]
        return math.nan if value is None else value

    def score(self, evaluation: Evaluation) -> float:
        """Returns the score that selects the checkpoint, higher is better."""
        value = self.metric(evaluation)
        return -value if self.lower_is_better else value

    def lr_score(self, evaluation: Evaluation) -> float:
        """Returns the score that decides on the learning rate, higher is better."""
        if not self.lr_monitors_loss:
            return self.score(evaluation)
        loss = evaluation.scores["loss"]
        return math.nan if loss is None else -loss


@dataclasses.dataclass
class SelectionState:
    """Best scores so far, saved with every checkpoint.

    Attributes:
        last_score: Score of the last evaluation; None without a selection split.
        best_score: Highest score so far; None before the first evaluation.
        best_step: First step that reached it.
        evals_since_best: Evaluations since then.
        evals_since_lr_drop: Evaluations since the score that triggers a learning rate
            reduction improved, or since the last reduction.
        best_test: Best score of the test split, for the report only.
        best_lr_score: Highest score that triggers a learning rate reduction.
    """

    last_score: float | None = None
    best_score: float | None = None
    best_step: int = 0
    evals_since_best: int = 0
    evals_since_lr_drop: int = 0
    best_test: BestTest | None = None
    best_lr_score: float | None = None

    @classmethod
    def restore(cls, saved: Mapping[str, Any]) -> "SelectionState":
        """Returns the state whose `dataclasses.asdict` is `saved`."""
        # `asdict` makes a dict of the nested dataclass; None stays None.
        best = saved["best_test"]
        return cls(**{**saved, "best_test": best and BestTest(**best)})

    def update(self, step: int, score: float) -> None:
        """Adds the score of an evaluation."""
        self.last_score = score
        if _beats(score, self.best_score):
            self.best_score, self.best_step, self.evals_since_best = score, step, 0
        else:
            self.evals_since_best += 1

    def update_lr(self, score: float) -> None:
        """Adds the score that triggers a learning rate reduction."""
        if _beats(score, self.best_lr_score):
            self.best_lr_score, self.evals_since_lr_drop = score, 0
        else:
            self.evals_since_lr_drop += 1


def _beats(score: float, best: float | None) -> bool:
    """Returns whether `score` is the highest so far."""
    # Comparisons with NaN are False: a NaN score never beats another, and without the
    # second condition nothing would ever beat a NaN of the first evaluation.
    return best is None or math.isnan(best) or score > best
