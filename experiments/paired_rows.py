"""Scores of trained rows, and paired tests of their differences."""

import dataclasses
import datetime
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from row_runs import RowRun
from tables import mean_std

from mmfusion_jax.commands.compare import compare_runs
from mmfusion_jax.metrics.statistics import holm, paired_test
from mmfusion_jax.results.comparison_result import Contrast
from mmfusion_jax.results.experiment_result import ExperimentResult
from mmfusion_jax.results.json_file import read_json
from mmfusion_jax.results.rounding import format_number
from mmfusion_jax.runner import provenance

SIMPLE = Path(__file__).parent / "digits/difficulty.json"
LEVEL = 0.05
METRICS = ("macro_f1", "mis", "consistency", "confidence")
"""Metrics of a row beside the one that is tested."""


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """Difference of a test score to that of the reference.

    Attributes:
        value: Score minus score of the reference, means over the common seeds.
        low, high: Bootstrap interval over the test examples, 95 %; None if the
            predictions do not give the metric.
        p_examples: p of the paired test over the examples, of the main metric; None for
            others.
        p_seeds: p of the paired t-test over the common seeds; None if it is not
            defined.
    """

    value: float
    low: float | None
    high: float | None
    p_examples: float | None
    p_seeds: float | None

    @property
    def verdict(self) -> str:
        """Which of the two tests find a difference."""
        found = [
            name
            for name, p in (("examples", self.p_examples), ("seeds", self.p_seeds))
            if p is not None and p < LEVEL
        ]
        if len(found) == 2:
            return "significant"
        if found:
            return f"significant over the {found[0]} only"
        return "not significant"


Differences = dict[str, PairedDifference]


def main_metric(result: ExperimentResult) -> str:
    """Returns the metric that is tested: the accuracy, else the selection metric."""
    return "accuracy" if "accuracy" in result.metrics else result.selection_metric


def row_scores(run: RowRun, result: ExperimentResult) -> dict[str, Any]:
    """Returns scores, size, times and provenance of a trained row, as JSON values."""
    metrics = [name for name in (main_metric(result), *METRICS)]
    test = {name: _spread(result, "test", name) for name in metrics}
    return {
        "command": result.command,
        "modalities": list(run.modalities),
        "test": {name: found for name, found in test.items() if found},
        "valid": _spread(result, "valid", metrics[0]),
        "parameters": result.model.parameters.total,
        "seeds": sorted({one.seed for one in result.runs}),
        "wall_s": run.wall_s(),
        "commit": result.git,
        "created": result.created,
    }


def _spread(
    result: ExperimentResult, split: str, metric: str
) -> dict[str, float | None] | None:
    """Returns mean and standard deviation over the runs; None if one has no score."""
    evaluations = [run.test if split == "test" else run.valid for run in result.runs]
    scores = [None if e is None else e.scores.get(metric) for e in evaluations]
    values = [score for score in scores if score is not None]
    return mean_std(values) if len(values) == len(scores) else None


def differences(
    reference: RowRun, rows: Mapping[str, RowRun]
) -> dict[str, Differences]:
    """Compares trained rows with a reference, in pairs.

    The p values are adjusted by Holm for the number of rows.

    Args:
        reference: The row that the others are compared with.
        rows: Row -> its run. Those that `comparable` does not allow are left out.

    Returns:
        Row -> metric -> difference.
    """
    rows = {name: run for name, run in rows.items() if not comparable(reference, run)}
    if not rows:
        return {}
    first, main = _result(reference), main_metric(_result(reference))
    contrasts = _contrasts(reference, rows)
    examples = holm(
        [_nan(one.examples and one.examples.p) for one in contrasts.values()]
    )
    seed_tests = {
        metric: holm([_seed_p(_result(run), first, metric) for run in rows.values()])
        for metric in (main, *METRICS)
    }
    made: dict[str, Differences] = {}
    for number, name in enumerate(rows):
        made[name] = {}
        for metric, p_seeds in seed_tests.items():
            difference = contrasts[name].differences.get(metric)
            if difference is None or _undefined(difference.value):
                continue
            made[name][metric] = PairedDifference(
                difference.value,
                _number(difference.low),
                _number(difference.high),
                _number(examples[number]) if metric == main else None,
                _number(p_seeds[number]),
            )
    return made


def _contrasts(reference: RowRun, rows: Mapping[str, RowRun]) -> dict[str, Contrast]:
    """Returns row -> its comparison with the reference, on their common seeds.

    Rows are compared together if they have the same seeds in common with it; a row with
    fewer seeds does not restrict the others.
    """
    groups: dict[frozenset[int], list[str]] = {}
    for name, run in rows.items():
        groups.setdefault(_seeds(reference) & _seeds(run), []).append(name)
    found = {}
    for names in groups.values():
        folders = [reference.folder, *(rows[name].folder for name in names)]
        result = compare_runs([str(folder) for folder in folders])
        found |= dict(zip(names, result.contrasts, strict=True))
    return {name: found[name] for name in rows}


