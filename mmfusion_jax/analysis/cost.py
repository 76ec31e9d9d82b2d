"""What a model costs before it is trained: parameters, operations, shapes, memory.

Nothing here runs a model: everything is read off its shapes and its equations.
"""

import collections
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.extend import core

from mmfusion_jax.types import Batch, Model, PyTree

COUNTED = (
    "multiply-accumulates of matrix products and convolutions, padding included, as "
    "the equations define them and whatever form the platform gives them; norms, "
    "softmax, pooling and other elementwise work are not counted"
)


def count_parameters(params: PyTree) -> dict[str, Any]:
    """The number of weights, in all and of every top-level module.

    Args:
        params: arrays or abstract arrays, by module.

    Returns:
        {"total": number, "components": {module: number}}.
    """
    size = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
    components = {name: size(tree) for name, tree in params.items()}
    return {"total": sum(components.values()), "components": components}


def count_macs(function: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """The multiply-accumulates of `function(*args)`; see `COUNTED`.

    They are counted in the jaxpr: a scan counts its body as often as it runs, of two
    branches the dearer one counts. Where every platform has a form of its own
    (`jax.lax.platform_dependent`) the default form counts, for it defines what the
    others compute. Every equation belongs to the module that wrote it.

    Args:
        function: maps arrays to arrays.
        args: arrays or abstract arrays.

    Returns:
        {"total": number, "components": {module: number}, "open_loops": number}; the
        bodies of loops that end on a condition, `open_loops` of them, count once.
    """
    jaxpr = jax.make_jaxpr(function)(*args)
    components: collections.Counter[str] = collections.Counter()
    open_loops = 0
    for path, macs in _products(jaxpr.jaxpr, ""):
        if macs is None:
            open_loops += 1
            continue
        components[_component(path)] += macs
    return {
        "total": sum(components.values()),
        "components": dict(components),
        "open_loops": open_loops,
    }


def output_shapes(model: Model, variables: PyTree, batch: Batch) -> dict[str, str]:
    """Module -> what it returns, such as "encoders_audio" -> "values (4, 26, 64)".

    Args:
        model: any model whose modules can be captured, such as one of Linen.
        variables: arrays or abstract arrays.
        batch: likewise.
    """
    run = lambda v, b: model.apply(
        v, b, train=False, capture_intermediates=True, mutable=["intermediates"]
    )
    _, captured = jax.eval_shape(run, variables, batch)
    return dict(_calls(captured["intermediates"], ""))


def bytes_of(tree: PyTree) -> int:
    """The memory that the arrays of a tree take."""
    return sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
    )


def compiled_memory(compiled: Any) -> dict[str, int]:
    """What XLA says a compiled function needs, in bytes.

    Args:
        compiled: result of `jax.jit(f).lower(...).compile()`.

    Returns:
        "arguments", "outputs", "temporary", and "peak", their sum without what
        outputs share with arguments.
    """
    found = compiled.memory_analysis()
    sizes = {
        "arguments": found.argument_size_in_bytes,
        "outputs": found.output_size_in_bytes,
        "temporary": found.temp_size_in_bytes,
    }
    return {**sizes, "peak": sum(sizes.values()) - found.alias_size_in_bytes}


def _products(jaxpr: core.Jaxpr, place: str) -> Iterator[tuple[str, int | None]]:
    """(module path, multiply-accumulates) of every product; None for an open loop."""
    for equation in jaxpr.eqns:
        path = "/".join(filter(None, (place, str(equation.source_info.name_stack))))
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            yield path, _dot_general(equation)
        elif name == "conv_general_dilated":
            yield path, _convolution(equation)
        elif name == "cond":
            yield from _branch(params, path)
        else:
            times = params["length"] if name == "scan" else 1
            for inner in _jaxprs(params):
                found = list(_products(inner, path))
                if name == "while" and found:
                    yield path, None
                for where, macs in found:
                    yield where, None if macs is None else macs * times


def _component(path: str) -> str:
    """The top-level module of a path such as "CFNSR/CFNSR._fuse/cross/ask"."""
    model, *inner = (name.split(".")[0] for name in path.split("/"))
    return next((name for name in inner if name != model), "itself")


def _branch(params: Mapping[str, Any], path: str) -> Iterator[tuple[str, int | None]]:
    """The products of the branch of a `cond` that counts."""
    platforms = params.get("branches_platforms")
    branches = [list(_products(b.jaxpr, path)) for b in params["branches"]]
    if platforms:  # the default form has no platform and stands last
        yield from branches[-1]
    else:
        yield from max(branches, key=lambda found: sum(macs or 0 for _, macs in found))


def _dot_general(equation: Any) -> int:
    """Every output element sums over the contracted axes."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    out = math.prod(equation.outvars[0].aval.shape)
    return out * math.prod(left[axis] for axis in contracted)


def _convolution(equation: Any) -> int:
    """Every output element sums over its window and the channels of its group."""
    kernel = equation.invars[1].aval.shape
    features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    # The zeros between dilated inputs need no work.
    dilation = math.prod(equation.params["lhs_dilation"])
    out = math.prod(equation.outvars[0].aval.shape)
    return out * math.prod(kernel) // features // dilation


def _jaxprs(params: Mapping[str, Any]) -> Iterator[core.Jaxpr]:
    """The equations inside an equation."""
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, core.ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, core.Jaxpr):
                yield part


def _calls(captured: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """(module path, description of what it returned), outer modules first.

    What a module stored for itself is no module and is left out.
    """
    if "__call__" in captured:
        yield path or "itself", _described(captured["__call__"])
    for name, inner in captured.items():
        if isinstance(inner, Mapping):
            yield from _calls(inner, f"{path}/{name}".lstrip("/"))


def _described(returned: Any) -> str:
    """The shapes of what a module returned, each with its name if it has one."""
    parts = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(returned):
        name = jax.tree_util.keystr(path[1:], simple=True, separator=".")
        parts.append(f"{name} ({', '.join(map(str, leaf.shape))})".lstrip())
    return ", ".join(parts)
