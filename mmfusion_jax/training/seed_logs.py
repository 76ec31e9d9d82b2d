"""Logs several seeds that train at once: files of their own, one display."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mmfusion_jax.errors import shown_name
from mmfusion_jax.results.metrics_file import MetricsLine
from mmfusion_jax.results.rounding import format_number
from mmfusion_jax.training.metrics_log import MetricsLogger, ScoreLine, describe_terms


class SeedsDisplay:
    """Shows the progress of several seeds: a bar, and a line for each evaluation.

    Args:
        title: Label of the progress bar.
        seeds: The seeds.
    """

    def __init__(self, title: str, seeds: Sequence[int]):
        self.seeds = tuple(seeds)
        self.logger = MetricsLogger(None, title)
        self.losses: dict[int, MetricsLine] = {}
        self.scores: dict[int, ScoreLine] = {}

    def __enter__(self) -> "SeedsDisplay":
        return self

    def __exit__(self, *error: object) -> None:
        self.logger.close()

    def flush(self) -> None:
        """Shows what the seeds recorded since the last call."""
        if self.losses:
            lines = self.losses.values()
            listed = " ".join(f"{line.values['loss'] or 0:.3f}" for line in lines)
            # The rate of every seed is that of the group, whose time they share. The
            # first line has none: its step was compiled.
            rates = [line.values.get("examples_per_s") for line in lines]
            timed = [rate for rate in rates if rate]
            suffix = f"  {max(timed):.0f} examples/s" if timed else ""
            step = min(line.step for line in lines)
            self.logger.progress(step, f"loss {listed}{suffix}")
        # Seeds that resumed from different steps are evaluated at different ones.
        for when in dict.fromkeys(line.when for line in self.scores.values()):
            same = {k: line for k, line in self.scores.items() if line.when == when}
            line = _describe_scores(when, same)
            self.logger.log(line)
        self.losses.clear()
        self.scores.clear()


class SeedLogger(MetricsLogger):
    """Logs the scalars of one of several seeds; a display shows them.

    Args:
        folder: See `MetricsLogger`.
        seed: The seed, which stands before its messages.
        resume: See `MetricsLogger`.
        display: Display of all seeds.
    """

    def __init__(
        self, folder: Path | None, seed: int, resume: int, display: SeedsDisplay
    ):
        super().__init__(folder, "", resume)
        self.seed, self._display = seed, display

    def start(self, step: int, steps: int) -> None:
        """Shows nothing: the bar is that of the display."""

    def progress(self, step: int, note: str) -> None:
        """Shows nothing: the display reads the recorded lines."""

    def record(self, line: MetricsLine) -> None:
        super().record(line)
        if line.kind == "train":
            self._display.losses[self.seed] = line

    def log(self, line: str) -> None:
        self._display.logger.log(f"seed {self.seed}: {line}")

    def log_scores(self, line: ScoreLine) -> None:
        self._display.scores[self.seed] = line


def describe_seeds(seeds: Iterable[int]) -> str:
    """Returns "seed 3", "seeds 0-4" or "seeds 0, 2, 3"."""
    seeds = sorted(seeds)
    minimum, maximum = seeds[0], seeds[-1]
    if minimum == maximum:
        return f"seed {minimum}"
    if seeds == list(range(minimum, maximum + 1)):
        return f"seeds {minimum}-{maximum}"
    return f"seeds {', '.join(map(str, seeds))}"


def _describe_scores(when: str, lines: dict[int, ScoreLine]) -> str:
    """Returns the line of one evaluation of several seeds, in their order."""
    seeds = sorted(lines)
    first = lines[seeds[0]]
    words, listed = (
        " ".join(format_number(getattr(lines[seed], name)) for seed in seeds)
        for name in ("score", "loss")
    )
    # The means over the seeds: a list for each term would be too long for a line.
    terms = {
        name: sum(lines[seed].terms[name] for seed in seeds) / len(seeds)
        for name in first.terms
    }
    return (
        f"{when}: {first.split} {shown_name(first.metric)} {words}, loss {listed} "
        f"({describe_seeds(seeds)}){describe_terms(terms)}"
    )
