"""Provenance of a result: versions, commit, machine."""

import importlib.metadata
import subprocess
from pathlib import Path

PACKAGES = (
    "mmfusion_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain",
    "tensorflow-datasets", "numpy", "scikit-learn",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Returns the versions of the libraries that results depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def commit() -> str:
    """Returns the commit of the source tree, "-dirty" if changed; "" if unknown."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        # An installed package may be in the folder of another repository, such as the
        # virtual environment of a project, whose commit would be wrong.
        if not git("ls-files", "--", str(here / "provenance.py")):
            return ""
        # Untracked files, such as work folders, do not change the code.
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""
