"""Provenance of a result: versions, commit, machine."""

import importlib.metadata
import json
import math
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmfusion_jax.errors import CheckpointError

PACKAGES = (
    "mmfusion_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain",
    "tensorflow-datasets", "numpy", "scikit-learn",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of the libraries a number depends on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def commit() -> str:
    """The commit of the library's source tree, "-dirty" if changed; "" if unknown."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", "--", str(here / "provenance.py")):
            return ""
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""


def to_json(value: Any) -> Any:
    """JSON values as JSON can hold them: None for a number that is not finite."""
    if isinstance(value, Mapping):
        return {name: to_json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON atomically: after a crash the file is complete, new or old.

    Args:
        path: The file.
        value: JSON values; numbers that are not finite become null.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(to_json(value), indent=1, allow_nan=False)
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text + "\n")
        # The content must be on disk before the name is: a rename that reaches the disk
        # first would leave an empty file under the final name after a power failure.
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def read_json(path: Path, fields: Mapping[str, type], fix: str) -> dict[str, Any]:
    """Reads a file that `write_json` wrote.

    Args:
        path: The file.
        fields: Fields that the file must have -> their types.
        fix: How to fix a corrupted file.

    Raises:
        CheckpointError: The file is corrupted.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError("K05", f"{path} is corrupted: {error}.", fix) from error
    if not isinstance(found, dict):
        raise CheckpointError("K05", f"{path} is corrupted: not a JSON object.", fix)
    for name, kind in fields.items():
        if not isinstance(found.get(name), kind):
            raise CheckpointError(
                "K05",
                f"{path} is corrupted: {name!r} must be a {kind.__name__}.",
                fix,
            )
    return found
