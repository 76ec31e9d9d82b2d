"""Checks of the options of a dataset that its loader and its outline share.

A config checks the types and bounds that the arguments of a loader are annotated with.
These functions check what an annotation does not express, such as a choice that depends
on the files, and the options of a loader that is called without a config.
"""

from collections.abc import Iterable
from pathlib import Path

from mmfusion_jax.errors import (
    ConfigError,
    DataError,
    shorten,
    shown,
    shown_name,
    shown_path,
    suggest,
)
from mmfusion_jax.paths import local_path


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    """Raises ConfigError if the option `config.data.<name>` is not one of `known`."""
    known = tuple(known)
    if value not in known:
        raise ConfigError(
            "C03",
            f"config.data.{shown_name(name)}={shown(value)} is unknown.",
            suggest(value, known),
        )


def check_at_least(minimum: int, **options: int) -> None:
    """Raises ConfigError for the first option below a minimum.

    Args:
        minimum: The smallest allowed value.
        **options: Name of an option of `config.data` -> its value.
    """
    for name, value in options.items():
        if value < minimum:
            raise out_of_range(name, value, f"{minimum} or more")


def out_of_range(name: str, value: float, allowed: str) -> ConfigError:
    """Returns the error for an option that is out of range.

    Args:
        name: Name of the option of `config.data`.
        value: Its value.
        allowed: The values that it may have, such as "1 to 9".
    """
    message = f"config.data.{shown_name(name)}={shown(value)} is out of range."
    return ConfigError("C10", message, shorten(allowed))


def data_folder(data_dir: str, layout: str, fallback: str) -> Path:
    """Returns the folder `config.data.data_dir`.

    Args:
        data_dir: Folder as in the config; "" if it is not set.
        layout: Expected layout of the folder, as indented lines.
        fallback: Command that runs without this data.

    Raises:
        DataError: The option is not set, or is not a folder.
    """
    folder = local_path("data_dir", data_dir)
    if not data_dir or not folder.is_dir():
        raise missing_files(data_dir, "is not a folder", layout, fallback)
    return folder


def find_files(data_dir: str, pattern: str, layout: str, fallback: str) -> list[Path]:
    """Returns the files in the folder `config.data.data_dir`, sorted by path.

    Args:
        data_dir: Folder as in the config; "" if it is not set.
        pattern: Glob pattern; it starts with "**/" for files at any depth.
        layout: Expected layout of the folder, as indented lines.
        fallback: Command that runs without this data.

    Raises:
        DataError: The option is not set, or no file matches.
    """
    # Sorted, as the order of a directory differs between file systems, and folds depend
    # on it. Without the test "" would search the working directory.
    files = sorted(local_path("data_dir", data_dir).glob(pattern)) if data_dir else []
    if not files:
        problem = f"contains no {shown_name(pattern.removeprefix('**/'))}"
        raise missing_files(data_dir, problem, layout, fallback)
    return files


def missing_files(data_dir: str, problem: str, layout: str, fallback: str) -> DataError:
    """Returns the error for a folder that is missing or lacks files.

    Args:
        data_dir: Folder as in the config; "" if it is not set.
        problem: What is wrong with the folder, such as "is not a folder".
        layout: Expected layout of the folder, as indented lines.
        fallback: Command that runs without this data.
    """
    suffix = f"={shown_path(data_dir)} {problem}" if data_dir else " is missing"
    return DataError(
        "D40",
        f"config.data.data_dir{suffix}. Expected layout:\n{layout}",
        fallback,
    )
