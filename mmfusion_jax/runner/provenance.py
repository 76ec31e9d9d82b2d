"""Where a number comes from: versions, commit, machine."""

import importlib.metadata
import json
import math
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    """Writes JSON so that the file is whole or the old one still stands.

    Args:
        path: of the file.
        value: JSON values; numbers that are not finite become null.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(to_json(value), indent=1, allow_nan=False)
    fresh.write_text(text + "\n", encoding="utf-8")
    fresh.replace(path)
