"""Per-loss gradient and curvature analysis of a trained run, by module."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from mmfusion_jax.analysis.curvature import (
    TermCurvature,
    noise_scale,
    squared_norms,
    term_curvature,
)
from mmfusion_jax.analysis.gradients import (
    ALL_MODULES,
    gradient_similarity,
    term_gradients,
    term_values,
    term_weights,
)
from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.errors import join_names, shorten, shown_name
from mmfusion_jax.report.formatting import DASH, significant
from mmfusion_jax.report.gradients import write_page
from mmfusion_jax.results.experiment_result import MeanStd
from mmfusion_jax.results.gradients_result import (
    GradientsResult,
    LossTerm,
    ModuleCurvature,
    ModuleGradients,
)
from mmfusion_jax.results.json_file import as_read, write_json
from mmfusion_jax.runner import provenance
from mmfusion_jax.runner.experiment import Experiment
from mmfusion_jax.runner.folds import runs_with_data
from mmfusion_jax.runner.run_checkpoints import log
from mmfusion_jax.runner.workdir import check_workdir
from mmfusion_jax.training.state import TrainState
from mmfusion_jax.training.step import as_in_training
from mmfusion_jax.types import Batch, PyTree

CONFLICT_THRESHOLD = -0.1
"""Pairs of terms whose cosine is lower are printed."""
NUM_CONFLICTS_SHOWN = 5
CURVATURE_TABLES = {
    "Largest eigenvalue of the Hessian": "eigenvalues",
    "Gradient noise scale, examples": "noise_scales",
}
"""Title of a table -> the field of `ModuleCurvature` that it shows."""


@dataclasses.dataclass(frozen=True)
class GradientStats:
    """Values and gradients of K loss terms on one batch, as NumPy arrays.

    Attributes:
        values: Values of the terms, (K).
        weights: Weights of the terms, (K).
        norms: Module -> norms of the unweighted gradients, (K).
        cosines: Module -> cosines between the gradients, (K K).
    """

    values: np.ndarray
    weights: np.ndarray
    norms: Mapping[str, np.ndarray]
    cosines: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class CurvatureStats:
    """Second derivatives of K loss terms in one run, as NumPy arrays.

    Attributes:
        curvature: Of the unweighted terms.
        noise_scales: Module -> gradient noise scale of each term, (K).
    """

    curvature: TermCurvature
    noise_scales: Mapping[str, np.ndarray]


def compute(
    spec: ExperimentSpec, workdir: Path, batches: int, *, curvature: bool = False
) -> GradientsResult:
    """Computes loss gradients at the selected checkpoint of every fold and seed.

    Writes `gradients.json` and `gradients.html` into the work folder.

    Args:
        spec: The experiment.
        workdir: Work folder of the finished experiment.
        batches: Number of training batches, from the selected step on.
        curvature: Compute second derivatives too: eigenvalues and sharpness on the
            first of the batches, and gradient noise scales over all of them.

    Raises:
        ConfigError: The folder belongs to another config.
        CheckpointError: Nothing was trained in it.
    """
    check_workdir(spec, workdir, create=False)
    spec = dataclasses.replace(spec, parallel="jit")  # pmap has the same gradients
    experiment = Experiment(spec, workdir)
    stats, curvatures, steps, title, terms = [], [], [], "", ()
    for key, data in runs_with_data(spec, workdir):
        trainer, title = experiment.trainer(data), data.title
        parts = trainer.components
        terms = tuple(parts.objective.terms)
        state = experiment.best_state(key, data)
        pipeline = build_data.build_pipeline(spec, data, key.seed)
        start = int(state.step)
        # The batches that would follow the selected step, with their augmentation.
        ahead = itertools.islice(pipeline.train(start, start + batches), batches)
        if curvature:
            ahead = list(ahead)
            curvatures.append(_curvature_stats(parts, state, ahead))
        stats += _gradient_stats(parts, state, ahead)
        steps.append(start)
    loss_terms, modules = summary(terms, stats)
    # As read: the page and the caller get the same values as a reader of the file.
    result = as_read(
        GradientsResult(
            config={**spec.source},
            model=spec.model.model.name,
            data=title,
            steps=steps,
            batches=len(stats),
            terms=loss_terms,
            modules=modules,
            versions=provenance.versions(),
            curvature=_curvature_summary(loss_terms, [*modules], curvatures),
        )
    )
    write_json(workdir / "gradients.json", result)
    path = write_page(workdir / "gradients.html", result)
    log(f"report: {path}")
    return result


def _gradient_stats(
    parts: build.TrainingComponents, state: TrainState, batches: Iterable[Batch]
) -> list[GradientStats]:
    """Returns the statistics of each batch; one compiled call each."""

    def compute_stats(state: TrainState, batch: Batch) -> PyTree:
        # Adds the completed fraction of the training, which models may read, and leaves
        # out examples without any of their modalities.
        batch = as_in_training(batch, state.step / parts.steps, parts.modalities)
        fixed = parts.model, parts.objective, state, batch
        similarity = gradient_similarity(term_gradients(*fixed))
        weights = term_weights(parts.objective, state.step)
        return term_values(*fixed), weights, similarity.norms, similarity.cosines

    compiled = parts.executor.compile_eval(compute_stats)
    put = lambda batch: parts.executor.put(batch, train=False)
    return [
        GradientStats(*jax.device_get(compiled(state, put(batch)))) for batch in batches
    ]


def _curvature_stats(
    parts: build.TrainingComponents, state: TrainState, batches: list[Batch]
) -> CurvatureStats:
    """Returns the second derivatives of one run, in two compiled programs."""
    names = tuple(parts.objective.terms)

    def prepared(state: TrainState, batch: Batch):
        batch = as_in_training(batch, state.step / parts.steps, parts.modalities)
        return parts.model, parts.objective, state, batch

    def curvature(state: TrainState, batch: Batch) -> TermCurvature:
        return term_curvature(*prepared(state, batch), key=jax.random.key(0))

    def add(carry: tuple[TrainState, PyTree], batch: Batch) -> PyTree:
        state, total = carry
        gradients = term_gradients(*prepared(state, batch))
        return _add(total, (gradients, _squares(gradients, names)))

    put = lambda batch: parts.executor.put(batch, train=False)
    found = parts.executor.compile_eval(curvature)(state, put(batches[0]))
    zeros = {name: jax.tree.map(np.zeros_like, state.params) for name in names}
    total = zeros, _squares(zeros, names)
    one_more = parts.executor.compile_eval(add)
    for batch in batches:
        total = one_more((state, total), put(batch))
    gradients, squares = total
    count, size = len(batches), len(batches[0].weight)
    means = jax.tree.map(lambda x: x / count, gradients)
    of_means = _squares(means, names)
    scales = {
        module: noise_scale(squares[module] / count, of_means[module], count, size)
        if count > 1
        else np.full(len(names), np.nan)
        for module in squares
    }
    return CurvatureStats(*jax.device_get((found, scales)))


def _squares(gradients: Mapping[str, PyTree], names: Iterable[str]) -> dict:
    """Module -> squared norms of the gradients of the terms, (K)."""
    rows = [squared_norms(gradients[name]) for name in names]
    return {module: jnp.stack([row[module] for row in rows]) for module in rows[0]}


def _add(a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: x + y, a, b)


def _curvature_summary(
    terms: Mapping[str, LossTerm], modules: list[str], stats: list[CurvatureStats]
) -> dict[str, ModuleCurvature] | None:
    """Returns means over the runs, of the weighted terms; None without runs."""
    if not stats:
        return None
    # Curvature is of the weighted terms, as the norms are.
    weights = np.array([term.weight for term in terms.values()])
    named = lambda row: dict(zip(terms, row.tolist(), strict=True))
    found = {}
    for name in modules:
        runs = [one.curvature for one in stats]
        eigenvalues = np.mean([run.eigenvalues[name] for run in runs], axis=0)
        residuals = np.mean([run.residuals[name] for run in runs], axis=0)
        sharpness = np.mean([run.sharpness[name] for run in runs], axis=0)
        scales = np.mean([one.noise_scales[name] for one in stats], axis=0)
        found[name] = ModuleCurvature(
            named(weights * eigenvalues),
            (weights * sharpness).tolist(),
            named(np.where(np.isfinite(scales), scales, np.nan)),
            named(np.abs(weights) * residuals),
        )
    return found


def summary(
    terms: Iterable[str], stats: list[GradientStats]
) -> tuple[dict[str, LossTerm], dict[str, ModuleGradients]]:
    """Returns means over the batches: the loss terms by name, and all modules.

    Args:
        terms: Names of the loss terms.
        stats: Statistics of each batch.
    """
    terms = list(terms)
    values = np.mean([one.values for one in stats], axis=0)
    weights = np.mean([one.weights for one in stats], axis=0)
    modules = {}
    # jit returns the modules sorted by name; all of them together come first.
    for module in [
        ALL_MODULES,
        *(name for name in stats[0].norms if name != ALL_MODULES),
    ]:
        norms = np.array([one.weights * one.norms[module] for one in stats])
        cosines = np.array([one.cosines[module] for one in stats])
        means, stds = norms.mean(axis=0).tolist(), norms.std(axis=0).tolist()
        modules[module] = ModuleGradients(
            norms={
                term: MeanStd(mean, std, len(norms))
                for term, mean, std in zip(terms, means, stds, strict=True)
            },
            cosines=cosines.mean(axis=0).tolist(),
            conflicts=(cosines < 0).mean(axis=0).tolist(),
        )
    loss_terms = {
        term: LossTerm(float(value), float(weight))
        for term, value, weight in zip(terms, values, weights, strict=True)
    }
    return loss_terms, modules


def show(result: GradientsResult) -> None:
    """Prints gradient norms and cosines as tables."""
    console = Console(highlight=False, markup=False)
    console.print(
        f"{shown_name(result.model)} on {shorten(result.data)}: gradients of the loss "
        f"terms, mean of {result.batches:d} training batches"
    )
    terms = list(result.terms)
    table = _norms(result, terms)
    console.print(table)
    for title, field in CURVATURE_TABLES.items():
        rows = {
            name: [_shown_curvature(module, field, term) for term in terms]
            for name, module in (result.curvature or {}).items()
        }
        if rows:
            table = _by_term(title, terms, rows)
            console.print(table)
    if len(terms) > 1:
        table = _cosines(result.modules[ALL_MODULES], terms)
        console.print(table)
        for line in _conflicts(result.modules, terms):
            console.print(line)


def _norms(result: GradientsResult, terms: list[str]) -> Table:
    """Returns a table of the norms, a row per module and a column per term."""
    title = "Weighted gradient norm"
    table = Table(title=title, title_justify="left")
    table.add_column("module", no_wrap=True)
    for term in terms:
        weight = result.terms[term].weight
        table.add_column(
            f"{shown_name(term)} (x {significant(weight)})", justify="right"
        )
    for name, module in result.modules.items():
        norms = [module.norms[term].mean for term in terms]
        table.add_row(shown_name(name), *map(significant, norms))
    return table


def _shown_curvature(module: ModuleCurvature, field: str, term: str) -> str:
    """Returns a number; "?" marks an eigenvalue that did not converge."""
    unsure = field == "eigenvalues" and not module.has_converged(term)
    return significant(getattr(module, field)[term]) + " ?" * unsure


def _by_term(title: str, terms: list[str], rows: Mapping[str, list[str]]) -> Table:
    """Returns a table of numbers, a row per module and a column per term."""
    table = Table("module", title=title, title_justify="left")
    for term in terms:
        table.add_column(shown_name(term), justify="right")
    for name, numbers in rows.items():
        table.add_row(shown_name(name), *map(shorten, numbers))
    return table


def _cosines(module: ModuleGradients, terms: list[str]) -> Table:
    """Returns a table of the cosines between all terms."""
    table = Table(
        "cosine", title="Cosine similarity, all modules", title_justify="left"
    )
    for term in terms:
        table.add_column(shown_name(term), justify="right")
    for term, values in zip(terms, module.cosines, strict=True):
        table.add_row(
            shown_name(term),
            # Exactly 0 is the cosine of a term without a gradient.
            *(f"{value:+.2f}" if value else DASH for value in values),
        )
    return table


def _conflicts(modules: Mapping[str, ModuleGradients], terms: list[str]) -> list[str]:
    """Returns the pairs of terms with the lowest cosines, by module."""
    found = [
        (cosine, name, terms[i], terms[j])
        for name, module in modules.items()
        for i, j in itertools.combinations(range(len(terms)), 2)
        if name != ALL_MODULES
        and (cosine := module.cosines[i][j]) is not None
        and cosine < CONFLICT_THRESHOLD
    ]
    return [
        f"conflicting gradients in {shown_name(module)}: {join_names(pair)}, cosine "
        f"{cosine:+.2f}"
        for cosine, module, *pair in sorted(found)[:NUM_CONFLICTS_SHOWN]
    ]
