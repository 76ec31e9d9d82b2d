"""The objective: averages the loss terms and computes their weighted sum."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, shown, shown_name, type_name
from mmfusion_jax.losses.candidates import (
    BATCH,
    CANDIDATES,
    Candidates,
    gather_candidates,
)
from mmfusion_jax.ops.context_mesh import check_context_mesh, context_devices
from mmfusion_jax.types import Array, Batch, LossTerm, Outputs

TASK = "task"
"""Name of the term that compares prediction and label."""

PRECISION = "highest"
"""Precision of the products of all terms, also on accelerators."""

CHANCE = "chance"
"""Suffix of the chance level of a term among the values of the objective."""


@dataclasses.dataclass(frozen=True)
class WeightedLoss:
    """A loss term and its weight.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> term = mmf.WeightedLoss(mmf.losses.L1("score"), weight=0.5)
        >>> warm_up = mmf.WeightedLoss(
        ...     mmf.losses.L1("score"), lambda step: jnp.minimum(step / 100, 1)
        ... )
        >>> term.weight, float(warm_up.weight(50))
        (0.5, 0.5)

    Attributes:
        term: Maps Outputs and a Batch to one value per example, or to one value.
        weight: A number, or a schedule over training steps.
    """

    term: LossTerm
    weight: float | Callable[[Array], Array] = 1.0


@dataclasses.dataclass(frozen=True)
class Objective:
    """The weighted sum of loss terms over the global batch.

        L = sum_k weight_k(step) * sum_i w_i term_k,i / sum_i w_i

    Terms are independent of the parallelism: what a term compares, it sees of all
    devices (`losses.candidates`), gathered once for all terms (`ops.gather_rows`).
    `jax.lax.pmean` of loss and gradients over `axis` is then exact, also for terms that
    compare examples. Products of terms are in float32 on every platform.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> batch = mmf.Batch(
        ...     {}, {"audio": jnp.ones((2, 5), bool)}, {"score": jnp.array([1.0, -2.0])}
        ... )
        >>> outputs = mmf.Outputs(jnp.array([0.5, 1.0]))
        >>> terms = {"task": mmf.WeightedLoss(mmf.losses.MSE("score"), weight=2.0)}
        >>> loss, values = mmf.Objective(terms)(outputs, batch, step=0)
        >>> float(loss), float(values["task"])
        (9.25, 4.625)

    Attributes:
        terms: Name -> weighted term; the one called "task" is reported by evaluations.
    """

    terms: Mapping[str, WeightedLoss]

    def __call__(
        self,
        outputs: Outputs,
        batch: Batch,
        step: Array,
        axis: str | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Computes the loss, () float32, and each unweighted term, () each.

        A term whose weight is the number 0 is not computed and not returned. Beside a
        term NAME with a `chance_level`, the values have it as "NAME/chance".

        Args:
            outputs: Outputs of the model on this device.
            batch: Batch of this device.
            step: Training step, for the schedules.
            axis: Axis of pmap or shard_map over which the batch is split; None
                under jit. Loss and terms are then the share of this device: their mean
                over the axis is that of the batch.

        Raises:
            ConfigError: The mesh of the context (`jax.set_mesh`) has explicit axes.
        """
        check_context_mesh()
        active = self.active
        candidates = None
        if axis is not None or context_devices() > 1:
            # The losses of the devices alone are not those of the batch: with 64 rows
            # on 8 devices, InfoNCE was 4.47 instead of 7.03 and HSIC nine times too
            # large.
            terms = functools.partial(self._values, active)
            candidates = gather_candidates(terms, outputs, batch, axis)
        values = self._values(active, outputs, batch, candidates)
        total = jnp.zeros((), jnp.float32)
        for name in active:
            weight = self.terms[name].weight
            total = (
                total + (weight(step) if callable(weight) else weight) * values[name]
            )
        return total, values

    def _values(
        self,
        names: Iterable[str],
        outputs: Outputs,
        batch: Batch,
        candidates: Candidates | None,
    ) -> dict[str, Array]:
        """Unweighted terms, and the chance levels of those that have one."""
        terms = {name: self.value(name, outputs, batch, candidates) for name in names}
        return terms | self.chance_levels(outputs, batch, names, candidates)

    @property
    def active(self) -> list[str]:
        """Names of the terms whose weight is not the number 0."""
        # The others are not computed at all, because 0 times a NaN term would be NaN.
        return [k for k, v in self.terms.items() if callable(v.weight) or v.weight]

    def weights(self, step: Array) -> Array:
        """Returns the weights of the active terms at a training step, (K) float32."""
        weights = [self.terms[name].weight for name in self.active]
        values = [weight(step) if callable(weight) else weight for weight in weights]
        return jnp.stack([jnp.asarray(x, jnp.float32) for x in values])

    def chance_levels(
        self,
        outputs: Outputs,
        batch: Batch,
        names: Iterable[str],
        candidates: Candidates | None = None,
    ) -> dict[str, Array]:
        """Computes "NAME/chance", () each, of those terms that have a chance level.

        A contrastive term at its chance level, ln of the number of candidates, does
        not distinguish its candidates.
        """
        values = {}
        for name in names:
            term = self.terms[name].term
            chance_level = getattr(term, "chance_level", None)
            if chance_level is not None:
                arguments = _arguments(term, outputs, batch, candidates)
                with jax.default_matmul_precision(PRECISION):
                    level = chance_level(*arguments)
                values[f"{name}/{CHANCE}"] = _mean(level, arguments[1], candidates)
        return values

    def value(
        self,
        name: str,
        outputs: Outputs,
        batch: Batch,
        candidates: Candidates | None = None,
    ) -> Array:
        """Computes one unweighted term, averaged over the examples, ().

        Args:
            name: Name of the term.
            outputs: Outputs of the model on this device.
            batch: Batch of this device.
            candidates: Rows of all devices; None for those of this device alone.

        Raises:
            ConfigError: The term does not return one value, or one per example, or an
                option of it does not fit; the message names the term.
        """
        term = self.terms[name].term
        arguments = _arguments(term, outputs, batch, candidates)
        try:
            # A TPU computes float32 products in bfloat16 otherwise, and the logits of a
            # contrastive term then have errors of 0.1 and more.
            with jax.default_matmul_precision(PRECISION):
                value = term(*arguments)
        except ConfigError as error:
            # A loss term does not know its name in the config.
            if "config." not in error.args[0]:
                error.args = (f"config.losses.{shown_name(name)}: {error.args[0]}",)
            raise
        seen = arguments[1]
        shape = getattr(value, "shape", None)
        if shape not in ((), seen.weight.shape):
            what = type_name(value) if shape is None else f"an array of shape {shape}"
            raise ConfigError(
                "C33",
                f"config.losses.{shown_name(name)} returns {what}, not one value per "
                f"example, {seen.weight.shape}.",
            )
        scope = getattr(term, "scope", BATCH)
        if value.ndim == 0 and scope != BATCH:
            raise ConfigError(
                "C33",
                f"config.losses.{shown_name(name)} returns one value for all examples, "
                f"but its scope is {shown(scope)}: it does not see the examples of all "
                "devices.",
                f"return one value per example, or scope = {shown(BATCH)}",
            )
        value = value.astype(jnp.promote_types(value.dtype, jnp.float32))
        return _mean(value, seen, candidates) if value.ndim else value


