"""Arrays read between their indices."""

import numpy as np


def read_at(x: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """`x` at places along an axis, linearly; the first or last value beyond it.

    Args:
        x: (.. n ..) float32.
        places: (k), such as 0.5 for the mean of the first two.
        axis: of n, which becomes k.
    """
    last = x.shape[axis] - 1
    places = np.clip(places, 0, last)
    low = np.floor(places).astype(int)
    shape = [1] * x.ndim
    shape[axis] = len(places)
    share = (places - low).astype(np.float32).reshape(shape)
    high = np.minimum(low + 1, last)
    return np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