def comparable(reference: RowRun, run: RowRun) -> str:
    """Returns why two trained rows are not compared; "" if they are."""
    if run.folder == reference.folder:
        return "same run"
    common = _seeds(reference) & _seeds(run)
    return "" if common else "other seeds"


def _seeds(run: RowRun) -> frozenset[int]:
    """Returns the seeds of a trained row."""
    return frozenset(one.seed for one in _result(run).runs)


def _result(run: RowRun) -> ExperimentResult:
    result = run.result()
    assert result is not None  # only finished rows are compared
    return result


def _seed_p(a: ExperimentResult, b: ExperimentResult, metric: str) -> float:
    """Returns p of the paired t-test over the seeds; NaN if it is undefined."""
    first, second = (_by_seed(result, metric) for result in (a, b))
    pairs = [(first[seed], second[seed]) for seed in sorted(first.keys() & second)]
    if len(pairs) < 2 or np.isnan(pairs).any():
        return math.nan
    return paired_test(*zip(*pairs, strict=True)).t_test


def _by_seed(result: ExperimentResult, metric: str) -> dict[int, float]:
    """Returns seed -> mean of a metric over its folds; NaN where it is undefined."""
    scores: dict[int, list[float]] = {}
    for run in result.runs:
        value = run.test.scores.get(metric)
        scores.setdefault(run.seed, []).append(math.nan if value is None else value)
    return {seed: float(np.mean(values)) for seed, values in scores.items()}


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _undefined(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _number(value: float | None) -> float | None:
    return None if _undefined(value) else value


def format_difference(found: PairedDifference | None) -> list[str]:
    """Returns the cells of a difference: value, interval, p of both tests."""
    if found is None:
        return [""] * 4
    interval = ""
    if found.low is not None:
        interval = f"{_signed(found.low)} to {_signed(found.high)}"
    return [_signed(found.value), interval, *map(_p, (found.p_examples, found.p_seeds))]


HEADS = ("difference", "95 % interval", "p (examples)", "p (seeds)")
"""Heads of the cells of `format_difference`."""


def _signed(value: float | None) -> str:
    text = format_number(value)
    return text if text.startswith("-") else f"+{text}"


def _p(value: float | None) -> str:
    if value is None:
        return "not defined"
    return "< 0.001" if value < 0.001 else format_number(value)


def command_line(words: Sequence[str]) -> str:
    """Returns the command of a script without folders of one machine.

    Args:
        words: Arguments of the process, the script included.
    """
    # Where a table is written, and where its runs are, changes nothing in it.
    folders = ("--output", "--runs")
    kept, skip = [], False
    for word in words:
        if not (skip or word.split("=")[0] in folders):
            kept.append(word)
        skip = word in folders
    return shlex.join(["python", *kept])


def shared_provenance(results: Sequence[ExperimentResult]) -> dict[str, Any]:
    """Returns data, machine and versions of results, and of the script that read them.

    What differs between the results is a list of all values.
    """
    first = results[0]
    facts = first.data.facts
    unique = lambda values: list(dict.fromkeys(values))
    return {
        "data": {
            "name": first.data.name,
            "title": first.data.title,
            "version": facts.get("version"),
            "fingerprint": facts.get("fingerprint"),
            "counts": first.data.counts,
        },
        "protocol": first.protocol,
        "baseline": {
            "description": first.baseline.description,
            "test": {name: s.mean for name, s in first.baseline.scores.items()},
        },
        "versions": first.versions,
        "device": first.device,
        "commits": unique(result.git for result in results),
        "command": command_line(sys.argv),
        "commit": provenance.commit(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def simple_classifiers(
    data: Mapping[str, Any], modalities: Sequence[str], path: Path = SIMPLE
) -> float | None:
    """Returns the test accuracy of the product of simple classifiers, if recorded.

    Args:
        data: Data of the results, as in `shared_provenance`.
        modalities: Modalities of the model.
        path: File that experiments/digits/difficulty.py wrote.
    """
    if not path.exists():
        return None
    record = read_json(path, dict[str, Any], "python experiments/digits/difficulty.py")
    # Not the fingerprint: it differs between builds, whose accuracies have been equal.
    same = all(record["data"][name] == data[name] for name in ("title", "version"))
    sets = {tuple(sorted(row["modalities"])): row["test"] for row in record["table"]}
    return sets.get(tuple(sorted(modalities))) if same else None


def format_wall(seconds: float | None) -> str:
    """Returns a time in minutes, such as "12.5 min"."""
    return "unknown" if seconds is None else f"{seconds / 60:.1f} min"
