"""Lines for the user about the fields of a config that a flag drops or sets."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from mmfusion_jax.config.load import Config, flatten, format_value
from mmfusion_jax.errors import shorten


@dataclasses.dataclass
class ChangeLine:
    """A line for the user about one change: what it dropped, what else it set."""

    head: str
    always: bool = False
    dropped: set[str] = dataclasses.field(default_factory=set)
    changed: dict[str, Any] = dataclasses.field(default_factory=dict)

    def add(self, before: Config, after: Config, but: str = "") -> None:
        """Adds the differences of two configs, except for the field `but`."""
        old, new = flatten(before), flatten(after)
        left = {*old, *_groups(before)} - {*new, *_groups(after)}
        self.dropped |= {_outermost(name, after) for name in left}
        for name in old.keys() & new.keys() - {but}:
            if old[name] != new[name]:
                self.changed[name] = new[name]

    def __str__(self) -> str:
        line, group_of = self.head, lambda name: name.rpartition(".")[0]
        ordered = sorted(sorted(self.dropped), key=group_of)
        by_group = itertools.groupby(ordered, group_of)
        if parts := [_named(group, list(members)) for group, members in by_group]:
            line += f"; dropped: {', '.join(parts)}"
        for name, value in sorted(self.changed.items(), reverse=True):
            line += f"; config.{shorten(name)}={shorten(format_value(value))}"
        return line


def _groups(config: Config, prefix: str = "") -> set[str]:
    """Returns the full names of all groups of fields, which may be empty."""
    found = set()
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            found |= {f"{prefix}{name}", *_groups(value, f"{prefix}{name}.")}
    return found


def _named(group: str, members: Sequence[str]) -> str:
    """Returns fields of one group: "config.a.b", or "config.a.{b, c}" for several."""
    if not group or len(members) == 1:
        return ", ".join(f"config.{name}" for name in members)
    last = ", ".join(name.rpartition(".")[2] for name in members)
    return f"config.{group}.{{{last}}}"


def _outermost(name: str, config: Config) -> str:
    """Returns the outermost group of the field `name` that `config` lacks."""
    words = name.split(".")
    level: Any = config
    for depth, word in enumerate(words):
        if word not in level:
            return ".".join(words[: depth + 1])
        level = level[word]
    return name
