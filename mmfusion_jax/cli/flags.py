"""Parses flags and config overrides."""

import copy
import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import config_path

from mmfusion_jax.config.base import check_values, part_kind
from mmfusion_jax.config.load import (
    check_fields,
    find_config,
    flatten,
    list_configs,
    load_config,
)
from mmfusion_jax.config.validate import TYPE_NAMES
from mmfusion_jax.errors import (
    ConfigError,
    shorten,
    shown,
    shown_name,
    suggest,
)
from mmfusion_jax.paths import check_local, local_path

OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]*)")


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of a command.

    Attributes:
        name: Its name without dashes.
        default: Its default, which also gives its type.
        help: One line for --help.
        choices: Allowed values of a string; () for every string.
        minimum: Smallest value of a number; None for every number.
    """

    name: str
    default: str | bool | int | float
    help: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None


@dataclasses.dataclass(frozen=True)
class ParsedCommand:
    """A parsed command line.

    Attributes:
        config: The config with its overrides; empty for a command without one.
        workdir: The work folder.
        flags: The values of all other flags, by name.
        positional: The positional argument, of a command that has one; else "".
        positionals: All positional arguments, of a command that takes several.
        args: The command line, without the program.
        notes: Lines for the user: which config file was used, what was dropped.
    """

    config: ConfigDict
    workdir: Path
    flags: Mapping[str, Any]
    positional: str = ""
    args: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    positionals: tuple[str, ...] = ()


def parse(
    args: Sequence[str],
    flags: Sequence[Flag],
    needs_config: bool,
    positional: str = "",
    given_config: ConfigDict | None = None,
) -> ParsedCommand:
    """Parses a command line.

    Args:
        args: The command line, without the program.
        flags: The flags of the command; "workdir" must be one of them.
        needs_config: True for a command that works on a config.
        positional: Name of the positional argument, such as "FILE", or, of several
            ones, "RUN ..."; "" for none.
        given_config: The config, instead of the file of --config.

    Raises:
        ConfigError: A flag, a config file, a field or a value is invalid.
    """
    values = absl_flags.FlagValues()
    values.set_gnu_getopt(True)  # flags may follow the positional argument
    for flag in flags:
        _define(flag, values)
    # By hand and first: which other flags exist depends on the config.
    spec, rest = _take_config(args) if needs_config else ("", list(args))
    _check_flags(rest, [*values, *(["config"] if needs_config else [])])
    if given_config is not None:
        spec, before = "the config", copy.deepcopy(given_config).lock()
    else:
        before = _load(spec, rest) if needs_config else ConfigDict()
    chosen, removed, rest = _part_choices(rest, before)
    swap = _swap_parts(before, chosen, removed)
    config = _add_options(swap.config if swap else before, rest)
    if needs_config:
        _define_config(config, _source(spec, swap.names if swap else {}), rest, values)
    left = _set(values, rest, config)
    argument = _positional(left, positional)
    given = {flag.name: values[flag.name].value for flag in flags}
    for flag in flags:
        _check_value(flag, given[flag.name])
    # Only now: until a flag has set it, a placeholder has a type and no value.
    config = config.copy_and_resolve_references().lock()
    notes = _config_file_note(spec) if spec and given_config is None else []
    if swap:
        config, lines = swap.fit(config)
        notes += lines
    check_values(flatten(config))
    _check_paths(left, given, config)
    workdir = given.pop("workdir") or default_workdir(spec, swap.model if swap else "")
    workdir = local_path("--workdir", workdir)
    words = tuple(args), tuple(notes), tuple(left)
    return ParsedCommand(config, workdir, given, argument, *words)


def _check_paths(
    words: Sequence[str], flags: Mapping[str, Any], config: ConfigDict
) -> None:
    """Raises ConfigError if an argument, a flag or a field is an address."""
    for word in words:
        check_local("the argument", word)
    for name, value in flags.items():
        if name != "text":  # a transcript
            check_local(f"--{name}", value)
    for name, value in flatten(config).items():
        if name != "distributed.coordinator":  # which has a check of its own
            check_local(f"--config.{name}", value)


def _config_file_note(spec: str) -> list[str]:
    """Returns a line that names the config file, unless the user wrote that path."""
    path = find_config(spec)
    written = local_path("--config", spec.split(":", 1)[0])
    return [] if path == written else [f"config: {path}"]


def default_workdir(spec: str, model: str = "") -> str:
    """Returns the workdir of a config, such as "runs/cfn_sr_ravdess".

    Args:
        spec: The value of --config.
        model: The model that replaces that of the config; "" for none.
    """
    name, _, word = spec.partition(":")
    word, model = (re.sub(r"\W+", "_", text) for text in (word, model))
    parts = filter(None, (Path(name).stem, word, model))
    return str(Path("runs", "_".join(parts)))


def _check_value(flag: Flag, value: Any) -> None:
    """Raises ConfigError for a value that the flag does not allow."""
    if flag.choices and value not in flag.choices:
        what = f": invalid value {shown(value)}." if value else " is required."
        hint = suggest(str(value), flag.choices)
        raise ConfigError("C03", f"--{shorten(flag.name)}{what}", hint)
    if flag.minimum is not None and value < flag.minimum:
        raise ConfigError(
            "C10",
            f"--{shorten(flag.name)}={shorten(value)} is less than {flag.minimum}.",
            f"--{shorten(flag.name)}={shorten(flag.default)}",
        )


def _define(flag: Flag, values: absl_flags.FlagValues) -> None:
    kinds = {
        bool: absl_flags.DEFINE_bool,
        int: absl_flags.DEFINE_integer,
        float: absl_flags.DEFINE_float,
        str: absl_flags.DEFINE_string,
    }
    kinds[type(flag.default)](flag.name, flag.default, flag.help, flag_values=values)


def _take_config(words: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the value of --config, "" if there is none, and the other words."""
    spec, rest = "", []
    pending = iter(words)
    for word in pending:
        if word in ("--config", "-config"):
            spec = next(pending, "")
        elif word.startswith(("--config=", "-config=")):
            spec = word.split("=", 1)[1]
        else:
            rest.append(word)
    return spec, rest