def _arguments(
    term: LossTerm, outputs: Outputs, batch: Batch, candidates: Candidates | None
) -> tuple[Any, ...]:
    """Returns what a term is called with; see `losses.candidates`."""
    if candidates is None:
        return outputs, batch
    scope = getattr(term, "scope", BATCH)
    if scope == BATCH:
        return candidates.outputs, candidates.batch
    own = outputs, batch
    return (*own, candidates) if scope == CANDIDATES else own


def _mean(values: Array, batch: Batch, candidates: Candidates | None) -> Array:
    """Mean over the examples of all devices; this device's share of it, ().

    With the rows of one of n devices, the share is n times what they add to the mean:
    the mean over the devices is then that over all rows.
    """
    whole = batch.weight if candidates is None else candidates.batch.weight
    return average(values, batch.weight, whole)


def average(values: Array, weight: Array, whole: Array | None = None) -> Array:
    """Mean over the examples with a weight above 0; 0 if there are none.

    Args:
        values: (b), arbitrary where the weight is 0.
        weight: (b).
        whole: Weights of the rows of all n devices, (n b), if `values` are those of one
            device: the result is n times its part of their mean.
    """
    whole = weight if whole is None else whole
    devices = len(whole) // len(weight)
    # where before the product: values of padding rows may be NaN.
    total = devices * jnp.sum(jnp.where(weight > 0, values, 0) * weight)
    return total / jnp.maximum(jnp.sum(whole), 1e-9)
