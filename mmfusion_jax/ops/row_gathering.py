"""Gathers the rows of all devices, whatever the number of arrays, at once."""

import itertools
import math

import jax
import jax.numpy as jnp

from mmfusion_jax.ops.context_mesh import replicate
from mmfusion_jax.types import Array, PyTree


def gather_rows(tree: PyTree, *, axis: str | None = None) -> PyTree:
    """Gives every device the rows of all devices.

    The arrays are packed side by side, floats in one array and the others in a second
    one, so the devices exchange at most two arrays, and one more for the gradient. A
    gather of each array by itself makes a collective for each, and a loss of arrays
    that are split across devices makes one for almost every operation.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> tree = {"x": jnp.ones((2, 3)), "valid": jnp.array([True, False])}
        >>> with jax.set_mesh(mmf.Executor("jit", devices=1).mesh):
        ...     found = jax.jit(mmf.ops.gather_rows)(tree)
        >>> found["x"].shape, found["valid"].tolist()
        ((2, 3), [True, False])

    Args:
        tree: Arrays with a leading axis b of rows, (b ...) each.
        axis: Axis of pmap or shard_map over which the rows are split. None under jit,
            where they are split over the mesh of the context (`jax.set_mesh`).

    Returns:
        The same tree. Under jit, the arrays themselves, replicated. With `axis`, where
        b is the number of rows of one device, arrays of (n b ...) rows for n devices,
        in the order of the devices; the gradient with respect to the rows of a device
        is the sum of those of all devices.
    """
    leaves, structure = jax.tree.flatten(tree)
    is_float = [jnp.issubdtype(x.dtype, jnp.floating) for x in leaves]
    found: list[Array] = list(leaves)
    for kind in (True, False):
        places = [i for i, known in enumerate(is_float) if known == kind]
        part = _gather([leaves[i] for i in places], axis)
        for i, x in zip(places, part, strict=True):
            found[i] = x
    return jax.tree.unflatten(structure, found)


def _gather(arrays: list[Array], axis: str | None) -> list[Array]:
    """Gathers arrays that one type can hold without rounding."""
    if not arrays:
        return []
    # The widest float rounds none, and an int32 or wider no other integer or bool.
    wide = jnp.result_type(*arrays)
    if wide == jnp.bool:
        wide = jnp.dtype(jnp.int32)
    sizes = [math.prod(x.shape[1:]) for x in arrays]
    flat = [
        x.astype(wide).reshape(len(x), size)
        for x, size in zip(arrays, sizes, strict=True)
    ]
    packed = jnp.concatenate(flat, axis=1)
    if axis is None:
        packed = replicate(packed)
    else:
        packed = jax.lax.all_gather(packed, axis, tiled=True)
    parts = jnp.split(packed, list(itertools.accumulate(sizes))[:-1], axis=1)
    return [
        part.astype(x.dtype).reshape(len(packed), *x.shape[1:])
        for part, x in zip(parts, arrays, strict=True)
    ]
