"""Programs of a model in ONNX: an experiment, with jax2onnx 0.13.0.

jax2onnx is not given the model but a rewritten one, which has the same outputs and does
without what 0.13.0 does not convert, or converts to what ONNX Runtime 1.32 rejects:

    platform_index        missing; the branch of the CPU, which has no convolution in 3D
    conv_general_dilated  in 3D missing
    stack                 missing; concatenation
    rem of integers       of type float in a loop
    dot_general           an Einsum whose output has a letter twice
"""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from mmfusion_jax.errors import ConfigError, describe_exception, missing_dependency
from mmfusion_jax.inference.program import ProgramExporter, largest_difference

TOLERANCE = 1e-3
"""Largest difference of an output that is accepted; more is not rounding."""

CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}
"""Primitive that calls a function -> its parameter with the function."""


def simplify(f: Callable[..., Any], *specs: Any) -> Callable[..., list[Any]]:
    """Returns a function with the same outputs, of primitives that can be converted.

    Args:
        f: A function of arrays.
        specs: Shapes and dtypes of its arguments.

    Returns:
        Maps the arguments to the leaves of the outputs.
    """
    closed = jax.make_jaxpr(f)(*specs)
    return lambda *arguments: _evaluate(closed.jaxpr, closed.consts, arguments)


