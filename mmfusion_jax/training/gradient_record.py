"""Records the gradients of the loss terms during training."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmfusion_jax.results.gradient_names import CONFLICT, COSINE, NORM, SHARE
from mmfusion_jax.results.json_file import Number
from mmfusion_jax.types import Batch, PyTree


@dataclasses.dataclass(frozen=True)
class GradientRecorder:
    """Computes the gradient statistics of some training steps.

    Attributes:
        every: Steps between two records; 0 for none.
        terms: Names of the K loss terms.
        compute: Compiled function of the state before a step and its batch, to
            `analysis.gradients.GradientSimilarity`; with an axis of seeds for several.
    """

    every: int = 0
    terms: Sequence[str] = ()
    compute: Callable[[PyTree, Batch], Any] | None = None

    def is_due(self, step: int) -> bool:
        """Returns whether the gradients of a step, counted from 1, are recorded."""
        return self.compute is not None and self.every > 0 and step % self.every == 0

    def __call__(self, state: PyTree, batch: Batch) -> tuple[Mapping, Mapping]:
        """Returns norms and cosines by module, on the host."""
        assert self.compute is not None  # `is_due`
        found = self.compute(state, batch)
        return jax.device_get((found.norms, found.cosines))


def gradient_scalars(
    terms: Sequence[str],
    norms: Mapping[str, np.ndarray],
    cosines: Mapping[str, np.ndarray],
) -> dict[str, Number]:
    """Returns the scalars of a record by name.

    - "gradient_norm/MODULE/TERM": norm of the gradient of the weighted term;
    - "gradient_share/MODULE/TERM": fraction of the sum of these norms, 0..1;
    - "gradient_cosine/MODULE/TERM/TERM": cosine between two of the gradients;
    - "gradient_conflict/MODULE/TERM/TERM": 1 if it is negative, else 0.

    A pair is left out where one of its terms has no gradient in the module.

    Args:
        terms: Names of the K loss terms.
        norms: Module -> norms, (K).
        cosines: Module -> cosines, (K K).
    """
    found = {}
    for module, values in norms.items():
        total = float(np.sum(values))
        for term, norm in zip(terms, map(float, values), strict=True):
            found[f"{NORM}/{module}/{term}"] = norm
            found[f"{SHARE}/{module}/{term}"] = norm / total if total else 0.0
        for i, j in itertools.combinations(range(len(terms)), 2):
            if values[i] == 0 or values[j] == 0:
                continue
            cosine, pair = float(cosines[module][i, j]), f"{terms[i]}/{terms[j]}"
            found[f"{COSINE}/{module}/{pair}"] = cosine
            found[f"{CONFLICT}/{module}/{pair}"] = (
                float(cosine < 0) if math.isfinite(cosine) else math.nan
            )
    return found
