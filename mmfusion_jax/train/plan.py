"""How long to train, and what the host remembers of it."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train and how often to look up.

    Attributes:
        steps: of the whole run.
        steps_per_epoch: a whole epoch is evaluated and saved at its end.
        choose: the split whose score chooses the step and stops early: "valid", or
            "test" for a paper that did so; without that split a run goes to its end.
        select: that score.
        lower_is_better: whether a lower score is the better one.
        patience: epochs without a better score before the run stops; 0 never stops.
        slow_after: epochs without a better score before steps become shorter; 0 never.
        slow_factor: how much shorter; the optimiser must hold a brake.
        log_every: steps between two looks at the numbers.
        save_every: steps between two checkpoints within an epoch; 0 for none.
        max_bad_steps: refused steps in a row that end the run.
        batch_size: examples of a step, for the examples per second.
        slow_on_loss: the loss decides when steps become shorter, not the score.
    """

    steps: int
    steps_per_epoch: int
    choose: str = "valid"
    select: str = "accuracy"
    lower_is_better: bool = False
    patience: int = 0
    slow_after: int = 0
    slow_factor: float = 0.5
    log_every: int = 20
    save_every: int = 0
    max_bad_steps: int = 3
    batch_size: int = 1
    slow_on_loss: bool = False

    def evaluates_after(self, step: int) -> bool:
        return step % self.steps_per_epoch == 0 or step == self.steps

    def saves_after(self, step: int) -> bool:
        return self.save_every > 0 and step % self.save_every == 0

    def score(self, scores: Mapping[str, Any] | None) -> float | None:
        """What checkpoints compare: higher is better."""
        if scores is None:
            return None
        value = float(scores[self.select])
        return -value if self.lower_is_better else value

    def slow_score(self, scores: Mapping[str, Any] | None) -> float | None:
        """What decides when steps become shorter: higher is better."""
        if scores is None or not self.slow_on_loss:
            return self.score(scores)
        return -float(scores["loss"])


@dataclasses.dataclass
class Progress:
    """What the host knows of a run beside the state; saved with every checkpoint.

    Attributes:
        last_score: of the last evaluation; None if nothing chooses the step.
        best_score: highest score so far; None before the first evaluation.
        best_step: the first step that reached it.
        stale: evaluations since then.
        level: evaluations since the score that decides when steps become shorter was
            highest, or since they did.
        flattering: best score of the watched test split and its step, which no
            decision may use: {"score", "step", "rank"}, rank being the score turned
            so that higher is better.
    """

    last_score: float | None = None
    best_score: float | None = None
    best_step: int = 0
    stale: int = 0
    level: int = 0
    flattering: dict[str, Any] | None = None
    level_score: float | None = None

    def update(self, step: int, score: float | None) -> None:
        """Takes in the score of an evaluation; None if nothing chooses the step."""
        self.last_score = score
        if score is None:
            return
        if _beats(score, self.best_score):
            self.best_score, self.best_step, self.stale = score, step, 0
        else:
            self.stale += 1

    def update_level(self, score: float | None) -> None:
        """Takes in the score that decides when steps become shorter."""
        if score is None:
            return
        if _beats(score, self.level_score):
            self.level_score, self.level = score, 0
        else:
            self.level += 1


def _beats(score: float, best: float | None) -> bool:
    """Whether `score` is the highest so far."""
    return best is None or math.isnan(best) or score > best
