"""`gradients.json`: gradients of the loss terms at the selected checkpoints."""

from dataclasses import dataclass
from typing import Any

from mmfusion_jax.results.experiment_result import MeanStd
from mmfusion_jax.results.json_file import Number, check, names_match


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
    """

    config: dict[str, Any]
    model: str
    data: str
    steps: list[int]
    batches: int
    terms: dict[str, LossTerm]
    modules: dict[str, ModuleGradients]
    versions: dict[str, str]

    def __post_init__(self) -> None:
        check(bool(self.terms and self.modules), "terms or modules: empty")
        for name, module in self.modules.items():
            names_match(module.norms, self.terms, f"modules.{name}.norms")
