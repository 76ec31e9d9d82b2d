"""The video encoder: counts, masks, pixels, and the released network's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from mmfusion_jax.encoders.resnext3d import ResNeXt3D

# Our names of a bottleneck's layers, and PyTorch's.
LAYERS = {
    "reduce": "conv1",
    "conv": "conv2",
    "expand": "conv3",
    "shortcut": "downsample.0",
    "reduce_norm": "bn1",
    "conv_norm": "bn2",
    "expand_norm": "bn3",
    "shortcut_norm": "downsample.1",
    "stem": "conv1",
    "stem_norm": "bn1",
}
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
LEAVES |= {"mean": "running_mean", "var": "running_var"}


def torch_name(path: tuple[str, ...]) -> str:
    """("stage1_block0", "reduce", "kernel") -> "layer1.0.conv1.weight"."""
    *block, layer, leaf = path
    place = [b.replace("stage", "layer").replace("_block", ".") for b in block]
    return ".".join([*place, LAYERS[layer], LEAVES[leaf]])


def hashed(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The golden arrays' filler: uniform in [-1, 1), from a hash of name and index."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    i = np.arange(1, np.prod(shape) + 1, dtype=np.uint64)
    z = np.uint64(h) + i * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    return (z.astype(np.float64) * 2.0**-52 - 1).reshape(shape)


def filled(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The golden weight `name` of the video encoder, in PyTorch's layout."""
    v = hashed(name, shape)
    if name.endswith("running_mean"):
        return 0.1 * v
    if name.endswith("running_var"):
        return 1 + 0.2 * v
    if name.endswith("bias"):
        return 0.1 * v - (2 if name == "video.bn1.bias" else 0)
    if len(shape) == 1:
        return (0.3 if name.endswith("bn3.weight") else 1) * (1 + 0.1 * v)
    return v * np.sqrt(6 / np.prod(shape[1:]))


def golden_leaf(path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    """The golden value of one of our leaves, in our layout."""
    name = f"video.{torch_name(path)}"
    if len(shape) == 2:
        return filled(name, (shape[1], shape[0], 1, 1, 1))[:, :, 0, 0, 0].T
    if len(shape) == 5:
        k, c = shape[4], shape[3]
        return filled(name, (k, c, *shape[:3])).transpose(2, 3, 4, 1, 0)
    return filled(name, shape)


def golden_variables(encoder: ResNeXt3D, clip: np.ndarray, mask: np.ndarray):
    init = lambda: encoder.init(jax.random.key(0), clip, mask, train=False)
    leaves = flatten_dict(jax.eval_shape(init))
    return unflatten_dict(
        {
            path: golden_leaf(path[1:], leaf.shape).astype(np.float32)
            for path, leaf in leaves.items()
        }
    )


def sample(x: np.ndarray) -> np.ndarray:
    """Every so-many-th value, in PyTorch's order of axes."""
    flat = x.transpose(0, 4, 1, 2, 3).ravel()
    return flat[:: max(1, flat.size // 64)][:64]


@pytest.mark.parametrize("relu", [True, False])
def test_released_network(golden, relu):
    want = np.load(golden / "golden_cfn.npz", allow_pickle=False)
    clip = np.sqrt(3) * hashed("input.video_tiny", (2, 3, 8, 56, 56))
    clip = clip.transpose(0, 2, 3, 4, 1).astype(np.float32)
    mask = np.ones((2, 8), bool)
    encoder = ResNeXt3D(stem_relu=relu)
    variables = golden_variables(encoder, clip, mask)
    run = jax.jit(
        lambda v: encoder.apply(v, clip, mask, train=False, capture_intermediates=True)
    )
    tokens, captured = run(variables)
    inner = captured["intermediates"]
    name = f"video_tiny/relu{int(relu)}"
    for i, depth in enumerate(encoder.blocks):
        stage = np.asarray(inner[f"stage{i + 1}_block{depth - 1}"]["__call__"][0])
        close(sample(stage), want[f"{name}/layer{i + 1}_sample"], 2e-5)
        meanstd = np.array([stage.mean(), stage.std()])
        close(meanstd, want[f"{name}/layer{i + 1}_meanstd"], 2e-5)
    map_ = np.asarray(tokens.values).reshape(2, *tokens.grid, 2048)
    close(map_.transpose(0, 4, 1, 2, 3), want[f"{name}/features"], 1e-5)
    close(tokens.values.mean(axis=1), want[f"{name}/pooled"], 1e-5)


def close(got, want, rtol):
    assert np.shape(got) == np.shape(want)
    assert np.max(np.abs(got - want)) <= rtol * np.max(np.abs(want))


def test_count():
    clip, mask = jnp.zeros((1, 4, 16, 16, 3)), jnp.ones((1, 4), bool)
    init = lambda: ResNeXt3D().init(jax.random.key(0), clip, mask, train=False)
    params = jax.eval_shape(init)["params"]
    assert sum(np.prod(p.shape) for p in jax.tree.leaves(params)) == 25_865_664