def _evaluate(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Computes the outputs of a jaxpr with the rewritten primitives."""
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))
    read = lambda x: x.val if isinstance(x, core.Literal) else values[x]
    for equation in jaxpr.eqns:
        results = _compute(equation, [read(x) for x in equation.invars])
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(x) for x in jaxpr.outvars]


def _compute(equation: Any, operands: list[Any]) -> list[Any]:
    """Computes one equation."""
    name, params = equation.primitive.name, equation.params
    if name == "platform_index":
        return [_cpu_branch(params["platforms"])]
    if name == "cond" and isinstance(operands[0], int):
        branch = params["branches"][operands[0]]
        return _evaluate(branch.jaxpr, branch.consts, operands[1:])
    if name in CALLS:
        called = params[CALLS[name]]
        consts = getattr(called, "consts", ())
        return _evaluate(getattr(called, "jaxpr", called), consts, operands)
    if name in REWRITTEN:
        return REWRITTEN[name](operands, params)
    functions, bound = (), equation.primitive.get_bind_params(params)
    if isinstance(bound, tuple):  # in older versions of JAX
        functions, bound = bound
    found = equation.primitive.bind(*functions, *operands, **bound)
    return [*found] if equation.primitive.multiple_results else [found]


def _cpu_branch(platforms: Sequence[Any]) -> int:
    """Returns the index of the branch of the CPU, or of the default one."""
    for i, names in enumerate(platforms):
        if names is None or "cpu" in names:
            return i
    raise ValueError("a part of the model does not run on a CPU")


def _identity(operands: list[Any], params: Mapping[str, Any]) -> list[Any]:
    del params
    return operands


def _stack(operands: list[Any], params: Mapping[str, Any]) -> list[Any]:
    axis = params["axis"]
    return [lax.concatenate([jnp.expand_dims(x, axis) for x in operands], axis)]


def _rem(operands: list[Any], params: Mapping[str, Any]) -> list[Any]:
    a, b = operands
    if not jnp.issubdtype(a.dtype, jnp.integer):
        return [lax.rem_p.bind(a, b, **params)]
    return [a - lax.div(a, b) * b]


def _dot_general(operands: list[Any], params: Mapping[str, Any]) -> list[Any]:
    """Computes a dot product as one of matrices, or of stacks of matrices."""
    a, b = operands
    (sum_a, sum_b), (batch_a, batch_b) = params["dimension_numbers"]
    free = lambda x, used: [i for i in range(x.ndim) if i not in used]
    free_a, free_b = free(a, {*sum_a, *batch_a}), free(b, {*sum_b, *batch_b})
    shape = lambda x, axes: [x.shape[i] for i in axes]
    size = lambda x, axes: math.prod(shape(x, axes))
    batch = [size(a, batch_a)] if batch_a else []
    x = lax.transpose(a, (*batch_a, *free_a, *sum_a))
    y = lax.transpose(b, (*batch_b, *sum_b, *free_b))
    x = x.reshape(*batch, size(a, free_a), size(a, sum_a))
    y = y.reshape(*batch, size(b, sum_b), size(b, free_b))
    n = len(batch)
    numbers = (((1 + n,), (n,)), ((0,) * n, (0,) * n))
    z = lax.dot_general(
        x, y, numbers, preferred_element_type=params["preferred_element_type"]
    )
    return [z.reshape(shape(a, batch_a) + shape(a, free_a) + shape(b, free_b))]


def _scan(operands: list[Any], params: Mapping[str, Any]) -> list[Any]:
    first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
    consts, carry, rows = operands[:first], operands[first:last], operands[last:]
    body = params["jaxpr"]

    def step(carry: tuple[Any, ...], row: tuple[Any, ...]):
        found = _evaluate(body.jaxpr, body.consts, [*consts, *carry, *row])
        return tuple(found[: len(carry)]), tuple(found[len(carry) :])

    end, stacked = lax.scan(
        step,
        tuple(carry),
        tuple(rows),
        length=params["length"],
        reverse=params["reverse"],
    )
    return [*end, *stacked]


REWRITTEN = {
    "dot_general": _dot_general,
    "optimization_barrier": _identity,
    "rem": _rem,
    "scan": _scan,
    "stack": _stack,
    "stop_gradient": _identity,
}
"""Primitive -> what computes it of other primitives."""


def export_onnx(exporter: ProgramExporter, batch_size: int) -> tuple[bytes, float]:
    """Returns a program in ONNX, with its variables, and its largest difference.

    Its inputs are "<modality>" and "<modality>_mask", its outputs "prediction" and
    "weights/<modality>".

    Args:
        exporter: The model.
        batch_size: Number of examples.

    Raises:
        MissingDependencyError: jax2onnx or onnxruntime is not installed.
        ConfigError: The model cannot be converted, or has other outputs in ONNX
            Runtime.
    """
    jax2onnx, runtime = _libraries()
    names = [*exporter.modalities]
    inputs, masks = exporter.specs(batch_size)
    specs = [*(inputs[m] for m in names), *(masks[m] for m in names)]

    def flat(*arguments: Any) -> dict[str, Any]:
        values, valid = arguments[: len(names)], arguments[len(names) :]
        arrays = {name: jnp.asarray(x) for name, x in exporter.arrays.items()}
        of = lambda part: dict(zip(names, part, strict=True))
        found = exporter.batch_program(arrays, of(values), of(valid))
        weights = {f"weights/{m}": w for m, w in found["weights"].items()}
        return {"prediction": found["prediction"], **weights}

    outputs = sorted(jax.eval_shape(flat, *specs))  # in the order of their leaves
    simple = simplify(flat, *specs)
    values, valid = exporter.random_batch(batch_size)
    batch = [*(values[m] for m in names), *(valid[m] for m in names)]
    try:
        with _silenced():
            content = jax2onnx.to_onnx(
                lambda *arguments: tuple(simple(*arguments)),
                specs,
                input_names=[*names, *(f"{m}_mask" for m in names)],
                output_names=outputs,
            ).SerializeToString()
            options = runtime.SessionOptions()
            options.log_severity_level = 3  # it warns of shapes that it then infers
            session = runtime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            feed = [one.name for one in session.get_inputs()]
            got = session.run(None, dict(zip(feed, batch, strict=True)))
    except Exception as error:
        raise ConfigError(
            "C45",
            f"the model cannot be converted to ONNX: {describe_exception(error)}",
            "export it without --onnx: StableHLO has all models",
        ) from error
    want = jax.jit(flat)(*batch)
    difference = largest_difference(got, [want[name] for name in outputs])
    if not difference <= TOLERANCE:
        raise ConfigError(
            "C45",
            f"the model has other outputs in ONNX Runtime: they differ by "
            f"{difference:.2g}.",
            "export it without --onnx",
        )
    return content, difference


def _libraries() -> tuple[Any, Any]:
    """Returns the modules jax2onnx and onnxruntime."""
    found = []
    for name in ("jax2onnx", "onnxruntime"):
        try:
            with _silenced():
                found.append(__import__(name))
        except ImportError as error:
            raise missing_dependency(name, "onnx", "--onnx") from error
    return found[0], found[1]


@contextlib.contextmanager
def _silenced():
    """Keeps the tracebacks off the screen that jax2onnx logs for optional parts.

    It leaves out a part whose import warns where warnings are errors.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
