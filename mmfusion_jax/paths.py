"""Paths of the user, which are local."""

import os
import re
from pathlib import Path
from typing import Any

from mmfusion_jax.errors import ConfigError, shown

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""Beginning of a path that is an address; one slash remains of two in a `Path`."""


def check_local(what: str, path: Any) -> None:
    """Raises ConfigError if a path is an address such as "gs://bucket/folder".

    `pathlib` would make a local folder "gs:" of it.

    Args:
        what: The flag, field or argument.
        path: A path; values of other types are accepted.
    """
    if isinstance(path, str | os.PathLike) and ADDRESS.match(os.fspath(path)):
        raise ConfigError(
            "C40",
            f"{what}={shown(os.fspath(path))} is an address; files must be in a local "
            "folder.",
            "copy them to this machine, or mount the bucket as a folder, for example "
            "with gcsfuse or mount-s3",
        )


def local_path(what: str, path: str | os.PathLike[str]) -> Path:
    """Returns a path of the user; unlike `Path.expanduser` without an exception.

    Args:
        what: The flag, field or argument.
        path: A path in a local folder; "~" is the home folder.

    Raises:
        ConfigError: The path is an address.
    """
    check_local(what, path)
    return Path(os.path.expanduser(os.fspath(path)))
