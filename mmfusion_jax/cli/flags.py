"""From the words of a command line to a request: flags, config, overrides, checks."""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import config_path

from mmfusion_jax.config.load import (
    check_fields,
    find_config,
    flatten,
    list_configs,
    load_config,
)
from mmfusion_jax.config.registry import choices
from mmfusion_jax.config.validate import check_config
from mmfusion_jax.errors import ConfigError, suggest

OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]*)")
BASELINES = ("concat_fc", "late_fusion", "unimodal")
TYPE_NAMES = {bool: "true or false", int: "an integer", float: "a number"}


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of a command.

    Attributes:
        name: without the dashes.
        default: also tells the type.
        help: one line of help.
        choices: what a string may be; () for anything.
        minimum: what a number may not be below; None for anything.
    """

    name: str
    default: str | bool | int | float
    help: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None


@dataclasses.dataclass(frozen=True)
class ParsedCommand:
    """What the user asked for.

    Attributes:
        config: the resolved config; empty for a command that needs none.
        config_name: as written after --config=, such as "configs/cfn_sr.py:ravdess".
        workdir: folder of the run.
        flags: the values of all other flags, by name.
        positional: the word that is no flag, of a command that takes one.
        args: of the command line, without the program.
        notes: lines that tell the user how the words were understood.
    """

    config: ConfigDict
    config_name: str
    workdir: Path
    flags: Mapping[str, Any]
    positional: str = ""
    args: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def parse(
    args: Sequence[str],
    flags: Sequence[Flag],
    needs_config: bool,
    positional: str = "",
) -> ParsedCommand:
    """What `args` ask for.

    Args:
        args: of the command line, without the program.
        flags: that the command knows; "workdir" must be among them.
        needs_config: the command works on a config.
        positional: what the one word is that is no flag, such as "FILE"; "" if there
            may be none.

    Raises:
        ConfigError: for a flag, a config file, a field or a value that cannot be.
    """
    values = absl_flags.FlagValues()
    values.set_gnu_getopt(True)  # flags may stand behind the operand
    for flag in flags:
        _define(flag, values)
    spec, rest = _take_config(args) if needs_config else ("", list(args))
    _check_flags(rest, [*values, *(["config"] if needs_config else [])])
    before = _load(spec) if needs_config else ConfigDict()
    model = _other_model(rest, before)
    config = _swapped(before, model) if model else before
    if needs_config:
        told = f"{spec} with the model {model}" if model else spec
        _define_config(config, told, rest, values)
    left = _set(values, rest, config)
    named = _operand(left, positional)
    asked = {flag.name: values[flag.name].value for flag in flags}
    for flag in flags:
        _check_value(flag, asked[flag.name])
    # Only now: until a flag has set it, a placeholder is nothing but its type.
    config = config.copy_and_resolve_references().lock()
    notes = _which_file(spec) if spec else []
    if model:
        config, line = _fitted(config, before)
        notes.append(line)
    check_config(flatten(config))
    workdir = Path(asked.pop("workdir") or default_workdir(spec)).expanduser()
    return ParsedCommand(config, spec, workdir, asked, named, tuple(args), tuple(notes))


def _which_file(spec: str) -> list[str]:
    """A line that names the config file, unless it is as the user wrote it."""
    path = find_config(spec)
    written = Path(spec.split(":", 1)[0]).expanduser()
    return [] if path == written else [f"config: {path}"]


def default_workdir(spec: str) -> str:
    """The folder of a run for which none is named: "runs/cfn_sr_ravdess"."""
    name, _, word = spec.partition(":")
    parts = filter(None, (Path(name).stem, re.sub(r"\W+", "_", word)))
    return str(Path("runs", "_".join(parts)))


def _check_value(flag: Flag, value: Any) -> None:
    """Raises ConfigError for a value that the flag cannot have."""
    if flag.choices and value not in flag.choices:
        what = f"={value} is unknown." if value else " is missing."
        hint = suggest(str(value), flag.choices)
        raise ConfigError("C03", f"--{flag.name}{what}", hint)
    if flag.minimum is not None and value < flag.minimum:
        message = f"--{flag.name}={value} is less than {flag.minimum}."
        raise ConfigError("C10", message, f"--{flag.name}={flag.default}")


def _define(flag: Flag, values: absl_flags.FlagValues) -> None:
    kinds = {
        bool: absl_flags.DEFINE_bool,
        int: absl_flags.DEFINE_integer,
        float: absl_flags.DEFINE_float,
        str: absl_flags.DEFINE_string,
    }
    kinds[type(flag.default)](flag.name, flag.default, flag.help, flag_values=values)


def _take_config(words: Sequence[str]) -> tuple[str, list[str]]:
    """The value of --config, "" if there is none, and the other words."""
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
    """Raises ConfigError for the first word that looks like a flag and is none."""
    for word in words:
        name = word.split("=", 1)[0].lstrip("-")
        if not re.match("--?[A-Za-z]", word) or OVERRIDE.match(word):
            continue
        if name not in known and name.removeprefix("no") not in known:
            hint = suggest(f"--{name}", [f"--{flag}" for flag in known])
            raise ConfigError("C01", f"--{name} is no flag.", hint)


def _load(spec: str) -> ConfigDict:
    """The config of `spec`, or the error that asks for one."""
    if not spec:
        known = list_configs()
        fix = f"--config={known[0] if known else 'FILE.py'}"
        raise ConfigError("C01", "--config is missing: which config to run?", fix)
    return load_config(spec)


def _other_model(words: Sequence[str], config: ConfigDict) -> str:
    """The baseline that `words` put in the place of the model; "" for none.

    Raises:
        ConfigError: the model is another one that is no baseline.
    """
    asked = own = flatten(config).get("model.name", "")
    for word, after in itertools.zip_longest(words, words[1:], fillvalue=""):
        flag, _, value = word.lstrip("-").partition("=")
        if word.startswith("-") and flag == "config.model.name":
            asked = value or after
    if not own or asked == own or asked not in choices("model"):
        return ""
    if asked not in BASELINES:
        raise ConfigError(
            "C03",
            f"--config.model.name={asked} cannot take the place of {own}: its loss "
            "terms and recipe are in its own config.",
            f"--config={asked}, or a baseline: {', '.join(BASELINES)}",
        )
    return asked


def _swapped(config: ConfigDict, model: str) -> ConfigDict:
    """The config with the fields of another model."""
    from mmfusion_jax.config.model_swap import with_model  # slow: it needs JAX

    return with_model(config, model)


def _fitted(config: ConfigDict, before: ConfigDict) -> tuple[ConfigDict, str]:
    """What another model can run of a config, and what was left out, in a line."""
    from mmfusion_jax.config.model_swap import fit_to_model

    return fit_to_model(config, before)


def _define_config(
    config: ConfigDict,
    spec: str,
    words: Sequence[str],
    values: absl_flags.FlagValues,
) -> None:
    """Adds a flag for every field of `config` that `words` set to `values`."""
    overrides = [match[1] for word in words if (match := OVERRIDE.match(word))]
    check_fields(config, overrides, spec)
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=["", *words]
        )
    except (absl_flags.Error, ValueError, TypeError) as error:
        raise ConfigError("C11", " ".join(str(error).split())) from error


def _set(
    values: absl_flags.FlagValues, words: Sequence[str], config: ConfigDict
) -> list[str]:
    """Sets `values`, and with them the overridden fields of `config`; other words."""
    try:
        left = values(["", *words])[1:]
    except absl_flags.IllegalFlagValueError as error:
        raise _wrong_type(str(error), values, config) from error
    except (absl_flags.Error, ValueError, TypeError) as error:
        raise ConfigError("C01", " ".join(str(error).split())) from error
    for field, value in flatten(config).items():
        if isinstance(value, tuple) and any("," in str(part) for part in value):
            parts = tuple(p for part in value for p in str(part).split(","))
            config.update_from_flattened_dict({field: parts})
    return left


def _operand(left: Sequence[str], operand: str) -> str:
    """The one word of `left`, if the command takes one and no more."""
    if not operand and not left:
        return ""
    if not left or not left[0]:
        raise ConfigError("C01", f"{operand} is missing.", "--help shows the usage")
    if len(left) > 1 or not operand:
        fix = "flags look like --workdir=FOLDER"
        raise ConfigError("C01", f"{left[-1]!r} is no flag.", fix)
    return left[0]


def _wrong_type(
    message: str, values: absl_flags.FlagValues, config: ConfigDict
) -> ConfigError:
    """What the value of a flag should have been, from the message of absl."""
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
    fix = "" if like is None else f"for example --{name}={like}"
    wanted = TYPE_NAMES.get(kind, f"a {kind.__name__}")
    return ConfigError("C11", f"--{name}={value} is not {wanted}.", fix)
