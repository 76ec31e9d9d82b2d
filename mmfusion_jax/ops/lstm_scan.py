"""LSTM recurrence, with both directions in one scan and a backward pass by hand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfusion_jax.ops.custom_gradient import with_backward
from mmfusion_jax.types import Array


class LSTMWeights(NamedTuple):
    """Weights of the gates i, f, g, o, concatenated.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> weights = mmf.ops.LSTMWeights(
        ...     jnp.ones((1, 3, 16)), jnp.ones((1, 4, 16)), jnp.zeros((1, 16))
        ... )
        >>> weights.bias.shape
        (1, 16)

    Attributes:
        input_kernel: (r d 4w), applied to the input.
        recurrent_kernel: (r w 4w), applied to the state h.
        bias: (r 4w).
    """

    input_kernel: Array
    recurrent_kernel: Array
    bias: Array


class LSTMStates(NamedTuple):
    """Hidden states of an LSTM.

    Attributes:
        all_steps: h after every step, (n r b w).
        last: h of each direction after all steps, (r b w). If a program uses only
            this, XLA does not store the others.
    """

    all_steps: Array
    last: Array


def lstm(x: Array, mask: Array, weights: LSTMWeights) -> LSTMStates:
    """Computes the hidden states of an LSTM.

        i, f, g, o = [x_t, h_{t-1}] [W; R] + b
        c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)
        h_t = sigmoid(o) tanh(c_t)

    Direction 0 runs from the first step to the last, direction 1, if there is one, in
    reverse. The input projection is computed inside the loop: writing and reading the
    gates of all steps costs more than one large product saves. The backward pass
    computes the weight gradients as products over all steps after its loop.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> weights = mmf.ops.LSTMWeights(
        ...     jnp.ones((1, 3, 16)), jnp.ones((1, 4, 16)), jnp.zeros((1, 16))
        ... )
        >>> states = mmf.ops.lstm(jnp.ones((5, 2, 3)), jnp.ones((5, 2), bool), weights)
        >>> states.all_steps.shape, states.last.shape
        ((5, 1, 2, 4), (1, 2, 4))

    Args:
        x: (n b d), finite.
        mask: (n b) bool; a masked step leaves the state unchanged.
        weights: Weights of one or two directions r.

    Returns:
        The states h, in the dtype of `x`. The state c is float32 or wider.

    Reference:
        Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
    directions = len(weights.bias)
    valid = jnp.broadcast_to(
        mask[:, None, :, None], (*mask.shape[:1], directions, *mask.shape[1:], 1)
    )
    inputs = jnp.broadcast_to(x[:, None], (len(x), directions, *x.shape[1:]))
    states = _loop(_flip_reverse(inputs), _flip_reverse(valid), weights)
    return states._replace(all_steps=_flip_reverse(states.all_steps))


def _flip_reverse(x: Array) -> Array:
    """Reverses the steps of direction 1, if there is one, (n r ...)."""
    # Both directions then run in one scan, as a batch of two products: 13 instead of 20
    # ms for two scans (20 units, 500 steps, forward, input product before the loop, 2
    # CPU cores).
    return jnp.concatenate([x[:, :1], x[::-1, 1:]], axis=1)


# Autodiff of the scan would add to the gradients of all weights in every iteration of
# the backward loop. This backward pass saves h, c and the gates of every step, only
# computes dz in its loop, and gets the gradients of the weights as products over all
# steps after it. 64 units, 500 steps, batch 32, 2 CPU cores: forward and backward take
# 135 ms, with JAX's own derivative 149; 20 units: 35 and 44 ms.
def _definition(x: Array, valid: Array, weights: LSTMWeights) -> LSTMStates:
    """States of inputs (n r b d), each direction in its own order."""
    return _forward(x, valid, weights)[0]


