"""Loads config files and suggests close field names. Does not import JAX."""

import json
import re
import runpy
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ml_collections import ConfigDict, FrozenConfigDict
from ml_collections.config_dict import RequiredValueError

from mmfusion_jax.errors import (
    ConfigError,
    closest,
    describe_exception,
    shorten,
    shown,
    shown_name,
    suggest,
)
from mmfusion_jax.paths import check_local, local_path

Config: TypeAlias = Any
"""A ConfigDict; to a type checker its fields could be anything."""

FOLDER = "configs"
GROUP = ("ml_collections.config_dict.config_dict.ConfigDict", "dict")
WRONG_TYPE = re.compile(
    r"Could not override field '(.*?)' \(reference\)\. (.*) is of original type "
    r"<class '(.*)'> and cannot be casted to type <class '(.*)'>",
    re.DOTALL,
)
"""The error message of a ConfigDict for a value of another type."""


def load_config(spec: str) -> ConfigDict:
    """Returns a config, locked against new fields.

    Example:
        >>> import mmfusion_jax as mmf
        >>> config = mmf.load_config("mea:digits")
        >>> config.model.name, config.data.name
        ('mea', 'digits')

    Args:
        spec: A file, and after a colon the argument of its `get_config`:
            "configs/cfn_sr.py:ravdess", or "cfn_sr:ravdess" for short; see
            `find_config`.

    Raises:
        ConfigError: The file does not exist, or does not return a config.
    """
    name, *word = spec.split(":", 1)
    path = find_config(spec)
    try:
        # A config is a program by design, and only one that the user names is run;
        # configs in checkpoints and work folders are JSON.
        found = runpy.run_path(str(path)).get("get_config")
        if found is None:
            raise ConfigError("C04", f"{shorten(name)} does not define get_config.")
        config: Any = found(*word)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise _config_file_error(name, path, word, error) from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            "C04",
            f"{shorten(name)}: get_config returned a "
            f"{type(config).__name__}, not a ConfigDict.",
        )
    if isinstance(config, FrozenConfigDict):
        config = config.as_configdict()
    try:
        flatten(_completed(config))
        return config.lock()
    except RequiredValueError as error:
        message = f"{shorten(name)}: a required_placeholder has no value."
        raise ConfigError(
            "C04", message, "use placeholder(TYPE), to which a flag can give a value"
        ) from error
    except (RecursionError, TypeError) as error:
        raise ConfigError(
            "C04",
            f"{shorten(name)}: the config contains itself, is nested too deeply, or "
            "has a field whose name is not a string.",
        ) from error


def find_config(spec: str) -> Path:
    """Returns the path of a config file.

    A file below the current folder comes first, then the file of that name that is
    installed with the package.

    Args:
        spec: As for `load_config`.

    Raises:
        ConfigError: The file does not exist.
    """
    name = spec.split(":", 1)[0]
    check_local("--config", spec)
    path = local_path("--config", name)
    if path.is_file():
        return path
    short = Path(FOLDER, f"{path.name.removesuffix('.py')}.py")
    if path.parent in (Path(), Path(FOLDER)):
        for candidate in (short, installed_configs() / short.name):
            if candidate.is_file():
                return candidate
    message = f"--config={shorten(name)}: the file does not exist."
    if path.with_name(f"{path.name}.py").is_file():
        raise ConfigError("C04", message, f"did you mean '{shorten(name)}.py'?")
    known = list_configs()
    if path.parent == Path() and not path.suffix:  # "cfn_rs" is close to "cfn_sr"
        known = [Path(config).stem for config in known]
    raise ConfigError("C04", message, suggest(name, known) if known else "")


def installed_configs() -> Path:
    """Returns the folder of the configs that are installed with the package.

    In a wheel they are inside the package, in a checkout beside it.
    """
    package = Path(__file__).parents[1]
    inside = package / FOLDER
    return inside if inside.is_dir() else package.parent / FOLDER


def list_configs() -> list[str]:
    """Returns the config files that --config can name."""
    names = {path.name for path in Path(FOLDER).glob("*.py")}
    names |= {path.name for path in installed_configs().glob("*.py")}
    return sorted(str(Path(FOLDER, name)) for name in names)


