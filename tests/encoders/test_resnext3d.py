"""The video encoder: counts, masks, pixels, PyTorch, the released network's numbers."""

import importlib.util

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from golden_cfn import assert_close, load, variables, video
from paths import ROOT

from mmfusion_jax.encoders.resnext3d import ResNeXt3D
from mmfusion_jax.errors import ConfigError

SMALL = ResNeXt3D(blocks=(1, 2), base_channels=8)
CLIPS = np.random.default_rng(0).standard_normal((2, 9, 11, 12, 3)).astype(np.float32)
MASK = np.arange(9) < np.array([[9], [5]])


@pytest.fixture(scope="module")
def small():
    """Variables whose every leaf counts, also scales and running values."""
    init = jax.jit(lambda: SMALL.init(jax.random.key(0), CLIPS, MASK, train=False))
    leaves, tree = jax.tree.flatten(init())
    rng = np.random.default_rng(1)
    jitter = lambda x: x + 0.1 * rng.random(x.shape, np.float32)
    return jax.tree.unflatten(tree, [jitter(x) for x in leaves])


def apply(encoder, variables, clips, mask, *, train=False):
    """Tokens and statistics."""
    run = lambda v, c, m: encoder.apply(v, c, m, train=train, mutable=["batch_stats"])
    return jax.jit(run)(variables, clips, mask)


def sample(x):
    """At most 64 values at equal distances, in PyTorch's order of axes."""
    flat = x.transpose(0, 4, 1, 2, 3).ravel()
    return flat[:: max(1, flat.size // 64)][:64]


@pytest.mark.parametrize("relu", [True, False])
def test_released_network(golden, relu):
    want, name = load(golden), f"video_tiny/relu{relu:d}"
    clips, mask = video("tiny", 8, 56, 56), np.ones((2, 8), bool)
    encoder = ResNeXt3D(stem_relu=relu)
    init = lambda: encoder.init(jax.random.key(0), clips, mask, train=False)
    run = jax.jit(
        lambda v: encoder.apply(v, clips, mask, train=False, capture_intermediates=True)
    )
    tokens, captured = run(variables(init, ("encoders_video",)))
    for i, depth in enumerate(encoder.blocks):
        block = captured["intermediates"][f"stage{i + 1}_block{depth - 1}"]
        stage = np.asarray(block["__call__"][0])
        assert_close(sample(stage), want[f"{name}/layer{i + 1}_sample"], 2e-5)
        moments = [stage.mean(), stage.std()]
        assert_close(moments, want[f"{name}/layer{i + 1}_meanstd"], 2e-5)
    maps = np.asarray(tokens.values).reshape(2, *tokens.grid, -1)
    assert_close(maps.transpose(0, 4, 1, 2, 3), want[f"{name}/features"])
    assert_close(tokens.values.mean(axis=1), want[f"{name}/pooled"])


@pytest.mark.parametrize("encoder, count", [(ResNeXt3D(), 25_865_664), (SMALL, 34_744)])
def test_count(encoder, count):
    clips, mask = jnp.zeros((1, 4, 16, 16, 3)), jnp.ones((1, 4), bool)
    init = lambda: encoder.init(jax.random.key(0), clips, mask, train=False)
    params = jax.eval_shape(init)["params"]
    assert sum(np.prod(p.shape) for p in jax.tree.leaves(params)) == count


@pytest.mark.ci
def test_equals_pytorch(small):
    pytest.importorskip("torch")
    import torch

    theirs = torch_module()
    network = theirs.TorchResNeXt3D((1, 2), width=8, cardinality=4)
    theirs.load(network, flatten_dict(small))
    full = np.ones((2, 9), bool)
    tokens, updated = apply(SMALL, small, CLIPS, full, train=True)
    maps = network(torch.tensor(CLIPS.transpose(0, 4, 1, 2, 3).copy()))
    want = maps.detach().numpy().transpose(0, 2, 3, 4, 1)
    assert tokens.grid == want.shape[1:4]
    assert_close(tokens.values.reshape(want.shape), want, 1e-4)

    maps.square().sum().backward()
    loss = lambda p: jnp.sum(
        jnp.square(
            SMALL.apply(
                {**small, "params": p}, CLIPS, full, train=True, mutable=["batch_stats"]
            )[0].values
        )
    )
    grads = {"params": jax.jit(jax.grad(loss))(small["params"])}
    wanted = theirs.gradients(network)
    for path, got in flatten_dict(grads).items():
        assert_close(got, wanted[theirs.name(path)], 2e-3)
    buffers = dict(network.named_buffers())
    for path, got in flatten_dict(updated).items():
        assert_close(got, buffers[theirs.name(path)].numpy(), 1e-4)


def torch_module():
    """The network that the benchmark measures beside ours."""
    path = ROOT / "experiments/bench/torch_resnext3d.py"
    spec = importlib.util.spec_from_file_location("torch_resnext3d", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("channels", [3, 1])
def test_pixels_are_normalised(small, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 8, 8, channels), np.uint8)
    mean = [0.485, 0.456, 0.406] if channels == 3 else 0.5
    std = [0.229, 0.224, 0.225] if channels == 3 else 0.5
    floats = ((pixels / 255 - mean) / std).astype(np.float32)
    kernel = small["params"]["stem"]["kernel"][:, :, :, :channels]
    params = {**small["params"], "stem": {"kernel": kernel}}
    made, mask = {**small, "params": params}, np.ones((1, 4), bool)
    got, _ = apply(SMALL, made, pixels, mask)
    want, _ = apply(SMALL, made, floats, mask)
    np.testing.assert_allclose(got.values, want.values, rtol=1e-4, atol=1e-5)


def test_bgr_is_rgb_with_its_channels_turned(small):
    turned = SMALL.copy(channel_order="bgr")
    got, _ = apply(turned, small, CLIPS[..., ::-1], MASK)
    want, _ = apply(SMALL, small, CLIPS, MASK)
    np.testing.assert_array_equal(got.values, want.values)
    with pytest.raises(ConfigError, match="channel_order='bgb'"):
        apply(SMALL.copy(channel_order="bgb"), small, CLIPS, MASK)


def test_remat_changes_no_number(small):
    want, want_stats = apply(SMALL, small, CLIPS, MASK, train=True)
    again = SMALL.copy(remat=True)
    got, got_stats = apply(again, small, CLIPS, MASK, train=True)
    chex.assert_trees_all_close((got, got_stats), (want, want_stats), rtol=1e-5)


def test_an_odd_number_of_channels_has_no_groups():
    encoder = ResNeXt3D(blocks=(1,), base_channels=7)
    with pytest.raises(ConfigError, match=r"C25.*base_channels=7 .* is odd"):
        jax.eval_shape(
            lambda: encoder.init(jax.random.key(0), CLIPS, MASK, train=False)
        )
