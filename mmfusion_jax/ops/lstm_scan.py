"""The recurrence of an LSTM, both directions in one loop, and its own way back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfusion_jax.types import Array


class LSTMWeights(NamedTuple):
    """Of the gates i, f, g, o, side by side.

    Attributes:
        into: (r d 4w), from the input.
        kernel: (r w 4w), from the state h.
        bias: (r 4w).
    """

    into: Array
    kernel: Array
    bias: Array


class LSTMStates(NamedTuple):
    """Of an LSTM.

    Attributes:
        every: h after every step, (n r b w).
        last: h of each direction after all steps, (r b w). A program that asks for it
            alone never writes the others.
    """

    every: Array
    last: Array


def lstm(x: Array, mask: Array, weights: LSTMWeights) -> LSTMStates:
    """Runs the cells of an LSTM over time.

        i, f, g, o = [x_t, h_{t-1}] [W; R] + b
        c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)
        h_t = sigmoid(o) tanh(c_t)

    Direction 0 goes from the first step to the last, direction 1, if there is one,
    back. The input's product is taken in the loop: an array of the gates of all steps
    costs more to write and read than one large product saves. The way back leaves the
    gradients of the weights to products over all steps after its loop.

    Args:
        x: (n b d), finite.
        mask: (n b) bool; a masked step leaves the state as it is.
        weights: of one or two directions r.

    Returns:
        The states h, of the type of `x`. The state c is float32 or wider.
    """
    directions = len(weights.bias)
    real = jnp.broadcast_to(
        mask[:, None, :, None], (*mask.shape[:1], directions, *mask.shape[1:], 1)
    )
    given = jnp.broadcast_to(x[:, None], (len(x), directions, *x.shape[1:]))
    states = _loop(_turned(given), _turned(real), weights)
    return states._replace(every=_turned(states.every))


def _turned(x: Array) -> Array:
    """(n r ...) with direction 1, if there is one, in the opposite order of steps."""
    return jnp.concatenate([x[:, :1], x[::-1, 1:]], axis=1)


@jax.custom_vjp
def _loop(x: Array, real: Array, weights: LSTMWeights) -> LSTMStates:
    """The states of inputs (n r b d), each direction in its own order."""
    return _forward(x, real, weights)[0]


def _forward(x: Array, real: Array, weights: LSTMWeights) -> tuple:
    both = jnp.concatenate([weights.into, weights.kernel], axis=1)
    bias = weights.bias[:, None]
    exact = jnp.promote_types(x.dtype, jnp.float32)

    def cell(state: tuple[Array, Array], step: tuple[Array, Array]):
        (h, c), (given, real) = state, step
        z = jnp.einsum("rbe,rek->rbk", jnp.concatenate([given, h], axis=-1), both)
        i, f, g, o = jnp.split((z + bias).astype(exact), 4, axis=-1)
        gates = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        i, f, g, o = gates = jax.lax.optimization_barrier(gates)
        new_c = f * c + i * g
        new_h = (o * jnp.tanh(new_c)).astype(h.dtype)
        h, c = jnp.where(real, new_h, h), jnp.where(real, new_c, c)
        return (h, c), (h, c, gates)

    zero = jnp.zeros((*x.shape[1:3], weights.kernel.shape[1]), x.dtype)
    start = zero, zero.astype(exact)
    (last, _), (h, c, gates) = jax.lax.scan(cell, start, (x, real))
    return LSTMStates(h, last), (x, real, weights, h, c, gates)


def _backward(known: tuple, dh: LSTMStates) -> tuple:
    x, real, weights, h, c, gates = known
    before = lambda s: jnp.concatenate([jnp.zeros_like(s[:1]), s[:-1]])
    # JAX 0.7 hands a NumPy array back as an object that lacks its methods.
    turned = jnp.swapaxes(weights.kernel, 1, 2).astype(c.dtype)

    def cell(carried: tuple[Array, Array], step: tuple[Array, ...]):
        (dh, dc), (more, real, c, last, gates) = carried, step
        dh = dh + more
        i, f, g, o = gates
        told = jnp.tanh(c)
        here = jnp.where(real, dh, 0)
        dc_here = jnp.where(real, dc, 0) + here * o * (1 - told**2)
        dz = jnp.concatenate(
            [
                dc_here * g * i * (1 - i),
                dc_here * last * f * (1 - f),
                dc_here * i * (1 - g**2),
                here * told * o * (1 - o),
            ],
            axis=-1,
        )
        dh = jnp.where(real, 0, dh) + jnp.einsum("rbk,rkw->rbw", dz, turned)
        dc = jnp.where(real, 0, dc) + dc_here * f
        return (dh, dc), dz.astype(x.dtype)

    exact = c.dtype
    start = dh.last.astype(exact), jnp.zeros_like(c[0])
    steps = dh.every.astype(exact), real, c, before(c), gates
    _, dz = jax.lax.scan(cell, start, steps, reverse=True)
    found = LSTMWeights(
        jnp.einsum("nrbd,nrbk->rdk", x, dz, preferred_element_type=exact),
        jnp.einsum("nrbw,nrbk->rwk", before(h), dz, preferred_element_type=exact),
        jnp.sum(dz.astype(exact), axis=(0, 2)),
    )
    dx = jnp.einsum("nrbk,rdk->nrbd", dz, weights.into).astype(x.dtype)
    return dx, None, jax.tree.map(lambda g, w: g.astype(w.dtype), found, weights)


_loop.defvjp(_forward, _backward)
