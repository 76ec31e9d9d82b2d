"""Double precision for part of a test."""

import contextlib

import jax


def double() -> contextlib.AbstractContextManager[None]:
    """Arrays of 64 bits inside the block; JAX makes 32 bits of them otherwise."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # where JAX had it before 0.8

    return enable_x64(True)
