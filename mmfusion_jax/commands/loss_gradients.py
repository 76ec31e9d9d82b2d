"""A trained run, taken apart: the gradient of every loss term in every module."""

import dataclasses
import itertools
import json
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
from mmfusion_jax.config.instantiate import Config
from mmfusion_jax.report.formatting import DASH, significant
from mmfusion_jax.report.gradients import write_page
from mmfusion_jax.runner import provenance
from mmfusion_jax.runner.experiment import Experiment, runs_with_data
from mmfusion_jax.runner.workdir import check_workdir
from mmfusion_jax.train.state import TrainState
from mmfusion_jax.train.step import as_in_training
from mmfusion_jax.types import Batch, PyTree

CONFLICT_THRESHOLD = -0.1
"""Terms whose cosine is below this are named on the screen."""
NUM_CONFLICTS_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class GradientStats:
    """What one batch showed, as NumPy arrays; K terms.

    Attributes:
        values: of the terms, (K).
        weights: what they count for, (K).
        norms: module -> lengths of the unweighted gradients, (K).
        cosines: module -> cosines between them, (K K).
    """

    values: np.ndarray
    weights: np.ndarray
    norms: Mapping[str, np.ndarray]
    cosines: Mapping[str, np.ndarray]


def compute(config: Config, workdir: Path, batches: int) -> dict[str, Any]:
    """Looks at the chosen checkpoint of every fold and seed; also draws it.

    Writes `gradients.json` and `gradients.html` into the folder of the run.

    Args:
        config: resolved.
        workdir: of the finished experiment.
        batches: training batches to look at, from the chosen step on.

    Raises:
        ConfigError: if the folder belongs to another config.
        CheckpointError: if nothing was trained in it.
    """
    check_workdir(config, workdir, create=False)
    config = config.copy_and_resolve_references()
    config.parallel = "jit"  # the maths of pmap is the same
    experiment = Experiment(config, workdir)
    looks, steps, title, terms = [], [], "", ()
    for unit, data in runs_with_data(config, workdir):
        run, title = experiment.trainer(data), data.title
        terms = tuple(run.parts.objective.terms)
        state = run.best_state(experiment.folder(unit))
        reader = build.pipeline(config, data, unit.seed)
        start = int(state.step)
        ahead = reader.train(start, start + batches)
        looks += _gradient_stats(run.parts, state, itertools.islice(ahead, batches))
        steps.append(start)
    found = {
        "config": json.loads(config.to_json()),
        "data": title,
        "steps": steps,
        "batches": len(looks),
        **summary(terms, looks),
        "versions": provenance.versions(),
    }
    provenance.write_json(workdir / "gradients.json", found)
    found["page"] = str(write_page(workdir / "gradients.html", found))
    return found


def _gradient_stats(
    parts: build.Parts, state: TrainState, batches: Iterable[Batch]
) -> list[GradientStats]:
    """What each batch shows; one compiled call each."""

    def look(state: TrainState, batch: Batch) -> PyTree:
        batch = as_in_training(batch, state.step / parts.steps, parts.modalities)
        fixed = parts.model, parts.objective, state, batch
        alignment = gradient_similarity(term_gradients(*fixed))
        weights = term_weights(parts.objective, state.step)
        return term_values(*fixed), weights, alignment.norms, alignment.cosines

    compiled = parts.executor.compile_eval(look)
    put = lambda batch: parts.executor.put(batch, train=False)
    return [
        GradientStats(*jax.device_get(compiled(state, put(batch)))) for batch in batches
    ]


def summary(terms: Iterable[str], looks: list[GradientStats]) -> dict[str, Any]:
    """Means over the batches, as JSON values.

    Returns:
        "terms": name -> value and weight; "modules": name -> "norms" of the weighted
        gradients, their mean and deviation by term, "cosines", and "conflicts", the
        share of batches in which two terms pull against each other; both (K K).
    """
    terms = list(terms)
    values = np.mean([look.values for look in looks], axis=0)
    weights = np.mean([look.weights for look in looks], axis=0)
    modules = {}
    for module in [
        ALL_MODULES,
        *(name for name in looks[0].norms if name != ALL_MODULES),
    ]:
        norms = np.array([look.weights * look.norms[module] for look in looks])
        cosines = np.array([look.cosines[module] for look in looks])
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
    """Prints what `compute` found, for people."""
    console = Console(highlight=False)
    model = found["config"]["model"]["name"]
    console.print(
        f"{model} on {found['data']}: gradients of single loss terms, mean of "
        f"{found['batches']} training batches",
        markup=False,
    )
    terms = list(found["terms"])
    console.print(_norms(found, terms))
    if len(terms) > 1:
        console.print(_cosines(found["modules"][ALL_MODULES], terms))
        for line in _conflicts(found["modules"], terms):
            console.print(line, markup=False)
    console.print(f"every module's angles: {found['page']}", markup=False)


def _norms(found: Mapping[str, Any], terms: list[str]) -> Table:
    title = "Length of weight times gradient"
    table = Table("module", title=title, title_justify="left")
    for term in terms:
        weight = found["terms"][term]["weight"]
        table.add_column(f"{term} (x {significant(weight)})", justify="right")
    for module, row in found["modules"].items():
        cells = [significant(row["norms"][term]["mean"]) for term in terms]
        table.add_row(module, *cells)
    return table


def _cosines(row: Mapping[str, Any], terms: list[str]) -> Table:
    table = Table("cosine", title="Angles, all modules", title_justify="left")
    for term in terms:
        table.add_column(term, justify="right")
    for term, values in zip(terms, row["cosines"], strict=True):
        cells = [f"{value:+.2f}" if value else DASH for value in values]
        table.add_row(term, *cells)
    return table


def _conflicts(modules: Mapping[str, Any], terms: list[str]) -> list[str]:
    """The pairs of terms that pull against each other most, and where."""
    found = [
        (row["cosines"][i][j], module, terms[i], terms[j])
        for module, row in modules.items()
        for i, j in itertools.combinations(range(len(terms)), 2)
        if module != ALL_MODULES and row["cosines"][i][j] < CONFLICT_THRESHOLD
    ]
    return [
        f"against each other in {module}: {one} and {other}, cosine {cosine:+.2f}"
        for cosine, module, one, other in sorted(found)[:NUM_CONFLICTS_SHOWN]
    ]
