"""Checks of loss terms."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.errors import shown, shown_name, type_name
from mmfusion_jax.losses.objective import average
from mmfusion_jax.testing import compare
from mmfusion_jax.testing.inputs import fill_masked, garbage, is_float
from mmfusion_jax.testing.report import (
    CounterexampleError,
    NotCheckedError,
    Report,
    check_is_object,
    described,
    run_properties,
)
from mmfusion_jax.types import Array, Batch, Outputs

ROWS = 8
CLASSES = 4
WIDTH = 5
"""Sizes of the outputs that the kit makes."""

PREDICTION = "/prediction"
"""Name of the prediction among the arrays; "" is the path of a leaf that is alone."""


MASKING = "mask them: zero_masked(outputs.prediction, batch.weight > 0)"
"""How a loss does not read masked examples."""


def check_loss(
    term: Any,
    outputs: Outputs | None = None,
    batch: Batch | None = None,
    *,
    name: str = "",
    valid: Mapping[str, Any] | None = None,
    compares_examples: bool = False,
    tolerance: float = 1e-4,
) -> Report:
    """Checks that a loss term does what every term must.

    Example:
        >>> import mmfusion_jax as mmf
        >>> report = mmf.testing.check_loss(
        ...     mmf.losses.L1("score")
        ... )  # or a loss of yours
        >>> "rows of weight 0" in report.checked
        True

    Args:
        term: `(outputs, batch) -> (b)`, or `()` with `compares_examples`.
        outputs: Outputs of a model that the term reads. By default logits, and every
            auxiliary output that it asks for, (b 5).
        batch: Labels, masks and weights. By default every label and modality that the
            term asks for; one modality is missing in two examples.
        name: Name of the term in messages; its class by default.
        valid: Auxiliary output -> examples in which it means something, (b) bool. By
            default those in which all modalities in its name are present.
        compares_examples: The term compares the examples of a batch, such as InfoNCE.
        tolerance: Allowed difference of two programs, relative to the largest value.

    Returns:
        The properties that hold, and those that were not checked.

    Raises:
        AssertionError: A property does not hold; one sentence for each.
    """
    check_is_object(term, "a loss")
    if outputs is None or batch is None:
        outputs, batch = _made_for(term, outputs, batch)
    arrays: Any = jax.tree.map(np.asarray, (outputs, batch))
    outputs, batch = arrays
    case = LossCase(term, outputs, batch, valid or {}, compares_examples, tolerance)
    return run_properties(name or _name(term), case, PROPERTIES)


def _name(term: Any) -> str:
    """Name of the class or function of a term."""
    return getattr(term, "__name__", type(term).__name__)


@dataclasses.dataclass
class LossCase:
    """A loss term with inputs.

    Attributes:
        term: The term.
        outputs: Outputs with NumPy leaves.
        batch: Batch with NumPy leaves.
        valid: Auxiliary output -> valid examples, (b) bool, where it is given.
        compares_examples: The term compares examples.
        tolerance: Allowed difference of two programs.
    """

    term: Any
    outputs: Any
    batch: Any
    valid: Mapping[str, Any]
    compares_examples: bool
    tolerance: float

    @functools.cached_property
    def program(self) -> Callable[..., Any]:
        """The compiled values (b) or (), and the gradients of their mean."""

        def total(floats: Any, others: Any, batch: Batch) -> tuple[Array, Array]:
            outputs = _merged(floats, others)
            value = self.term(outputs, batch)
            return average(value, batch.weight) if value.ndim else value, value

        run = jax.jit(jax.value_and_grad(total, has_aux=True))

        def split_first(outputs: Outputs, batch: Batch) -> tuple[Any, Any]:
            (mean, values), grads = run(*_split(outputs), batch)
            return compare.to_numpy((mean, values)), compare.to_numpy(grads)

        return split_first

    @functools.cached_property
    def result(self) -> tuple[Any, Any]:
        """Values and gradients of the inputs, with 0 in rows that mean nothing."""
        return self.program(self.cleaned, self.batch)

    @functools.cached_property
    def cleaned(self) -> Outputs:
        """The outputs with 0 in rows that mean nothing."""
        return self.filled(lambda dtype: 0)

    def filled(self, bad: Callable[[Any], Any]) -> Outputs:
        """Returns the outputs with a value in rows that mean nothing."""
        aux: Any = {
            k: fill_masked(x, self.rows(k), bad(x.dtype)) if is_float(x) else x
            for k, x in self.outputs.aux.items()
        }
        y = self.outputs.prediction
        filled: Any = fill_masked(y, self.batch.weight > 0, bad(y.dtype))
        return Outputs(filled, aux)

    def rows(self, name: str) -> np.ndarray:
        """Examples in which an auxiliary output means something, (b) bool."""
        valid = self.batch.weight > 0
        if name in self.valid:
            return valid & np.asarray(self.valid[name])
        for word in re.split("[/_]", name):
            if word in self.batch.masks:
                valid = valid & self.batch.masks[word].any(axis=1)
        return valid


def _split(outputs: Outputs) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns arrays with a gradient, and the others."""
    arrays = {PREDICTION: outputs.prediction, **outputs.aux}
    floats = {k: x for k, x in arrays.items() if is_float(x)}
    return floats, {k: x for k, x in arrays.items() if k not in floats}


