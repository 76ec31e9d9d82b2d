"""Checks which fields a config has, before any of them is used."""

from collections.abc import Collection, Mapping
from typing import Any

from mmfusion_jax.config.base import FIELDS, GROUPS, REQUIRED
from mmfusion_jax.config.validate import check_type
from mmfusion_jax.errors import ConfigError, shorten, shown, suggest
from mmfusion_jax.option_types import Fraction

FREE = ("data", "model", "optim", "optim.schedule", "mis")
"""Groups with options of a part, which are checked against its arguments."""


def check_structure(values: Mapping[str, Any]) -> None:
    """Raises ConfigError for a field that is missing or that no config has."""
    known = {*FIELDS, *GROUPS}
    groups = {"mis"} | {name.rpartition(".")[0] for name in known} - {""}
    groups |= {name.split(".")[0] for name in groups}
    _check_group("", values, known, groups)
    own = {name for name, field in FIELDS.items() if field.default is REQUIRED}
    own |= {"losses", "model.encoders"}
    helps = {name: field.help for name, field in FIELDS.items()} | {**GROUPS}
    for name, help in helps.items():
        level: Any = values
        for word in name.split("."):
            if word not in level:
                raise ConfigError(
                    "C31",
                    f"config.{shorten(name)} is missing: {help}",
                    f"config.{shorten(name)} = ... in the config file"
                    if name in own
                    else "start the config from mmfusion_jax.config.base.base_config()",
                )
            level = level[word]


def _check_group(
    group: str, values: Mapping[str, Any], known: Collection[str], groups: set[str]
) -> None:
    """Checks that a group of fields has only fields that are known."""
    for word, value in values.items():
        name = f"{group}.{word}".strip(".")
        if name in groups and name not in GROUPS:
            _check_is_group(name, value)
            _check_group(name, value, known, groups)
        elif name in GROUPS:
            _check_members(name, value)
        elif name not in known and group not in FREE:
            here = [n.rpartition(".")[2] for n in known if _parent(n) == group]
            here += [n for n in groups if _parent(n) == group]
            raise ConfigError(
                "C02", f"config.{shorten(name)} is unknown.", suggest(word, here)
            )


def _check_is_group(name: str, value: Any) -> None:
    """Raises ConfigError if a field that must be a group of fields is a value."""
    if not isinstance(value, Mapping):
        raise ConfigError(
            "C11",
            f"config.{shorten(name)}={shown(value)} is not a group of fields.",
            f"config.{shorten(name)} = dict(...) in the config file",
        )


def _check_members(group: str, members: Any) -> None:
    """Checks that a group of `GROUPS` has names, and groups of fields as members."""
    _check_is_group(group, members)
    for name, options in members.items():
        if not isinstance(name, str):
            raise ConfigError(
                "C11",
                f"config.{shorten(group)} has the name {shown(name)}, which is not a "
                "string.",
            )
        where = f"{group}.{name}"
        if group == "data.modality_dropout":
            check_type(f"config.{where}", options, Fraction)
            continue
        _check_is_group(where, options)
        if group != "optim.groups" and "name" not in options:
            message = f"config.{where}.name is missing."
            raise ConfigError("C31", message, f"config.{where}.name = ...")


def _parent(name: str) -> str:
    """Returns the group that a field is in, "" for the outermost."""
    return name.rpartition(".")[0]
