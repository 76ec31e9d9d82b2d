"""Page with gradient norms and cosine similarities of the loss terms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfusion_jax.report import formatting
from mmfusion_jax.report.charts import dot_plot
from mmfusion_jax.report.html import Html, join, table, tag
from mmfusion_jax.report.page import document, write

ABOUT = (
    "Gradient norms are those of the weighted terms in training mode, including "
    "dropout and batch statistics. The cosine similarity is 1 for aligned gradients, 0 "
    "for orthogonal ones and -1 for opposite ones; a cell is empty if a term has no "
    "gradient in the module."
)


def write_page(path: Path, found: Mapping[str, Any]) -> Path:
    """Writes the page and returns its path.

    Args:
        path: Path of the new file.
        found: Result of `commands.loss_gradients`.
    """
    title = f"Gradients of {found['config']['model']['name']} on {found['data']}"
    terms = list(found["terms"])
    sections = [_head(title, found), _norms(found, terms)]
    if len(terms) > 1:
        sections.append(_cosines(found, terms))
    return write(path, document(title, *sections))


def _head(title: str, found: Mapping[str, Any]) -> Html:
    steps = ", ".join(formatting.count(step) for step in found["steps"])
    counted = f"Mean of {found['batches']} training batches; weights of step {steps}."
    return tag("header", tag("h1", title), tag("p", counted, class_="lead"))


def _norms(found: Mapping[str, Any], terms: Sequence[str]) -> Html:
    norms = {
        term: {
            module: row["norms"][term]["mean"]
            for module, row in found["modules"].items()
        }
        for term in terms
    }
    rows = [
        [
            module,
            *(formatting.significant(norms[term][module]) for term in terms),
        ]
        for module in found["modules"]
    ]
    heads = ["module", *terms]
    values = [
        [
            name,
            formatting.significant(term["value"]),
            formatting.significant(term["weight"]),
        ]
        for name, term in found["terms"].items()
    ]
    return tag(
        "section",
        tag("h2", "Gradient norm"),
        tag("p", ABOUT),
        dot_plot(norms, "weighted gradient norm"),
        table(["term", "value", "weight"], values, "Loss terms", "numbers small"),
        tag(
            "details",
            tag("summary", "Values"),
            table(heads, rows, "Weighted gradient norm", "numbers"),
        ),
    )


def _cosines(found: Mapping[str, Any], terms: Sequence[str]) -> Html:
    parts = (
        table(
            ["", *terms],
            [
                [term, *map(_cosine_cell, cosines, conflicts, reached)]
                for term, cosines, conflicts, reached in zip(
                    terms,
                    row["cosines"],
                    row["conflicts"],
                    _reached(row, terms),
                    strict=True,
                )
            ],
            f"{module}",
            "confusion",
        )
        for module, row in found["modules"].items()
    )
    return tag(
        "section",
        tag("h2", "Cosine similarity"),
        tag(
            "p",
            "Blue: aligned, orange: conflicting. The percentage below the cosine is "
            "the fraction of batches in which the two gradients conflict.",
        ),
        tag("div", join(tag("div", part) for part in parts), class_="figures wide"),
    )


def _reached(row: Mapping[str, Any], terms: Sequence[str]) -> list[list[bool]]:
    """Which pairs of terms both have a gradient in the module."""
    nonzero = [row["norms"][term]["mean"] > 0 for term in terms]
    return [[one and other for other in nonzero] for one in nonzero]


def _cosine_cell(cosine: float, conflict: float, reached: bool) -> Html:
    """Creates a cell whose color intensity is the absolute cosine."""
    if not reached:
        return tag("td", "", class_="none")
    percent = round(100 * abs(cosine))
    color = "first" if cosine >= 0 else "second"
    mixed = f"color-mix(in srgb, var(--{color}) {percent}%, var(--card))"
    under = tag("small", f"{round(100 * conflict)} %") if conflict else ""
    text = f"{cosine:+.2f}".replace("-", "\N{MINUS SIGN}")
    return tag(
        "td",
        text,
        Html("<br>") if under else "",
        under,
        style=f"background: {mixed}",
        class_="high" if percent > 55 else None,
    )