def _merged(floats: dict[str, Any], others: dict[str, Any]) -> Outputs:
    arrays = {**floats, **others}
    aux = {k: x for k, x in arrays.items() if k != PREDICTION}
    return Outputs(arrays[PREDICTION], aux)


def value_per_example(case: LossCase) -> None:
    """One float32 value per example, or one if the term compares examples."""
    value = jax.eval_shape(case.term, case.outputs, case.batch)
    if not hasattr(value, "shape"):
        raise CounterexampleError(f"it returns {type_name(value)}, not an array")
    count = len(case.batch.weight)
    if value.shape == () and not case.compares_examples:
        raise CounterexampleError(
            f"it returns one value for {count:d} examples, so rows of weight 0 count: "
            "return one value per example"
        )
    if value.shape not in ((), (count,)):
        raise CounterexampleError(
            f"it returns the shape {shown(value.shape)} for {count:d} examples"
        )
    if value.dtype != jnp.float32:
        raise CounterexampleError(f"it returns {value.dtype.name}, not float32")


def gradient(case: LossCase) -> None:
    """The gradient is finite, and not 0 everywhere."""
    (mean, _), grads = case.result
    if not np.isfinite(mean):
        raise CounterexampleError("the loss of random outputs is not finite")
    if leaf := compare.first_nonfinite_leaf(grads):
        raise CounterexampleError(f"the gradient of {output_text(leaf)} is not finite")
    if not any(np.any(g) for g in grads.values()):
        raise CounterexampleError("the gradient is 0 everywhere")


def output_text(name: str) -> str:
    """Returns the text of an output of a model."""
    return "the prediction" if name == PREDICTION else f"aux[{shown(name)}]"


def same_key_same_result(case: LossCase) -> None:
    """The same inputs give the same bits, and nearly the same without jit."""
    again = case.program(case.cleaned, case.batch)
    if compare.first_changed_leaf(case.result, again):
        raise CounterexampleError("the loss or its gradient changes when it runs again")
    want = case.result[0][1]
    got = compare.to_numpy(case.term(case.cleaned, case.batch))
    if compare.first_changed_leaf([want], [got], case.tolerance):
        raise CounterexampleError(
            f"the loss moves by {_largest(want, got):.2g} without jit"
        )


def _largest(x: Any, y: Any) -> float:
    return float(np.max(np.abs(x - y), initial=0))


