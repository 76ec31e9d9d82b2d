"""How long to train, and what the host remembers of it."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class TrainPlan:
    """How long to train and how often to look up.

    Attributes:
        steps: of the whole run.
        steps_per_epoch: a whole epoch is evaluated and saved at its end.
        selection_split: the split whose score chooses the step and stops early:
            "valid", or "test" for a paper that did so; without that split a run goes to
            its end.
        selection_metric: that score.
        lower_is_better: whether a lower score is the better one.
        patience: epochs without a better score before the run stops; 0 never stops.
        slow_after: epochs without a better score before steps become shorter; 0 never.
        lr_factor: how much shorter; the optimizer must hold a brake.
        log_every: steps between two looks at the numbers.
        save_every: steps between two checkpoints within an epoch; 0 for none.
        max_nonfinite_steps: refused steps in a row that end the run.
        batch_size: examples of a step, for the examples per second.
        lr_monitors_loss: the loss decides when steps become shorter, not the score.
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
        return step % self.steps_per_epoch == 0 or step == self.steps

    def saves_after(self, step: int) -> bool:
        return self.save_every > 0 and step % self.save_every == 0

    def score(self, scores: Mapping[str, Any] | None) -> float | None:
        """What checkpoints compare: higher is better."""
        if scores is None:
            return None
        value = float(scores[self.selection_metric])
        return -value if self.lower_is_better else value

    def lr_score(self, scores: Mapping[str, Any] | None) -> float | None:
        """What decides when steps become shorter: higher is better."""
        if scores is None or not self.lr_monitors_loss:
            return self.score(scores)
        return -float(scores["loss"])


@dataclasses.dataclass
class SelectionState:
    """What the host knows of a run beside the state; saved with every checkpoint.

    Attributes:
        last_score: of the last evaluation; None if nothing chooses the step.
        best_score: highest score so far; None before the first evaluation.
        best_step: the first step that reached it.
        evals_since_best: evaluations since then.
        evals_since_lr_drop: evaluations since the score that decides when steps become
            shorter was highest, or since they did.
        best_test: best score of the watched test split and its step, which no
            decision may use: {"score", "step", "rank"}, rank being the score turned
            so that higher is better.
    """

    last_score: float | None = None
    best_score: float | None = None
    best_step: int = 0
    evals_since_best: int = 0
    evals_since_lr_drop: int = 0
    best_test: dict[str, Any] | None = None
    best_lr_score: float | None = None

    def update(self, step: int, score: float | None) -> None:
        """Takes in the score of an evaluation; None if nothing chooses the step."""
        self.last_score = score
        if score is None:
            return
        if _beats(score, self.best_score):
            self.best_score, self.best_step, self.evals_since_best = score, step, 0
        else:
            self.evals_since_best += 1

    def update_lr(self, score: float | None) -> None:
        """Takes in the score that decides when steps become shorter."""
        if score is None:
            return
        if _beats(score, self.best_lr_score):
            self.best_lr_score, self.evals_since_lr_drop = score, 0
        else:
            self.evals_since_lr_drop += 1


def _beats(score: float, best: float | None) -> bool:
    """Whether `score` is the highest so far."""
    return best is None or math.isnan(best) or score > best
