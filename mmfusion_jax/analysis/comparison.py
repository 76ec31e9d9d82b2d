"""Compares finished experiments on the same test examples."""

import collections
import contextlib
import dataclasses
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmfusion_jax.data.dataset import RegressionTarget, default_ids
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.metrics import METRICS
from mmfusion_jax.metrics.score_info import ScoreInfo
from mmfusion_jax.metrics.statistics import (
    holm,
    paired_bootstrap,
    paired_test,
    sign_test,
    signed_rank,
)
from mmfusion_jax.results.comparison_result import (
    ComparedRun,
    ComparisonResult,
    Contrast,
    Difference,
    ExampleTest,
    SeedTest,
    UnimodalScores,
)
from mmfusion_jax.results.experiment_result import ExperimentResult
from mmfusion_jax.results.model_result import TaskInfo
from mmfusion_jax.tasks import Classification, Multilabel, Regression, Task

LEVEL, RESAMPLES = 0.95, 2000

Collected = dict[str, np.ndarray]
NAN = float("nan")


@dataclasses.dataclass(frozen=True)
class FinishedExperiment:
    """A finished experiment with its predictions.

    Attributes:
        name: Its name in tables.
        workdir: Its workdir.
        result: Its result.
        ids: Fold -> ids of the test examples, the same for every seed.
        predictions: Fold and seed -> "truth" (n ...) and "prediction" (n ...), in the
            order of the ids.
    """

    name: str
    workdir: str
    result: ExperimentResult
    ids: Mapping[int, Sequence[str]]
    predictions: Mapping[tuple[int, int], Collected]


@dataclasses.dataclass(frozen=True)
class Stratum:
    """Examples that are tested in the same folds; usually those of one fold.

    Attributes:
        rows: Fold -> index of every example in its test split, (n) each.
    """

    rows: Mapping[int, np.ndarray]

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(next(iter(self.rows.values())))


def compare(
    experiments: Sequence[FinishedExperiment], notes: Sequence[str] = ()
) -> ComparisonResult:
    """Compares experiments with the first one.

    Args:
        experiments: At least two, with the same test examples in the same order.
        notes: What differs between them.
    """
    first = experiments[0].result
    strata = strata_of(experiments[0].ids)
    shared = [
        name
        for name in first.metrics
        if all(name in other.result.metrics for other in experiments)
    ]
    formulas = _formulas(first, shared)
    intervals = _intervals(experiments, strata, formulas)
    contrasts = [
        Contrast(
            other.name,
            _differences(first, other.result, shared, intervals[number]),
            _example_test(other, experiments[0], strata),
            _seed_test(other.result, first),
        )
        for number, other in enumerate(experiments[1:])
    ]
    return ComparisonResult(
        data=first.data.title,
        task=first.task,
        protocol=first.protocol,
        selection_metric=first.selection_metric,
        metrics={name: first.metrics[name] for name in shared},
        test_examples=sum(stratum.size for stratum in strata),
        level=LEVEL,
        resamples=RESAMPLES,
        baseline=first.baseline,
        runs=[_run(one, first.selection_metric) for one in experiments],
        contrasts=_adjusted(contrasts),
        notes=[*notes, *_undefined(experiments)],
    )


def strata_of(ids: Mapping[int, Sequence[str]]) -> list[Stratum]:
    """Returns the test examples of all folds, each once.

    Args:
        ids: Fold -> ids of its test examples. The default ids of two folds are those of
            different examples.
    """
    rows: dict[tuple[str, int], dict[int, int]] = collections.defaultdict(dict)
    for fold, names in ids.items():
        alone = list(names) == default_ids("test", len(names))
        for row, name in enumerate(names):
            rows[name, fold if alone else -1][fold] = row
    groups: dict[tuple[int, ...], list[dict[int, int]]] = collections.defaultdict(list)
    for example in rows.values():
        groups[tuple(example)].append(example)
    return [
        Stratum({f: np.array([example[f] for example in examples]) for f in folds})
        for folds, examples in groups.items()
    ]


def _task(info: TaskInfo) -> Task:
    """Returns the task of a label, without the extra metrics of a config."""
    if info.kind == "classification":
        return Classification(info.label, tuple(info.classes))
    if info.kind == "multilabel":
        return Multilabel(info.label, tuple(info.flags))
    low, high = info.range or (NAN, NAN)
    target = RegressionTarget(low, high, info.neutral, info.family or "plain")
    return Regression(info.label, target)


def _formulas(result: ExperimentResult, names: Sequence[str]) -> dict[str, ScoreInfo]:
    """Returns the metrics out of `names` that predictions and labels determine."""
    found: dict[str, ScoreInfo] = {}
    with contextlib.suppress(ConfigError):  # a family of a package that is not there
        found |= _task(result.task).metrics().infos
    found |= _extra_metrics(result.config)
    needed = {"prediction", "truth"}
    return {n: found[n] for n in names if n in found and {*found[n].needs} <= needed}


