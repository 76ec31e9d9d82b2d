"""From their names to ours: one converter, and a table of names for each encoder."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mmfusion_jax.errors import WeightsError
from mmfusion_jax.types import PyTree
from mmfusion_jax.weights.files import read


def same(x: np.ndarray) -> np.ndarray:
    """An array that is laid out as ours is."""
    return x


def kernel(x: np.ndarray) -> np.ndarray:
    """PyTorch's (out, in, *size) as our (*size, in, out)."""
    return np.moveaxis(x, (0, 1), (-1, -2))


def part(index: int, count: int) -> Callable[[np.ndarray], np.ndarray]:
    """The layout of one of `count` kernels or biases that stand in one array."""

    def one(x: np.ndarray) -> np.ndarray:
        piece = np.split(x, count)[index]
        return kernel(piece) if piece.ndim > 1 else piece

    return one


@dataclasses.dataclass(frozen=True)
class NameRule:
    """Where some of our leaves come from.

    Attributes:
        target: regular expression of our path, such as "layer_([0-9]+)/norm/scale".
        source: the name in the file, with the groups of `target`; or several names.
        layout: makes our array of theirs; it takes one for each name.
    """

    target: str
    source: str | tuple[str, ...]
    layout: Callable[..., np.ndarray] = same

    def names(self, path: str) -> tuple[str, ...]:
        """Names in the file that make the leaf `path`; () if this is not its rule."""
        match = re.fullmatch(self.target, path)
        theirs = (self.source,) if isinstance(self.source, str) else self.source
        return tuple(match.expand(name) for name in theirs) if match else ()


def affine(ours: str, theirs: str) -> tuple[NameRule, ...]:
    """Kernel and bias of a linear layer or a convolution."""
    return (
        NameRule(f"{ours}/kernel", f"{theirs}.weight", kernel),
        NameRule(f"{ours}/bias", f"{theirs}.bias"),
    )


def norm(ours: str, theirs: str) -> tuple[NameRule, ...]:
    """Scale and bias of a normalisation."""
    return (
        NameRule(f"{ours}/scale", f"{theirs}.weight"),
        NameRule(f"{ours}/bias", f"{theirs}.bias"),
    )


def batch_norm(ours: str, theirs: str) -> tuple[NameRule, ...]:
    """Scale, bias and running statistics of a batch normalisation."""
    return (
        *norm(ours, theirs),
        NameRule(f"{ours}/mean", f"{theirs}.running_mean"),
        NameRule(f"{ours}/var", f"{theirs}.running_var"),
    )


@dataclasses.dataclass(frozen=True)
class WeightMapping:
    """All that is known of the files of one encoder.

    Attributes:
        rules: the first that fits a leaf counts.
        export: a shell command that writes a file of these weights.
        renames: (regular expression, replacement), applied to the names in a file in
            turn: prefixes that some exports add, and older names.
    """

    rules: tuple[NameRule, ...]
    export: str
    renames: tuple[tuple[str, str], ...] = ()

    def rename(self, name: str) -> str:
        """A name in a file, as the rules write it."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


@dataclasses.dataclass(frozen=True)
class LoadedWeights:
    """Weights from a file.

    Attributes:
        variables: the tree that was asked for, float32.
        unused: names in the file that nothing was made of, such as a head.
    """

    variables: PyTree
    unused: tuple[str, ...]


def load(table: WeightMapping, path: Path, template: PyTree) -> LoadedWeights:
    """Fills every leaf of a tree from a file.

    Args:
        table: of the encoder.
        path: a file of weights.
        template: collection -> tree of the encoder's arrays, or of their shapes, as
            {"params": .., "batch_stats": ..}.

    Raises:
        WeightsError: the file is not there, cannot be read, lacks a name that is
            needed, or has an array of another shape.
    """
    arrays = {table.rename(k): v for k, v in read(path, table.export).items()}
    filled, used = {}, set()
    for place, leaf in flatten_dict(template).items():
        ours = "/".join(place[1:])
        names, layout = _origin(table, ours, path)
        if missing := [name for name in names if name not in arrays]:
            raise WeightsError(
                "W03",
                f"{path} has no {missing[0]!r}, which fills {ours!r}; it has "
                f"{len(arrays)} other names.",
                f"weights of the same encoder and depth; {table.export}",
            )
        used.update(names)
        filled[place] = _shaped(layout, [arrays[n] for n in names], leaf, path, names)
    return LoadedWeights(unflatten_dict(filled), tuple(sorted(arrays.keys() - used)))


def _origin(
    table: WeightMapping, ours: str, path: Path
) -> tuple[tuple[str, ...], Callable[..., np.ndarray]]:
    """The names that make a leaf, and how."""
    for rule in table.rules:
        if names := rule.names(ours):
            return names, rule.layout
    raise WeightsError("W03", f"nothing in {path} can fill {ours!r}: it has no name.")


def _shaped(
    layout: Callable[..., np.ndarray],
    arrays: list[np.ndarray],
    leaf: Any,
    path: Path,
    names: tuple[str, ...],
) -> np.ndarray:
    """Their arrays as our leaf."""
    try:
        value = layout(*arrays)
        shape = value.shape
    except (ValueError, IndexError):
        value, shape = None, "a shape that cannot be laid out"
    if value is None or shape != leaf.shape:
        raise WeightsError(
            "W04",
            f"{path}: {names[0]!r} is {' and '.join(str(a.shape) for a in arrays)}, "
            f"which makes {shape}, but the encoder needs {leaf.shape}.",
            "give the encoder the sizes of the weights, or take other weights",
        )
    return np.ascontiguousarray(value, leaf.dtype)
