"""Short names of everything that a config can name, and how a name becomes an object.

The tables are beside what they name. They hold import paths, so that their keys are
known without importing JAX.
"""

import pkgutil
import re
import sys
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeAlias

from mmfusion_jax.data.augment.registry import AUGMENTATIONS
from mmfusion_jax.data.registry import DATASETS
from mmfusion_jax.encoders import ENCODERS
from mmfusion_jax.errors import (
    ConfigError,
    closest,
    describe_exception,
    shorten,
    shown,
    suggest,
)
from mmfusion_jax.fusion import FUSIONS
from mmfusion_jax.losses import LOSSES
from mmfusion_jax.metrics import METRICS
from mmfusion_jax.models import MODELS
from mmfusion_jax.option_types import Fraction, NonNegativeFloat, ProperFraction
from mmfusion_jax.user_code import code_location
from mmfusion_jax.weights import WEIGHT_MAPPINGS

OPTIMIZERS = {
    "adam": "optax:adam",
    "adamw": "optax:adamw",
    "rmsprop": "optax:rmsprop",
    "sgd": "optax:sgd",
}
SCHEDULES = {
    "constant": "mmfusion_jax.config.optimizer:constant",
    "cosine": "mmfusion_jax.config.optimizer:cosine",
    "exponential": "mmfusion_jax.config.optimizer:exponential",
}
Dtype: TypeAlias = Literal["float32", "bfloat16"]
Momentum: TypeAlias = ProperFraction | None
OPTAX_OPTIONS: Mapping[str, Any] = {
    "b1": ProperFraction,
    "b2": ProperFraction,
    "decay": ProperFraction,
    "momentum": Momentum,
    "eps": Fraction,
    "eps_root": Fraction,
    "initial_scale": NonNegativeFloat,
    "mu_dtype": Dtype | None,
    "accumulator_dtype": Dtype | None,
}
"""Option of optimizers of optax, which declares no bounds -> its type."""

TABLES: Mapping[str, Mapping[str, str]] = {
    "model": MODELS,
    "encoder": ENCODERS,
    "fusion": FUSIONS,
    "encoder with pretrained weights": WEIGHT_MAPPINGS,
    "loss": LOSSES,
    "metric": METRICS,
    "dataset": DATASETS,
    "augmentation": AUGMENTATIONS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
"""Kind of part -> short name -> import path."""


def is_import_path(name: str) -> bool:
    """Returns whether `name` is an import path, "package.module:Name"."""
    return re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", name) is not None


def package_of(path: str) -> str:
    """Returns the package of an import path, such as "my_package"."""
    return re.split("[.:]", path)[0]


def check_name(kind: str, name: Any, where: str) -> None:
    """Checks a name without importing what it names.

    Args:
        kind: A key of `TABLES`.
        name: A short name, or an import path "package.module:Name".
        where: The field of the config, for messages.

    Raises:
        ConfigError: `name` is neither a short name of this kind nor an import path.
    """
    table = TABLES[kind]
    if isinstance(name, type):  # the class instead of its import path
        name = f"{name.__module__}.{name.__qualname__}"
    if not isinstance(name, str) or not (name in table or is_import_path(name)):
        raise ConfigError(
            "C03",
            f"{where}={shown(name)} is not a known {kind}.",
            _hint(str(name), table),
        )


def _hint(name: str, table: Collection[str]) -> str:
    """Returns a hint: the import path that is meant, or the nearest short name."""
    module, _, last = re.sub(r"\.py\b", "", name).replace("/", ".").rpartition(".")
    path = f"{module}.{last}" if ":" in last else f"{module}:{last}"
    if module and is_import_path(path):
        return f"did you mean the import path '{shorten(path)}'?"
    hint = suggest(name, table)
    separator = " " if hint.endswith("?") else "; "
    return f'{hint}{separator}or an import path, "package.module:Name"'


def load_part(kind: str, name: str, where: str) -> Any:
    """Returns the object that a name stands for.

    Args:
        kind: A key of `TABLES`.
        name: A short name, or an import path "package.module:Name".
        where: The field of the config, for messages.

    Raises:
        ConfigError: The name is unknown or cannot be imported.
    """
    check_name(kind, name, where)
    path = TABLES[kind].get(name, name)
    try:
        return pkgutil.resolve_name(path)
    except (Exception, SystemExit) as error:  # a module may raise anything
        if name in TABLES[kind]:
            raise  # a mistake of this package
        line = code_location(error, [package_of(path)])
        reason = describe_exception(error) + (f" ({line})" if line else "")
        raise ConfigError(
            "C32",
            f"{where}={shown(name)} cannot be imported: {reason}.",
            "correct this module" if line else shorten(_nearest(path)),
        ) from error


def _nearest(path: str) -> str:
    """Returns a hint: the closest module, or name in it, else what a path is."""
    module, _, name = path.partition(":")
    package, _, last = module.rpartition(".")
    found = sys.modules.get(module)
    folders = getattr(sys.modules.get(package), "__path__", None)
    near = ""
    if found is not None and (close := closest(name, dir(found), cutoff=0.6)):
        near = f"{module}:{close}"
    elif found is None and folders is not None:
        modules = [one.name for one in pkgutil.iter_modules(folders)]
        close = closest(last, modules, cutoff=0.6)
        near = f"{package}.{close}:{name}" if close else ""
    if near:
        return f"did you mean {shown(near)}?"
    return (
        "an importable module and a name in it, such as my_package.my_module:Name; "
        "modules in the current folder may need PYTHONPATH=."
    )


def load_weight_mapping(encoder: str, where: str) -> Any:
    """Returns the `WeightMapping` of an encoder; None if it does not have one.

    Args:
        encoder: A short name, or an import path. The mapping of an encoder of another
            package is its class attribute `weight_mapping`.
        where: The field of the config, for messages.

    Raises:
        ConfigError: The encoder is unknown or cannot be imported.
    """
    kind = "encoder with pretrained weights"
    if encoder in TABLES[kind]:
        return load_part(kind, encoder, where)
    if encoder in TABLES["encoder"]:
        return None
    return getattr(load_part("encoder", encoder, where), "weight_mapping", None)