def flatten(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """Returns every field by its full name, such as "optim.schedule.name"."""
    return dict(_walk(config, ""))


def check_fields(config: ConfigDict, names: Iterable[str], spec: str) -> None:
    """Raises ConfigError for the first of `names` that `config` does not have."""
    for name in names:
        level: Any = config
        words = name.split(".")
        for depth, word in enumerate(words):
            group = ".".join(["config", *words[:depth]])
            if not isinstance(level, ConfigDict):
                raise ConfigError(
                    "C02",
                    f"--config.{shorten(name)}: {shorten(group)}={shown(level)} is "
                    "not a group of fields.",
                )
            if word not in level:
                raise ConfigError(
                    "C02",
                    f"--config.{shorten(name)}: {shorten(spec)} has no {shown(word)} "
                    f"in {shorten(group)}.",
                    _suggest_field(word, level, config),
                )
            level = level[word]
        if isinstance(level, ConfigDict):
            first = next(iter(flatten(level)), "")
            raise ConfigError(
                "C02",
                f"--config.{shorten(name)} is a group of fields.",
                f"set one of them: --config.{shorten(name)}.{shown_name(first)}=..."
                if first
                else "it is empty: its fields are set in the config file",
            )


def format_value(value: object) -> str:
    """Returns the value of a field as it is written in a flag."""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value)) or "()"
    return str(value)


def as_json(config: ConfigDict) -> str:
    """Returns the config as JSON."""
    return json.dumps(config.to_dict(), indent=2)


def _completed(config: ConfigDict) -> ConfigDict:
    """Returns the config with a `data.modality_dropout` of 0 where there is none."""
    model, data = config.get("model"), config.get("data")
    encoders = model.get("encoders") if isinstance(model, ConfigDict) else None
    if isinstance(encoders, ConfigDict) and isinstance(data, ConfigDict):
        # A flag can only set a field that exists, so every modality gets its rate.
        with config.unlocked():
            rates = data.get("modality_dropout") or ConfigDict()
            for modality in encoders:
                if isinstance(rates, ConfigDict) and not rates.get(modality):
                    rates[modality] = 0.0  # not an integer: flags have its type
            data.modality_dropout = rates
    return config


def _walk(level: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in level.items():
        if isinstance(value, ConfigDict | Mapping):
            yield from _walk(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _suggest_field(word: str, level: ConfigDict, config: ConfigDict) -> str:
    """Returns a hint: a field of that name elsewhere, or the nearest one here."""
    hint = suggest(word, level)
    elsewhere = [f for f in flatten(config) if f.split(".")[-1] == word]
    if elsewhere and not hint.startswith("did you mean"):
        return f"did you mean --config.{shown_name(elsewhere[0])}?"
    return hint


def _config_file_error(
    name: str, path: Path, word: list[str], error: BaseException
) -> ConfigError:
    """Returns the error for a config file that fails, with the line."""
    if isinstance(error, ValueError):
        # The text of the error lists the words that the file knows.
        known = re.findall(r"[\w-]+", str(error).partition("; ")[2])
        near = closest(word[0], known, cutoff=0.6) if word else ""
        return ConfigError(
            "C04",
            f"--config={shorten(':'.join([name, *word]))}: {shorten(error)}",
            f"did you mean --config={shorten(name)}:{shown_name(near)}?"
            if near
            else "",
        )
    if isinstance(error, SyntaxError):
        lineno = error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        lineno = next((f.lineno for f in frames[::-1] if f.filename == str(path)), None)
    if lineno is None and word:
        return ConfigError(
            "C04",
            f"{shorten(name)} does not take a word after the colon.",
            f"--config={shorten(name)}",
        )
    where = f"{shorten(name)} line {lineno:d}" if lineno else name
    if match := WRONG_TYPE.match(str(error)):
        field, value, found, expected = match.groups()
        what, kind = "a group of fields", "a group of fields"
        if found not in GROUP:
            what = f"{shown_name(value)} ({shown_name(found)})"
        if expected not in GROUP:
            kind = f"of type {shown_name(expected)}"
        message = f"{where}: the field {shown(field)} must be {kind}, and is {what}."
        return ConfigError("C04", message)
    return ConfigError("C04", f"{where}: {describe_exception(error)}")
