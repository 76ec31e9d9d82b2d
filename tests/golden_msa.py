"""The golden arrays of the sequence models: weights generated from their names."""

import zlib

import numpy as np


def load(folder):
    """The golden arrays by key."""
    return np.load(folder / "golden_msa.npz", allow_pickle=False)


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers from -1 to 1 that depend on the name alone."""
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    return (2 * rng.random_sample(int(np.prod(shape))) - 1).reshape(shape)


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The golden weight `name`, float64, in PyTorch's layout."""
    x = uniform(name, shape)
    if name.endswith(".running_var"):
        return 1 + 0.5 * x
    if len(shape) >= 2:
        return x * np.sqrt(3 / np.prod(shape[1:]))
    return 1 + 0.1 * x if name.endswith(".weight") else 0.1 * x


def weights(arrays, tag: str) -> dict[str, np.ndarray]:
    """All weights of the model `tag`, float32, by PyTorch's names."""
    shapes = (text.strip("[]()").split(",") for text in arrays[f"{tag}/params.shapes"])
    sizes = (tuple(int(n) for n in shape if n.strip()) for shape in shapes)
    names = arrays[f"{tag}/params.names"]
    return {
        str(name): fill(str(name), size).astype(np.float32)
        for name, size in zip(names, sizes, strict=True)
    }
