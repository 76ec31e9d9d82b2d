"""Converts weights of other libraries to the parameters of an encoder."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mmfusion_jax.errors import WeightsError, shorten
from mmfusion_jax.types import PyTree
from mmfusion_jax.weights.files import read


def identity(x: np.ndarray) -> np.ndarray:
    """Returns an array that has the same layout in both libraries."""
    return x


def kernel(x: np.ndarray) -> np.ndarray:
    """Returns a PyTorch kernel (out, in, *size) as (*size, in, out)."""
    return np.moveaxis(x, (0, 1), (-1, -2))


def part(index: int, count: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the layout for one of `count` kernels or biases that share an array."""

    def one(x: np.ndarray) -> np.ndarray:
        piece = np.split(x, count)[index]
        return kernel(piece) if piece.ndim > 1 else piece

    return one


@dataclasses.dataclass(frozen=True)
class NameRule:
    r"""Maps parameters of an encoder to names in a file.

    Example:
        >>> import mmfusion_jax as mmf
        >>> rule = mmf.weights.NameRule(r"layer_([0-9]+)/bias", r"layers.\1.bias")
        >>> rule.names("layer_3/bias")
        ('layers.3.bias',)

    Attributes:
        target: Regular expression of the parameter path, such as
            "layer_([0-9]+)/norm/scale".
        source: Name in the file, with the groups of `target`; or several names.
        layout: Converts the arrays of these names to the parameter.
    """

    target: str
    source: str | tuple[str, ...]
    layout: Callable[..., np.ndarray] = identity

    def names(self, path: str) -> tuple[str, ...]:
        """Returns the names in the file for a parameter; () without a match."""
        match = re.fullmatch(self.target, path)
        sources = (self.source,) if isinstance(self.source, str) else self.source
        return tuple(match.expand(name) for name in sources) if match else ()


def affine(target: str, source: str) -> tuple[NameRule, ...]:
    """Returns rules for the kernel and bias of a linear layer or a convolution.

    Example:
        >>> import mmfusion_jax as mmf
        >>> [rule.source for rule in mmf.weights.affine("out", "fc")]
        ['fc.weight', 'fc.bias']
    """
    return (
        NameRule(f"{target}/kernel", f"{source}.weight", kernel),
        NameRule(f"{target}/bias", f"{source}.bias"),
    )


def norm(target: str, source: str) -> tuple[NameRule, ...]:
    """Returns rules for the scale and bias of a normalization.

    Example:
        >>> import mmfusion_jax as mmf
        >>> [rule.target for rule in mmf.weights.norm("norm", "ln")]
        ['norm/scale', 'norm/bias']
    """
    return (
        NameRule(f"{target}/scale", f"{source}.weight"),
        NameRule(f"{target}/bias", f"{source}.bias"),
    )


def batch_norm(target: str, source: str) -> tuple[NameRule, ...]:
    """Returns rules for the parameters and statistics of a batch normalization.

    Example:
        >>> import mmfusion_jax as mmf
        >>> [rule.source for rule in mmf.weights.batch_norm("norm", "bn")][2:]
        ['bn.running_mean', 'bn.running_var']
    """
    return (
        *norm(target, source),
        NameRule(f"{target}/mean", f"{source}.running_mean"),
        NameRule(f"{target}/var", f"{source}.running_var"),
    )


@dataclasses.dataclass(frozen=True)
class WeightMapping:
    r"""Maps the parameters of an encoder to names in its weights files.

    Example:
        >>> import mmfusion_jax as mmf
        >>> rules = mmf.weights.affine("out", "fc")
        >>> mapping = mmf.weights.WeightMapping(
        ...     rules, "torch.save(...)", ((r"^module\.", ""),)
        ... )
        >>> mapping.rename("module.fc.weight")
        'fc.weight'

    Attributes:
        rules: The first rule that matches a parameter is used.
        export: Shell command that writes such a file.
        renames: (Regular expression, replacement) pairs that are applied in order to
            the names in a file: prefixes that some exports add, and older names.
    """

    rules: tuple[NameRule, ...]
    export: str
    renames: tuple[tuple[str, str], ...] = ()

    def rename(self, name: str) -> str:
        """Returns a name in a file as the rules spell it."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


@dataclasses.dataclass(frozen=True)
class LoadedWeights:
    """Weights from a file.

    Attributes:
        variables: The tree of parameters, float32.
        unused: Names in the file that are not used, such as those of a head.
    """

    variables: PyTree
    unused: tuple[str, ...]


def load(mapping: WeightMapping, path: Path, template: PyTree) -> LoadedWeights:
    """Loads every parameter of an encoder from a file.

    Args:
        mapping: Mapping of the encoder.
        path: Weights file.
        template: Collection -> tree of the encoder's arrays, or of their shapes, as
            {"params": .., "batch_stats": ..}.

    Raises:
        WeightsError: The file does not exist, cannot be read, lacks a required array,
            or has an array of another shape.
    """
    # The encoder decides which arrays are needed, not the file: heads and optimizer
    # states in it are left over.
    arrays = {mapping.rename(k): v for k, v in read(path, mapping.export).items()}
    filled, used = {}, set()
    for key, leaf in flatten_dict(template).items():
        target = "/".join(key[1:])
        names, layout = _source(mapping, target, path)
        if missing := [name for name in names if name not in arrays]:
            raise WeightsError(
                "W03",
                f"{path} lacks '{shorten(missing[0])}' for parameter "
                f"'{shorten(target)}'; it has {len(arrays)} other arrays.",
                f"use weights of the same encoder and depth; {mapping.export}",
            )
        used.update(names)
        filled[key] = _shaped(layout, [arrays[n] for n in names], leaf, path, names)
    return LoadedWeights(unflatten_dict(filled), tuple(sorted(arrays.keys() - used)))


def _source(
    mapping: WeightMapping, target: str, path: Path
) -> tuple[tuple[str, ...], Callable[..., np.ndarray]]:
    """Returns the names in the file for a parameter, and their layout."""
    for rule in mapping.rules:
        if names := rule.names(target):
            return names, rule.layout
    raise WeightsError(
        "W03", f"{path}: no name is known for parameter '{shorten(target)}'."
    )


def _shaped(
    layout: Callable[..., np.ndarray],
    arrays: list[np.ndarray],
    leaf: Any,
    path: Path,
    names: tuple[str, ...],
) -> np.ndarray:
    """Returns arrays of the file as a parameter, whose shape must be that of `leaf`."""
    try:
        value = layout(*arrays)
        shape = value.shape
    except (ValueError, IndexError):
        value, shape = None, "no valid shape"
    if value is None or shape != leaf.shape:
        raise WeightsError(
            "W04",
            f"{path}: '{shorten(names[0])}' has shape "
            f"{' and '.join(str(a.shape) for a in arrays)}, which converts to {shape}, "
            f"but the encoder requires {leaf.shape}.",
            "set the sizes of the encoder to those of the weights, or use others",
        )
    return np.ascontiguousarray(value, leaf.dtype)
