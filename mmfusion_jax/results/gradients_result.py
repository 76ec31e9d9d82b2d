"""`gradients.json`: gradients of the loss terms at the selected checkpoints."""

from dataclasses import dataclass, field
from typing import Any

from mmfusion_jax.results.experiment_result import MeanStd
from mmfusion_jax.results.json_file import Number, check, names_match

CONVERGED = 0.1
"""Largest residual of an eigenvalue, as a fraction of it, that is not marked."""


@dataclass(frozen=True)
class LossTerm:
    """Value and weight of a loss term, means over the batches."""

    value: Number
    weight: Number


@dataclass(frozen=True)
class ModuleGradients:
    """Gradients of all K loss terms in one module.

    Attributes:
        norms: Loss term -> norm of its weighted gradient, over the batches.
        cosines: Mean cosines between the gradients, (K K), in the order of `norms`.
        conflicts: Fraction of the batches in which a cosine is negative, (K K).
    """

    norms: dict[str, MeanStd]
    cosines: list[list[Number]]
    conflicts: list[list[Number]]

    def __post_init__(self) -> None:
        # The report indexes the matrices by the terms of `norms`.
        k = len(self.norms)
        for matrix in (self.cosines, self.conflicts):
            square = len(matrix) == k and all(len(row) == k for row in matrix)
            check(square, "cosines and conflicts: not K x K")


@dataclass(frozen=True)
class ModuleCurvature:
    """Second derivatives of all K weighted loss terms in one module.

    Attributes:
        eigenvalues: Loss term -> eigenvalue of the largest magnitude of its Hessian.
        sharpness: Curvature of the term of the column along the unit gradient of the
            term of the row, (K K), in the order of `eigenvalues`.
        noise_scales: Loss term -> gradient noise scale, in examples; None where it is
            infinite, or with one batch.
        residuals: Loss term -> mean over the runs of |H v - eigenvalue v|, for the unit
            vector v of the iteration; {} in a file of an earlier version.
    """

    eigenvalues: dict[str, Number]
    sharpness: list[list[Number]]
    noise_scales: dict[str, Number]
    residuals: dict[str, Number] = field(default_factory=dict)

    def __post_init__(self) -> None:
        k = len(self.eigenvalues)
        square = len(self.sharpness) == k and all(
            len(row) == k for row in self.sharpness
        )
        check(square, "sharpness: not K x K")

    def has_converged(self, term: str) -> bool:
        """Returns whether the residual is at most 0.1 of the eigenvalue."""
        value, residual = self.eigenvalues[term], self.residuals.get(term, 0.0)
        if value is None or residual is None:
            return False
        return residual <= CONVERGED * abs(value)


@dataclass(frozen=True, kw_only=True)
class GradientsResult:
    """Gradients of the loss terms, by module.

    Attributes:
        config: The config, as JSON values.
        model: Short name of the model.
        data: Title of the dataset.
        steps: Step of the selected checkpoint of each run.
        batches: Number of batches.
        terms: Name -> loss term.
        modules: Name -> gradients; the first entry is all modules together.
        versions: Package -> version.
        curvature: Module -> curvature, with the names of `modules`; None without
            `--curvature`.
    """

    config: dict[str, Any]
    model: str
    data: str
    steps: list[int]
    batches: int
    terms: dict[str, LossTerm]
    modules: dict[str, ModuleGradients]
    versions: dict[str, str]
    curvature: dict[str, ModuleCurvature] | None = None

    def __post_init__(self) -> None:
        check(bool(self.terms and self.modules), "terms or modules: empty")
        for name, module in self.modules.items():
            names_match(module.norms, self.terms, f"modules.{name}.norms")
        if self.curvature is None:
            return
        names_match(self.curvature, self.modules, "curvature")
        for name, module in self.curvature.items():
            for kind in ("eigenvalues", "noise_scales"):
                names = getattr(module, kind)
                names_match(names, self.terms, f"curvature.{name}.{kind}")
            if module.residuals:
                where = f"curvature.{name}.residuals"
                names_match(module.residuals, self.terms, where)
