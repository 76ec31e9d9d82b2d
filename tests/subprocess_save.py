"""One of two processes that save, damage and restore checkpoints together.

subprocess_save.py PORT RANK FOLDER; prints what it was told, and what it found.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils

from mmfusion_jax.config.spec import DistributedSpec
from mmfusion_jax.runner.runtime import initialize_distributed
from mmfusion_jax.training.checkpoint.integrity import digests
from mmfusion_jax.training.checkpoint.manager import CheckpointManager
from mmfusion_jax.training.parallelism import Executor

SCORES = {1: 0.5, 2: 0.9, 3: 0.2, 4: 0.1}


def state_of(executor: Executor, step: int):
    """The state of a step, on every device of every process."""
    return executor.create(lambda: {"w": jnp.arange(500.0) * step, "b": jnp.ones(3)})


def restored(executor: Executor, found) -> int:
    """The step of a restored state, which must be complete."""
    state, meta = found
    step = meta["step"]
    assert digests(state) == digests(state_of(executor, step))
    assert all(leaf.sharding == executor.replicated for leaf in jax.tree.leaves(state))
    return step


def corrupt(folder: Path) -> None:
    """Flips a bit in the middle of every file of arrays of a step."""
    for path in folder.glob("state/**/d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)


def main(folder: Path) -> None:
    executor = Executor("jit")
    target = state_of(executor, 0)
    lines: list[str] = []
    with CheckpointManager(folder, log=lines.append) as checkpoints:
        for step, score in SCORES.items():
            state = state_of(executor, step)
            assert checkpoints.save(step, state, {"step": step}, score)
        chosen = [checkpoints.latest_step, checkpoints.best_step]
        found = [restored(executor, checkpoints.restore_latest(target))]
    if jax.process_index() == 0:
        corrupt(folder / "4")
    multihost_utils.sync_global_devices("step 4 is damaged")
    with CheckpointManager(folder, log=lines.append) as checkpoints:
        found.append(restored(executor, checkpoints.restore_latest(target)))
        found.append(restored(executor, checkpoints.restore_best(target)))
        assert checkpoints.save(4, state_of(executor, 4), {"step": 4}, wait=True)
        found.append(restored(executor, checkpoints.restore_latest(target)))
    print(json.dumps({"chosen": chosen, "found": found, "lines": lines}))


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1)
    initialize_distributed(
        DistributedSpec(f"localhost:{sys.argv[1]}", 2, int(sys.argv[2]))
    )
    main(Path(sys.argv[3]))
    jax.distributed.shutdown()
