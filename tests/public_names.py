"""The public names of the package, from its lists, for tests."""

import importlib

import mmfusion_jax

NAMES = [
    path for path in mmfusion_jax.PUBLIC.values() if ":" not in path
]  # its packages, and modules whose names are not listed
PACKAGES = ["mmfusion_jax"] + [
    path for path in NAMES if hasattr(importlib.import_module(path), "PUBLIC")
]
"""Modules with a list of public names."""


def public(package: str) -> dict[str, str]:
    """Public name -> import path."""
    return importlib.import_module(package).PUBLIC
