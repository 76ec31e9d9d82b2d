"""Finds the first place at which two results differ."""

import dataclasses
from typing import Any

import jax
import numpy as np

from mmfusion_jax.errors import shown
from mmfusion_jax.types import Streams

ONLY = "output"
"""Name of the output of a part that has one."""

VECTOR = "vector"
"""Name of the output of a fusion block that returns one vector per example."""


def output_name(name: str) -> str:
    """Returns the text for an output, such as "output 'video'"."""
    return "the output" if name == ONLY else f"output {shown(name)}"


@dataclasses.dataclass(frozen=True)
class Move:
    """The first valid position of an output that differs.

    Attributes:
        name: Name of the output.
        example: Index of the example.
        position: Index of the position; -1 if the masks of the example differ.
        size: Maximum difference of the example; NaN if one value is not finite.
    """

    name: str
    example: int
    position: int
    size: float

    def place(self, example: bool = True) -> str:
        """Returns the position, such as "the output at position 0"."""
        what = output_name(self.name)
        if self.position < 0:
            where = f"the mask of {what}"
        else:
            where = f"{what} at position {self.position:d}"
        return f"{where} of example {self.example:d}" if example else where

    def amount(self) -> str:
        """Returns by how much it moves, such as "moves by 0.31"."""
        if self.position < 0:
            return "has another mask"
        if not np.isfinite(self.size):
            return "becomes NaN or infinite"
        return f"moves by {self.size:.2g}"


def to_numpy(tree: Any) -> Any:
    """Returns a tree with NumPy leaves, floats in float32."""

    def convert(x: Any) -> np.ndarray:
        if jax.numpy.issubdtype(x.dtype, jax.numpy.floating):
            return np.asarray(x, np.float32)
        return np.asarray(x)

    return jax.tree.map(convert, jax.device_get(tree))


def first_move(
    want: Streams, got: Streams, tolerance: float = 0.0, rows: Any = None
) -> Move | None:
    """Returns the first valid position at which outputs differ.

    Args:
        want: Outputs, NumPy leaves.
        got: Other outputs of the same shapes.
        tolerance: Allowed difference, relative to the largest value of an output; 0
            for equal bits.
        rows: Examples that are compared; None for all.
    """
    count = len(next(iter(want.values())).mask)
    for i in range(count) if rows is None else rows:
        for name in sorted(want):
            x, y = want[name], got[name]
            if not np.array_equal(x.mask[i], y.mask[i]):
                return Move(name, int(i), -1, np.nan)
            valid = np.flatnonzero(x.mask[i])
            if move := _row_move(name, i, x.values, y.values[i], valid, tolerance):
                return move
    return None


def _row_move(
    name: str, i: int, values: Any, got: Any, valid: Any, tolerance: float
) -> Move | None:
    """Returns the first difference of one example."""
    scale = np.max(np.abs(values), initial=1e-6, where=np.isfinite(values))
    with np.errstate(invalid="ignore", over="ignore"):
        move = np.abs(values[i][valid] - got[valid])
    same = (move <= tolerance * scale) | _both_nan(values[i][valid], got[valid])
    bad = np.flatnonzero(~np.all(same, axis=tuple(range(1, same.ndim))))
    if not len(bad):
        return None
    return Move(name, int(i), int(valid[bad[0]]), float(np.max(move, initial=0)))


def _both_nan(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns where both are NaN: this is not a difference, other checks find it."""
    return (x != x) & (y != y)


def compact(streams: Streams) -> list[tuple[str, int, Any]]:
    """Returns the valid tokens (n d) of every output and example, in order."""
    return [
        (name, i, streams[name].values[i][streams[name].mask[i]])
        for name in sorted(streams)
        for i in range(len(streams[name].mask))
    ]


def first_changed_leaf(want: Any, got: Any, tolerance: float = 0.0) -> str:
    """Returns the path of the first leaf that differs, "" if none does.

    Args:
        want: Tree with NumPy leaves.
        got: Another one with the same shapes.
        tolerance: Allowed difference, relative to the largest value of a leaf; 0 for
            equal bits.
    """
    paths = jax.tree_util.tree_leaves_with_path(want)
    for (path, x), y in zip(paths, jax.tree.leaves(got), strict=True):
        scale = np.max(np.abs(x), initial=1e-6, where=np.isfinite(x))
        with np.errstate(invalid="ignore", over="ignore"):
            same = (np.abs(x - y) <= tolerance * scale) | _both_nan(x, y)
        if not np.all(same):
            return leaf_name(path)
    return ""


def first_nonfinite_leaf(tree: Any) -> str:
    """Returns the path of the first leaf with NaN or infinity, "" if there is none."""
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        if not np.all(np.isfinite(x)):
            return leaf_name(path)
    return ""


def leaf_name(path: Any) -> str:
    """Returns the path of a leaf, such as "dense/kernel"."""
    return "/".join(
        str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))
        for key in path
    )


def first_nonfinite(outputs: Streams) -> Move | None:
    """Returns the first valid position of an output that is not finite."""
    for name in sorted(outputs):
        values, mask = outputs[name].values, outputs[name].mask
        finite = np.isfinite(values).reshape(*mask.shape, -1).all(axis=-1)
        bad = np.argwhere(mask & ~finite)
        if len(bad):
            return Move(name, int(bad[0][0]), int(bad[0][1]), np.nan)
    return None
