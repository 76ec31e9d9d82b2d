"""How the loss terms of a batch that is split across devices see its rows."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from mmfusion_jax.ops.row_gathering import gather_rows
from mmfusion_jax.types import Array, Batch, Outputs, PyTree

EXAMPLE = "example"
CANDIDATES = "candidates"
BATCH = "batch"
"""Values of the attribute `scope` of a loss, which decides what it is called with where
a batch is split across devices:

- "example": the rows of one device; the value of a row depends on that row alone.
- "candidates": the rows of one device and, as a third argument, `Candidates`, the rows
  of all devices with which they are compared.
- "batch": the rows of all devices, on every device; the default."""


class Candidates(NamedTuple):
    """The rows of all devices, with which a loss compares the rows of one.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> batch = mmf.Batch({}, {"audio": jnp.ones((2, 5), bool)})
        >>> views = {"pair/x": jnp.eye(2), "pair/y": jnp.eye(2)}
        >>> outputs = mmf.Outputs(jnp.zeros((2, 3)), views)
        >>> term = mmf.losses.InfoNCE(("pair",), scale=1.0)
        >>> rows = mmf.losses.Candidates(outputs, batch, jnp.arange(2))
        >>> print(term(outputs, batch, rows).round(2))
        [0.31 0.31]

    Attributes:
        outputs: Outputs for all rows, n of them.
        batch: Their batch.
        index: Which of the n rows each row of this device is, (b) int.
    """

    outputs: Outputs
    batch: Batch
    index: Array


Terms: TypeAlias = Callable[[Outputs, Batch, Candidates], PyTree]
"""What is computed of the rows of one device and those of all devices."""


def gather_candidates(
    terms: Terms,
    outputs: Outputs,
    batch: Batch,
    axis: str | None,
) -> Candidates:
    """Gathers, at once, what `terms` reads of the rows of all devices.

    What it does not read, such as the clips of a batch, has the shape of all rows and
    is 0. The weights are gathered always: they are the denominator of every mean.

    Args:
        terms: Traced once to see what it reads.
        outputs: Outputs of the model on this device.
        batch: Batch of this device.
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.
    """
    devices = 1 if axis is None else jax.lax.psum(1, axis)
    rows = len(batch.weight)
    index = jnp.arange(rows)
    if axis is not None:
        index += rows * jax.lax.axis_index(axis)
    leaves, structure = jax.tree.flatten((outputs, batch))
    # An array without rows, which a model of another package may have, stays as it is.
    places = [i for i, x in enumerate(leaves) if jnp.shape(x)[:1] == (rows,)]
    shapes = jax.tree.leaves(jax.eval_shape(lambda: leaves))
    for i in places:
        shapes[i] = shapes[i].update(shape=(devices * rows, *leaves[i].shape[1:]))
    reads = _reads(terms, jax.tree.unflatten(structure, shapes), outputs, batch, index)
    gathered = gather_rows({i: leaves[i] for i in places if reads[i]}, axis=axis)
    # A term may use the shape of what it does not read.
    blank = {i: jnp.zeros(shapes[i].shape, shapes[i].dtype) for i in places}
    found = dict(enumerate(leaves)) | blank | gathered
    everything = jax.tree.unflatten(structure, found.values())
    return Candidates(*everything, index=index)


def _reads(terms: Terms, everything: tuple[Outputs, Batch], *own: Any) -> list[bool]:
    """Returns which leaves of `everything` the terms, or a mean, may depend on."""

    def values(everything, outputs, batch, index):
        found = terms(outputs, batch, Candidates(*everything, index=index))
        return found, everything[1].weight

    shapes = jax.eval_shape(lambda: own)
    jaxpr = jax.make_jaxpr(values)(everything, *shapes).jaxpr
    used = {id(x) for equation in jaxpr.eqns for x in equation.invars}
    used |= {id(x) for x in jaxpr.outvars}
    return [id(x) in used for x in jaxpr.invars[: len(jax.tree.leaves(everything))]]
