"""The cost of a model before training: parameters, MACs, shapes and memory.

No model is run here: all values are derived from its shapes and its jaxpr.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from mmfusion_jax.errors import shown_name
from mmfusion_jax.ops.custom_gradient import derivative_jaxpr
from mmfusion_jax.results.model_result import Parameters
from mmfusion_jax.types import Batch, Model, PyTree

PRECISIONS = (
    jax.lax.Precision.DEFAULT,
    jax.lax.Precision.HIGH,
    jax.lax.Precision.HIGHEST,
)
"""JAX's precisions, the lowest first."""

COUNTED = (
    "multiply-accumulates of matrix products and convolutions, padding included, as "
    "the equations define them, independent of the platform's implementation; norms, "
    "softmax, pooling and other elementwise operations are not counted"
)


@dataclasses.dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of a function.

    Attributes:
        total: Their number.
        components: Module -> number.
        open_loops: Number of loops that end on a condition; their bodies count once.
        counted: The operations that count, for display.
    """

    total: int
    components: dict[str, int]
    open_loops: int
    counted: str = COUNTED


@dataclasses.dataclass(frozen=True)
class Product:
    """A matrix product or convolution of a jaxpr.

    Attributes:
        module: Path of the module that calls it, such as "MEA/head".
        macs: Multiply-accumulates, in all iterations of the loops around it.
        dtype: Type of its operands, the wider one.
        precision: "default", "high", "highest", or the name of another algorithm.
        open_loop: It is in a loop that ends on a condition, of which one iteration
            counts.
    """

    module: str
    macs: int
    dtype: str
    precision: str
    open_loop: bool = False


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Memory of a compiled function according to XLA, in bytes.

    Attributes:
        arguments, outputs, temporary: By use.
        peak: Their sum without the memory that outputs share with arguments.
    """

    arguments: int
    outputs: int
    temporary: int
    peak: int


def count_parameters(params: PyTree) -> Parameters:
    """Counts the parameters, in total and of every top-level module.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> parameters = mmf.analysis.count_parameters(
        ...     {"head": {"kernel": jnp.ones((8, 3))}}
        ... )
        >>> parameters.total, parameters.components
        (24, {'head': 24})

    Args:
        params: Arrays or abstract arrays, by module.
    """
    size = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
    components = {name: size(tree) for name, tree in params.items()}
    return Parameters(sum(components.values()), components)


def count_macs(function: Callable[..., Any], *args: Any) -> Macs:
    """Counts the multiply-accumulates of `function(*args)`; see `COUNTED`.

    They are counted in the jaxpr: the body of a scan counts once per iteration, and of
    two branches the more expensive one counts. If a function has an implementation for
    each platform (`jax.lax.platform_dependent`), the default one counts, since it
    defines what the others compute. Every equation belongs to the module that called
    it.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> macs = mmf.analysis.count_macs(
        ...     jnp.matmul, jnp.ones((2, 8)), jnp.ones((8, 3))
        ... )
        >>> macs.total
        48

    Args:
        function: Function of arrays.
        args: Arrays or abstract arrays.
    """
    # Not XLA's cost_analysis, which counts the body of a scan once: .52 instead of 26.2
    # MFLOP for an LSTM of 50 steps.
    jaxpr = jax.make_jaxpr(function)(*args)
    components: collections.Counter[str] = collections.Counter()
    open_loops = 0
    for found in _products(jaxpr.jaxpr, _Place()):
        if found is None:
            open_loops += 1
            continue
        components[_component(found.module)] += found.macs
    return Macs(sum(components.values()), dict(components), open_loops)


def find_products(jaxpr: core.Jaxpr, platform: str = "") -> list[Product]:
    """Returns all matrix products and convolutions of a jaxpr.

    Args:
        jaxpr: Such as `jax.jit(f).trace(...).jaxpr.jaxpr`.
        platform: Of a function with an implementation for each platform, the one for
            this platform counts; "" for the default.
    """
    return [p for p in _products(jaxpr, _Place(platform)) if p is not None]


def count_macs_per_example(model: Model, variables: PyTree, batch: Batch) -> Macs:
    """Counts the multiply-accumulates of the forward pass of one example.

    Args:
        model: The model.
        variables: Arrays or abstract arrays.
        batch: Arrays or abstract arrays, of any number of examples.
    """
    forward = lambda v, b: model.apply(v, b, train=False)
    # Arrays of a pipeline can be int64, which JAX turns into int32, with a warning.
    row = lambda x: jax.ShapeDtypeStruct(
        (1, *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype)
    )
    return count_macs(forward, variables, jax.tree.map(row, batch))


def output_shapes(model: Model, variables: PyTree, batch: Batch) -> dict[str, str]:
    """Returns module -> output, such as "encoders_audio" -> "values (4, 26, 64)".

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> batch = mmf.Batch(
        ...     {"audio": jnp.ones((2, 5, 4))}, {"audio": jnp.ones((2, 5), bool)}
        ... )
        >>> model = mmf.models.ConcatFC(
        ...     {"audio": mmf.encoders.Precomputed()}, head_size=3, hidden_dims=(8,)
        ... )
        >>> variables = model.init(jax.random.key(0), batch, train=False)
        >>> mmf.analysis.output_shapes(model, variables, batch)["head"]
        '(2, 3)'

    Args:
        model: Model whose intermediates can be captured, such as a Linen module.
        variables: Arrays or abstract arrays.
        batch: Arrays or abstract arrays.
    """
    run = lambda v, b: model.apply(
        v, b, train=False, capture_intermediates=True, mutable=["intermediates"]
    )
    _, captured = jax.eval_shape(run, variables, batch)
    return dict(_calls(captured["intermediates"], ""))


