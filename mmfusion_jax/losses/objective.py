"""The objective: weighs loss terms, averages them once and adds them."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from mmfusion_jax.types import Array, Batch, LossTerm, Outputs

TASK = "task"
"""Name of the term that compares the prediction with the label."""


@dataclasses.dataclass(frozen=True)
class WeightedLoss:
    """A loss term and what it counts for.

    Attributes:
        term: maps Outputs and a Batch to one value per example, or to one value.
        weight: a number, or a schedule of the training step.
    """

    term: LossTerm
    weight: float | Callable[[Array], Array] = 1.0


@dataclasses.dataclass(frozen=True)
class Objective:
    """The sum of weighted loss terms over the global batch.

        L = sum_k weight_k(step) * sum_i w_i term_k,i / sum_i w_i

    Every term sees the global batch: under jit it is there already, under pmap the
    outputs and the batch are gathered from all devices first, so that no term has to
    know how the batch is spread. `jax.lax.pmean` of loss and gradients over `axis`
    is then exact, for terms that compare examples too.

    Attributes:
        terms: name -> weighted term; the one called "task" scores evaluations.
    """

    terms: Mapping[str, WeightedLoss]

    def __call__(
        self, outputs: Outputs, batch: Batch, step: Array, axis: str | None = None
    ) -> tuple[Array, dict[str, Array]]:
        """The loss, () float32, and each term before its weight, () each.

        A term whose weight is the number 0 is not computed and not among them.

        Args:
            outputs: of the model on this device.
            batch: of this device.
            step: number of the training step, for the schedules.
            axis: the pmap axis over which the batch is spread; None under jit.
        """
        if axis is not None:
            outputs, batch = jax.lax.all_gather((outputs, batch), axis, tiled=True)
        counted = [k for k, v in self.terms.items() if callable(v.weight) or v.weight]
        values = {name: self.value(name, outputs, batch) for name in counted}
        total = jnp.zeros((), jnp.float32)
        for name, value in values.items():
            weight = self.terms[name].weight
            total = total + (weight(step) if callable(weight) else weight) * value
        return total, values

    def value(self, name: str, outputs: Outputs, batch: Batch) -> Array:
        """One term alone, unweighted, averaged over the real examples, ()."""
        value = self.terms[name].term(outputs, batch)
        value = value.astype(jnp.promote_types(value.dtype, jnp.float32))
        return average(value, batch.weight) if value.ndim else value


def average(values: Array, weight: Array) -> Array:
    """Mean over the examples of weight above 0; 0 if there is none.

    Args:
        values: (b), anything where the weight is 0.
        weight: (b).
    """
    total = jnp.sum(jnp.where(weight > 0, values, 0) * weight)
    return total / jnp.maximum(jnp.sum(weight), 1e-9)
