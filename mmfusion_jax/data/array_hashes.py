"""SHA-256 of arrays."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmfusion_jax.results.run_identity import sha256_json


def hash_arrays(arrays: Iterable[Any]) -> str:
    """Returns the SHA-256 of arrays: dtype, shape and bytes of each."""
    sha256 = hashlib.sha256()
    update_hash(sha256, arrays)
    return sha256.hexdigest()


def update_hash(sha256: Any, arrays: Iterable[Any]) -> None:
    """Adds arrays, numbers and texts to a hash."""
    # In parts: a copy of a large array may not fit memory.
    for array in map(np.asarray, arrays):
        sha256.update(f"{array.dtype}{array.shape}".encode())
        rows = array.reshape(1) if not array.ndim else array
        size = max(1, 2**24 // max(rows[:1].nbytes, 1))
        for start in range(0, len(rows), size):
            part = np.ascontiguousarray(rows[start : start + size])
            sha256.update(part.reshape(-1).view(np.uint8).data)


def hash_mappings(*mappings: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 of named arrays, independent of their order."""
    named = [(name, one[name]) for one in mappings for name in sorted(one)]
    names = sha256_json([name for name, _ in named])
    return sha256_json([names, hash_arrays(array for _, array in named)])
