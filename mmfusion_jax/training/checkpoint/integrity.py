"""Checksums for checkpoints."""

import contextlib
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

from mmfusion_jax.errors import shown, shown_name
from mmfusion_jax.types import Array, PyTree

Record: TypeAlias = dict[str, Any]
VERSIONED = ("mmfusion_jax", "jax", "flax", "optax", "orbax-checkpoint")


class CorruptedCheckpointError(Exception):
    """The data read differs from the data written."""


def array_specs(tree: PyTree) -> dict[str, str]:
    """Returns name -> dtype and shape of every leaf.

    For example {"params.head.bias": "float32 (8,)"}.

    Args:
        tree: Arrays or abstract arrays.

    Raises:
        ValueError: Orbax cannot store the tree: two leaves have the same name because
            a key contains a dot, or a leaf is empty.
    """
    # Orbax joins the keys of a path with dots, so a key "a.b" and a key "b" in "a" have
    # one name, and the second silently overwrites the first.
    described: dict[str, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name in described:
            raise ValueError(
                f"two arrays are named {shown(name)}; keys must not contain a dot"
            )
        if 0 in leaf.shape:
            raise ValueError(f"array {shown(name)} is empty, {leaf.shape}; remove it")
        described[name] = f"{leaf.dtype.name} {leaf.shape}"
    return described


def digests(tree: PyTree) -> dict[str, str]:
    """Returns name -> SHA-256 of dtype, shape and bytes of every leaf."""
    # Why digests: of 1,816 single bits flipped in stored arrays, Orbax restored 1,793
    # (98.7 %) as wrong values without an error. They take 0.18 s for 315 MB (2 cores);
    # threads, because hashing releases the GIL.
    leaves = jax.device_get([_plain(leaf) for leaf in jax.tree.leaves(tree)])
    with ThreadPoolExecutor() as pool:
        return dict(zip(array_specs(tree), pool.map(_digest, leaves), strict=True))


def differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Returns names whose values differ or that one mapping lacks, shortest first."""
    names = found.keys() | wanted.keys()
    different = [name for name in names if found.get(name) != wanted.get(name)]
    return sorted(different, key=lambda name: (len(name), name))


def make_record(
    step: int, state: PyTree, meta: Mapping[str, Any], score: Mapping[str, Any] | None
) -> Record:
    """Creates the record of a checkpoint, which contains its own SHA-256.

    Args:
        step: Training step.
        state: Arrays of the checkpoint.
        meta: JSON values of the caller.
        score: Content of the metrics file of the checkpoint; None if there is none.
    """
    record = {
        "step": step,
        "score": score,
        "meta": dict(meta),
        "arrays": array_specs(state),
        "sha256": digests(state),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
        "devices": jax.device_count(),
        "time": time.time(),
    }
    record = json.loads(json.dumps(record))  # turns tuples into lists
    return {**record, "record_sha256": _digest_json(record)}


def read_record(folder: Path) -> Record:
    """Reads and verifies the record of a checkpoint.

    Raises:
        CorruptedCheckpointError: The record or the score differs from what was written.
        OSError: The record cannot be read.
    """
    record = _read_json(folder / "meta" / "metadata")
    # A copied or renamed folder is valid by its digests, but is another step.
    if not isinstance(record, dict) or str(record.get("step")) != folder.name:
        raise CorruptedCheckpointError("the record belongs to another step")
    if record.pop("record_sha256", None) != _digest_json(record):
        raise CorruptedCheckpointError("the record differs from its SHA-256")
    metrics = folder / "metrics" / "metrics"
    if record["score"] != (_read_json(metrics) if metrics.exists() else None):
        raise CorruptedCheckpointError("the score differs from the record")
    return record


def read_records(folder: Path) -> dict[int, Record]:
    """Reads the records of all checkpoints of a folder; corrupted ones are left out.

    Returns:
        Step -> its record, the newest first.
    """
    found = {}
    for path in folder.glob("[0-9]*"):
        if path.name.isdecimal() and path.name.isascii():
            with contextlib.suppress(CorruptedCheckpointError, OSError):
                found[int(path.name)] = read_record(path)
    return dict(sorted(found.items(), reverse=True))


def _read_json(path: Path) -> Any:
    """Reads a JSON file; raises CorruptedCheckpointError if it cannot be parsed."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptedCheckpointError(
            f"{shown_name(path.parent.name)}/{shown_name(path.name)} is not valid JSON"
        ) from error


def _plain(leaf: Array) -> Array:
    """Returns the data of a typed key; any other array unchanged."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    return leaf


def _digest(leaf: np.ndarray) -> str:
    """SHA-256 of dtype, shape and bytes of an array."""
    # With dtype and shape: the same bytes can be another array. Viewed as bytes,
    # because bfloat16 has no buffer interface, and flattened first, because an array
    # without axes has no view of another size.
    digest = hashlib.sha256(f"{leaf.dtype}{leaf.shape}".encode())
    digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _digest_json(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
