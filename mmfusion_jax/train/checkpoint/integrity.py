"""What a tree of arrays holds, leaf by leaf, and records that show any later change."""

import hashlib
import importlib.metadata
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.types import Array, PyTree

Record: TypeAlias = dict[str, Any]
VERSIONED = ("mmfusion_jax", "jax", "flax", "optax", "orbax-checkpoint")


class CorruptedCheckpointError(Exception):
    """What was read is not what was written."""


def layout(tree: PyTree) -> dict[str, str]:
    """Name -> type and shape of every leaf, such as "params.head.bias": "float32 (8,)".

    Args:
        tree: arrays, or abstract ones.

    Raises:
        ValueError: orbax cannot store the tree: two leaves have one name, because a
            key holds a dot, and one would overwrite the other; or a leaf is empty.
    """
    described: dict[str, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name in described:
            raise ValueError(f"two arrays are named {name!r}; keys may not hold a dot")
        if 0 in leaf.shape:
            raise ValueError(f"array {name!r} is empty, {leaf.shape}; leave it out")
        described[name] = f"{leaf.dtype} {leaf.shape}"
    return described


def digests(tree: PyTree) -> dict[str, str]:
    """Name -> SHA-256 over type, shape and bytes of every leaf, typed keys included."""
    leaves = jax.device_get([_plain(leaf) for leaf in jax.tree.leaves(tree)])
    with ThreadPoolExecutor() as pool:
        return dict(zip(layout(tree), pool.map(_digest, leaves), strict=True))


def differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Names at which two mappings differ or that only one of them has, short first."""
    names = found.keys() | wanted.keys()
    different = [name for name in names if found.get(name) != wanted.get(name)]
    return sorted(different, key=lambda name: (len(name), name))


def seal(
    step: int, state: PyTree, meta: Mapping[str, Any], score: Mapping[str, Any] | None
) -> Record:
    """All that is known of a step beside its arrays, with the SHA-256 of itself.

    Args:
        step: of the run.
        state: the arrays.
        meta: JSON values of the caller.
        score: what the metrics file of the step will hold; None if there is none.
    """
    record = {
        "step": step,
        "score": score,
        "meta": dict(meta),
        "layout": layout(state),
        "sha256": digests(state),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
        "devices": jax.device_count(),
        "time": time.time(),
    }
    record = json.loads(json.dumps(record))  # tuples become lists now, not on disk
    return {**record, "seal": _digest_json(record)}


def read_sealed(folder: Path) -> Record:
    """The record in the folder of a step.

    Raises:
        Damaged: it, or the score beside it, is not as it was written.
        OSError: it cannot be read.
    """
    record = _read_json(folder / "meta" / "metadata")
    if not isinstance(record, dict) or str(record.get("step")) != folder.name:
        raise CorruptedCheckpointError("its record is of another step")
    if record.pop("seal", None) != _digest_json(record):
        raise CorruptedCheckpointError("its record differs from its seal")
    metrics = folder / "metrics" / "metrics"
    if record["score"] != (_read_json(metrics) if metrics.exists() else None):
        raise CorruptedCheckpointError("its score differs from its record")
    return record


def _read_json(path: Path) -> Any:
    """The value in a file; raises Damaged where it cannot be parsed."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptedCheckpointError(
            f"{path.parent.name}/{path.name} is not JSON any more"
        ) from error


def _plain(leaf: Array) -> Array:
    """The numbers in a typed key; any other array as it is."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    return leaf


def _digest(leaf: np.ndarray) -> str:
    """SHA-256 over type, shape and bytes of one array."""
    digest = hashlib.sha256(f"{leaf.dtype}{leaf.shape}".encode())
    digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _digest_json(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
