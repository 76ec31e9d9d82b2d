"""Renders the pages from their templates."""

from pathlib import Path
from typing import Any

import jinja2

from mmfusion_jax.report import (
    calibration,
    diagnosis,
    gradient_history,
    predictions,
    run_details,
    scores,
)
from mmfusion_jax.results.experiment_result import ExperimentResult
from mmfusion_jax.results.json_file import write_text

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content security policy: nothing may be fetched or executed, whatever the data
contain."""

# Every value is escaped, since names of data and classes may contain HTML. A name that
# a template misspells is an error and not an empty text.
TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("mmfusion_jax.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_report(workdir: Path, result: ExperimentResult) -> Path:
    """Writes `report.html`, one self-contained file, and returns its path.

    Args:
        workdir: Directory of the experiment, which contains the learning curves.
        result: The finished experiment.
    """
    text = render(
        "report.html",
        title=f"{result.model.name} on {result.data.title}: {workdir.resolve().name}",
        num_runs=len(result.runs),
        headline=scores.headline(result),
        warnings=[*scores.warnings(result), *diagnosis.findings(result)],
        comparison=scores.fusion_vs_unimodal(result),
        checkpoints=scores.checkpoint_selection(result),
        curves=scores.learning_curves(workdir, result),
        scatter=predictions.scatter_plot(result),
        confusion=predictions.confusion_matrix(result),
        calibration=calibration.section(workdir, result),
        files=run_details.files(workdir, result),
        metrics=predictions.all_metrics(result),
        diagnosis=diagnosis.tables(result),
        added=diagnosis.added(workdir, result),
        gradients=gradient_history.section(workdir, result),
        parameters=run_details.parameters(result),
        device=run_details.device(result),
        time=run_details.time(result),
        dataset=run_details.dataset(result),
        reproduce=run_details.reproduce(result),
    )
    return write(workdir / "report.html", text)


def render(template: str, **values: Any) -> str:
    """Renders a page.

    Args:
        template: Name of a file in `templates/`.
        values: Values of the template by name; everything but Markup is escaped.
    """
    return TEMPLATES.get_template(template).render(policy=POLICY, **values)


def write(path: Path, text: str) -> Path:
    """Writes a page atomically and returns its path."""
    write_text(path, text)
    return path
