"""Page with gradient norms, cosines and curvature of the loss terms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmfusion_jax.report import formatting
from mmfusion_jax.report.charts import Chart, dot_plot
from mmfusion_jax.report.page import render, write
from mmfusion_jax.results.gradients_result import (
    GradientsResult,
    ModuleCurvature,
    ModuleGradients,
)
from mmfusion_jax.results.json_file import Number


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


@dataclass(frozen=True)
class Curvature:
    """Second derivatives.

    Attributes:
        chart: Magnitudes of the largest eigenvalues of all terms and modules.
        eigenvalues: Module, and the eigenvalue of each term.
        noise_scales: Module, and the gradient noise scale of each term.
        sharpness: Module -> term of the direction, and the curvature of each term.
    """

    chart: Chart
    eigenvalues: list[list[str]]
    noise_scales: list[list[str]]
    sharpness: dict[str, list[list[str]]]


def write_page(path: Path, result: GradientsResult) -> Path:
    """Writes the page and returns its path.

    Args:
        path: Path of the new file.
        result: The gradients of the loss terms.
    """
    terms = list(result.terms)
    text = render(
        "gradients.html",
        title=f"Gradients of {result.model} on {result.data}",
        batches=result.batches,
        steps=", ".join(formatting.count(step) for step in result.steps),
        terms=terms,
        norms=_norms(result, terms),
        cosines=_cosines(result, terms) if len(terms) > 1 else [],
        curvature=_curvature(result.curvature, terms) if result.curvature else None,
    )
    return write(path, text)


def _norms(result: GradientsResult, terms: Sequence[str]) -> Norms:
    """Returns the norms of all terms in all modules."""
    norms = {
        term: {name: module.norms[term].mean for name, module in result.modules.items()}
        for term in terms
    }
    text = formatting.significant
    return Norms(
        chart=dot_plot(norms, "weighted gradient norm"),
        rows=[
            [module, *(text(norms[term][module]) for term in terms)]
            for module in result.modules
        ],
        terms=[
            [name, text(term.value), text(term.weight)]
            for name, term in result.terms.items()
        ],
    )


def _curvature(found: Mapping[str, ModuleCurvature], terms: Sequence[str]) -> Curvature:
    """Returns the second derivatives of all terms in all modules."""
    magnitudes = {
        term: {name: abs(one.eigenvalues[term] or 0.0) for name, one in found.items()}
        for term in terms
    }
    text = _signed
    by_term = lambda values: [text(values[term]) for term in terms]
    return Curvature(
        chart=dot_plot(magnitudes, "magnitude of the largest eigenvalue"),
        eigenvalues=[[name, *_eigenvalues(one, terms)] for name, one in found.items()],
        noise_scales=[
            [name, *by_term(one.noise_scales)] for name, one in found.items()
        ],
        sharpness={
            name: [
                [term, *map(text, row)]
                for term, row in zip(terms, one.sharpness, strict=True)
            ]
            for name, one in found.items()
        },
    )


def _eigenvalues(module: ModuleCurvature, terms: Sequence[str]) -> list[str]:
    """Returns the eigenvalues; "?" marks those that did not converge."""
    mark = lambda term: "" if module.has_converged(term) else " ?"
    return [f"{_signed(module.eigenvalues[term])}{mark(term)}" for term in terms]


def _signed(value: Number) -> str:
    """Returns a number with a minus sign; a dash for None."""
    if value is None:
        return formatting.DASH
    return formatting.significant(value).replace("-", formatting.MINUS)


def _cosines(result: GradientsResult, terms: Sequence[str]) -> list[Cosines]:
    """Returns the cosines between all terms, by module."""
    return [
        Cosines(name, [_cosine_row(module, terms, i) for i in range(len(terms))])
        for name, module in result.modules.items()
    ]


def _cosine_row(module: ModuleGradients, terms: Sequence[str], i: int) -> CosineRow:
    """Returns the cosines of term number `i` with all terms."""
    # Without a gradient the cosine is stored as 0, which is not a measured one.
    nonzero = [(module.norms[term].mean or 0.0) > 0 for term in terms]
    pairs = zip(module.cosines[i], module.conflicts[i], nonzero, strict=True)
    cells = [
        _cosine(cosine, conflicts or 0.0)
        if nonzero[i] and other and cosine is not None
        else None
        for cosine, conflicts, other in pairs
    ]
    return CosineRow(terms[i], cells)


def _cosine(cosine: float, conflicts: float) -> Cosine:
    """Returns a formatted cosine; `conflicts` is a fraction, 0..1."""
    return Cosine(
        cosine=formatting.signed(cosine),
        sign="aligned" if cosine >= 0 else "conflicting",
        percent=round(100 * abs(cosine)),
        conflicts=f"{round(100 * conflicts)} %" if conflicts else "",
    )
