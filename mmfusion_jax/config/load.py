"""Reads a config file, finds what a flag of it means, and names the nearest if none.

Nothing here imports JAX: a mistake is answered before anything slow begins.
"""

import json
import runpy
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mmfusion_jax.errors import ConfigError, suggest

FOLDER = "configs"


def load_config(spec: str) -> ConfigDict:
    """The config that `spec` asks for, locked against new fields.

    Args:
        spec: a file, and after a colon the word its `get_config` takes:
            "configs/cfn_sr.py:ravdess", or "cfn_sr:ravdess" for short; `find_config`
            says which file that is.

    Raises:
        ConfigError: there is no such file, or it does not give a config.
    """
    name, *word = spec.split(":", 1)
    path = find_config(spec)
    try:
        found = runpy.run_path(str(path)).get("get_config")
        if found is None:
            raise ConfigError("C04", f"{name} has no function get_config.")
        config = found(*word)
    except ConfigError:
        raise
    except Exception as error:
        raise _config_file_error(name, path, word, error) from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            "C04",
            f"{name}: get_config gave a {type(config).__name__}, not a ConfigDict.",
        )
    return _completed(config).lock()


def find_config(spec: str) -> Path:
    """The config file that `spec` names.

    A file below the current folder comes first, then the one of that name that is
    installed with the package.

    Args:
        spec: as for `load_config`.

    Raises:
        ConfigError: there is no such file.
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
    """The folder of the configs that are installed with the package.

    A wheel holds them inside of the package; in a checkout they are beside it.
    """
    package = Path(__file__).parents[1]
    inside = package / FOLDER
    return inside if inside.is_dir() else package.parent / FOLDER


def list_configs() -> list[str]:
    """The config files that can be named, as one would write them after --config=."""
    names = {path.name for path in Path(FOLDER).glob("*.py")}
    names |= {path.name for path in installed_configs().glob("*.py")}
    return sorted(str(Path(FOLDER, name)) for name in names)


def flatten(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """Every field by its full name, such as "optim.schedule.name", in order."""
    return dict(_walk(config, ""))


def check_fields(config: ConfigDict, names: Iterable[str], spec: str) -> None:
    """Raises ConfigError for the first of `names` that is no field of `config`."""
    for name in names:
        level: Any = config
        words = name.split(".")
        for depth, word in enumerate(words):
            place = ".".join(["config", *words[:depth]])
            if not isinstance(level, ConfigDict):
                raise ConfigError(
                    "C02", f"--config.{name}: {place}={level!r} has no fields."
                )
            if word not in level:
                raise ConfigError(
                    "C02",
                    f"--config.{name}: {spec} has no {word!r} in {place}.",
                    _suggest_field(word, level, config),
                )
            level = level[word]
        if isinstance(level, ConfigDict):
            raise ConfigError(
                "C02",
                f"--config.{name} is a group of fields.",
                f"set one of them: --config.{name}.{next(iter(flatten(level)))}=...",
            )


def format_value(value: object) -> str:
    """The value of a field as one would write it behind its flag."""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value)) or "()"
    return str(value)


def as_json(config: ConfigDict) -> str:
    """The config as JSON, for machines."""
    return json.dumps(config.to_dict(), indent=2)


def _completed(config: ConfigDict) -> ConfigDict:
    """The config with the fields that mean the same in every one.

    `data.modality_dropout`: the chance of every encoder's modality to be hidden from a
    training example, 0.
    """
    values = config.to_dict()
    encoders = values.get("model", {}).get("encoders", {})
    if "data" in values and "modality_dropout" not in values["data"]:
        with config.unlocked():
            config.update(data={"modality_dropout": {name: 0.0 for name in encoders}})
    return config


def _walk(level: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in level.items():
        if isinstance(value, ConfigDict | Mapping):
            yield from _walk(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _suggest_field(word: str, level: ConfigDict, config: ConfigDict) -> str:
    """A field of that name elsewhere, or the nearest one here."""
    hint = suggest(word, level)
    elsewhere = [f for f in flatten(config) if f.split(".")[-1] == word]
    if elsewhere and not hint.startswith("did you mean"):
        return f"did you mean --config.{elsewhere[0]}?"
    return hint


def _config_file_error(
    name: str, path: Path, word: list[str], error: Exception
) -> ConfigError:
    """What went wrong in a config file, with the line; its own ValueError as it is."""
    if isinstance(error, ValueError):
        return ConfigError("C04", f"--config={':'.join([name, *word])}: {error}")
    if isinstance(error, SyntaxError):
        place = error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        place = next((f.lineno for f in frames[::-1] if f.filename == str(path)), None)
    if place is None and word:
        return ConfigError(
            "C04", f"{name} takes no word after the colon.", f"--config={name}"
        )
    first = str(error).splitlines()[0] if str(error) else ""
    line = f" line {place}" if place else ""
    return ConfigError("C04", f"{name}{line}: {type(error).__name__}: {first}")