def _extra_metrics(config: Mapping[str, Any]) -> Iterator[tuple[str, ScoreInfo]]:
    """Yields the metrics of `config.metrics` that can be imported, by name."""
    for name, part in (config.get("metrics") or {}).items():
        with contextlib.suppress(Exception):  # then this metric has no interval
            path = str(part["name"])
            metric = pkgutil.resolve_name(METRICS.get(path, path))
            if isinstance(metric, ScoreInfo):
                yield name, metric


def _intervals(
    experiments: Sequence[FinishedExperiment],
    strata: Sequence[Stratum],
    formulas: Mapping[str, ScoreInfo],
) -> list[dict[str, tuple[float, float]]]:
    """Returns metric -> interval of the difference to the first one, for each other.

    A metric is computed of every fold and seed and averaged, as in the results. All
    experiments have the same resampled examples, and so have all metrics.
    """
    finite = [_all_finite(one) for one in experiments]
    folds = list(experiments[0].ids)

    def scores(one: FinishedExperiment, rows: Mapping[int, np.ndarray]) -> np.ndarray:
        drawn = (_select(x, rows[fold]) for (fold, _), x in one.predictions.items())
        found = [[info.formula(x) for info in formulas.values()] for x in drawn]
        return np.mean(np.array(found), axis=0)

    def statistic(drawn: Sequence[np.ndarray]) -> np.ndarray:
        rows = {fold: _rows(strata, drawn, fold) for fold in folds}
        found = [
            scores(one, rows) if fine else np.full(len(formulas), NAN)
            for one, fine in zip(experiments, finite, strict=True)
        ]
        return np.concatenate([other - found[0] for other in found[1:]])

    sizes = [stratum.size for stratum in strata]
    bounds = (
        paired_bootstrap(statistic, sizes, LEVEL, resamples=RESAMPLES)
        if finite[0] and formulas
        else np.full(((len(experiments) - 1) * len(formulas), 2), NAN)
    )
    return [
        dict(zip(formulas, map(tuple, part.tolist()), strict=True))
        for part in bounds.reshape(len(experiments) - 1, len(formulas), 2)
    ]


def _select(arrays: Collected, rows: np.ndarray) -> Collected:
    return {name: values[rows] for name, values in arrays.items()}


def _rows(
    strata: Sequence[Stratum], drawn: Sequence[np.ndarray], fold: int
) -> np.ndarray:
    """Returns the rows of the drawn examples in the test split of a fold."""
    return np.concatenate(
        [
            stratum.rows[fold][chosen]
            for stratum, chosen in zip(strata, drawn, strict=True)
            if fold in stratum.rows
        ]
    )


def _all_finite(one: FinishedExperiment) -> bool:
    """Returns whether all predictions of an experiment are finite."""
    arrays = one.predictions.values()
    return all(np.isfinite(array["prediction"]).all() for array in arrays)


def _differences(
    first: ExperimentResult,
    other: ExperimentResult,
    names: Sequence[str],
    intervals: Mapping[str, tuple[float, float]],
) -> dict[str, Difference]:
    """Returns metric -> difference of the mean scores, with its interval."""
    found = {}
    for name in names:
        a, b = (result.summary.test[name].mean for result in (other, first))
        value = NAN if a is None or b is None else a - b
        found[name] = Difference(value, *intervals.get(name, (NAN, NAN)))
    return found


def _example_test(
    run: FinishedExperiment, first: FinishedExperiment, strata: Sequence[Stratum]
) -> ExampleTest | None:
    """Returns the paired test over the examples; None without finite predictions."""
    if not (_all_finite(run) and _all_finite(first)):
        return None
    a, b = (example_scores(one, strata) for one in (run, first))
    found = sign_test(a, b)
    counts = (len(a), found.better, found.worse)
    if first.result.task.kind == "regression":
        p = signed_rank(a, b)
        return ExampleTest("Wilcoxon signed-rank", *counts, p, p)
    single = all(len(one.predictions) == len(one.ids) for one in (run, first))
    single = single and all(len(stratum.rows) == 1 for stratum in strata)
    plain = first.result.task.kind == "classification" and single
    return ExampleTest("McNemar" if plain else "sign test", *counts, found.p, found.p)


