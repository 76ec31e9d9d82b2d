"""Golden arrays of CFN-SR: weights, inputs, and conversion to PyTorch's names.

`golden/README.md` defines the filler: every weight is a hash of its PyTorch name, in
PyTorch's shape and order. `variables` fills a JAX model with them, `to_torch` converts
a tree of the JAX model, such as a gradient, to PyTorch's names and layouts.
"""

import re

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

# Our names and PyTorch's; a part of a name that is not here is the same in both.
MODULES = {
    "encoders_audio": "audio",
    "encoders_video": "video",
    "head_audio": "audio.fc1",
    "head_video": "video.fc",
    "head": "fc",
    "select": "cross.audio_attention",
    "ask": "y_affine",
    "key": "channel_affine",
    "score": "attn_weight_affine",
    "attention": "self_attn",
    "out": "out_proj",
    "expand": "fc1",
    "shrink": "fc2",
    "attention_norm": "layer_norms.0",
    "feedforward_norm": "layer_norms.1",
    "norm": "layer_norm",
}
VIDEO_MODULES = {
    "encoders_video": "video",
    "stem": "conv1",
    "stem_norm": "bn1",
    "reduce": "conv1",
    "conv": "conv2",
    "expand": "conv3",
    "shortcut": "downsample.0",
    "reduce_norm": "bn1",
    "conv_norm": "bn2",
    "expand_norm": "bn3",
    "shortcut_norm": "downsample.1",
}
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
THIRDS = ("query", "key", "value")
TOLERANCE = 1e-5


def load(folder):
    """The golden arrays by key."""
    return np.load(folder / "golden_cfn.npz", allow_pickle=False)


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The golden array `name`, float32, in PyTorch's layout."""
    v = hashed(name, shape)
    if name.startswith("input."):
        v = np.sqrt(3) * v
    elif name.endswith("running_mean"):
        v = 0.1 * v
    elif name.endswith("running_var"):
        v = 1 + 0.2 * v
    elif name.endswith("bias"):
        v = 0.1 * v - (2 if name == "video.bn1.bias" else 0)
    elif len(shape) == 1:
        v = (0.3 if name.endswith("bn3.weight") else 1) * (1 + 0.1 * v)
    else:
        gain = np.sqrt(2) if len(shape) > 2 else 1
        v = v * np.sqrt(3) * gain / np.sqrt(np.prod(shape[1:]))
    return v.astype(np.float32)


def hashed(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform in [-1, 1), from a hash of the name and the index; float64."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    i = np.arange(1, np.prod(shape) + 1, dtype=np.uint64)
    z = np.uint64(h) + i * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    return (z.astype(np.float64) * 2.0**-52 - 1).reshape(shape)


def mfcc() -> np.ndarray:
    """The golden audio, (2 212 13)."""
    return fill("input.mfcc", (2, 13, 212)).transpose(0, 2, 1)


def video(name: str, *sizes: int) -> np.ndarray:
    """A golden clip, (2 t h w 3)."""
    return fill(f"input.video_{name}", (2, 3, *sizes)).transpose(0, 2, 3, 4, 1)


def variables(init, prefix: tuple[str, ...] = ()):
    """Golden values for the tree that `init()` would return.

    Args:
        init: Makes the variables; only their shapes are used.
        prefix: Where the module would stand in CFNSR, such as ("encoders_audio",).
    """
    filled = {}
    for (collection, *path), leaf in flatten_dict(jax.eval_shape(init)).items():
        filled[collection, *path] = golden_leaf((*prefix, *path), leaf.shape)
    return unflatten_dict(filled)


def golden_leaf(path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    """The golden value of a leaf of the JAX model, in its layout."""
    name, third = torch_name(path)
    whole = torch_layout(path, np.empty(shape, np.bool)).shape
    if third is None:
        value = fill(name, whole)
    else:
        value = np.split(fill(name, (3 * whole[0], *whole[1:])), 3)[third]
    if value.ndim > 1:
        value = np.moveaxis(value, (0, 1), (-1, -2))
    return value.reshape(shape)


def to_torch(tree) -> dict[str, np.ndarray]:
    """A tree of the JAX model, without its collection, by PyTorch's names."""
    named, thirds = {}, {}
    for path, value in flatten_dict(tree).items():
        name, third = torch_name(path)
        value = torch_layout(path, np.asarray(value))
        if third is None:
            named[name] = value
        else:
            thirds.setdefault(name, {})[third] = value
    for name, parts in thirds.items():
        named[name] = np.concatenate([parts[i] for i in range(3)])
    return named


def torch_name(path: tuple[str, ...]) -> tuple[str, int | None]:
    """PyTorch's name of a leaf, and which third of PyTorch's array it is."""
    *modules, leaf = path
    if modules[-2:-1] == ["attention"] and modules[-1] in THIRDS:
        place = ".".join(_rename(modules[:-1]))
        return f"{place}.in_proj_{LEAVES[leaf]}", THIRDS.index(modules[-1])
    return ".".join([*_rename(modules), LEAVES[leaf]]), None


def _rename(modules: list[str]) -> list[str]:
    table = VIDEO_MODULES if modules[0] == "encoders_video" else MODULES
    names = [table.get(m, m) for m in modules]
    names = [re.sub(r"^stage(\d)_block(\d)$", r"layer\1.\2", name) for name in names]
    return [re.sub(r"^layer_(\d)$", r"layers.\1", name) for name in names]


def torch_layout(path: tuple[str, ...], value: np.ndarray) -> np.ndarray:
    """Outputs first, then inputs, then the kernel's size."""
    if path[-1] != "kernel":
        return value
    value = np.moveaxis(value, (-1, -2), (0, 1))
    if path[0] == "encoders_video" and value.ndim == 2:
        value = value[..., None, None, None]
    return value


def assert_close(got, want, rtol: float = TOLERANCE) -> None:
    """Checks the largest difference against the largest value wanted."""
    assert np.shape(got) == np.shape(want)
    worst = np.max(np.abs(np.asarray(got, np.float64) - want)) / np.max(np.abs(want))
    assert worst <= rtol, f"off by {worst:.2e} of the maximum, {rtol:.0e} allowed"
