"""Properties of encoders, fusion blocks and models, one function for each."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.errors import describe_exception, join_names, shown, shown_name
from mmfusion_jax.testing import compare
from mmfusion_jax.testing import inputs as make
from mmfusion_jax.testing.module_case import Measured, ModuleCase, score
from mmfusion_jax.testing.report import CounterexampleError, NotCheckedError
from mmfusion_jax.types import Streams, Tokens

FLOATS = (jnp.float32, jnp.bfloat16)


def shapes_and_dtypes(case: ModuleCase) -> None:
    """Outputs are Tokens (b n d) of floats with a mask (b n), parameters are float."""
    variables = jax.eval_shape(case.init, case.key, case.zeroed)
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables.get("params", {})):
        if leaf.dtype not in FLOATS:
            raise CounterexampleError(
                f"parameter {shown(compare.leaf_name(path))} has dtype "
                f"{leaf.dtype.name}, not float32"
            )
    run = functools.partial(case.apply, train=True)
    outputs, _ = jax.eval_shape(run, variables, case.zeroed, case.key)
    for name, x in outputs.items():
        _check_output(compare.output_name(name), x, case.rows)
    lost = sorted(set(case.streams) - set(outputs))
    if case.kind == "fusion" and lost and compare.VECTOR not in outputs:
        raise CounterexampleError(f"stream {shown(lost[0])} is not among the outputs")


def _check_output(what: str, x: Any, rows: int) -> None:
    """Raises CounterexampleError if an output is not Tokens of floats."""
    if not isinstance(x, Tokens):
        raise CounterexampleError(f"{what} is not Tokens")
    if x.values.dtype not in FLOATS:
        raise CounterexampleError(
            f"{what} has values of {x.values.dtype.name}, not float32"
        )
    if x.mask.dtype != bool:
        raise CounterexampleError(f"{what} has a mask of {x.mask.dtype.name}, not bool")
    shape = x.values.shape
    if len(shape) != 3 or x.mask.shape != shape[:2] or shape[0] != rows:
        raise CounterexampleError(
            f"{what} has values {shown(shape)} and a mask {shown(x.mask.shape)} for "
            f"{rows:d} examples, not (b n d) and (b n)"
        )
    if x.grid and np.prod(x.grid, dtype=int) != shape[1]:
        raise CounterexampleError(
            f"{what} has the grid {shown(x.grid)} for {shape[1]:d} positions"
        )


def evaluation_without_a_key(case: ModuleCase) -> None:
    """train=False does not use a random key and does not change batch statistics."""
    try:
        outputs, stats = compare.to_numpy(case.evaluation(case.variables, case.zeroed))
    except Exception as error:
        if "InvalidRng" in type(error).__name__:
            raise CounterexampleError(
                "train=False requires a random key, so the same input has several "
                "results"
            ) from error
        raise
    old = compare.to_numpy(case.variables.get("batch_stats", {}))
    if leaf := compare.first_changed_leaf(old, stats):
        raise CounterexampleError(f"train=False changes the statistics {shown(leaf)}")
    if move := compare.first_nonfinite(outputs):
        raise CounterexampleError(f"{move.place()} is not finite")


def same_key_same_result(case: ModuleCase) -> None:
    """The same key, variables and inputs give the same bits, also traced again."""
    again = case.train(case.zeroed)
    if move := compare.first_move(case.trained.outputs, again.outputs):
        raise CounterexampleError(
            f"{move.place()} {move.amount()} when it runs again with the same key"
        )
    first, second = (_traced(case) for _ in range(2))
    if first != second:
        raise CounterexampleError(
            "it is traced to another program the second time, so it depends on "
            "something else than its inputs and the key"
        )


def _traced(case: ModuleCase) -> tuple[str, list[bytes]]:
    """The program and its constants."""
    run = lambda v, s, k: case.apply(v, s, k, train=True)
    # A new function each time: JAX does not trace the same one twice.
    closed = jax.make_jaxpr(run)(case.variables, case.zeroed, case.key)
    arrays = [x for x in closed.consts if hasattr(x, "dtype")]
    keys = [x for x in arrays if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    plain = [x for x in arrays if not any(x is key for key in keys)]
    literals = [
        str(literal.val)
        for equation in closed.jaxpr.eqns
        for literal in equation.invars
        if hasattr(literal, "val")
    ]
    return str(literals), [np.asarray(x).tobytes() for x in plain]


def without_jit(case: ModuleCase) -> None:
    """Without jit the outputs are the same."""
    got = compare.to_numpy(
        case.apply(case.variables, case.zeroed, None, train=False)[0]
    )
    _assert_same(case, case.predicted, got, "without jit")


def vmap_over_examples(case: ModuleCase) -> None:
    """Under vmap, with one example each, the outputs are the same."""
    run = jax.vmap(functools.partial(case.apply, key=None, train=False), (None, 0))
    one_each = jax.tree.map(lambda x: x[:, None], case.zeroed)
    got, _ = compare.to_numpy(jax.jit(run)(case.variables, one_each))
    got = jax.tree.map(lambda x: x[:, 0], got)
    _assert_same(case, case.predicted, got, "under vmap, one example at a time")


def _assert_same(case: ModuleCase, want: Streams, got: Streams, when: str) -> None:
    """Raises CounterexampleError if outputs differ by more than rounding."""
    if move := compare.first_move(want, got, case.tolerance):
        raise CounterexampleError(f"{move.place()} {move.amount()} {when}")


def masked_values(case: ModuleCase) -> None:
    """NaN, 1e30 and -1e30 at masked positions change no output and no gradient.

    Integers are the extremes of their type. Equality is bitwise.
    """
    for name, tokens in case.zeroed.items():
        for words, bad in make.garbage(tokens.values.dtype).items():
            if _reads(case, name, ~tokens.mask, bad):
                raise CounterexampleError(_smallest_reading(case, name, words, bad))


def _reads(case: ModuleCase, name: str, where: Any, bad: Any) -> str:
    """What changes if a stream has `bad` at some positions, "" for nothing."""
    tokens = case.zeroed[name]
    values = make.fill_masked(tokens.values, ~where, bad)
    dirty = {**case.zeroed, name: tokens.replace(values=values)}
    examples = np.flatnonzero(where.any(axis=1))
    got = case.predict(dirty)
    move = compare.first_move(case.predicted, got, rows=examples)
    if move := move or compare.first_move(case.predicted, got):
        return place_seen_from(move, examples)
    return _changed(case, case.trained, case.train(dirty), examples)


def _changed(
    case: ModuleCase, want: Measured, got: Measured, examples: np.ndarray
) -> str:
    """What differs in a training step, "" for nothing."""
    move = compare.first_move(want.outputs, got.outputs, rows=examples)
    if move := move or compare.first_move(want.outputs, got.outputs):
        return f"{place_seen_from(move, examples)} in training"
    if leaf := compare.first_changed_leaf(want.stats, got.stats):
        return f"the batch statistics {shown(leaf)}"
    if leaf := compare.first_changed_leaf(want.params, got.params):
        return f"the gradient of parameter {shown(leaf)}"
    for name, x in want.inputs.items():
        mask = case.zeroed[name].mask
        valid = lambda g, mask=mask: g[mask]
        if compare.first_changed_leaf(valid(x), valid(got.inputs[name])):
            return f"the gradient of the valid values of {shown(name)}"
        finite = np.isfinite(got.inputs[name])
        if not finite.all():
            return f"the gradient of masked values of {shown(name)}, to NaN"
    return ""


def place_seen_from(move: compare.Move, examples: np.ndarray) -> str:
    """The position; with its example, if that is not the only changed one."""
    return move.place(example=list(examples) != [move.example])


def _smallest_reading(case: ModuleCase, name: str, words: str, bad: Any) -> str:
    """The sentence for the first single position that is read."""
    mask = case.zeroed[name].mask
    where = "" if len(case.zeroed) == 1 else f" of {shown(name)}"
    for example, position in np.argwhere(~mask):
        only = np.zeros_like(mask)
        only[example, position] = True
        if what := _reads(case, name, only, bad):
            return (
                f"position {position:d}{where} of example {example:d} is masked, but "
                f"{words} there changes {what}"
            )
    what = _reads(case, name, ~mask, bad)
    return f"{words} at all masked positions{where} changes {what}"


def padding_length(case: ModuleCase) -> None:
    """More padding at the end changes no valid output."""
    if case.fixed_length:
        raise NotCheckedError("the number of positions is declared to be fixed")
    longer = make.lengthen(case.zeroed, case.extra)
    name = next(iter(longer))
    counts = [x[name].mask.shape[1] for x in (longer, case.zeroed)]
    more = f"with padding up to {counts[0]:d} instead of {counts[1]:d} positions"
    try:
        got = case.predict(longer)
    except Exception as error:
        reason = describe_exception(error)
        raise CounterexampleError(f"{more} it raises {reason}") from error
    _assert_same_valid(case, case.predicted, got, more)
    if not case.has_statistics or case.is_random:
        return
    want, got = (_statistics(case, x) for x in (case.zeroed, longer))
    if leaf := compare.first_changed_leaf(want, got, case.tolerance):
        raise CounterexampleError(f"{more} the batch statistics {shown(leaf)} change")


def _statistics(case: ModuleCase, streams: Streams) -> Any:
    """The batch statistics after a training step."""
    run = lambda variables, s: case.apply(variables, s, case.key, train=True)[1]
    return compare.to_numpy(jax.jit(run)(case.variables, streams))


def _assert_same_valid(
    case: ModuleCase, want: Streams, got: Streams, when: str
) -> None:
    """Raises CounterexampleError if the valid tokens differ, wherever they are."""
    pairs = zip(compare.compact(want), compare.compact(got), strict=True)
    for (name, example, x), (_, _, y) in pairs:
        if name.startswith("aux/"):
            continue
        what = compare.output_name(name)
        if len(x) != len(y):
            raise CounterexampleError(
                f"{what} of example {example:d} has {len(y)} valid positions instead "
                f"of {len(x)} {when}"
            )
        scale = np.max(np.abs(want[name].values), initial=1e-6)
        with np.errstate(invalid="ignore"):
            move = np.abs(x - y)
        if not np.all(move <= case.tolerance * scale):
            bad = int(np.argmin(np.all(move <= case.tolerance * scale, axis=-1)))
            found = compare.Move(name, example, bad, float(np.max(move)))
            raise CounterexampleError(f"{found.place()} {found.amount()} {when}")


def padding_position(case: ModuleCase) -> None:
    """Padding in front of the valid steps gives the same valid outputs."""
    if case.positional:
        raise NotCheckedError("results are declared to depend on positions")
    moved = make.padding_in_front(case.zeroed)
    _assert_same_valid(
        case, case.predicted, case.predict(moved), "when the padding comes first"
    )


def neighbors_in_the_batch(case: ModuleCase) -> None:
    """An example does not depend on the other examples of the batch.

    In training only if the part does not have batch statistics.
    """
    runs = [(case.predicted, case.predict, "")]
    if not case.has_statistics:
        train = lambda streams: case.train(streams).outputs
        runs.append((case.trained.outputs, train, " in training"))
    for want, run, when in runs:
        for changed in range(case.rows):
            got = run(_other_example(case, changed))
            others = [i for i in range(case.rows) if i != changed]
            if move := compare.first_move(want, got, case.tolerance, others):
                name = move.name
                what = "" if name == compare.ONLY else f" of output {shown(name)}"
                raise CounterexampleError(
                    f"example {move.example:d}{what} {move.amount()} when example "
                    f"{changed:d} changes{when}"
                )


def _other_example(case: ModuleCase, changed: int) -> Streams:
    """The inputs with other values in one example, everywhere valid in it."""
    rows = np.arange(case.rows) == changed

    def values(name: str, x: Tokens) -> np.ndarray:
        # Every value is one that occurs: ids must stay in the vocabulary.
        mixed = np.roll(np.asarray(x.values)[::-1], 1, axis=1)
        return 3 * mixed + 1 if make.is_float(x.values) else mixed

    streams = make.with_values(case.streams, values, rows=rows)
    masks = lambda name, x: np.where(rows[:, None], True, case.zeroed[name].mask)
    kept = make.with_masks(streams, masks)
    return {
        name: x.replace(
            values=np.where(
                rows.reshape(-1, *[1] * (x.values.ndim - 1)),
                x.values,
                case.zeroed[name].values,
            )
        )
        for name, x in kept.items()
    }


def subsets_of_modalities(case: ModuleCase) -> None:
    """Every subset of modalities, also none, has finite outputs and gradients."""
    names = list(case.zeroed)
    for count in range(len(names), -1, -1):
        for present in itertools.combinations(names, count):
            whole = lambda name, x, p=present: np.full_like(x.mask, name in p)
            here = make.with_masks(case.streams, whole)
            what = join_names(present, empty="no modality")
            _assert_finite(case.train(here), f"with {what} present")
            outputs = case.predict(here)
            if move := compare.first_nonfinite(outputs):
                raise CounterexampleError(
                    f"with {what} present, {move.place()} is not finite"
                )
            if not present and case.kind != "model" and compare.VECTOR not in outputs:
                _assert_nothing_valid(outputs)


def _assert_nothing_valid(outputs: Streams) -> None:
    """Raises CounterexampleError if an output of nothing is valid."""
    for name in sorted(outputs):
        found = np.argwhere(outputs[name].mask)
        if len(found) and not name.startswith("aux/"):
            move = compare.Move(name, int(found[0][0]), int(found[0][1]), 0)
            raise CounterexampleError(
                f"every input is masked, but {move.place()} is marked as valid"
            )


def _assert_finite(measured: Measured, when: str) -> None:
    """Raises CounterexampleError if something in a training step is not finite."""
    if move := compare.first_nonfinite(measured.outputs):
        raise CounterexampleError(f"{when}, {move.place()} is not finite")
    for what, tree in (
        ("the gradient of parameter", measured.params),
        ("the gradient of input", measured.inputs),
        ("the batch statistics", measured.stats),
    ):
        if leaf := compare.first_nonfinite_leaf(tree):
            raise CounterexampleError(f"{when}, {what} {shown(leaf)} is not finite")


def missing_stays_missing(case: ModuleCase) -> None:
    """An example without a valid step has no valid token."""
    if case.kind != "encoder":
        raise NotCheckedError("a block or model may replace a missing modality")
    (tokens,) = case.zeroed.values()
    for name, x in case.predicted.items():
        found = np.argwhere(x.mask & ~tokens.mask.any(axis=1)[:, None])
        if len(found) and not name.startswith("aux/"):
            example, position = found[0]
            raise CounterexampleError(
                f"example {example:d} is masked everywhere, but the output at "
                f"position {position:d} is marked as valid"
            )


def dropped_streams(case: ModuleCase) -> None:
    """With a stream less it is refused, or the outputs are finite."""
    if case.kind != "fusion" or len(case.zeroed) < 2:
        raise NotCheckedError("it has one input")
    refused = []
    for name in case.zeroed:
        fewer = {k: x for k, x in case.zeroed.items() if k != name}
        try:
            jax.eval_shape(case.init, case.key, fewer)
        except Exception:  # the block may raise anything
            refused.append(name)
            continue
        variables = case.initial(case.key, fewer)
        outputs, _ = compare.to_numpy(case.evaluation(variables, fewer))
        if move := compare.first_nonfinite(outputs):
            raise CounterexampleError(
                f"without the stream {shown(name)}, {move.place()} is not finite"
            )
    if len(refused) == len(case.zeroed):
        raise NotCheckedError("the block requires all of its streams")


def bfloat16(case: ModuleCase) -> None:
    """Computed in bfloat16 the outputs are nearly those of float32."""
    if not hasattr(case.module, "dtype"):
        raise NotCheckedError("it does not have the option dtype")
    module = case.module.clone(dtype=jnp.bfloat16)
    run = functools.partial(case.apply, key=None, train=False, module=module)
    streams = case.zeroed
    if case.kind == "fusion":  # encoders return the dtype of the computation
        half = lambda x: x.replace(values=x.values.astype(jnp.bfloat16))
        streams = {name: half(x) for name, x in streams.items()}
    got, _ = compare.to_numpy(jax.jit(run)(case.variables, streams))
    tolerance = case.low_precision_tolerance
    name = next(iter(got))
    dtype = jax.eval_shape(run, case.variables, streams)[0][name].values.dtype
    if case.kind == "encoder" and dtype != jnp.bfloat16:
        raise CounterexampleError(
            f"{compare.output_name(name)} is {dtype.name} with dtype=bfloat16"
        )
    if move := compare.first_move(case.predicted, got, tolerance):
        raise CounterexampleError(f"{move.place()} {move.amount()} in bfloat16")


def two_devices(case: ModuleCase) -> None:
    """Under pmap over two devices the results are those of one device.

    Only pmap splits the batch for the part itself. Under jit on a mesh, the compiler
    splits the program of one device, whose results do not depend on the split.
    """
    if jax.local_device_count() < 2:
        raise NotCheckedError("this process has one device")
    module = _with_axis(case.module)
    train = not case.is_random
    if not train and case.has_statistics:
        note = "training is random, so statistics of two devices are not compared"
        raise NotCheckedError(note)

    def run(streams: Any) -> Any:
        key = case.key if train else None
        return case.apply(case.variables, streams, key, train=train, module=module)

    half = lambda x: np.reshape(x, (2, case.rows // 2, *np.shape(x)[1:]))
    split = jax.tree.map(half, case.zeroed)
    devices = jax.local_devices()[:2]
    mapped = jax.pmap(run, axis_name="data", devices=devices)
    got, stats = compare.to_numpy(mapped(split))
    got = jax.tree.map(lambda x: x.reshape(case.rows, *x.shape[2:]), got)
    want = case.trained.outputs if train else case.predicted
    _assert_same(case, want, got, "on two devices")
    first = jax.tree.map(lambda x: x[0], stats)
    if train and (leaf := compare.first_changed_leaf(
        case.trained.stats, first, case.tolerance
    )):  # fmt: skip
        raise CounterexampleError(
            f"on two devices the batch statistics {shown(leaf)} differ"
        )


def _with_axis(part: Any) -> Any:
    """Returns a module in which it and its parts have axis="data" where they can.

    A model need not be a Linen module, but may be a dataclass that holds one.
    """
    if isinstance(part, Mapping):
        return {name: _with_axis(x) for name, x in part.items()}
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        return part
    names = [x.name for x in dataclasses.fields(part) if x.init]
    given = {x: getattr(part, x) for x in names if x not in ("parent", "name")}
    axis = {"axis": "data"} if "axis" in given else {}
    changed: dict[str, Any] = {k: _with_axis(x) for k, x in given.items()} | axis
    clone = getattr(part, "clone", None)  # of a Linen module
    return clone(**changed) if clone else dataclasses.replace(part, **changed)


def degenerate_inputs(case: ModuleCase) -> None:
    """Constants, zeros, 1e4, one or no valid step: all is finite."""
    for when, streams in _degenerate(case):
        _assert_finite(case.train(streams), f"with {when}")


def _degenerate(case: ModuleCase) -> Iterator[tuple[str, Streams]]:
    """Inputs with their description."""
    constant = lambda value: make.with_values(
        case.zeroed, lambda _, x: np.full_like(x.values, value)
    )
    yield "ones everywhere", constant(1)
    yield "zeros everywhere", constant(0)
    large = lambda _, x: x.values * (1e4 if make.is_float(x.values) else 1)
    yield "values of 1e4", make.with_values(case.zeroed, large)
    yield "no valid step", make.with_masks(case.zeroed, lambda _, x: x.mask & False)
    first = lambda _, x: np.arange(x.mask.shape[1]) < 1 + 0 * x.mask
    yield "one valid step", make.with_masks(case.streams, first)


def batch_of_one(case: ModuleCase) -> None:
    """A batch of one example has the same output, and finite gradients."""
    one = make.example_rows(case.zeroed, slice(0, 1))
    measured = case.train(one)
    _assert_finite(measured, "with a batch of one example")
    if case.has_statistics or case.is_random:
        return
    move = compare.first_move(
        make.example_rows(case.trained.outputs, slice(0, 1)),
        measured.outputs,
        case.tolerance,
    )
    if move:
        raise CounterexampleError(f"{move.place()} {move.amount()} in a batch of one")


def parameters(case: ModuleCase) -> None:
    """The parameters do not depend on the examples or on their number."""
    shapes = lambda streams: jax.tree.map(
        lambda x: x.shape, jax.eval_shape(case.init, case.key, streams)
    )
    want = shapes(case.zeroed)
    if want != shapes(make.example_rows(case.zeroed, slice(0, 1))):
        raise CounterexampleError(
            f"its parameters have other shapes for 1 than for {case.rows:d} examples"
        )
    first, other = (
        compare.to_numpy(case.initial(case.key, x))
        for x in (case.zeroed, _other_example(case, 0))
    )
    if leaf := compare.first_changed_leaf(first, other):
        raise CounterexampleError(
            f"the initial value of {shown(leaf)} changes when example 0 changes"
        )


def gradients_of_parameters(case: ModuleCase) -> None:
    """Every submodule has a gradient."""
    grads = case.trained.params
    if not grads:
        raise NotCheckedError("it does not have parameters")
    for name, tree in sorted(grads.items()):
        if not any(np.any(x) for x in jax.tree.leaves(tree)):
            raise CounterexampleError(f"the gradient of {shown(name)} is 0 everywhere")


def second_derivatives_exist(case: ModuleCase) -> None:
    """It can be differentiated twice, in every order of forward and reverse mode.

    Traced only: to compile it takes several times as long as a training step.
    """
    variables = case.variables
    if not (params := variables.get("params")):
        raise NotCheckedError("it does not have parameters")

    def value(params: Any) -> Any:
        changed = {**variables, "params": params}
        return score(case.apply(changed, case.zeroed, case.key, train=True)[0])

    slope = lambda x: jax.jvp(value, (x,), (params,))[1]
    products = {
        "forward over reverse": lambda x: jax.jvp(jax.grad(value), (x,), (params,))[1],
        "reverse over reverse": lambda x: jax.vjp(jax.grad(value), x)[1](params)[0],
        "reverse over forward": jax.grad(slope),
    }
    for order, product in products.items():
        try:
            jax.eval_shape(product, params)
        except Exception as error:
            # JAX's name for what is left of a custom_vjp in forward mode is custom_lin.
            if re.search("custom_(vjp|lin)", str(error)):
                raise NotCheckedError(
                    "a jax.custom_vjp in it has no forward mode; jax.custom_jvp has"
                ) from error
            reason = describe_exception(error)
            raise CounterexampleError(
                f"it cannot be differentiated twice, {shown_name(order)} mode: {reason}"
            ) from error


COMMON = (
    shapes_and_dtypes,
    evaluation_without_a_key,
    same_key_same_result,
    without_jit,
    vmap_over_examples,
    gradients_of_parameters,
    second_derivatives_exist,
    parameters,
    masked_values,
    missing_stays_missing,
    padding_length,
    padding_position,
    neighbors_in_the_batch,
    subsets_of_modalities,
    dropped_streams,
    degenerate_inputs,
    batch_of_one,
    bfloat16,
    two_devices,
)
"""All properties, in the order in which they are checked."""