def _check_flags(words: Sequence[str], known: Sequence[str]) -> None:
    """Raises ConfigError for the first flag that the command does not have."""
    for word in words:
        name = word.split("=", 1)[0].lstrip("-")
        if not re.match("--?[A-Za-z]", word) or OVERRIDE.match(word):
            continue
        if name not in known and name.removeprefix("no") not in known:
            hint = suggest(f"--{name}", [f"--{flag}" for flag in known])
            raise ConfigError("C01", f"unknown flag --{shorten(name)}.", hint)


def _load(spec: str, words: Sequence[str]) -> ConfigDict:
    """Returns the config of `spec`; raises ConfigError if it is empty."""
    if not spec:
        names = [word for word in words if not word.startswith("-")]
        name = next(iter([*names, *list_configs()]), "FILE.py")
        raise ConfigError("C01", "--config is required.", f"--config={shorten(name)}")
    return load_config(spec)


def _part_choices(
    words: Sequence[str], config: ConfigDict
) -> tuple[dict[str, str], list[str], list[str]]:
    """Returns which parts of a config flags replace or remove.

    Returns:
        Fields that name another part than in the config, with the new names; the
        modalities whose encoders are removed, `--config.model.encoders.text=None`; and
        the words without these flags.
    """
    chosen, removed, left = {}, [], []
    own = flatten(config)
    pending = list(itertools.zip_longest(words, words[1:], fillvalue=""))
    while pending:
        word, after = pending.pop(0)
        field = match[1] if (match := OVERRIDE.match(word)) else ""
        value = word.partition("=")[2] if "=" in word else after
        encoder = re.fullmatch(r"model\.encoders\.([^.]+)", field)
        if encoder and value == "None":
            removed.append(encoder[1])
            pending = pending if "=" in word else pending[1:]
            continue
        left.append(word)
        if field and value and part_kind(field):
            chosen[field] = value
    chosen = {field: name for field, name in chosen.items() if own.get(field) != name}
    return chosen, list(dict.fromkeys(removed)), left


