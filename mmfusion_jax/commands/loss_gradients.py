"""Per-loss gradient analysis of a trained run, by module."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from mmfusion_jax.analysis.gradients import (
    ALL_MODULES,
    gradient_similarity,
    term_gradients,
    term_values,
    term_weights,
)
from mmfusion_jax.config import build
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.report.formatting import DASH, significant
from mmfusion_jax.report.gradients import write_page
from mmfusion_jax.runner import provenance
from mmfusion_jax.runner.experiment import Experiment, runs_with_data
from mmfusion_jax.runner.workdir import check_workdir
from mmfusion_jax.train.state import TrainState
from mmfusion_jax.train.step import as_in_training
from mmfusion_jax.types import Batch, PyTree

CONFLICT_THRESHOLD = -0.1
"""Pairs of terms whose cosine is lower are printed."""
NUM_CONFLICTS_SHOWN = 5


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


def compute(spec: ExperimentSpec, workdir: Path, batches: int) -> dict[str, Any]:
    """Computes loss gradients at the selected checkpoint of every fold and seed.

    Writes `gradients.json` and `gradients.html` into the work folder.

    Args:
        spec: The experiment.
        workdir: Work folder of the finished experiment.
        batches: Number of training batches, from the selected step on.

    Returns:
        The content of `gradients.json`, and "page", the path of `gradients.html`.

    Raises:
        ConfigError: The folder belongs to another config.
        CheckpointError: Nothing was trained in it.
    """
    check_workdir(spec, workdir, create=False)
    spec = dataclasses.replace(spec, parallel="jit")  # pmap has the same gradients
    experiment = Experiment(spec, workdir)
    stats, steps, title, terms = [], [], "", ()
    for key, data in runs_with_data(spec, workdir):
        trainer, title = experiment.trainer(data), data.title
        parts = trainer.components
        terms = tuple(parts.objective.terms)
        state = trainer.best_state(experiment.folder(key))
        pipeline = build.build_pipeline(spec, data, key.seed)
        start = int(state.step)
        ahead = pipeline.train(start, start + batches)
        stats += _gradient_stats(parts, state, itertools.islice(ahead, batches))
        steps.append(start)
    found = {
        "config": spec.source,
        "data": title,
        "steps": steps,
        "batches": len(stats),
        **summary(terms, stats),
        "versions": provenance.versions(),
    }
    provenance.write_json(workdir / "gradients.json", found)
    found["page"] = str(write_page(workdir / "gradients.html", found))
    return found


def _gradient_stats(
    parts: build.TrainingComponents, state: TrainState, batches: Iterable[Batch]
) -> list[GradientStats]:
    """Returns the statistics of each batch; one compiled call each."""

    def compute_stats(state: TrainState, batch: Batch) -> PyTree:
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


def summary(terms: Iterable[str], stats: list[GradientStats]) -> dict[str, Any]:
    """Returns means over the batches, as JSON values.

    Returns:
        "terms": name -> value and weight; "modules": name -> "norms" of the weighted
        gradients, their mean and standard deviation by term, "cosines", and
        "conflicts", the fraction of batches in which the cosine of two terms is
        negative; both (K K).
    """
    terms = list(terms)
    values = np.mean([one.values for one in stats], axis=0)
    weights = np.mean([one.weights for one in stats], axis=0)
    modules = {}
    for module in [
        ALL_MODULES,
        *(name for name in stats[0].norms if name != ALL_MODULES),
    ]:
        norms = np.array([one.weights * one.norms[module] for one in stats])
        cosines = np.array([one.cosines[module] for one in stats])
        modules[module] = {
            "norms": {
                term: {"mean": float(mean), "std": float(std)}
                for term, mean, std in zip(
                    terms, norms.mean(axis=0), norms.std(axis=0), strict=True
                )
            },
            "cosines": cosines.mean(axis=0).tolist(),
            "conflicts": (cosines < 0).mean(axis=0).tolist(),
        }
    return {
        "terms": {
            term: {"value": float(value), "weight": float(weight)}
            for term, value, weight in zip(terms, values, weights, strict=True)
        },
        "modules": modules,
    }


def show(found: Mapping[str, Any]) -> None:
    """Prints gradient norms and cosines as tables."""
    console = Console(highlight=False)
    model = found["config"]["model"]["name"]
    console.print(
        f"{model} on {found['data']}: gradients of the loss terms, mean of "
        f"{found['batches']} training batches",
        markup=False,
    )
    terms = list(found["terms"])
    console.print(_norms(found, terms))
    if len(terms) > 1:
        console.print(_cosines(found["modules"][ALL_MODULES], terms))
        for line in _conflicts(found["modules"], terms):
            console.print(line, markup=False)
    console.print(f"cosines of every module: {found['page']}", markup=False)


def _norms(found: Mapping[str, Any], terms: list[str]) -> Table:
    title = "Weighted gradient norm"
    table = Table(title=title, title_justify="left")
    table.add_column("module", no_wrap=True)
    for term in terms:
        weight = found["terms"][term]["weight"]
        table.add_column(f"{term} (x {significant(weight)})", justify="right")
    for module, row in found["modules"].items():
        cells = [significant(row["norms"][term]["mean"]) for term in terms]
        table.add_row(module, *cells)
    return table


def _cosines(row: Mapping[str, Any], terms: list[str]) -> Table:
    table = Table(
        "cosine", title="Cosine similarity, all modules", title_justify="left"
    )
    for term in terms:
        table.add_column(term, justify="right")
    for term, values in zip(terms, row["cosines"], strict=True):
        cells = [f"{value:+.2f}" if value else DASH for value in values]
        table.add_row(term, *cells)
    return table


def _conflicts(modules: Mapping[str, Any], terms: list[str]) -> list[str]:
    """Returns the pairs of terms with the lowest cosines, by module."""
    found = [
        (row["cosines"][i][j], module, terms[i], terms[j])
        for module, row in modules.items()
        for i, j in itertools.combinations(range(len(terms)), 2)
        if module != ALL_MODULES and row["cosines"][i][j] < CONFLICT_THRESHOLD
    ]
    return [
        f"conflicting gradients in {module}: {one} and {other}, cosine {cosine:+.2f}"
        for cosine, module, one, other in sorted(found)[:NUM_CONFLICTS_SHOWN]
    ]