def masked_examples(case: LossCase) -> None:
    """Rows of weight 0 and missing modalities hold NaN and 1e30, and change nothing."""
    for words in garbage(np.float32):
        bad = float(words)
        got = case.program(case.filled(lambda _, bad=bad: bad), case.batch)
        # The value of a row of weight 0 may change: the objective ignores it.
        if not _difference(case, got):
            continue
        for name in (PREDICTION, *case.outputs.aux):
            for example in np.flatnonzero(~case.rows(name)):
                dirty = _with_value(case, name, int(example), bad)
                if what := _difference(case, case.program(dirty, case.batch)):
                    raise CounterexampleError(
                        f"{output_text(name)} of example {example:d} is masked, but "
                        f"{words} there changes {what}; {MASKING}"
                    )
        what = _difference(case, got)
        raise CounterexampleError(f"{words} in all masked examples changes {what}")


def _with_value(case: LossCase, name: str, example: int, bad: float) -> Outputs:
    """The outputs with a value in one row."""
    arrays = {PREDICTION: case.cleaned.prediction, **case.cleaned.aux}
    if not is_float(arrays[name]):
        return case.cleaned
    changed = np.array(arrays[name])
    changed[example] = bad
    return _merged({**arrays, name: changed}, {})


def _difference(case: LossCase, got: Any) -> str:
    """What differs from the result, "" for nothing."""
    (mean, _), grads = case.result
    (new_mean, _), new_grads = got
    if mean.tobytes() != new_mean.tobytes():
        return "the loss"
    leaf = compare.first_changed_leaf(grads, new_grads)
    return f"the gradient of {output_text(leaf)}" if leaf else ""


def rows_of_weight_0(case: LossCase) -> None:
    """Without its rows of weight 0 a batch has the same loss and gradients."""
    rows = np.flatnonzero(case.batch.weight > 0)
    if len(rows) == len(case.batch.weight):
        raise NotCheckedError("the batch has no row of weight 0")
    fewer = lambda tree: jax.tree.map(lambda x: np.asarray(x)[rows], tree)
    (want, _), grads = case.program(*fewer((case.cleaned, case.batch)))
    (mean, _), all_grads = case.result
    if abs(want - mean) > case.tolerance * max(1e-6, abs(want)):
        raise CounterexampleError(
            f"the loss moves by {abs(want - mean):.2g} with rows of weight 0"
        )
    if leaf := compare.first_changed_leaf(grads, fewer(all_grads), case.tolerance):
        raise CounterexampleError(
            f"the gradient of {output_text(leaf)} changes with rows of weight 0"
        )


def neighbors_in_the_batch(case: LossCase) -> None:
    """The loss of an example does not depend on the others."""
    if case.compares_examples:
        raise NotCheckedError("it is declared to compare examples")
    count = len(case.batch.weight)
    want = case.result[0][1]
    for changed in range(count):
        move = lambda x, i=changed: _moved_row(x, i)
        outputs = jax.tree.map(move, case.cleaned)
        got = case.program(outputs, case.batch)[0][1]
        with np.errstate(invalid="ignore"):
            same = np.abs(got - want) <= case.tolerance * np.max(np.abs(want))
        same |= np.isnan(got) & np.isnan(want)
        others = [i for i in np.flatnonzero(~same) if i != changed]
        if others:
            first = int(others[0])
            raise CounterexampleError(
                f"example {first:d} moves by {abs(got[first] - want[first]):.2g} when "
                f"example {changed:d} changes"
            )


def _moved_row(x: Any, row: int) -> np.ndarray:
    """An array with other floats in one row."""
    changed = np.array(x)
    if is_float(changed):
        changed[row] = 1 - 2 * changed[row]
    return changed


