"""Max pooling: against XLA's window, equal values, masked steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfusion_jax.ops.conv.max_pool3d import max_pool

pool = jax.jit(max_pool)


def normal(*shape):
    """Values below the 0 that padding must not be."""
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape) - 4, jnp.float32)


def windows(x):
    sizes, strides = (1, 3, 3, 3, 1), (1, 2, 2, 2, 1)
    padding = ((0, 0), *((1, 1),) * 3, (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, sizes, strides, padding)


@jax.jit
def both(x):
    """Values and gradients of ours and of XLA's window."""
    mask = jnp.ones(x.shape[:2], bool)
    y, back = jax.vjp(lambda x: max_pool(x, mask), x)
    want, want_back = jax.vjp(windows, x)
    dy = jnp.arange(1.0, y.size + 1).reshape(y.shape)
    return (y, *back(dy)), (want, *want_back(dy))


@pytest.mark.parametrize("shape", [(2, 4, 5, 6, 3), (1, 1, 7, 1, 2), (1, 5, 4, 3, 1)])
def test_is_the_maximum_of_a_window(shape):
    got, want = both(normal(*shape))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_equal_values_as_in_the_window_of_xla():
    # On TPU the window is ours too.
    x = np.random.default_rng(0).integers(0, 3, (2, 5, 6, 7, 2)).astype(np.float32)
    for got, want in zip(*both(x), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("platform", "has_windows"), [("tpu", True), ("cuda", False)])
def test_the_form_suits_the_accelerator(platform, has_windows):
    x, mask = (
        jax.ShapeDtypeStruct((1, 4, 6, 6, 3), jnp.bfloat16),
        jnp.ones((1, 4), bool),
    )
    loss = lambda x: max_pool(x, mask).astype(jnp.float32).sum()
    step = jax.jit(jax.value_and_grad(loss)).trace(x)
    text = step.lower(lowering_platforms=(platform,)).as_text()
    for name in ("reduce_window", "select_and_scatter"):
        assert (f"stablehlo.{name}" in text) == has_windows


def test_equal_values_as_in_pytorch():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(0, 3, (2, 5, 6, 7, 2)).astype(np.float32)
    (y, dx), _ = both(x)
    theirs = torch.tensor(x.transpose(0, 4, 1, 2, 3).copy(), requires_grad=True)
    pooled = torch.nn.functional.max_pool3d(theirs, 3, 2, 1)
    dy = np.arange(1.0, y.size + 1, dtype=np.float32).reshape(y.shape)
    pooled.backward(torch.tensor(dy.transpose(0, 4, 1, 2, 3).copy()))
    np.testing.assert_array_equal(y.transpose(0, 4, 1, 2, 3), pooled.detach().numpy())
    np.testing.assert_array_equal(dx.transpose(0, 4, 1, 2, 3), theirs.grad.numpy())


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_masked_steps_never_win(bad):
    x, mask = normal(2, 7, 4, 4, 3), jnp.arange(7) < jnp.array([[5], [0]])
    poisoned = jnp.where(mask[:, :, None, None, None], x, bad)
    got = pool(poisoned, mask)
    np.testing.assert_array_equal(got[:1, :3], pool(x[:1, :5], mask[:1, :5]))
    assert not np.any(got[:1, 3:]) and not np.any(got[1:])
    grad = jax.jit(jax.grad(lambda x: pool(x, mask).sum()))(poisoned)
    np.testing.assert_array_equal(np.any(grad, axis=(2, 3, 4)), mask)
    assert np.all(np.isfinite(grad))
