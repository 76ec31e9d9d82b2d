"""Compares the ops and the steps of the papers with values stored on a CPU.

The stored values are computed in float64. Compared are outputs and gradients of every
function of `ops`, and, of every paper on digits, the loss, its terms, the norm of the
gradient, and the change of the parameters after two steps.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from measured_rows import Different, NotHere
from paper_steps import Paper, as_double, build_step, to_device
from parity_cases import Case, evaluate

REFERENCE = Path(__file__).parent / "accelerator_reference.npz"
SKETCHES = 4
SMALLEST = 1e-3
"""An output or gradient of an op smaller than this fraction of the largest one is
compared on that scale."""

# The first steps of Adam are little more than the signs of the gradients.
SGD = {
    "optim.name": "sgd",
    "optim.learning_rate": 0.05,
    "optim.schedule.name": "constant",
}


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to compute, and how far its values may be from the stored ones.

    Attributes:
        dtype: Of the arrays of an op; `compute_dtype` of a paper.
        precision: Of products: `jax_default_matmul_precision` of an op,
            `matmul_precision` of a paper.
        op: Tolerance of an op, a fraction of the largest element of a leaf.
        paper: Tolerance of a step, a fraction of each value, or of the norm of the
            change of a parameter.
        smallest: A change that is smaller than this fraction of the largest one is
            compared on that scale.
    """

    dtype: str
    precision: str
    op: float
    paper: float
    smallest: float = SMALLEST

    @property
    def name(self) -> str:
        """Name in rows."""
        return f"{self.dtype} {self.precision}"


VARIANTS = (
    Variant("float32", "highest", op=3e-5, paper=2e-2),
    # One bfloat16 pass on a TPU, TF32 on NVIDIA. The gradients of a small scale of
    # BatchNorm are sums of large numbers that cancel: rounding moves such a change, of
    # .004 of the largest, by half of itself also on a CPU.
    Variant("float32", "default", op=3e-2, paper=0.2, smallest=1e-2),
    # The largest error of a change in bfloat16 was .37 on a CPU, and .56 without XLA's
    # optimizations; the first two rows are those that find a wrong operation.
    Variant("bfloat16", "default", op=8e-2, paper=0.6, smallest=1e-2),
)


def op_values(case: Case, dtype: str) -> dict[str, np.ndarray]:
    """Returns outputs and gradients of a case by name."""
    return {k: np.asarray(v, np.float64) for k, v in evaluate(case, dtype).items()}


def paper_values(
    paper: Paper, dtype: str, precision: str, double: bool = False
) -> dict[str, Any]:
    """Returns metrics of two training steps, and the change of the parameters.

    A change of n numbers is stored as its norm and `SKETCHES` inner products with
    random signs, whose errors have the size of the norm of the error.

    Args:
        paper: The paper.
        dtype: "float32" or "bfloat16".
        precision: Of the model's products.
        double: Compute in float64, which must be enabled.
    """
    made = build_step(paper, dtype, precision, SGD)
    state, batch = made.state, made.batch
    if double:
        state, batch = as_double(state), as_double(batch)
    state, batch = to_device(state), to_device(batch)
    first, step = state.params, jax.jit(made.parts.train_step(None))
    found = {}
    for number in (1, 2):
        with nn.intercept_methods(_without_dropout):
            state, metrics = step(state, batch)
        for name, value in sorted(metrics.items()):
            if not name.startswith("nonfinite/") or "consecutive" in name:
                found[f"step {number} {name}"] = np.asarray(value, np.float64)
    change = lambda new, old: np.asarray(new, np.float64) - np.asarray(old, np.float64)
    changes = flatten_dict(jax.tree.map(change, state.params, first), sep="/")
    for number, (path, change) in enumerate(sorted(changes.items())):
        found[f"change {path}"] = _sketch(change, number)
    return found