def _forward(x: Array, valid: Array, weights: LSTMWeights) -> tuple:
    kernels = [weights.input_kernel, weights.recurrent_kernel]
    kernel = jnp.concatenate(kernels, axis=1)
    bias = weights.bias[:, None]
    exact = jnp.promote_types(x.dtype, jnp.float32)

    def cell(state: tuple[Array, Array], step: tuple[Array, Array]):
        (h, c), (x, valid) = state, step
        # x and h are concatenated for one product per step. One large product for the
        # inputs of all steps before the loop is slower: its result is written and read
        # again. 64 units, 500 steps, 2 CPU cores: 86 ms instead of 27.
        z = jnp.einsum("rbe,rek->rbk", jnp.concatenate([x, h], axis=-1), kernel)
        i, f, g, o = jnp.split((z + bias).astype(exact), 4, axis=-1)
        # The gates are used twice, for the state and as saved values, and XLA for CPU
        # may compute fused operations once for each use. 64 units, 500 steps, one core:
        # with the barrier 86 instead of 88 ms with gradients, but 16 instead of 13 ms
        # for a forward pass alone, which saves no gates.
        gates = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        i, f, g, o = gates = jax.lax.optimization_barrier(gates)
        new_c = f * c + i * g
        new_h = (o * jnp.tanh(new_c)).astype(h.dtype)
        h, c = jnp.where(valid, new_h, h), jnp.where(valid, new_c, c)
        return (h, c), (h, c, gates)

    # c is a sum over all steps: in half precision it would lose the later ones.
    zero = jnp.zeros((*x.shape[1:3], weights.recurrent_kernel.shape[1]), x.dtype)
    start = zero, zero.astype(exact)
    (last, _), (h, c, gates) = jax.lax.scan(cell, start, (x, valid))
    return LSTMStates(h, last), (h, c, gates)


def _backward(arguments: tuple, saved: tuple, dh: LSTMStates) -> tuple:
    dz = _gate_gradients(arguments, saved, dh)
    return _products(arguments, saved, dz)


def _gate_gradients(arguments: tuple, saved: tuple, dh: LSTMStates) -> tuple:
    """Gradients of the gates before their activations, (n b 4w) of each direction."""
    x, valid, weights = arguments
    _, c, gates = saved
    # In JAX 0.7 a NumPy array comes back as an object without its methods.
    transposed = jnp.swapaxes(weights.recurrent_kernel, 1, 2).astype(c.dtype)

    def cell(carry: tuple[Array, Array], step: tuple[Array, ...]):
        (dh, dc), (dh_step, valid, c, last_c, gates) = carry, step
        dh = dh + dh_step
        i, f, g, o = gates
        tanh_c = jnp.tanh(c)
        # A masked step copies h and c, so their gradients pass it unchanged.
        dh_valid = jnp.where(valid, dh, 0)
        dc_valid = jnp.where(valid, dc, 0) + dh_valid * o * (1 - tanh_c**2)
        dz = jnp.concatenate(
            [
                dc_valid * g * i * (1 - i),
                dc_valid * last_c * f * (1 - f),
                dc_valid * i * (1 - g**2),
                dh_valid * tanh_c * o * (1 - o),
            ],
            axis=-1,
        )
        dh = jnp.where(valid, 0, dh) + jnp.einsum("rbk,rkw->rbw", dz, transposed)
        dc = jnp.where(valid, 0, dc) + dc_valid * f
        return (dh, dc), tuple(dz.astype(x.dtype))

    exact = c.dtype
    start = dh.last.astype(exact), jnp.zeros_like(c[0])
    steps = dh.all_steps.astype(exact), valid, c, _previous(c), gates
    return jax.lax.scan(cell, start, steps, reverse=True)[1]


def _previous(states: Array) -> Array:
    """States before every step, (n ...)."""
    return jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])


def _products(arguments: tuple, saved: tuple, dz: tuple) -> tuple:
    """Gradients of the arguments, from those of the gates."""
    x, _, weights = arguments
    h, c, _ = saved
    # Products over n and b at once, instead of a sum of n small ones in the loop. Each
    # direction by itself: a product over both would first transpose all dz. Forward and
    # backward of 500 steps on 2 CPU cores: 38 instead of 39 ms with 20 units, 116
    # instead of 125 with 64.
    product = lambda a, dz: jnp.einsum(
        "nbd,nbk->dk", a, dz, preferred_element_type=c.dtype
    )
    last_h = _previous(h)
    gradients = LSTMWeights(
        jnp.stack([product(x[:, r], d) for r, d in enumerate(dz)]),
        jnp.stack([product(last_h[:, r], d) for r, d in enumerate(dz)]),
        jnp.stack([jnp.sum(d.astype(c.dtype), axis=(0, 1)) for d in dz]),
    )
    dx = [d @ k.T for d, k in zip(dz, weights.input_kernel, strict=True)]
    dx = jnp.stack(dx, axis=1).astype(x.dtype)
    cast = jax.tree.map(lambda g, w: g.astype(w.dtype), gradients, weights)
    return dx, None, cast


_loop = with_backward(_definition, _backward, _forward)
