"""Functions with a backward pass written by hand and derivatives of every order.

`jax.custom_vjp` takes a backward pass, but then JAX has no forward mode, and so no
Hessian either. Here the backward pass is attached to the linear map of the tangents as
its transpose, which leaves both modes, `vmap` and higher orders.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from mmfusion_jax.types import Array, PyTree

Forward = Callable[..., tuple[PyTree, PyTree]]
Backward = Callable[[tuple[Any, ...], Any, Any], tuple[Any, ...]]


def with_backward(
    definition: Callable[..., Any],
    backward: Backward,
    forward: Forward | None = None,
) -> Callable[..., Any]:
    """Returns `definition` with a backward pass for reverse mode.

    A gradient runs `forward` and `backward`. All other derivatives are JAX's own
    of `definition`: tangents, and every derivative of a derivative. Products of all of
    them have the default precision of the place where the function is called.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from mmfusion_jax.ops.custom_gradient import with_backward
        >>> sine = with_backward(
        ...     jnp.sin,
        ...     lambda arguments, cosine, dy: (cosine * dy,),
        ...     lambda x: (jnp.sin(x), jnp.cos(x)),
        ... )
        >>> float(jax.grad(sine)(0.0)), float(jax.jvp(sine, (0.0,), (2.0,))[1])
        (1.0, 2.0)

    Args:
        definition: Function of arrays, or of trees of arrays, in JAX operations that
            JAX can differentiate.
        backward: Maps the arguments, what `forward` saved, and the gradient of the
            result to the gradients of the arguments; None for an argument without
            one. It must be linear in the gradient of the result, and be the
            transpose of the derivative of `definition`.
        forward: Maps the same arguments to the result of `definition` and to what the
            backward pass needs in addition to the arguments. None: nothing, `()`.

    Returns:
        A function of the arguments of `definition`, by position.
    """

    # What `forward` saves is a second result: then the rule below also covers the
    # derivative of this call, and `forward` need not be differentiable.
    @functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
    def both(precision: Any, *arguments: Any) -> tuple[PyTree, PyTree]:
        with jax.default_matmul_precision(precision):
            if forward is None:
                return definition(*arguments), ()
            return forward(*arguments)

    def rule(precision: Any, primals: tuple[Any, ...], tangents: tuple[Any, ...]):
        y, saved = both(precision, *primals)
        moving, linear = _split(tangents)
        derivative = _derivative(
            _with_precision(definition, precision),
            _with_precision(backward, precision),
            primals,
            saved,
            y,
            moving,
        )
        arguments, rest = jax.tree.leaves(primals), jax.tree.leaves(saved)
        dy = _linear.bind(
            *arguments,
            *rest,
            *linear,
            derivative=derivative,
            transposed=False,
            counts=(len(arguments), len(rest)),
            avals=(_avals(linear), _avals(_real(y))),
        )
        return (y, saved), (_with_integers(y, dy), jax.tree.map(_zeros, saved))

    both.defjvp(rule, symbolic_zeros=True)

    def function(*arguments: Any) -> PyTree:
        precision = jax.config.jax_default_matmul_precision  # pyright: ignore
        return both(precision, *_same_axes(arguments))[0]

    return function


def _with_precision(function: Callable[..., Any], precision: Any) -> Callable[..., Any]:
    """Returns `function` with a default precision of its products.

    `jax.default_matmul_precision` applies to what is traced inside it. A backward pass
    is traced later, and would lose the precision of its forward pass; the derivatives
    that JAX has for products keep it.
    """

    @functools.wraps(function)
    def traced(*arguments: Any) -> Any:
        with jax.default_matmul_precision(precision):
            return function(*arguments)

    return traced


@dataclasses.dataclass(frozen=True, eq=False)
class _Derivative:
    """The derivative of a function at its arguments, on lists of leaves.

    Attributes:
        push: (arguments, tangents) -> tangents of the results.
        pull: (arguments, saved, gradients of the results) -> gradients of the moving
            arguments, by the backward pass written by hand.
        pull_by_definition: (arguments, gradients of the results) -> the same, as JAX
            derives it.
    """

    push: Callable[..., list[Array]]
    pull: Callable[..., list[Array]]
    pull_by_definition: Callable[..., list[Array]]


def _derivative(
    definition: Callable[..., Any],
    backward: Backward,
    primals: tuple[Any, ...],
    saved: PyTree,
    y: PyTree,
    moving: tuple[int, ...],
) -> _Derivative:
    """Returns the derivative by the leaves `moving` of the arguments."""
    into, kept = jax.tree.structure(primals), jax.tree.structure(saved)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), y)

    def of_moving(leaves: Sequence[Array]) -> tuple[Callable, list[Array]]:
        def function(*moved: Array) -> list[Array]:
            new = dict(zip(moving, moved, strict=True))
            all_leaves = [new.get(i, x) for i, x in enumerate(leaves)]
            return _real(definition(*jax.tree.unflatten(into, all_leaves)))

        return function, [leaves[i] for i in moving]

    def push(leaves: Sequence[Array], tangents: Sequence[Array]) -> list[Array]:
        return jax.jvp(*of_moving(leaves), [*tangents])[1]

    def pull(
        leaves: Sequence[Array], rest: Sequence[Array], dy: Sequence[Array]
    ) -> list[Array]:
        arguments = jax.tree.unflatten(into, leaves)
        gradients = backward(
            arguments, jax.tree.unflatten(kept, rest), _with_integers(shapes, dy)
        )
        # An argument without gradient may be a tree: its None stands for all leaves.
        flat = jax.tree.leaves(
            tuple(
                jax.tree.map(lambda _: None, x) if g is None else g
                for x, g in zip(arguments, gradients, strict=True)
            ),
            is_leaf=lambda x: x is None,
        )
        return [
            jnp.zeros_like(leaves[i]) if flat[i] is None else flat[i] for i in moving
        ]

    def pull_by_definition(leaves: Sequence[Array], dy: Sequence[Array]) -> list[Array]:
        function, moved = of_moving(leaves)
        return [*jax.vjp(function, *moved)[1]([*dy])]

    return _Derivative(push, pull, pull_by_definition)


# The map of the tangents, linear in the last of its operands (arguments, saved,
# tangents), and if `transposed` the map of the gradients, which is its transpose.
# jax.custom_derivatives.linear_call does not do: it has no rule for vmap, and its
# derivative by the arguments is an assertion error.
_linear = Primitive("linear_with_transpose")
_linear.multiple_results = True


def _parts(operands: Sequence[Any], counts: tuple[int, int]) -> tuple[list[Any], ...]:
    """Splits operands into arguments, saved, and what the map is linear in."""
    first, second = counts[0], sum(counts)
    return [*operands[:first]], [*operands[first:second]], [*operands[second:]]


def _compute(
    *operands: Array,
    derivative: _Derivative,
    transposed: bool,
    counts: tuple[int, int],
    avals: Any,
) -> list[Array]:
    arguments, saved, linear = _parts(operands, counts)
    if not transposed:
        return derivative.push(arguments, linear)
    gradients = derivative.pull(arguments, saved, linear)
    for gradient, aval in zip(gradients, avals[0], strict=True):
        if gradient.shape != aval.shape:
            raise TypeError(
                f"backward returns a gradient of shape {gradient.shape} for an "
                f"argument of shape {aval.shape}"
            )
    return [g.astype(a.dtype) for g, a in zip(gradients, avals[0], strict=True)]


def derivative_jaxpr(equation: Any, axes: Mapping[Any, int] | None = None) -> Any:
    """Returns the jaxpr of a derivative of `with_backward`; None for other equations.

    Such an equation has functions instead of a jaxpr, which are traced when it is
    lowered.

    Args:
        equation: An equation of a jaxpr.
        axes: Name -> size of the axes of devices around it, such as those of a
            `shard_map`, which its functions may add over.
    """
    if equation.primitive is not _linear:
        return None
    shapes = [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in equation.invars]
    function = functools.partial(_compute, **equation.params)
    return jax.make_jaxpr(function, axis_env=[*(axes or {}).items()])(*shapes)


def _abstract(*_: Any, transposed: bool, avals: Any, **__: Any) -> list[Any]:
    return [*avals[0 if transposed else 1]]


def _differentiate(
    primals: Sequence[Array], tangents: Sequence[Any], **params: Any
) -> tuple[list[Array], list[Array]]:
    """The tangents of `_linear`, in the operands it is linear in and in the others."""
    y = _linear.bind(*primals, **params)
    arguments, saved, linear = _parts(primals, params["counts"])
    d_arguments, _, d_linear = _parts(tangents, params["counts"])
    dy = [jnp.zeros_like(leaf) for leaf in y]
    if any(not isinstance(d, ad.Zero) for d in d_linear):
        d_linear = [ad.instantiate_zeros(d) for d in d_linear]
        dy = _linear.bind(*arguments, *saved, *d_linear, **params)
    # The tangents of what the forward pass saved are 0: here it is not used.
    derivative: _Derivative = params["derivative"]
    transposed = params["transposed"]
    function = derivative.pull_by_definition if transposed else derivative.push
    moving = [i for i, d in enumerate(d_arguments) if _moves(d)]
    if moving:

        def at(*moved: Array) -> list[Array]:
            new = dict(zip(moving, moved, strict=True))
            return function([new.get(i, x) for i, x in enumerate(arguments)], linear)

        moved = [arguments[i] for i in moving]
        more = jax.jvp(at, moved, [d_arguments[i] for i in moving])[1]
        dy = [a + b.astype(a.dtype) for a, b in zip(dy, more, strict=True)]
    return y, dy


def _transpose(
    cotangents: Sequence[Any], *operands: Any, **params: Any
) -> list[Array | None]:
    arguments, saved, linear = _parts(operands, params["counts"])
    given = [ad.instantiate_zeros(ct) for ct in cotangents]
    transposed = {**params, "transposed": not params["transposed"]}
    gradients = _linear.bind(*arguments, *saved, *given, **transposed)
    # A tangent that is known is a constant of the map, usually 0.
    wanted: list[Array | None] = [
        g if ad.is_undefined_primal(x) else None
        for g, x in zip(gradients, linear, strict=True)
    ]
    return [*(None for _ in range(sum(params["counts"]))), *wanted]


def _batch(
    axis: Any, operands: Sequence[Array], dims: Sequence[Any], **params: Any
) -> tuple[list[Array], list[int | None]]:
    arguments, saved, linear = _parts(operands, params["counts"])
    of_arguments, of_saved, of_linear = _parts(dims, params["counts"])
    name = axis.name if isinstance(axis.name, str) else None
    if name is None and all(d is None for d in dims):
        y = _linear.bind(*operands, **params)
        return y, [None] * len(y)
    # All tangents get the axis, those of arguments without it too: the gradients of
    # one example then have it as well, and the sum is that of the broadcast.
    moved = [
        jnp.broadcast_to(x, (axis.size, *x.shape))
        if d is None
        else jnp.moveaxis(x, d, 0)
        for x, d in zip(linear, of_linear, strict=True)
    ]
    vmap = functools.partial(
        jax.vmap,
        axis_size=axis.size,
        axis_name=name,
        spmd_axis_name=axis.spmd_name,
    )
    one: _Derivative = params["derivative"]
    many = _Derivative(
        vmap(one.push, in_axes=(of_arguments, 0)),
        vmap(one.pull, in_axes=(of_arguments, of_saved, 0)),
        vmap(one.pull_by_definition, in_axes=(of_arguments, 0)),
    )
    wide = lambda aval: aval.update(shape=(axis.size, *aval.shape))
    avals = tuple(tuple(map(wide, side)) for side in params["avals"])
    y = _linear.bind(
        *arguments, *saved, *moved, **{**params, "derivative": many, "avals": avals}
    )
    return y, [*(0 for _ in y)]


_linear.def_impl(_compute)
_linear.def_abstract_eval(_abstract)
ad.primitive_jvps[_linear] = _differentiate
ad.primitive_transposes[_linear] = _transpose
batching.fancy_primitive_batchers[_linear] = _batch
mlir.register_lowering(_linear, mlir.lower_fun(_compute, multiple_results=True))


def _moves(tangent: Any) -> bool:
    """Whether a tangent can differ from 0."""
    if isinstance(tangent, ad.Zero | jax.custom_derivatives.SymbolicZero):
        return False
    return tangent.dtype != jax.dtypes.float0


def _split(tangents: tuple[Any, ...]) -> tuple[tuple[int, ...], list[Array]]:
    """Returns the positions of the leaves that can differ from 0, and those leaves."""
    leaves = jax.tree.leaves(tangents)
    moving = tuple(i for i, leaf in enumerate(leaves) if _moves(leaf))
    return moving, [leaves[i] for i in moving]


def _avals(leaves: Sequence[Array]) -> tuple[Any, ...]:
    return tuple(jax.typeof(x).strip_weak_type() for x in leaves)


def _real(tree: PyTree) -> list[Array]:
    """The leaves that have tangents."""
    leaves = jax.tree.leaves(tree)
    return [x for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]


def _with_integers(tree: PyTree, tangents: Sequence[Array]) -> PyTree:
    """Returns the tangents of `tree` from those of its leaves that have some."""
    left = iter(tangents)
    real = lambda x: jnp.issubdtype(x.dtype, jnp.inexact)
    return jax.tree.map(lambda x: next(left) if real(x) else _zeros(x), tree)


def _zeros(x: Any) -> Any:
    """Tangents of 0."""
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return jnp.zeros_like(x)
    return np.zeros(x.shape, jax.dtypes.float0)


def _same_axes(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Marks all floats as different on each device if one array is, in `shard_map`.

    The gradient of an argument that is the same everywhere is then summed over the
    devices by the transpose of this, so that the backward pass need not do it.
    """
    axes = frozenset().union(*(_axes(x) for x in jax.tree.leaves(arguments)))

    def vary(x: Array) -> Array:
        missing = tuple(axes - _axes(x)) if _real(x) else ()
        return _vary(x, missing) if missing else x

    return jax.tree.map(vary, arguments) if axes else arguments


def _vary(x: Array, axes: tuple[str, ...]) -> Array:
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, axes, to="varying")
    return getattr(jax.lax, "pvary")(x, axes)  # noqa: B009, JAX 0.7


def _axes(x: Any) -> frozenset[str]:
    """The axes of `shard_map` over which an array differs between devices."""
    aval = jax.typeof(x)
    manual = getattr(aval, "manual_axis_type", None)  # since JAX 0.11
    return getattr(aval, "vma", frozenset()) if manual is None else manual.varying
