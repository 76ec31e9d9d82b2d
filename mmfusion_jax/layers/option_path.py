"""Names options in messages as a user sets them: `config.model.num_heads`."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn

from mmfusion_jax.errors import ConfigError, shown, shown_name


def option_path(module: nn.Module, option: str) -> str:
    """Returns the field of the config that sets an option, while a model is traced.

    A layer does not know the part of the config that it belongs to: it is the innermost
    module around it that is an attribute of another part, such as the encoder "text"
    of a model. Others are created by the part itself.

    Args:
        module: The module that has found the problem, in its `__call__`.
        option: Name of one of its options, which the part has too.

    Returns:
        The field, such as "config.model.encoders.text.num_heads"; the option alone if
        the module is not a part of a model.
    """
    root, *inner = reversed(list(_up(module)))
    if not hasattr(root, "encoders"):
        return option
    part, fields = root, ["config.model"]
    for child in inner:
        if field := _field(part, child):
            part, fields = child, [*fields, field]
    path = ".".join(fields)
    if hasattr(part, option):
        return f"{path}.{option}"
    # A part may have another name for an option of one of its layers, or a list.
    if hasattr(part, f"{option}s"):
        path = f"{path}.{option}s"
    return f"{path}: {shown_name(option)}"


def option_flag(module: nn.Module, option: str, value: Any) -> str:
    """Returns the flag that sets an option, such as "--config.model.num_heads=4".

    Args:
        module: The module that has found the problem.
        option: Name of one of its options.
        value: Value that would be accepted.
    """
    path = option_path(module, option)
    dashes = "--" if path.startswith("config.") and ":" not in path else ""
    return f"{dashes}{path}={value}"


def given_option(module: nn.Module, option: str) -> str:
    """Returns an option with its path and its value, for a message."""
    path, value = option_path(module, option), getattr(module, option)
    return f"{shown_name(path)}={shown(value)}"


def check_num_heads(module: Any, width: int) -> None:
    """Raises ConfigError unless the heads of an attention divide its width.

    Args:
        module: A module with the attribute `num_heads`.
        width: Width d of its tokens.
    """
    heads = module.num_heads
    if width % heads:
        raise ConfigError(
            "C10",
            f"{given_option(module, 'num_heads')} does not divide the width {width}.",
            f"{option_flag(module, 'num_heads', math.gcd(heads, width))}, a divisor of "
            f"{width}",
        )


def _up(module: nn.Module) -> Iterator[nn.Module]:
    """Yields a module and those around it, the outermost last."""
    one: Any = module
    while isinstance(one, nn.Module):
        yield one
        one = one.parent


def _field(part: nn.Module, child: nn.Module) -> str:
    """Returns the attribute of a part that holds a module; "" if none does."""
    for field in dataclasses.fields(part):
        value = getattr(part, field.name, None)
        if isinstance(value, nn.Module) and child.name == field.name:
            return field.name
        # Flax calls the modules of a dict `encoders_text`.
        for key in value if isinstance(value, Mapping) else ():
            if child.name == f"{field.name}_{key}":
                return f"{field.name}.{shown_name(key)}"
    return ""
