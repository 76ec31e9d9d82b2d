"""Attention and the pre-norm transformer: equations, masks, the released network."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_cfn import assert_close, fill, load, variables
from masking_contract import assert_ignores_poison, poison

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.layers.attention import Attention
from mmfusion_jax.layers.transformer import (
    Transformer,
    TransformerLayer,
    exact_gelu,
    sinusoid,
    transformer_stack,
)
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Tokens

pytestmark = pytest.mark.ci

B, N, D, HEADS = 2, 5, 8, 2
ENCODER = Transformer(num_layers=2, num_heads=HEADS, causal=True)
VALUES = jax.random.normal(jax.random.key(0), (B, N, D))
WHOLE = Tokens(VALUES, jnp.ones((B, N), bool))
RAGGED = WHOLE.replace(mask=WHOLE.mask.at[0, 3:].set(False))
DROPOUTS = ("embed", "attention", "relu", "residual")


@functools.lru_cache
def weights(encoder=ENCODER):
    init = jax.jit(functools.partial(encoder.init, train=False))
    made = init(jax.random.key(1), WHOLE)
    return jax.tree.map(
        lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), made
    )


@functools.partial(jax.jit, static_argnames=("encoder", "train"))
def encode(params, tokens, encoder=ENCODER, train=False):
    rngs = {"dropout": jax.random.key(3)}
    return encoder.apply(params, tokens, train=train, rngs=rngs)


def normed(p, x):
    away = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((away**2).mean(axis=-1, keepdims=True) + 1e-5)
    return away / spread * p["scale"] + p["bias"]


def affine(p, x):
    return x @ p["kernel"] + p["bias"]


def attended(p, x):
    q, k, v = (affine(p[name], x) for name in ("query", "key", "value"))
    size, mixed = D // HEADS, []
    for g in range(HEADS):
        part = slice(g * size, (g + 1) * size)
        scores = q[..., part] @ k[..., part].swapaxes(1, 2) / np.sqrt(size)  # Eq. 5
        later = np.arange(N)[None, :] > np.arange(N)[:, None]
        weight = np.where(later, 0, np.exp(scores))
        mixed.append(weight / weight.sum(axis=-1, keepdims=True) @ v[..., part])
    return affine(p["out"], np.concatenate(mixed, axis=-1))


@pytest.mark.parametrize("pre_norm", [True, False])
def test_follows_the_equations(pre_norm):
    encoder = ENCODER.clone(pre_norm=pre_norm)
    p = jax.tree.map(np.asarray, weights(encoder)["params"])
    z = np.sqrt(D) * np.asarray(VALUES) + sinusoid(N, D)
    same = lambda _, x: x
    before, after = (normed, same) if pre_norm else (same, normed)
    for i in range(2):
        layer = p[f"layer_{i}"]
        norm = layer["attention_norm"]
        z = after(norm, z + attended(layer["attention"], before(norm, z)))
        norm = layer["feedforward_norm"]
        hidden = affine(layer["expand"], before(norm, z))
        assert hidden.shape[-1] == 4 * D
        z = z + affine(layer["shrink"], np.maximum(hidden, 0))
        z = after(norm, z)  # Eq. 6
    want = normed(p["norm"], z) if pre_norm else z
    assert ("norm" in p) == pre_norm
    got = encode(weights(encoder), WHOLE, encoder).values
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_nothing(causal):
    encoder = ENCODER.clone(causal=causal)
    short = jax.tree.map(lambda x: x[:, :3], WHOLE)
    padded = WHOLE.replace(mask=WHOLE.mask.at[:, 3:].set(False))
    got = encode(weights(), padded, encoder).values
    want = encode(weights(), short, encoder).values
    np.testing.assert_allclose(got[:, :3], want, rtol=1e-4, atol=1e-5)
    assert jnp.all(got[:, 3:] == 0)


def test_causal_tokens_do_not_see_the_future():
    changed = WHOLE.replace(values=VALUES.at[:, 3].add(1))
    moved = jnp.any(
        encode(weights(), changed).values != encode(weights(), WHOLE).values,
        axis=(0, 2),
    )
    np.testing.assert_array_equal(moved, [False, False, False, True, True])


def test_ignores_masked_values():
    loss = lambda p, tokens: jnp.sum(encode(p, tokens).values[..., 0] ** 2)
    assert_ignores_poison(loss, weights(), functools.partial(poison, RAGGED))


def test_survives_no_token():
    absent = WHOLE.replace(mask=jnp.zeros_like(WHOLE.mask))
    loss = lambda p: jnp.sum(encode(p, absent).values)
    value, grads = jax.jit(jax.value_and_grad(loss))(weights())
    assert value == 0
    chex.assert_tree_all_finite(grads)


@pytest.mark.parametrize("transform", [jax.vmap, jax.pmap])
def test_is_pure_and_per_example(transform):
    one_each = jax.tree.map(lambda x: x[:, None], RAGGED)
    run = lambda tokens: encode(weights(), tokens).values
    got = transform(run)(one_each)[:, 0]
    np.testing.assert_allclose(got, run(RAGGED), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DROPOUTS)
def test_drops_out_only_in_training(name):
    encoder = ENCODER.clone(**{f"{name}_dropout": 0.5})
    still = encode(weights(), WHOLE, encoder).values
    np.testing.assert_array_equal(still, encode(weights(), WHOLE).values)
    assert jnp.any(encode(weights(), WHOLE, encoder, train=True).values != still)


def test_attends_to_another_stream():
    attend = Attention(num_heads=2, causal=True)
    memory = Tokens(
        jax.random.normal(jax.random.key(4), (B, 7, 3)), jnp.ones((B, 7), bool)
    )
    init = jax.jit(functools.partial(attend.init, train=False))
    params = init(jax.random.key(5), WHOLE, memory)
    run = jax.jit(functools.partial(attend.apply, train=False))
    before = run(params, WHOLE, memory)
    assert before.shape == VALUES.shape
    # Two tokens more than the query: token i sees two further ahead.
    for seen in range(7):
        after = run(
            params, WHOLE, memory.replace(values=memory.values.at[:, seen].add(1))
        )
        moved = jnp.any(after != before, axis=(0, 2))
        np.testing.assert_array_equal(moved, seen - jnp.arange(N) <= 2)


def test_attention_ignores_masked_values():
    attend = Attention(num_heads=2)
    init = jax.jit(functools.partial(attend.init, train=False))
    params = init(jax.random.key(5), RAGGED, RAGGED)

    def loss(params, tokens):
        mixed = attend.apply(params, tokens, tokens, train=False)
        return jnp.sum(zero_masked(mixed, tokens.mask) ** 2)

    assert_ignores_poison(loss, params, functools.partial(poison, RAGGED))


def test_says_when_heads_do_not_fit():
    with pytest.raises(ConfigError, match="heads=3 does not divide the width 8"):
        Transformer(1, 3).init(jax.random.key(0), WHOLE, train=False)


def test_starts_as_the_released_code_does():
    tokens = Tokens(jnp.ones((1, 2, 64)), jnp.ones((1, 2), bool))
    init = jax.jit(functools.partial(Transformer(1, 8).init, train=False))
    layer = init(jax.random.key(0), tokens)["params"]["layer_0"]
    bounds = {"query": 6 / (64 + 192), "value": 6 / (64 + 192), "out": 6 / 128}
    for name, square in bounds.items():
        kernel = layer["attention"][name]["kernel"]
        assert 0.98 < jnp.max(jnp.abs(kernel)) / square**0.5 <= 1
    assert jnp.all(layer["expand"]["bias"] == 0)


class Stack(nn.Module):
    """Two layers of width 8 in the scope of this module."""

    pre_norm: bool = True
    dropout: float = 0.0
    relu_dropout: float = 0.0

    @nn.compact
    def __call__(self, tokens, *, train):
        return transformer_stack(
            tokens,
            2,
            HEADS,
            train=train,
            dropout=self.dropout,
            relu_dropout=self.relu_dropout,
            mlp_dim=12,
            pre_norm=self.pre_norm,
            epsilon=0.1,
        )


@pytest.mark.parametrize("pre_norm", [True, False])
def test_a_stack_is_its_layers_one_after_the_other(pre_norm):
    stack = Stack(pre_norm)
    params = weights(stack)["params"]
    assert set(params) == {"layer_0", "layer_1"}
    layer = TransformerLayer(
        HEADS, mlp_dim=12, pre_norm=pre_norm, activation=exact_gelu, epsilon=0.1
    )
    want = RAGGED
    for name in ("layer_0", "layer_1"):
        want = encode({"params": params[name]}, want, layer)
    got = encode({"params": params}, RAGGED, stack)
    np.testing.assert_array_equal(got.mask, RAGGED.mask)
    valid = np.asarray(RAGGED.mask)
    np.testing.assert_allclose(got.values[valid], want.values[valid], 1e-5, 1e-6)

    def loss(params, tokens):
        encoded = encode(params, tokens, stack)
        return jnp.sum(zero_masked(encoded.values, tokens.mask) ** 2)

    run = jax.jit(jax.value_and_grad(loss))
    one, two = (run({"params": params}, poison(RAGGED, x)) for x in (0.0, 1e3))
    chex.assert_trees_all_equal(one, two)


def test_the_dropout_rates_of_a_stack():
    stack = Stack(dropout=1.0)  # drops the whole of every residual branch
    got = encode(weights(Stack()), WHOLE, stack, train=True)
    np.testing.assert_array_equal(got.values, WHOLE.values)
    params = weights(Stack())
    other = jax.tree.map_with_path(
        lambda path, x: x + 1 if "expand" in jax.tree_util.keystr(path) else x, params
    )
    for rate in (0.0, 1.0):
        one, two = (
            encode(p, WHOLE, Stack(relu_dropout=rate), train=True).values
            for p in (params, other)
        )
        assert jnp.array_equal(one, two) == (rate == 1.0)
        assert not jnp.array_equal(one, WHOLE.values)


def test_positions():
    rates = 10_000.0 ** (-np.arange(3) / 2)
    want = [*np.sin(2 * rates), *np.cos(2 * rates), 0]
    np.testing.assert_allclose(sinusoid(4, 7)[1], want, rtol=1e-6)
    assert np.isfinite(sinusoid(3, 2)).all()


def test_a_token_that_starts_with_zero_has_no_position():
    encoder = Transformer(num_layers=0, num_heads=1)
    tokens = WHOLE.replace(values=VALUES.at[0, 1, 0].set(0))
    got = encode({"params": weights()["params"]}, tokens, encoder).values
    want = normed(
        jax.tree.map(np.asarray, weights()["params"]["norm"]),
        np.asarray(tokens.values[0, 1]) * np.sqrt(D),
    )
    np.testing.assert_allclose(got[0, 1], want, rtol=1e-5, atol=1e-6)


def test_released_network(golden):
    y = fill("input.cross_y", (2, 64, 26)).transpose(0, 2, 1)
    tokens = Tokens(jnp.asarray(y), jnp.ones((2, 26), bool))
    encoder = Transformer(num_layers=5, num_heads=8, causal=True)
    filled = variables(
        lambda: encoder.init(jax.random.key(0), tokens, train=False), ("select",)
    )
    assert sum(x.size for x in jax.tree.leaves(filled)) == 250_048
    got = encode(filled, tokens, encoder).values
    assert_close(got.swapaxes(0, 1), load(golden)["cross/transformer"])
