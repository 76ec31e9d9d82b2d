"""Reads and writes dataclasses as JSON files, atomically, with a format version."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec

from mmfusion_jax.errors import CheckpointError, shorten, shown, shown_name

FORMAT_VERSION = 2
"""Version of all files; raised when a field changes its name or its meaning."""
VERSION_FIELD = "format_version"

Number: TypeAlias = float | None
"""A value that is not defined is null in a file: None once read, NaN before writing."""

T = TypeVar("T")

# ValidationError is a ValueError in newer versions of msgspec only.
INVALID = (ValueError, msgspec.ValidationError)
"""Exceptions for content that is not valid."""


def to_json(value: Any) -> Any:
    """Returns dataclasses and containers as JSON values.

    Args:
        value: Dataclasses, mappings, sequences and scalars, nested.

    Returns:
        Dicts, lists and scalars; None for a number that is not finite.
    """
    return _without_nan(msgspec.to_builtins(value))


def _without_nan(value: Any) -> Any:
    """Replaces numbers that are not finite by None: JSON has no NaN or infinity."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_read(value: T) -> T:
    """Returns a dataclass as a reader of its file gets it: None for NaN."""
    return msgspec.convert(to_json(value), type(value))


def dumps(value: Any, *, indent: int | None = 1) -> str:
    """Returns dataclasses and containers as JSON text without NaN."""
    return json.dumps(to_json(value), indent=indent, allow_nan=False)


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Writes a file atomically: after a crash it is complete, either new or old.

    Args:
        path: The file; its directory is created.
        value: A dataclass or a mapping.
        indent: Spaces of a level; None writes one line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {VERSION_FIELD: FORMAT_VERSION, **to_json(value)}
    write_text(path, dumps(fields, indent=indent) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically.

    Args:
        path: The file.
        text: Its content; what is not valid Unicode is replaced by "?".
    """
    # Readers of a half-written file would take it for corrupted. The process id keeps
    # two writers apart.
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("w", encoding="utf-8", errors="replace") as file:
        file.write(text)
        # The content must be on disk before the name is: a rename that reaches the disk
        # first would leave an empty file under the final name after a power failure.
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    # The rename is an entry of the directory, which is written separately. Without this
    # a power failure could bring the old file back after it was reported as saved.
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_json(path: Path, kind: type[T], fix: str) -> T:
    """Reads a file that `write_json` wrote.

    Args:
        path: The file.
        kind: The dataclass, or `dict[str, Any]`.
        fix: The way to fix a corrupted file, for the message.

    Raises:
        CheckpointError: The file is corrupted or has another format version.
    """
    # A file may come from another machine or be edited, so nothing in it is trusted.
    try:
        found = parse(path.read_bytes())
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}."
        raise CheckpointError("K05", message, fix) from error
    except ValueError as error:
        raise CheckpointError(
            "K05", f"{path} is corrupted: {shorten(error)}.", fix
        ) from error
    try:
        check_version(found, str(path))
        return msgspec.convert(found, kind)
    except INVALID as error:
        message = f"{path} is corrupted: {shorten(error)}."
        raise CheckpointError("K05", message, fix) from error


def check_version(found: dict[str, Any], where: str) -> None:
    """Takes the format version out of the fields of a file and checks it.

    Args:
        found: The fields.
        where: The file, for the message.

    Raises:
        CheckpointError: Another version of the library wrote the file.
        ValueError: The version is missing or not an integer.
    """
    version = found.pop(VERSION_FIELD, None)
    # Not isinstance: `true` in JSON is a bool, which is an int in Python.
    if type(version) is not int:
        raise ValueError(f"{VERSION_FIELD} is missing or not an integer")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            "K06",
            f"{where} has {VERSION_FIELD}={shown(version)}, but this version of "
            f"mmfusion_jax reads {FORMAT_VERSION}.",
            "use another --workdir, or the version of mmfusion_jax that wrote it",
        )


def parse(text: str | bytes) -> dict[str, Any]:
    """Parses one JSON object.

    Raises:
        ValueError: The text is not a JSON object, or contains NaN or integers beyond
            64 bits.
    """
    try:
        # Python reads NaN and Infinity, which are not JSON, unless they are rejected.
        found = json.loads(text, parse_constant=_reject_constant, parse_int=_parse_int)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def _parse_int(digits: str) -> int:
    """Returns an integer of at most 64 bits."""
    value = int(digits)
    # Nothing counts that far, and older versions of msgspec fail on integers that a
    # float cannot hold.
    if abs(value) >= 2**63:
        raise ValueError(f"the integer {shorten(digits, 30)} is too large")
    return value


def _reject_constant(name: str) -> float:
    """Raises ValueError for NaN or Infinity."""
    raise ValueError(f"{shown_name(name)} is not valid JSON")


def check(condition: bool, message: str) -> None:
    """Raises ValueError with `message` unless `condition` holds.

    Dataclasses call it in `__post_init__`: when a file is read, the error becomes the
    message about the corrupted file.
    """
    if not condition:
        raise ValueError(message)


def names_match(mapping: Mapping[str, Any], names: Any, what: str) -> None:
    """Raises ValueError unless `mapping` has exactly the keys `names`."""
    if mapping.keys() != set(names):
        odd = sorted(mapping.keys() ^ set(names))
        raise ValueError(f"{what}: {shown(odd[0])} is missing or unknown")
