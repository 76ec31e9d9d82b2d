"""A page that draws the gradients of single loss terms: lengths and angles."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfusion_jax.report import formatting
from mmfusion_jax.report.charts import bars
from mmfusion_jax.report.html import Html, join, table, tag
from mmfusion_jax.report.page import document, write

ABOUT = (
    "The length is that of the weighted gradient: what a term pulls with in training, "
    "dropout and batch statistics included. The cosine tells the way: 1 is the same "
    "way, 0 has nothing to do with one another, -1 is against one another; empty where "
    "a term does not reach a module."
)


def write_page(path: Path, found: Mapping[str, Any]) -> Path:
    """Writes the page and returns its path.

    Args:
        path: of the new file.
        found: what `dissection.analyze` found.
    """
    title = f"Gradients of {found['config']['model']['name']} on {found['data']}"
    terms = list(found["terms"])
    sections = [_head(title, found), _lengths(found, terms)]
    if len(terms) > 1:
        sections.append(_angles(found, terms))
    return write(path, document(title, *sections))


def _head(title: str, found: Mapping[str, Any]) -> Html:
    steps = ", ".join(formatting.count(step) for step in found["steps"])
    counted = f"Mean of {found['batches']} training batches; weights of step {steps}."
    return tag("header", tag("h1", title), tag("p", counted, class_="lead"))


def _lengths(found: Mapping[str, Any], terms: Sequence[str]) -> Html:
    lengths = {
        term: {
            module: row["norms"][term]["mean"]
            for module, row in found["modules"].items()
        }
        for term in terms
    }
    rows = [
        [
            module,
            *(formatting.significant(lengths[term][module]) for term in terms),
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
        tag("h2", "How strongly each term pulls"),
        tag("p", ABOUT),
        bars(lengths, "length of weight × gradient"),
        table(["term", "value", "weight"], values, "The terms", "numbers small"),
        tag(
            "details",
            tag("summary", "Numbers"),
            table(heads, rows, "Length of weight × gradient", "numbers"),
        ),
    )


def _angles(found: Mapping[str, Any], terms: Sequence[str]) -> Html:
    parts = (
        table(
            ["", *terms],
            [
                [term, *map(_angle, cosines, shares, reached)]
                for term, cosines, shares, reached in zip(
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
        tag("h2", "Which way each term pulls"),
        tag(
            "p",
            "Blue pulls the same way, orange against; the share of batches in which "
            "two terms pull against each other stands under the cosine.",
        ),
        tag("div", join(tag("div", part) for part in parts), class_="figures wide"),
    )


def _reached(row: Mapping[str, Any], terms: Sequence[str]) -> list[list[bool]]:
    """Which pairs of terms both reach the module."""
    reach = [row["norms"][term]["mean"] > 0 for term in terms]
    return [[one and other for other in reach] for one in reach]


def _angle(cosine: float, conflict: float, reached: bool) -> Html:
    """A cell, the deeper in color the smaller the angle to one way or the other."""
    if not reached:
        return tag("td", "", class_="none")
    share = round(100 * abs(cosine))
    color = "first" if cosine >= 0 else "second"
    mixed = f"color-mix(in srgb, var(--{color}) {share}%, var(--card))"
    under = tag("small", f"{round(100 * conflict)} %") if conflict else ""
    text = f"{cosine:+.2f}".replace("-", "\N{MINUS SIGN}")
    return tag(
        "td",
        text,
        Html("<br>") if under else "",
        under,
        style=f"background: {mixed}",
        class_="high" if share > 55 else None,
    )