def _swap_parts(
    config: ConfigDict, chosen: Mapping[str, str], removed: Sequence[str]
) -> Any:
    """Returns a `PartSwap`; None if flags neither replace nor remove a part."""
    if not chosen and not removed:
        return None
    check_values(chosen)  # before the import: an unknown name is an error at once
    from mmfusion_jax.config.part_swap import PartSwap  # slow: it needs JAX

    return PartSwap(config, chosen, removed)


def _add_options(config: ConfigDict, words: Sequence[str]) -> ConfigDict:
    """Returns the config with the options that `words` set and only its parts have.

    A config file need not list every option: without this, a flag could not set one
    that it leaves out. Only such flags, and misspelled ones, wait for JAX.
    """
    fields = [match[1] for word in words if (match := OVERRIDE.match(word))]
    known = flatten(config)
    lacking = [
        field
        for field in fields
        if field not in known and part_kind(f"{field.rpartition('.')[0]}.name")
    ]
    if not lacking:
        return config
    from mmfusion_jax.config.part_swap import add_options  # slow: it needs JAX

    return add_options(config, lacking)


def _source(spec: str, names: Mapping[str, str]) -> str:
    """Returns the config and the parts that flags replace in it, for messages."""
    parts = [
        f"the {shown_name(part_kind(field))} {shown_name(name)}"
        for field, name in names.items()
    ]
    return f"{shorten(spec)} with {', '.join(parts)}" if parts else spec


def _define_config(
    config: ConfigDict,
    spec: str,
    words: Sequence[str],
    values: absl_flags.FlagValues,
) -> None:
    """Adds a flag to `values` for every field of `config` that `words` set."""
    overrides = [match[1] for word in words if (match := OVERRIDE.match(word))]
    check_fields(config, overrides, spec)
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=["", *words]
        )
    except (absl_flags.Error, ValueError, TypeError) as error:
        raise ConfigError("C11", shorten(" ".join(str(error).split()))) from error


def _set(
    values: absl_flags.FlagValues, words: Sequence[str], config: ConfigDict
) -> list[str]:
    """Sets flags and overridden fields of `config`; returns the remaining words."""
    try:
        left = values(["", *words])[1:]
    except absl_flags.IllegalFlagValueError as error:
        raise _wrong_type(str(error), values, config) from error
    except (absl_flags.Error, ValueError, TypeError) as error:
        message = " ".join(str(error).split())
        raise ConfigError("C01", message, "--help lists the flags") from error
    for field, value in flatten(config).items():
        # config_flags splits numbers at commas, but keeps "a,b" as one string, and ""
        # as a tuple with an empty string.
        if isinstance(value, tuple) and any(re.search(",|^$", str(p)) for p in value):
            parts = ",".join(map(str, value)).split(",")
            config.update_from_flattened_dict({field: tuple(filter(None, parts))})
    return left


def _positional(left: Sequence[str], name: str) -> str:
    """Returns the positional argument; raises ConfigError if it must not be there."""
    if not name and not left:
        return ""
    if not left or not left[0]:
        raise ConfigError(
            "C01", f"{shown_name(name)} is required.", "--help shows the usage"
        )
    if not name or (len(left) > 1 and not name.endswith("...")):
        fix = "flags look like --workdir=FOLDER"
        raise ConfigError("C01", f"unexpected argument {shown(left[-1])}.", fix)
    return left[0]


def _wrong_type(
    message: str, values: absl_flags.FlagValues, config: ConfigDict
) -> ConfigError:
    """Returns the error for a value of the wrong type, from the message of absl."""
    match = re.match(r"flag --([\w.]+)=(.*?): ", message, re.DOTALL)
    if match is None:
        return ConfigError("C11", message)
    name, value = match[1], match[2]
    kind: Any
    if name.startswith("config."):
        field = name.removeprefix("config.")
        like, kind = flatten(config)[field], config_path.get_type(field, config)
    else:
        like = values[name].default
        kind = type(like)
    fix = "" if like is None else f"for example --{shorten(name)}={shorten(like)}"
    what = TYPE_NAMES.get(kind, f"a {kind.__name__}")
    return ConfigError("C11", f"--{shorten(name)}={shorten(value)} is not {what}.", fix)