def bytes_of(tree: PyTree) -> int:
    """Returns the size of all arrays of a tree in bytes."""
    return sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
    )


def compiled_memory(compiled: Any) -> StepMemory:
    """Returns the memory of a compiled function.

    Args:
        compiled: Result of `jax.jit(f).lower(...).compile()`.
    """
    found = compiled.memory_analysis()
    sizes = (
        found.argument_size_in_bytes,
        found.output_size_in_bytes,
        found.temp_size_in_bytes,
    )
    return StepMemory(*sizes, peak=sum(sizes) - found.alias_size_in_bytes)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a jaxpr is.

    Attributes:
        platform: Of an implementation for each platform, the one that counts.
        path: Of the module whose equation contains the jaxpr. Modules are scopes of
            the name stack, which starts anew in every jaxpr.
        axes: Name -> size of the axes of devices around it.
    """

    platform: str = ""
    path: str = ""
    axes: Mapping[Any, int] = dataclasses.field(default_factory=dict)

    def within(self, equation: Any) -> "_Place":
        """Returns the place of what an equation contains."""
        path = "/".join(filter(None, (self.path, str(equation.source_info.name_stack))))
        axes = self.axes
        if equation.primitive.name == "shard_map":
            axes = {**axes, **equation.params["mesh"].shape}
        return _Place(self.platform, path, axes)


def _products(jaxpr: core.Jaxpr, place: _Place) -> Iterator[Product | None]:
    """Yields every product; None before those of an open loop."""
    for equation in jaxpr.eqns:
        inside = place.within(equation)
        name, params = equation.primitive.name, equation.params
        if name in MACS:
            yield _product(equation, inside.path, MACS[name](equation))
        elif name == "cond":
            yield from _branch(params, inside)
        elif (closed := derivative_jaxpr(equation, inside.axes)) is not None:
            yield from _products(closed.jaxpr, inside)
        else:
            times = _repetitions(name, params)
            # Calls, custom derivatives, checkpoints and loops alike: whatever jaxpr an
            # equation contains.
            for inner in _jaxprs(params):
                found = list(_products(inner, inside))
                if is_open := name == "while" and bool(found):
                    yield None
                for one in found:
                    yield one and dataclasses.replace(
                        one,
                        macs=one.macs * times,
                        open_loop=one.open_loop or is_open,
                    )


def _repetitions(name: str, params: Mapping[str, Any]) -> int:
    """Returns how often what an equation contains is computed."""
    if name == "scan":
        return params["length"]
    # Its body is the program of one device.
    return params["mesh"].size if name == "shard_map" else 1


def _product(equation: Any, module: str, macs: int) -> Product:
    """Describes the product of an equation."""
    dtype = jnp.result_type(*(x.aval.dtype for x in equation.invars[:2])).name
    return Product(module, macs, dtype, _precision(equation.params["precision"]))


def _precision(value: Any) -> str:
    """Returns the lower precision of both operands, by JAX's name."""
    if value is None:
        return "default"
    if isinstance(value, tuple):
        return min(value, key=PRECISIONS.index).name.lower()
    return str(getattr(value, "name", value)).lower()  # a dot algorithm


def _component(path: str) -> str:
    """Returns the top-level module of a path such as "CFNSR/CFNSR._fuse/cross/ask"."""
    model, *inner = (name.split(".")[0] for name in path.split("/"))
    return next((name for name in inner if name != model), "model")


def _branch(params: Mapping[str, Any], place: _Place) -> Iterator[Product | None]:
    """Yields the products of the branch of a `cond` that counts."""
    platforms = params.get("branches_platforms")
    branches = [list(_products(b.jaxpr, place)) for b in params["branches"]]
    if platforms:  # the default has no platform and comes last
        named = (
            i for i, names in enumerate(platforms) if place.platform in (names or ())
        )
        yield from branches[next(named, -1)]
    else:
        size = lambda found: sum(one.macs for one in found if one)
        yield from max(branches, key=size)


def _dot_general(equation: Any) -> int:
    """MACs of a matrix product: outputs times the size of the contracted axes."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    out = math.prod(equation.outvars[0].aval.shape)
    return out * math.prod(left[axis] for axis in contracted)


def _convolution(equation: Any) -> int:
    """MACs of a convolution: outputs times window size and channels per group."""
    kernel = equation.invars[1].aval.shape
    features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    # The zeros between dilated inputs are not counted.
    dilation = math.prod(equation.params["lhs_dilation"])
    out = math.prod(equation.outvars[0].aval.shape)
    return out * math.prod(kernel) // features // dilation


MACS = {"dot_general": _dot_general, "conv_general_dilated": _convolution}
"""Primitive -> its multiply-accumulates."""


def _jaxprs(params: Mapping[str, Any]) -> Iterator[core.Jaxpr]:
    """Yields the jaxprs that an equation contains."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, core.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, core.Jaxpr):
                yield part


def _calls(captured: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Yields (module path, description of the output), outer modules first.

    Intermediates that a module sowed itself are skipped.
    """
    if "__call__" in captured:
        yield path or "model", _described(captured["__call__"])
    for name, inner in captured.items():
        if isinstance(inner, Mapping):
            yield from _calls(inner, f"{path}/{name}".lstrip("/"))


def _described(returned: Any) -> str:
    """Describes the shapes of an output, each with its name if it has one."""
    parts = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(returned):
        name = jax.tree_util.keystr(path[1:], simple=True, separator=".")
        parts.append(f"{shown_name(name)} ({', '.join(map(str, leaf.shape))})".lstrip())
    return ", ".join(parts)
