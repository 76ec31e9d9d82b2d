"""Loads config files and suggests close field names. Does not import JAX."""

import json
import runpy
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ml_collections import ConfigDict

from mmfusion_jax.errors import ConfigError, suggest

Config: TypeAlias = Any
"""A ConfigDict; to a type checker its fields could be anything."""

FOLDER = "configs"


def load_config(spec: str) -> ConfigDict:
    """Returns a config, locked against new fields.

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
        found = runpy.run_path(str(path)).get("get_config")
        if found is None:
            raise ConfigError("C04", f"{name} does not define get_config.")
        config = found(*word)
    except ConfigError:
        raise
    except Exception as error:
        raise _config_file_error(name, path, word, error) from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            "C04",
            f"{name}: get_config returned a {type(config).__name__}, not a ConfigDict.",
        )
    return _completed(config).lock()


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
    path = Path(name).expanduser()
    if path.is_file():
        return path
    short = Path(FOLDER, f"{path.name.removesuffix('.py')}.py")
    if path.parent in (Path(), Path(FOLDER)):
        for candidate in (short, installed_configs() / short.name):
            if candidate.is_file():
                return candidate
    known = list_configs()
    message = f"--config={name}: there is no such file."
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
                    f"--config.{name}: {group}={level!r} is not a group of fields.",
                )
            if word not in level:
                raise ConfigError(
                    "C02",
                    f"--config.{name}: {spec} has no {word!r} in {group}.",
                    _suggest_field(word, level, config),
                )
            level = level[word]
        if isinstance(level, ConfigDict):
            first = next(iter(flatten(level)), "")
            raise ConfigError(
                "C02",
                f"--config.{name} is a group of fields.",
                f"set one of them: --config.{name}.{first}=..."
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
    values = config.to_dict()
    encoders = values.get("model", {}).get("encoders", {})
    if isinstance(values.get("data"), Mapping):
        rates = values["data"].get("modality_dropout") or {}
        with config.unlocked():
            config.update(data={"modality_dropout": dict.fromkeys(encoders, 0.0)})
            config.update(data={"modality_dropout": rates})
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
        return f"did you mean --config.{elsewhere[0]}?"
    return hint


def _config_file_error(
    name: str, path: Path, word: list[str], error: Exception
) -> ConfigError:
    """Returns the error for a config file that fails, with the line."""
    if isinstance(error, ValueError):
        return ConfigError("C04", f"--config={':'.join([name, *word])}: {error}")
    if isinstance(error, SyntaxError):
        lineno = error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        lineno = next((f.lineno for f in frames[::-1] if f.filename == str(path)), None)
    if lineno is None and word:
        return ConfigError(
            "C04", f"{name} does not take a word after the colon.", f"--config={name}"
        )
    first = str(error).splitlines()[0] if str(error) else ""
    line = f" line {lineno}" if lineno else ""
    return ConfigError("C04", f"{name}{line}: {type(error).__name__}: {first}")