def example_scores(one: FinishedExperiment, strata: Sequence[Stratum]) -> np.ndarray:
    """Returns the mean score over all runs of every test example, higher is better.

    The score of a prediction is 1 if the class is correct, the number of correct flags,
    or minus the absolute error.

    Args:
        one: An experiment.
        strata: Its examples.

    Returns:
        (n) of all strata, one after the other.
    """
    kind, found = one.result.task.kind, []
    for stratum in strata:
        rows = [
            _scores(kind, _select(arrays, stratum.rows[fold]))
            for (fold, _), arrays in one.predictions.items()
            if fold in stratum.rows
        ]
        # Sums of small integers are exact, so equal numbers of correct seeds compare
        # equal whatever the number of seeds is.
        found.append(np.sum(rows, axis=0) / len(rows))
    return np.concatenate(found)


def _scores(kind: str, arrays: Collected) -> np.ndarray:
    """Returns the score of every prediction, (n)."""
    truth, prediction = arrays["truth"], arrays["prediction"]
    if kind == "classification":
        return (prediction.argmax(-1) == truth).astype(float)
    if kind == "multilabel":
        correct = prediction.reshape(*truth.shape, 2).argmax(-1) == truth
        return correct.sum(axis=1).astype(float)
    return -np.abs(prediction.reshape(truth.shape).astype(np.float64) - truth)


def _seed_test(run: ExperimentResult, first: ExperimentResult) -> SeedTest | None:
    """Returns the paired t-test of the selection metric over the common seeds."""
    a, b = (_by_seed(result, first.selection_metric) for result in (run, first))
    seeds = sorted(a.keys() & b.keys())
    if len(seeds) < 2 or np.isnan([*a.values(), *b.values()]).any():
        return None
    found = paired_test([a[seed] for seed in seeds], [b[seed] for seed in seeds])
    return SeedTest(seeds, found.t, found.t_test, found.t_test)


def _by_seed(result: ExperimentResult, metric: str) -> dict[int, float]:
    """Returns seed -> mean of a metric over its folds; NaN where it is not defined."""
    scores: dict[int, list[float]] = collections.defaultdict(list)
    for run in result.runs:
        value = run.test.scores.get(metric)
        scores[run.seed].append(NAN if value is None else value)
    return {seed: float(np.mean(values)) for seed, values in scores.items()}


def _adjusted(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """Returns the contrasts with p values that are adjusted for their number."""
    examples = holm([_p(one.examples) for one in contrasts])
    seeds = holm([_p(one.seeds) for one in contrasts])
    return [
        dataclasses.replace(
            one,
            examples=one.examples and dataclasses.replace(one.examples, p_holm=a),
            seeds=one.seeds and dataclasses.replace(one.seeds, p_holm=b),
        )
        for one, a, b in zip(contrasts, examples, seeds, strict=True)
    ]


def _p(test: ExampleTest | SeedTest | None) -> float:
    return NAN if test is None or test.p is None else test.p


def _run(one: FinishedExperiment, metric: str) -> ComparedRun:
    """Returns what is shown of an experiment."""
    result, runs = one.result, one.result.runs
    steps = [run.times.step_s.median for run in runs]
    memory = [run.peak_memory for run in runs if run.peak_memory]
    return ComparedRun(
        name=one.name,
        workdir=one.workdir,
        model=result.model.name,
        folds=sorted({run.fold for run in runs}),
        seeds=sorted({run.seed for run in runs}),
        scores=result.summary.test,
        selection_scores=[run.test.scores.get(metric) for run in runs],
        best_unimodal=_best_unimodal(result),
        parameters=result.model.parameters.total,
        macs_per_example=runs[0].macs_per_example,
        step_s=float(np.mean([NAN if step is None else step for step in steps])),
        peak_memory=max(memory, key=lambda peak: peak.bytes, default=None),
        device=result.device,
    )


def _best_unimodal(result: ExperimentResult) -> UnimodalScores | None:
    """Returns the unimodal model with the best selection metric."""
    metric = result.selection_metric
    means = {
        name: mean
        for name, stage in result.summary.stages.items()
        if (mean := stage.test[metric].mean) is not None
    }
    if not means:
        return None
    best = max if result.metrics[metric].higher_is_better else min
    name = best(means, key=lambda name: means[name])
    return UnimodalScores(name, result.summary.stages[name].test)


def _undefined(experiments: Sequence[FinishedExperiment]) -> Iterator[str]:
    """Yields which experiments have predictions that are not finite."""
    for one in experiments:
        if not _all_finite(one):
            yield f"{one.workdir}: some predictions are not finite; it is not tested"


def recomputed_scores(
    one: FinishedExperiment, key: tuple[int, int]
) -> dict[str, float]:
    """Returns the metrics of a run that its stored predictions give.

    Args:
        one: The experiment.
        key: Fold and seed of the run; without scores if a prediction is not finite.
    """
    arrays = one.predictions[key]
    if not np.isfinite(arrays["prediction"]).all():
        return {}
    formulas = _formulas(one.result, list(one.result.metrics))
    return {name: info.formula(arrays) for name, info in formulas.items()}
