"""The mesh of the context, over which jit splits the rows of a batch."""

import math

import jax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mmfusion_jax.errors import ConfigError, join_names
from mmfusion_jax.types import Array


def context_devices() -> int:
    """Returns the number of devices over which the compiler splits arrays.

    It is that of the mesh of the context (`jax.set_mesh`), and 1 without one, and
    inside shard_map, where a function computes the rows of one device.
    """
    # Not the sizes of all axes: those of shard_map are manual, and with explicit ones
    # the types of the arrays have the sharding.
    mesh = jax.sharding.get_abstract_mesh()
    axes = zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    return math.prod(size for size, kind in axes if kind == AxisType.Auto)


def check_context_mesh() -> None:
    """Raises ConfigError if the mesh of the context has explicit axes.

    With these, which `jax.make_mesh` makes by default, products of all pairs of rows
    are errors of JAX that do not name the mesh.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = zip(mesh.axis_names, mesh.axis_types, strict=True)
    explicit = [name for name, kind in axes if kind == AxisType.Explicit]
    if explicit:
        raise ConfigError(
            "C10",
            f"the mesh of the context has explicit axes: {join_names(explicit)}.",
            "mmf.Executor().mesh, or jax.make_mesh(shape, names, "
            "axis_types=(jax.sharding.AxisType.Auto,) * len(names))",
        )


def replicate(x: Array) -> Array:
    """Gives every device of the mesh of the context the entire array.

    Args:
        x: Any shape.

    Returns:
        The same values, after one collective; without a mesh, `x` itself.
    """
    if context_devices() == 1:
        return x
    # Not P() alone: JAX 0.7 does not see the mesh of a context inside of jit.
    whole = NamedSharding(jax.sharding.get_abstract_mesh(), P())
    return jax.lax.with_sharding_constraint(x, whole)
