"""What must hold for every fusion block, shown on ResidualAttention."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_cfn import assert_close, fill, load, variables

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.fusion.residual_attention import ResidualAttention
from mmfusion_jax.layers.transformer import Transformer
from mmfusion_jax.ops.masking import last_valid
from mmfusion_jax.types import Tokens

GRID = (3, 2, 2)
SHAPES = {"video": (2, 12, 4), "audio": (2, 3, 6)}
BLOCK = ResidualAttention(hidden_dim=8, target="video", source="audio")


@pytest.fixture(scope="module")
def streams():
    keys = jax.random.split(jax.random.key(0))
    made = {
        name: Tokens(jax.random.normal(key, shape), jnp.ones(shape[:2], bool))
        for key, (name, shape) in zip(keys, SHAPES.items(), strict=True)
    }
    return {**made, "video": made["video"].replace(grid=GRID)}


@pytest.fixture(scope="module")
def params(streams):
    init = jax.jit(functools.partial(BLOCK.init, train=False))
    return init(jax.random.key(1), streams)


@functools.partial(jax.jit, static_argnames="block")
def fuse(params, streams, block=BLOCK):
    return block.apply(params, streams, train=False)


def video(params, streams):
    return fuse(params, streams)["video"].values


def hidden(streams, name, where):
    """Streams in which the positions `where` of `name` are masked."""
    mask = streams[name].mask.at[where].set(False)
    return {**streams, name: streams[name].replace(mask=mask)}


@pytest.mark.parametrize(
    ("axes", "residual", "scale"),
    [("HW", True, 1.0), ("HW", True, 16.0), ("SHW", True, 1.0), ("HW", False, 1.0)],
)
def test_follows_the_equations(params, streams, axes, residual, scale):
    p = jax.tree.map(np.asarray, params["params"])
    x, a = np.asarray(streams["video"].values), np.asarray(streams["audio"].values)
    ask = (a[:, -1] @ p["ask"]["kernel"])[:, None]
    q = np.tanh(x @ p["key"]["kernel"] + p["key"]["bias"] + ask)  # Eq. 7
    w = np.exp(q @ p["score"]["kernel"] + p["score"]["bias"])
    w = w.reshape(2, 3 if axes == "HW" else 1, -1)
    w = (w / w.sum(axis=2, keepdims=True)).reshape(2, 12, 1)
    want = scale * x * w + residual * x  # Eq. 8
    block = BLOCK.clone(softmax_axes=axes, residual=residual, scale=scale)
    fused = fuse(params, streams, block)
    np.testing.assert_allclose(fused["video"].values, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fused["attention"].values, w, rtol=1e-5)
    chex.assert_trees_all_equal(fused["audio"], streams["audio"])


def test_a_stream_without_grid_is_one_time_step(params, streams):
    flat = {**streams, "video": streams["video"].replace(grid=())}
    want = fuse(params, streams, BLOCK.clone(softmax_axes="SHW"))["video"].values
    np.testing.assert_array_equal(video(params, flat), want)


@pytest.mark.parametrize("missing", [False, True])
def test_batch_sum_is_over_all_devices(params, streams, missing):
    streams = hidden(streams, "video", np.s_[0]) if missing else streams
    own = fuse(params, streams)["attention"].values
    block = BLOCK.clone(attention="batch_sum", axis="data")
    run = jax.pmap(lambda s: fuse(params, s, block), axis_name="data")
    got = run(jax.tree.map(lambda x: x[:, None], streams))
    weights, values = got["attention"].values[:, 0], got["video"].values[:, 0]
    want = jnp.where(streams["video"].mask[..., None], own.sum(axis=0), 0)
    np.testing.assert_allclose(weights, want, rtol=1e-5)
    x = jnp.where(streams["video"].mask[..., None], streams["video"].values, 0)
    np.testing.assert_allclose(values, x * want + x, rtol=1e-5, atol=1e-6)


def test_a_batch_sum_of_equal_examples_is_their_number_as_scale(params, streams):
    same = jax.tree.map(lambda x: jnp.repeat(x[:1], 16, axis=0), streams)
    summed = fuse(params, same, BLOCK.clone(attention="batch_sum"))["video"].values
    scaled = fuse(params, same, BLOCK.clone(scale=16.0))["video"].values
    np.testing.assert_allclose(scaled, summed, rtol=1e-5, atol=1e-6)


def test_takes_a_question_that_was_projected_before(params, streams):
    last = last_valid(streams["audio"])
    asked = last @ params["params"]["ask"]["kernel"]
    question = Tokens(asked[:, None], jnp.ones((2, 1), bool))
    block = BLOCK.clone(project_source=False)
    rest = {name: p for name, p in params["params"].items() if name != "ask"}
    got = fuse({"params": rest}, {**streams, "audio": question}, block)["video"].values
    np.testing.assert_allclose(got, video(params, streams), rtol=1e-5, atol=1e-6)


def test_says_which_stream_is_missing(streams):
    with pytest.raises(ConfigError, match="requires streams audio, but got video"):
        BLOCK.init(jax.random.key(0), {"video": streams["video"]}, train=False)


def test_says_which_option_is_unknown(streams):
    with pytest.raises(ConfigError, match=r"(?s)attention='batchsum'.*'batch_sum'"):
        block = BLOCK.clone(attention="batchsum")
        block.init(jax.random.key(0), streams, train=False)


def test_released_network(golden):
    want = load(golden)
    x = fill("input.cross_x", (2, 2048, 2, 3, 3)).reshape(2, 2048, 18)
    y = fill("input.cross_y", (2, 64, 26))
    whole = lambda x: Tokens(x.swapaxes(1, 2), np.ones((2, x.shape[2]), bool))
    streams = {"video": whole(x).replace(grid=(2, 3, 3)), "audio": whole(y)}

    select = Transformer(num_layers=5, num_heads=8, causal=True)
    init = lambda: select.init(jax.random.key(0), streams["audio"], train=False)
    chosen = jax.jit(functools.partial(select.apply, train=False))(
        variables(init, ("select",)), streams["audio"]
    )
    streams["audio"] = chosen
    block = ResidualAttention(64, "video", "audio")
    init = lambda: block.init(jax.random.key(0), streams, train=False)
    filled = variables(init, ("cross",))
    assert sum(x.size for x in jax.tree.leaves(filled)) + 250_048 == 385_345

    y_k = last_valid(chosen) @ filled["params"]["ask"]["kernel"]
    assert_close(y_k, want["cross/y_k"])
    for name, attention in (("per_sample", "per_sample"), ("official", "batch_sum")):
        fused = fuse(filled, streams, block.clone(attention=attention))
        maps = fused["video"].values.swapaxes(1, 2).reshape(2, 2048, 2, 3, 3)
        assert_close(maps[:, ::16], want[f"cross/{name}"])
        if attention == "per_sample":
            weights = fused["attention"].values.reshape(2, 2, 3, 3)
            assert_close(weights, want["cross/attention_maps"])
