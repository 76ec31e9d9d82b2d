"""Assembles the sections of the report."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmfusion_jax.report import predictions, run_details, scores
from mmfusion_jax.report.css import CSS
from mmfusion_jax.report.html import Html, join, tag

# Nothing may be fetched or executed, whatever the data contain.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(workdir: Path, result: Mapping[str, Any]) -> Path:
    """Writes `report.html`, one self-contained file, and returns its path.

    Args:
        workdir: Directory of the experiment, which contains the learning curves.
        result: Content of `result.json`.
    """
    return write(workdir / "report.html", render(workdir, result))


def write(path: Path, text: str) -> Path:
    """Writes a file atomically and returns its path."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
    return path


def render(workdir: Path, result: Mapping[str, Any]) -> str:
    """Renders the document."""
    title = f"{result['model']['name']} on {result['data']['title']}"
    return document(
        title,
        scores.headline(result, title),
        scores.warnings(result),
        scores.fusion_vs_unimodal(result),
        scores.checkpoint_selection(result),
        scores.learning_curves(workdir, result),
        predictions.prediction_plot(result),
        predictions.all_metrics(result),
        predictions.modality_weights(result),
        run_details.model(result),
        run_details.time(result),
        run_details.dataset_metadata(result),
        run_details.reproduce(result),
        run_details.responsible_use(),
    )


def document(title: str, *sections: Html) -> str:
    """Creates a self-contained page from sections."""
    body = tag("main", *sections)
    head = join(
        [
            Html('<meta charset="utf-8">'),
            Html('<meta name="viewport" content="width=device-width">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
            tag("title", title),
            tag("style", Html(CSS)),
        ]
    )
    text = tag("html", tag("head", head), tag("body", body), lang="en")
    return f"<!doctype html>\n{text}\n"
