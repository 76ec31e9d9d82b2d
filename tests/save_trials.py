"""Functions of the children of the fault tests: saves with and without faults."""

import ctypes
import hashlib
import resource
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfusion_jax.training.checkpoint.manager import CheckpointManager
from mmfusion_jax.training.checkpoint.storage import CheckpointStorage

SCORES = {1: 0.5, 2: 0.6, 3: 0.3, 4: 0.4}


def state_of(step: int) -> Any:
    """A small state with all kinds of leaves, another one for every step."""
    kernel = np.arange(600, dtype=np.float32).reshape(30, 20) * step
    params = {"a": {"kernel": kernel, "bias": np.full(20, step, jnp.bfloat16)}}
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    zeros = lambda tree: jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tree)
    state = {
        "step": np.int32(step),
        "params": params,
        "opt_state": zeros(jax.eval_shape(tx.init, params)),
        "seen": np.array([True, False]),
    }
    arrays = jax.device_put({**state, "key": np.array([0, step], np.uint32)})
    arrays["key"] = jax.random.wrap_key_data(arrays["key"])
    return jax.block_until_ready(arrays)


def meta_of(step: int) -> dict[str, Any]:
    return {"progress": {"best": SCORES.get(step), "names": ["a", "b"]}, "step": step}


def fingerprint(state: Any) -> str:
    """SHA-256 over all leaves of a state."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        digest.update(f"{path}{leaf.dtype}{leaf.shape}".encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def make_base(folder: str) -> None:
    """Two steps with scores; the save of step 3 deletes step 1."""
    with CheckpointManager(folder, log=print) as checkpoints:
        for step in (1, 2):
            assert checkpoints.save(step, state_of(step), meta_of(step), SCORES[step])


def save_with_fault(
    folder: str, shim: str, at: int, error: int, sticky: bool
) -> dict[str, Any]:
    """Saves step 3 while call `at` fails or kills, then step 4 without a fault."""
    library = ctypes.CDLL(shim)
    arm = lambda path, *how: library.fault_arm(
        path.encode(), ctypes.c_long(how[0]), *how[1:]
    )
    lines: list[str] = []
    state = state_of(3)
    with CheckpointManager(folder, log=lines.append) as checkpoints:
        arm(folder, at, error, sticky)
        saved = checkpoints.save(3, state, meta_of(3), SCORES[3]) and checkpoints.wait()
        calls = library.fault_count()
        arm("", 0, 0, 0)
        newest, reported = checkpoints.latest_step, list(lines)
        wrong = unequal_steps(folder)
        later = checkpoints.save(4, state_of(4), meta_of(4), SCORES[4], wait=True)
    return {
        "saved": saved,
        "calls": calls,
        "newest": newest,
        "reported": reported,
        "wrong": wrong,
        "later": later,
        "later_reported": lines[len(reported) :],
    }


def save_on_full_disk(folder: str, limit: int) -> dict[str, Any]:
    """Saves step 3 where no file may grow past `limit` bytes."""
    lines: list[str] = []
    with CheckpointManager(folder, log=lines.append) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        saved = checkpoints.save(3, state_of(3), meta_of(3), SCORES[3], wait=True)
        infinity = resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (infinity, infinity))
        newest = checkpoints.latest_step
    return {"saved": saved, "newest": newest, "lines": lines}


def unequal_steps(folder: str) -> list[str]:
    """Errors of the steps that a reader finds: [] if all are as saved."""
    wrong: list[str] = []
    reader = CheckpointStorage(Path(folder), keep=2, read_only=True, log=wrong.append)
    for step in list(reader.saved):
        found = reader.load(step, state_of(0))
        if found is None:
            wrong.append(f"step {step} cannot be read")
            continue
        state, meta = found
        if fingerprint(state) != fingerprint(state_of(step)) or meta != meta_of(step):
            wrong.append(f"step {step} is not what was saved")
    reader.close()
    return wrong


def leftovers(folder: str) -> list[str]:
    """Content of a folder of checkpoints other than complete steps."""
    return [path.name for path in Path(folder).iterdir() if not path.name.isdecimal()]


def rot(folder: str, scratch: str, seed: int, trials: int) -> list[dict[str, Any]]:
    """Damages copies of `folder`, each in one place, and reads them."""
    generator = np.random.default_rng(seed)
    return [_rot_once(folder, scratch, generator) for _ in range(trials)]


def _rot_once(folder: str, scratch: str, generator: np.random.Generator) -> Any:
    """Corrupts one file of the newest step in one way, and returns the outcome."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(folder, scratch)
    files = sorted(p for p in Path(scratch, "2").rglob("*") if p.is_file())
    path = files[generator.integers(len(files))]
    how = damage(path, generator)
    lines: list[str] = []
    with CheckpointManager(scratch, log=lines.append) as checkpoints:
        found = checkpoints.restore_latest(state_of(0))
        best = checkpoints.best_step
    assert found is not None
    state, meta = found
    step = int(state["step"])
    same = fingerprint(state) == fingerprint(state_of(step)) and meta == meta_of(step)
    return {
        "damage": f"{path.relative_to(scratch)}: {how}",
        "step": step,
        "same": same and best == step,
        "lines": lines,
        "kept": Path(scratch, "corrupted", "2").exists(),
    }


def damage(path: Path, generator: np.random.Generator) -> str:
    """Flips a bit, truncates, zeroes 64 bytes or deletes; returns which."""
    content = bytearray(path.read_bytes())
    how = generator.choice(["flip", "cut", "zero", "delete"], p=[0.7, 0.1, 0.1, 0.1])
    place = int(generator.integers(max(len(content), 1)))
    if how == "delete":
        path.unlink()
        return "deleted"
    if how == "flip":
        content[place] ^= 1 << int(generator.integers(8))
    elif how == "cut":
        del content[place:]
    else:
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    path.write_bytes(content)
    return f"{how} at {place} of {len(content)}"
