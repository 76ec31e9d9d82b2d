"""LSTM: PyTorch's numbers, padding and holes, masks, both kinds of devices."""

import functools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from golden_msa import fill, load
from masking_contract import assert_ignores_poison, poison

from mmfusion_jax.layers.recurrent import LSTM
from mmfusion_jax.types import Tokens

pytestmark = pytest.mark.ci

MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]], bool)


def make(mask=MASK, width=3, seed=0):
    values = jax.random.normal(jax.random.key(seed), (*np.shape(mask), width))
    return Tokens(values, jnp.asarray(mask))


@pytest.fixture(scope="module", params=[False, True], ids=["forward", "both ways"])
def layer(request):
    return LSTM(4, bidirectional=request.param)


@pytest.fixture(scope="module")
def params(layer):
    return layer.init(jax.random.key(1), make(), train=False)


def from_torch(arrays, suffixes=("", "_reverse")):
    """Converts PyTorch's `weight_ih_l0` and so on to parameters."""
    stack = lambda name: np.stack([arrays[f"{name}_l0{end}"].T for end in suffixes])
    return {
        "input_kernel": stack("weight_ih"),
        "recurrent_kernel": stack("weight_hh"),
        "bias": stack("bias_ih") + stack("bias_hh"),
    }


def run(layer, params, tokens):
    return layer.apply(params, tokens, train=False).values


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_hand(p, direction, x, mask):
    """One direction of one example, step by step: (n d) and (n) to (n w)."""
    width = p["recurrent_kernel"].shape[1]
    h, c, out = np.zeros(width), np.zeros(width), np.zeros((len(x), width))
    for t in range(len(x))[:: -1 if direction else 1]:
        if mask[t]:
            z = x[t] @ p["input_kernel"][direction] + p["bias"][direction]
            z = z + h @ p["recurrent_kernel"][direction]
            i, f, g, o = np.split(z, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            out[t] = h = sigmoid(o) * np.tanh(c)
    return out


def test_golden(golden):
    arrays = load(golden)
    names = arrays["bilstm/names"].tolist()
    shapes = {"weight_ih": (16, 3), "weight_hh": (16, 4)}
    named = {n: fill(f"bilstm.{n}", shapes.get(n[:9], (16,))) for n in names}
    x = arrays["bilstm/in.x"].astype(np.float32)
    tokens = Tokens(x, jnp.ones(x.shape[:2], bool))
    got = run(LSTM(4, bidirectional=True), {"params": from_torch(named)}, tokens)
    np.testing.assert_allclose(got, arrays["bilstm/out"], rtol=2e-5, atol=2e-6)


def test_follows_the_equations_over_padding_and_holes(layer, params):
    tokens = make(np.array([[1, 0, 1, 1, 0, 0], [0, 1, 1, 0, 1, 1]], bool))
    p = jax.tree.map(np.asarray, params["params"])
    want = [
        np.concatenate([by_hand(p, r, x, m) for r in range(len(p["bias"]))], axis=-1)
        for x, m in zip(np.asarray(tokens.values), tokens.mask, strict=True)
    ]
    got = run(layer, params, tokens)
    np.testing.assert_allclose(got, np.stack(want), rtol=1e-5, atol=1e-6)


@pytest.mark.ci
def test_gradients_are_those_of_finite_differences(layer, params):
    loss = lambda p, x: jnp.sum(run(layer, p, make().replace(values=x)) ** 2)
    jax.test_util.check_grads(loss, (params, make().values), 1, ["rev"], eps=1e-2)


def test_ignores_masked_values(layer, params):
    loss = lambda p, tokens: jnp.sum(run(layer, p, tokens) ** 2)
    assert_ignores_poison(loss, params, lambda bad: poison(make(), bad))


@pytest.mark.parametrize("transform", [jax.vmap, jax.pmap])
def test_is_pure_and_per_example(layer, params, transform):
    tokens = make(MASK[:2])
    one_each = jax.tree.map(lambda x: x[:, None], tokens)
    got = transform(functools.partial(run, layer), in_axes=(None, 0))(params, one_each)
    want = run(layer, params, tokens)
    np.testing.assert_allclose(got[:, 0], want, rtol=1e-5, atol=1e-6)


def test_computes_in_the_type_that_is_asked_for(layer, params):
    got = run(layer.clone(dtype=jnp.bfloat16), params, make())
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got, run(layer, params, make()), atol=0.03)


def test_last_is_the_state_after_the_last_real_step_of_each_direction(layer, params):
    mask = np.array([[1, 0, 1, 1, 0, 0], [0, 1, 1, 0, 1, 1], [0] * 6], bool)
    tokens = make(mask)
    every = np.asarray(run(layer, params, tokens))
    got = layer.clone(last=True).apply(params, tokens, train=False)
    ends = [[(0, 3), (0, 0)], [(1, 5), (1, 1)]]
    want = np.zeros_like(got.values[:, 0])
    for example, directions in enumerate(ends):
        for r in range(len(params["params"]["bias"])):
            part = slice(4 * r, 4 * r + 4)
            want[example, part] = every[directions[r]][part]
    np.testing.assert_array_equal(got.values[:, 0], want)
    np.testing.assert_array_equal(got.mask[:, 0], [True, True, False])


def test_last_has_gradients_and_ignores_masked_values(layer, params):
    ended = layer.clone(last=True)
    loss = lambda p, tokens: jnp.sum(run(ended, p, tokens) ** 2)
    of_arrays = lambda p, x: loss(p, make().replace(values=x))
    jax.test_util.check_grads(of_arrays, (params, make().values), 1, ["rev"], eps=1e-2)
    assert_ignores_poison(loss, params, lambda bad: poison(make(), bad))