def _without_dropout(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """Replaces dropout, whose bits depend on the version of JAX, by its input."""
    if isinstance(context.module, nn.Dropout):
        return args[0]
    return call(*args, **kwargs)


def _sketch(change: np.ndarray, seed: int) -> np.ndarray:
    """Returns the norm, and inner products with random signs."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (SKETCHES, change.size))
    return np.array([np.linalg.norm(change), *(signs @ change.ravel())])


def errors(
    found: Mapping[str, np.ndarray],
    stored: Mapping[str, np.ndarray],
    smallest: float = SMALLEST,
) -> dict[str, float]:
    """Returns the largest error of every leaf, relative to its largest element.

    A leaf that is smaller than `smallest` times the largest one is compared on that
    scale, since its rounding is that of the others.
    """
    if found.keys() != stored.keys():
        raise ValueError(
            f"the stored values have other names: {sorted({*found} ^ {*stored})[:4]}; "
            "write them again with --write_reference."
        )
    largest: dict[str, float] = {}
    for name, x in stored.items():
        largest[_kind(name)] = max(largest.get(_kind(name), 0.0), _size(name, x))
    worst = {}
    for name, x in stored.items():
        if found[name].shape != x.shape:
            raise ValueError(f"{name} has shape {found[name].shape}, stored {x.shape}.")
        scale = max(_size(name, x), smallest * largest[_kind(name)], 1e-30)
        worst[name] = float(np.max(np.abs(found[name] - x), initial=0.0)) / scale
    return worst


def _kind(name: str) -> str:
    """Returns "output", "gradient", "step" or "change"."""
    return name.split()[0]


def _size(name: str, x: np.ndarray) -> float:
    """Returns the largest element, or the norm of a change, which its sketch has."""
    return float(abs(x[0]) if _kind(name) == "change" else np.max(np.abs(x), initial=0))


def compare(
    found: Mapping[str, np.ndarray],
    stored: Mapping[str, np.ndarray],
    tolerance: float,
    smallest: float = SMALLEST,
) -> dict[str, Any]:
    """Returns the largest error and where it is.

    Raises:
        Different: It is larger than the tolerance, or not a number.
    """
    worst = errors(found, stored, smallest)
    where = max(worst, key=lambda name: np.nan_to_num(worst[name], nan=np.inf))
    figures = {"error": worst[where], "where": where, "tolerance": tolerance}
    if not worst[where] <= tolerance:  # also NaN
        raise Different(figures)
    return figures


def compare_op(case: Case, variant: Variant, stored: Mapping[str, Any]) -> dict:
    """Returns the largest error of an op; see `compare`."""
    with jax.default_matmul_precision(variant.precision):
        found = op_values(case, variant.dtype)
    return compare(found, stored[f"op {case.name}"], variant.op)


def compare_paper(paper: Paper, variant: Variant, stored: Mapping[str, Any]) -> dict:
    """Returns the largest error of a paper's step; see `compare`.

    Raises:
        NotHere: The paper has no stored values.
    """
    if f"paper {paper.name}" not in stored:
        raise NotHere("without stored values; write them with --write_reference")
    found = paper_values(paper, variant.dtype, variant.precision)
    reference = stored[f"paper {paper.name}"]
    return compare(found, reference, variant.paper, variant.smallest)


def write_reference(
    path: Path, cases: tuple[Case, ...], papers: tuple[Paper, ...]
) -> None:
    """Computes all values in float64 and writes them, rounded to float32."""
    jax.config.update("jax_enable_x64", True)
    assert jnp.zeros(1).dtype == np.float64
    values = {}
    for case in cases:
        for name, x in op_values(case, "float64").items():
            values[f"op {case.name}|{name}"] = x.astype(np.float32)
        print(case.name, flush=True)
    for paper in papers:
        for name, x in paper_values(paper, "float32", "highest", True).items():
            values[f"paper {paper.name}|{name}"] = x.astype(np.float32)
        print(paper.name, flush=True)
    np.savez_compressed(path, **values)


@functools.cache
def read_reference(path: Path = REFERENCE) -> dict[str, dict[str, np.ndarray]]:
    """Returns the stored values: case -> name -> array."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as file:
        for key in file.files:
            case, _, name = key.partition("|")
            found.setdefault(case, {})[name] = file[key].astype(np.float64)
    return found
