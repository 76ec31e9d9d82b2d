"""Float32 products as a TPU computes them by default, in one bfloat16 pass."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from mmfusion_jax.analysis.cost import MACS, _precision  # pyright: ignore
from mmfusion_jax.ops.custom_gradient import derivative_jaxpr

INLINED = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")


def single_pass(function: Callable[..., Any], *, everywhere: bool = False):
    """`function` with the operands of products rounded to bfloat16.

    Args:
        function: Function of arrays; gradients inside it are rounded too.
        everywhere: Also those whose precision is not the default, as if none was asked.
    """

    def run(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        leaves = _evaluate(closed, jax.tree.leaves(args), everywhere)
        return jax.tree.unflatten(jax.tree.structure(shape), leaves)

    return run


def _evaluate(closed: ClosedJaxpr, args: list[Any], everywhere: bool) -> list[Any]:
    jaxpr = closed.jaxpr
    names = *jaxpr.constvars, *jaxpr.invars
    known = dict(zip(names, (*closed.consts, *args), strict=True))
    read = lambda x: x.val if isinstance(x, Literal) else known[x]
    for equation in jaxpr.eqns:
        values = [read(x) for x in equation.invars]
        found = _apply(equation, values, everywhere)
        known |= zip(equation.outvars, found, strict=True)
    return [read(x) for x in jaxpr.outvars]


def _apply(equation: Any, values: list[Any], everywhere: bool) -> list[Any]:
    """The results of an equation."""
    name, params = equation.primitive.name, dict(equation.params)
    if name in MACS and (everywhere or _precision(params["precision"]) == "default"):
        values = [_rounded(x) for x in values]
    inner = [k for k, v in params.items() if isinstance(v, ClosedJaxpr)]
    if (closed := derivative_jaxpr(equation)) is not None:
        return _evaluate(closed, values, everywhere)
    if name in INLINED:
        return _evaluate(params[inner[0]], values, everywhere)
    for key in inner:  # the bodies of loops
        params[key] = _rewritten(params[key], everywhere)
    if "branches" in params:
        params["branches"] = tuple(
            _rewritten(one, everywhere) for one in params["branches"]
        )
    assert not any(isinstance(v, Jaxpr) for v in params.values()), name
    found = equation.primitive.bind(*values, **params)
    return found if equation.primitive.multiple_results else [found]


def _rewritten(closed: ClosedJaxpr, everywhere: bool) -> ClosedJaxpr:
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in closed.in_avals]
    return jax.make_jaxpr(lambda *x: _evaluate(closed, [*x], everywhere))(*shapes)


def _rounded(x: Any) -> Any:
    return x.astype(jnp.bfloat16).astype(x.dtype) if x.dtype == jnp.float32 else x
