"""MSAF's block: its equations, dropped blocks, and the released network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_cfn import assert_close, fill, load

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.fusion.split_attention import SplitAttention
from mmfusion_jax.types import Tokens

ORDER = ("audio", "video")
BLOCK = SplitAttention(ORDER, block_dim=4, reduction=2, block_dropout=0.0)
WIDTHS = {"audio": 4, "video": 10}


def streams(seed=0):
    """Audio of one block, and video of two and a half."""
    rng = np.random.default_rng(seed)
    draw = lambda n, d: jnp.asarray(rng.normal(size=(3, n, d)), jnp.float32)
    made = {m: draw(5, d) for m, d in WIDTHS.items()}
    return {m: Tokens(x, jnp.ones(x.shape[:2], bool)) for m, x in made.items()}


@functools.cache
def weights():
    return BLOCK.init(jax.random.key(0), streams(), train=False)


def test_follows_the_equations():
    p = jax.tree.map(np.asarray, weights()["params"])
    x = {m: np.asarray(tokens.values) for m, tokens in streams().items()}
    blocks = {
        m: np.pad(v, [(0, 0), (0, 0), (0, -v.shape[2] % 4)]) for m, v in x.items()
    }
    blocks = {m: v.reshape(3, 5, -1, 4) for m, v in blocks.items()}
    g = sum(v.sum(axis=2).mean(axis=1) for v in blocks.values())
    joint = g @ p["joint"]["kernel"] + p["joint"]["bias"]
    z = np.maximum(joint / np.sqrt(1 + 1e-5), 0)  # statistics of an untrained norm
    scores = [
        (z @ p[f"attend_{m}"]["kernel"] + p[f"attend_{m}"]["bias"]).reshape(3, -1, 4)
        for m in ORDER
    ]
    a = np.exp(np.concatenate(scores, axis=1))
    a = a / a.sum(axis=1, keepdims=True)
    want = {"audio": blocks["audio"] * a[:, None, :1]}
    want["video"] = blocks["video"] * a[:, None, 1:]
    got = BLOCK.apply(weights(), streams(), train=False)
    for m, width in WIDTHS.items():
        flat = want[m].reshape(3, 5, -1)[..., :width]
        np.testing.assert_allclose(got[m].values, flat, rtol=1e-5, atol=1e-6)


def test_blocks_of_a_missing_modality_get_no_weight():
    ones = {m: t.replace(values=jnp.ones_like(t.values)) for m, t in streams().items()}
    gone = ones["video"].replace(mask=jnp.zeros((3, 5), bool))
    got = BLOCK.apply(weights(), {**ones, "video": gone}, train=False)
    np.testing.assert_allclose(got["audio"].values, 1, rtol=1e-6)  # the only block
    assert not np.any(got["video"].values)


@pytest.mark.ci
def test_training_drops_whole_blocks_and_scales_the_others_twice():
    p = {
        name: jax.tree.map(jnp.zeros_like, x) for name, x in weights()["params"].items()
    }
    even = {**weights(), "params": p}  # every weight is 1 / 4
    block = BLOCK.clone(block_dropout=0.5)
    ones = {m: t.replace(values=jnp.ones_like(t.values)) for m, t in streams().items()}
    seen = set()
    for seed in range(4):
        rngs = {"dropout": jax.random.key(seed)}
        got, _ = block.apply(even, ones, train=True, rngs=rngs, mutable=["batch_stats"])
        for m in ORDER:
            values = np.asarray(got[m].values)
            assert np.all(values == values[:, :1])  # at all positions
            for start in range(0, WIDTHS[m], 4):
                part = values[:, 0, start : start + 4]
                assert np.all(part == part[:, :1])
                seen |= {round(float(v), 5) for v in part[:, 0]}
    assert seen == {0.0, 1 / 0.5**2 / 4}


def test_a_block_must_be_as_wide_as_its_reduction():
    with pytest.raises(ConfigError, match="block_dim=2 .* is less than reduction=4"):
        SplitAttention(ORDER, block_dim=2).init(
            jax.random.key(0), streams(), train=False
        )


def test_released_block(golden):
    want = load(golden)
    name = "msaf.1.blocks.0"
    joint = f"{name}.joint_features"
    dense = lambda part, shape: [
        fill(f"{name}.dense_group.{i}.{part}", shape) for i in range(66)
    ]
    kernels, biases = dense("weight", (32, 8)), dense("bias", (32,))
    ends = {"attend_video": slice(64), "attend_audio": slice(64, 66)}
    tree = {
        "params": {
            "joint": {
                "kernel": fill(f"{joint}.0.weight", (8, 32)).T,
                "bias": fill(f"{joint}.0.bias", (8,)),
            },
            "joint_norm": {
                "scale": fill(f"{joint}.1.weight", (8,)),
                "bias": fill(f"{joint}.1.bias", (8,)),
            },
            **{
                key: {
                    "kernel": np.concatenate(kernels[part]).T,
                    "bias": np.concatenate(biases[part]),
                }
                for key, part in ends.items()
            },
        },
        "batch_stats": {
            "joint_norm": {
                "mean": fill(f"{joint}.1.running_mean", (8,)),
                "var": fill(f"{joint}.1.running_var", (8,)),
            }
        },
    }
    x = fill("input.cross_x", (2, 2048, 2, 3, 3)).reshape(2, 2048, 18)
    y = fill("input.cross_y", (2, 64, 26))
    tokens = lambda x: Tokens(x.swapaxes(1, 2), np.ones((2, x.shape[2]), bool))
    block = SplitAttention(ORDER, block_dim=32)
    run = jax.jit(functools.partial(block.apply, train=False))
    got = run(tree, {"video": tokens(x), "audio": tokens(y)})
    video = got["video"].values.swapaxes(1, 2).ravel()
    assert_close(video[::1153][:64], want["msaf/block1_video_sample"])
    assert_close(got["audio"].values.swapaxes(1, 2), want["msaf/block1_audio"])
    count = sum(leaf.size for leaf in jax.tree.leaves(tree["params"]))
    assert count == 19_288
