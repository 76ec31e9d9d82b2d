"""Linear interpolation along an axis."""

import numpy as np


def interpolate_at(x: np.ndarray, positions: np.ndarray, axis: int) -> np.ndarray:
    """Interpolates `x` at positions along an axis; repeats the values at its ends.

    Args:
        x: (.. n ..) float32.
        positions: (k), such as 0.5 for the mean of the first two.
        axis: The axis of length n, which becomes k.
    """
    last = x.shape[axis] - 1
    positions = np.clip(positions, 0, last)
    low = np.floor(positions).astype(int)
    shape = [1] * x.ndim
    shape[axis] = len(positions)
    weight = (positions - low).astype(np.float32).reshape(shape)
    high = np.minimum(low + 1, last)
    return np.take(x, low, axis) * (1 - weight) + np.take(x, high, axis) * weight
