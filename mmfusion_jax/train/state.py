"""What training changes: arrays only, checkpointed whole."""

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mmfusion_jax.types import Array, Batch, Model, PyTree


class TrainState(struct.PyTreeNode):
    """Everything a run needs to go on bit for bit.

    Attributes:
        step: number of steps done, () int32; it is also the position in the data.
        params: the weights.
        stats: running statistics of BatchNorm; {} if there are none.
        opt_state: of the optimizer.
        key: base key of the run; a step folds its own number in.
        skipped_steps: steps refused by the numeric guard, "in_a_row" and "total", ().
    """

    step: Array
    params: PyTree
    stats: PyTree
    opt_state: PyTree
    key: Array
    skipped_steps: dict[str, Array]

    @property
    def variables(self) -> dict[str, PyTree]:
        """What `Model.apply` takes."""
        return {"params": self.params, "batch_stats": self.stats}


def create_state(
    model: Model, tx: optax.GradientTransformation, batch: Batch, key: Array
) -> TrainState:
    """A fresh state; pure, so it can be jitted with the shardings wanted.

    Args:
        model: what to train.
        tx: the optimizer.
        batch: any batch of the right shapes; only its shapes matter.
        key: seeds the weights and every later step.
    """
    init_key, run_key = jax.random.split(key)
    variables = model.init(init_key, batch, train=False)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        stats=variables.get("batch_stats", {}),
        opt_state=tx.init(variables["params"]),
        key=run_key,
        skipped_steps={
            "in_a_row": jnp.zeros((), jnp.int32),
            "total": jnp.zeros((), jnp.int32),
        },
    )