def degenerate_inputs(case: LossCase) -> None:
    """Equal outputs of 0, 1 and 1e4, no modality, no row, one row: all is finite."""
    batch = case.batch
    none = jax.tree.map(np.zeros_like, batch.masks)
    one = jax.tree.map(lambda x: x[:1], batch)
    batches = {
        "": batch,
        " and every modality missing": batch.replace(masks=none),
        " and only rows of weight 0": batch.replace(weight=0 * batch.weight),
        " and one example": one,
    }
    for (when, given), level in itertools.product(batches.items(), (0, 1, 1e4)):
        rows = slice(len(given.weight))
        outputs = jax.tree.map(
            lambda x, rows=rows, v=level: _level(x[rows], v), case.outputs
        )
        (mean, _), grads = case.program(outputs, given)
        where = f"with all outputs {level:g}{shown_name(when)}"
        if not np.isfinite(mean):
            raise CounterexampleError(f"{where}, the loss is not finite")
        if leaf := compare.first_nonfinite_leaf(grads):
            raise CounterexampleError(
                f"{where}, the gradient of {output_text(leaf)} is not finite"
            )
        empty = when.endswith("weight 0")
        if empty and (mean or any(np.any(g) for g in grads.values())):
            raise CounterexampleError(f"{where}, the loss is not 0")


def _level(x: np.ndarray, value: float) -> np.ndarray:
    """An array in which all is `value`, with another sign in the first channel."""
    if not is_float(x):
        return x
    level = np.full_like(x, value)
    if x.ndim > 1:
        level[:, 0] *= -1
    return level


def vmap_over_examples(case: LossCase) -> None:
    """Under vmap, with one example each, the losses are the same."""
    if case.compares_examples:
        raise NotCheckedError("it is declared to compare examples")
    one_each = jax.tree.map(lambda x: x[:, None], (case.cleaned, case.batch))
    got = np.asarray(jax.jit(jax.vmap(case.term))(*one_each))[:, 0]
    want = case.result[0][1]
    if compare.first_changed_leaf([want], [got], case.tolerance):
        first = int(np.argmax(np.abs(want - got)))
        raise CounterexampleError(
            f"example {first:d} moves by {abs(want[first] - got[first]):.2g} under "
            "vmap, one example at a time"
        )


PROPERTIES = (
    value_per_example,
    gradient,
    same_key_same_result,
    masked_examples,
    rows_of_weight_0,
    neighbors_in_the_batch,
    degenerate_inputs,
    vmap_over_examples,
)
"""All properties, in the order in which they are checked."""


class _Made(Mapping):
    """A mapping that makes every array that is asked for."""

    def __init__(self, make: Callable[[str], Any]):
        self.make, self.found = make, {}

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> Any:
        if name not in self.found:
            self.found[name] = self.make(name)
        return self.found[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]

    def __iter__(self):
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)


def _made_for(
    term: Any, outputs: Outputs | None, batch: Batch | None
) -> tuple[Outputs, Batch]:
    """Returns outputs and a batch with everything that a term asks for.

    Raises:
        AssertionError: None of the labels that the kit makes fits.
    """
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal((ROWS, *shape)).astype(np.float32)
    labels = (  # classes, scores and flags, with the width of the prediction
        (lambda _: rng.integers(0, CLASSES, ROWS).astype(np.int32), CLASSES),
        (lambda _: normal(), 0),
        (lambda _: rng.integers(0, 2, (ROWS, 2)).astype(np.int32), 4),
    )
    problem, first = "", None
    for make_label, width in labels:
        aux, targets = _Made(lambda _: normal(WIDTH)), _Made(make_label)
        masks = _Made(lambda _: np.ones((ROWS, 2), bool))
        weight = np.ones(ROWS, np.float32)
        weight[-1] = 0
        prediction: Any = normal(width) if width else normal()
        y = Outputs(prediction, aux)
        try:
            # Not traced: a mapping that makes its values is not a tree of arrays.
            term(outputs or y, batch or Batch({}, masks, targets, weight))  # pyright: ignore
        except Exception as error:  # a term may raise anything
            problem, first = problem or described(error), first or error
            continue
        for index, mask in enumerate(masks.found.values()):
            mask[index % ROWS] = False
        made = Batch({}, dict(masks.found), dict(targets.found), weight)  # pyright: ignore
        return outputs or y.replace(aux=dict(aux.found)), batch or made
    raise AssertionError(
        f"{shown_name(_name(term))}: no input of the kit fits, the first raises "
        f"{problem}; give outputs and batch"
    ) from first
