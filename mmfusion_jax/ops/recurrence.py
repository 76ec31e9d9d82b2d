"""The recurrence of an LSTM, both directions in one loop."""

import jax
import jax.numpy as jnp

from mmfusion_jax.types import Array

UNROLL = 4


def lstm(gates: Array, mask: Array, kernel: Array) -> Array:
    """Runs the cells of an LSTM over time.

    Args:
        gates: (n r b 4w), what the input adds to the gates i, f, g, o; direction 0
            goes from the first step to the last, direction 1 back.
        mask: (n b) bool; a masked step leaves the state as it is.
        kernel: (r w 4w), from the state to the gates.

    Returns:
        The state h after every step, (n r b w).
    """
    steps, directions, batch, _ = gates.shape
    exact = jnp.promote_types(gates.dtype, jnp.float32)

    def cell(state: tuple[Array, Array], step: tuple[Array, Array]):
        (h, c), (given, real) = state, step
        z = given + jnp.einsum("rbw,rwk->rbk", h, kernel)
        i, f, g, o = jnp.split(z.astype(exact), 4, axis=-1)
        new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        new_h = (jax.nn.sigmoid(o) * jnp.tanh(new_c)).astype(h.dtype)
        state = jnp.where(real, new_h, h), jnp.where(real, new_c, c)
        return state, state[0]

    zero = jnp.zeros((directions, batch, kernel.shape[1]), gates.dtype)
    real = jnp.broadcast_to(mask[:, None, :, None], (steps, directions, batch, 1))
    inputs = _turned(gates), _turned(real)
    _, hidden = jax.lax.scan(cell, (zero, zero.astype(exact)), inputs, unroll=UNROLL)
    return _turned(hidden)


def _turned(x: Array) -> Array:
    """(n r ...) with direction 1, if there is one, in the opposite order of steps."""
    return jnp.concatenate([x[:, :1], x[::-1, 1:]], axis=1)
