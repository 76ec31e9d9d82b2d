"""Page with gradient norms and cosine similarities of the loss terms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmfusion_jax.report import formatting
from mmfusion_jax.report.charts import Chart, dot_plot
from mmfusion_jax.report.page import render, write

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Norms:
    """Gradient norms.

    Attributes:
        chart: The norms of all terms and modules.
        rows: Module, and the norm of each term.
        terms: Name, value and weight of each term.
    """

    chart: Chart
    rows: list[list[str]]
    terms: list[list[str]]


@dataclass(frozen=True)
class Cosine:
    """Cosine between the gradients of two terms.

    Attributes:
        cosine: Signed, two decimals.
        sign: "aligned" or "conflicting".
        percent: Absolute cosine, 0..100.
        conflicts: Fraction of the batches in which it is negative; "" if none.
    """

    cosine: str
    sign: str
    percent: int
    conflicts: str


@dataclass(frozen=True)
class CosineRow:
    """Cosines of one term with all; None where a term has no gradient."""

    term: str
    cells: list[Cosine | None]


@dataclass(frozen=True)
class Cosines:
    """Cosines between all terms in one module."""

    name: str
    rows: list[CosineRow]


def write_page(path: Path, found: Mapping[str, Any]) -> Path:
    """Writes the page and returns its path.

    Args:
        path: Path of the new file.
        found: Result of `commands.loss_gradients`.
    """
    terms = list(found["terms"])
    text = render(
        "gradients.html",
        title=f"Gradients of {found['config']['model']['name']} on {found['data']}",
        batches=found["batches"],
        steps=", ".join(formatting.count(step) for step in found["steps"]),
        terms=terms,
        norms=_norms(found, terms),
        cosines=_cosines(found, terms) if len(terms) > 1 else [],
    )
    return write(path, text)


def _norms(found: Mapping[str, Any], terms: Sequence[str]) -> Norms:
    norms = {
        term: {
            module: row["norms"][term]["mean"]
            for module, row in found["modules"].items()
        }
        for term in terms
    }
    text = formatting.significant
    return Norms(
        chart=dot_plot(norms, "weighted gradient norm"),
        rows=[
            [module, *(text(norms[term][module]) for term in terms)]
            for module in found["modules"]
        ],
        terms=[
            [name, text(term["value"]), text(term["weight"])]
            for name, term in found["terms"].items()
        ],
    )


def _cosines(found: Mapping[str, Any], terms: Sequence[str]) -> list[Cosines]:
    return [
        Cosines(name, [_cosine_row(row, terms, i) for i in range(len(terms))])
        for name, row in found["modules"].items()
    ]


def _cosine_row(row: Mapping[str, Any], terms: Sequence[str], i: int) -> CosineRow:
    nonzero = [row["norms"][term]["mean"] > 0 for term in terms]
    pairs = zip(row["cosines"][i], row["conflicts"][i], nonzero, strict=True)
    cells = [
        _cosine(cosine, conflicts) if nonzero[i] and other else None
        for cosine, conflicts, other in pairs
    ]
    return CosineRow(terms[i], cells)


def _cosine(cosine: float, conflicts: float) -> Cosine:
    return Cosine(
        cosine=f"{cosine:+.2f}".replace("-", MINUS),
        sign="aligned" if cosine >= 0 else "conflicting",
        percent=round(100 * abs(cosine)),
        conflicts=f"{round(100 * conflicts)} %" if conflicts else "",
    )
